"""`/servers/{id}/tags`, from 2.26 on: short words by which servers are found again, 50 of a server at most."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

from droveway.api.compute import server_access
from droveway.api.compute.device_body import as_tag
from droveway.api.compute.server_body import TAGS, TAGS_MAX
from droveway.api.http.bodies import Body, takes
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.domain.lifecycle import attributes_refusal
from droveway.store.compute import server_attributes
from droveway.store.engine.transaction import Tx

Change = Callable[[list[str]], list[str]]


class Tags(Body, frozen=True):
    tags: Annotated[tuple[str, ...], TAGS]


def _read(tx: Tx, request: Request) -> list[str]:
    return server_access.visible(tx, request)["tags"]


async def listing(api: Api, request: Request) -> Response:
    return Response(200, {"tags": await api.store.read(_read, request)})


@takes(Tags)
async def replace(api: Api, request: Request, given: Tags) -> Response:
    await _change(api, request, lambda _: list(given.tags))
    return Response(200, {"tags": list(given.tags)})


async def clear(api: Api, request: Request) -> Response:
    await _change(api, request, lambda _: [])
    return Response(204)


async def _change(api: Api, request: Request, new: Change) -> list[str]:
    """What was there before. A lock is no hindrance, nor is it with Nova."""

    def write(tx: Tx) -> list[str]:
        row = server_access.visible(tx, request)
        refused = attributes_refusal("change tags of", row["id"], row["vm_state"])
        if refused is not None:
            raise Conflict(refused)
        tags = new(row["tags"])
        if tags != row["tags"]:
            server_attributes.set_tags(tx, row["id"], tags)
        return row["tags"]

    return await api.store.run(write)


# -- one tag ----------------------------------------------------------------------------------------------------------
def _missing(request: Request) -> NotFound:
    return NotFound(f"Server {request.params['server_id']} has no tag '{request.params['tag'][:64]}'")


async def show(api: Api, request: Request) -> Response:
    if request.params["tag"] not in await api.store.read(_read, request):
        raise _missing(request)
    return Response(204)


async def add(api: Api, request: Request) -> Response:
    """201 with where it is; 204 when it was there already."""
    tag = as_tag("tag", request.params["tag"])

    def with_it(there: list[str]) -> list[str]:
        if len(there) >= TAGS_MAX:
            raise BadRequest(f"The number of tags exceeded the per-server limit {TAGS_MAX}")
        return there if tag in there else [*there, tag]

    if tag in await _change(api, request, with_it):
        return Response(204)
    path = f"/compute/v2.1/servers/{request.params['server_id']}/tags/{quote(tag)}"
    return Response(201, headers=[(b"location", f"{api.settings.base_url}{path}".encode())])


async def remove(api: Api, request: Request) -> Response:
    tag = request.params["tag"]

    def without(there: list[str]) -> list[str]:
        if tag not in there:
            raise _missing(request)
        return [other for other in there if other != tag]

    await _change(api, request, without)
    return Response(204)
