"""`/servers/{id}/metadata`: texts of the user's own, which the guest may read, too.

GET     {"metadata": {…}}
POST    the same body: adds to it; PUT: takes its place; both answer with what is there then
GET, PUT, DELETE …/{key}    {"meta": {KEY: VALUE}}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from droveway.api.compute import server_access
from droveway.api.compute.server_body import SERVER_METADATA, check_metadata
from droveway.api.http.bodies import takes_kind
from droveway.api.http.kinds import of
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.domain.lifecycle import attributes_refusal
from droveway.store.compute import quotas, server_attributes
from droveway.store.engine.transaction import Tx

Metadata = dict[str, str]


async def listing(api: Api, request: Request) -> Response:
    return Response(200, {"metadata": await api.store.read(_read, request)})


def _read(tx: Tx, request: Request) -> Metadata:
    return server_access.visible(tx, request)["metadata"]


@takes_kind(SERVER_METADATA, "metadata")
async def extend(api: Api, request: Request, given: Metadata) -> Response:
    return Response(200, {"metadata": await _change(api, request, lambda there: there | given)})


@takes_kind(SERVER_METADATA, "metadata")
async def replace(api: Api, request: Request, given: Metadata) -> Response:
    return Response(200, {"metadata": await _change(api, request, lambda _: given)})


async def _change(api: Api, request: Request, new: Callable[[Metadata], Metadata]) -> Metadata:
    """Raises Conflict when it is locked, or not built; Forbidden when that is more than its project may have."""

    def write(tx: Tx) -> Metadata:
        row = server_access.changeable(tx, request)
        refused = attributes_refusal("update metadata of", row["id"], row["vm_state"])
        if refused is not None:
            raise Conflict(refused)
        metadata = new(row["metadata"])
        if len(metadata) > len(row["metadata"]):
            check_metadata(metadata, quotas.limits(tx, row["project_id"], api.settings.quotas))
        if metadata != row["metadata"]:
            server_attributes.set_metadata(tx, row["id"], metadata)
        return metadata

    return await api.store.run(write)


# -- one item ---------------------------------------------------------------------------------------------------------
def _missing() -> NotFound:
    return NotFound("Metadata item was not found")


async def show_item(api: Api, request: Request) -> Response:
    key, metadata = request.params["key"], await api.store.read(_read, request)
    if key not in metadata:
        raise _missing()
    return Response(200, {"meta": {key: metadata[key]}})


def _one(path: str, value: Any) -> Metadata:
    found: Metadata = SERVER_METADATA.read(path, value)
    if len(found) != 1:
        raise BadRequest(f"Invalid input for {path}: it has {len(found)} items; it must have one.")
    return found


@takes_kind(of(_one, **dict(SERVER_METADATA.schema) | {"minProperties": 1, "maxProperties": 1}), "meta")
async def set_item(api: Api, request: Request, given: Metadata) -> Response:
    if request.params["key"] not in given:
        raise BadRequest("Request body and URI mismatch")
    await _change(api, request, lambda there: there | given)
    return Response(200, {"meta": given})


async def remove_item(api: Api, request: Request) -> Response:
    key = request.params["key"]

    def without(there: Metadata) -> Metadata:
        if key not in there:
            raise _missing()
        return {name: value for name, value in there.items() if name != key}

    await _change(api, request, without)
    return Response(204)
