"""Paths of Block Storage: each call stands below the service's root and, as older clients write it, below that with the
project of the token."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from droveway.api.http.render import FOREVER
from droveway.api.http.request import Request, Response
from droveway.api.http.router import Handler, Route
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.domain.policy import Need

ROOT = "/volume/v3"


def routes(
    method: str, path: str, handler: Handler, need: Need, since: int = 0, until: int = FOREVER
) -> Iterator[Route]:
    yield Route(method, f"{ROOT}/{path}", handler, need, since, until)
    yield Route(method, f"{ROOT}/{{project_id}}/{path}", _of_project(handler), need, since, until)


@functools.cache
def _of_project(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def checked(api: Api, request: Request) -> Response:
        given = request.params["project_id"]
        if given != request.caller.project_id:
            raise BadRequest(
                f"Malformed request url: the project in the path, {given[:64]}, is not that of the token, "
                f"{request.caller.project_id}; the path may also name none."
            )
        return await handler(api, request)

    return checked


def links(base: str, collection: str, identifier: object) -> list[dict[str, str]]:
    """`self` and `bookmark`."""
    return [
        {"rel": "self", "href": f"{base}{ROOT}/{collection}/{identifier}"},
        {"rel": "bookmark", "href": f"{base}/volume/{collection}/{identifier}"},
    ]
