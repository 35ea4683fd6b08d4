"""Tags of every resource that has them: the same calls, made for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

from droveway.api.http.bodies import Body, Handler, takes
from droveway.api.http.request import Request, Response
from droveway.api.network import policy
from droveway.api.network.kinds import TAGS, TAGS_MAX, as_tag
from droveway.api.wiring import Api
from droveway.domain.network.refusals import InvalidInput, TagNotFound
from droveway.store.engine.transaction import Tx
from droveway.store.network import tags as stored


class Tags(Body, frozen=True):
    tags: Annotated[tuple[str, ...], TAGS]


class Calls(NamedTuple):
    """The handlers of one resource."""

    listing: Handler
    extend: Handler
    replace: Handler
    clear: Handler
    show: Handler
    add: Handler
    remove: Handler


def _set(tx: Tx, of: str, request: Request, change: Callable[[list[str]], list[str]]) -> list[str]:
    row = stored.row_of(tx, of, request.params["id"], request.scope)
    policy.own(request, row, "update_tags")
    tags = sorted(set(change(row["tags"])))  # in the order in which Neutron has them
    if len(tags) > TAGS_MAX:
        raise InvalidInput(f"Invalid input for tags. Reason: a resource has at most {TAGS_MAX} tags.")
    if tags != row["tags"]:
        stored.set_(tx, of, row["id"], tags)
    return tags


def calls(of: str) -> Calls:
    """`of`: the name of the resource in paths."""

    async def listing(api: Api, request: Request) -> Response:
        row = await api.store.read(stored.row_of, of, request.params["id"], request.scope)
        return Response(200, {"tags": row["tags"]})

    @takes(Tags)
    async def extend(api: Api, request: Request, given: Tags) -> Response:
        tags = await api.store.run(_set, of, request, lambda had: list(dict.fromkeys((*had, *given.tags))))
        return Response(201, {"tags": tags})

    @takes(Tags)
    async def replace(api: Api, request: Request, given: Tags) -> Response:
        tags = await api.store.run(_set, of, request, lambda _: list(given.tags))
        return Response(200, {"tags": tags})

    async def clear(api: Api, request: Request) -> Response:
        await api.store.run(_set, of, request, lambda _: [])
        return Response(204)

    async def show(api: Api, request: Request) -> Response:
        row = await api.store.read(stored.row_of, of, request.params["id"], request.scope)
        _must_have(request, row["tags"])
        return Response(204)

    async def add(api: Api, request: Request) -> Response:
        tag = as_tag("tag", request.params["tag"])
        await api.store.run(_set, of, request, lambda had: had if tag in had else [*had, tag])
        return Response(201)

    async def remove(api: Api, request: Request) -> Response:
        tag = request.params["tag"]

        def without(had: list[str]) -> list[str]:
            _must_have(request, had)
            return [one for one in had if one != tag]

        await api.store.run(_set, of, request, without)
        return Response(204)

    return Calls(listing, extend, replace, clear, show, add, remove)


def _must_have(request: Request, tags: list[str]) -> None:
    tag = request.params["tag"]
    if tag not in tags:
        raise TagNotFound(f"Tag {tag[:64]} could not be found.")
