"""`volumes/{id}/metadata` and `snapshots/{id}/metadata`: texts of the user's own.

GET     {"metadata": {…}}
POST    the same body: adds to it; PUT: takes its place; both answer with what is there then
GET, PUT, DELETE …/{key}    {"meta": {KEY: VALUE}}
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from droveway.api.http.bodies import Handler, takes_kind
from droveway.api.http.faults import ResourceChanged
from droveway.api.http.kinds import of
from droveway.api.http.request import Request, Response
from droveway.api.volume.kinds import ITEMS_MAX, METADATA
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.volume.lifecycle import Verb
from droveway.store.engine.transaction import Tx
from droveway.store.volume import making, snapshots, volumes
from droveway.store.volume.rows import SnapshotRow, VolumeRow

ETAGS_SINCE = 15
Items = dict[str, str]
Row = VolumeRow | SnapshotRow


class Owner(NamedTuple):
    """Whose: how its row is found, made sure of and changed."""

    what: str
    get: Callable[[Tx, Request], Row]
    set_: Callable[[Tx, str, Items], None]
    check: Callable[[Row], None]
    has_etags: bool = False


class Calls(NamedTuple):
    listing: Handler
    extend: Handler
    replace: Handler
    show: Handler
    set_item: Handler
    remove: Handler


def _one(path: str, value: Any) -> Items:
    found: Items = METADATA.read(path, value)
    if len(found) != 1:
        raise BadRequest(f"Invalid input for {path}: it has {len(found)} items; it must have one.")
    return found


_ONE = of(_one, **dict(METADATA.schema) | {"minProperties": 1, "maxProperties": 1})


def _etag(metadata: Items) -> str:
    return hashlib.md5(msgspec.json.encode(metadata), usedforsecurity=False).hexdigest()


def _must_match(request: Request, metadata: Items) -> None:
    """Raises ResourceChanged where they are not what the caller has seen."""
    given = request.header(b"if-match") if request.version >= ETAGS_SINCE else None
    if given is not None and _etag(metadata) not in {one.strip().strip('"') for one in given.split(",")}:
        raise ResourceChanged("The metadata is not what If-Match says: it was changed meanwhile; read it again.")


async def _change(owner: Owner, api: Api, request: Request, new: Callable[[Items], Items]) -> Items:
    def write(tx: Tx) -> Items:
        row = owner.get(tx, request)
        owner.check(row)
        if owner.has_etags and request.method == "PUT":
            _must_match(request, row["metadata"])
        metadata = new(row["metadata"])
        if len(metadata) > ITEMS_MAX:
            raise BadRequest(f"Invalid input for metadata: at most {ITEMS_MAX} items are kept.")
        if metadata != row["metadata"]:
            owner.set_(tx, row["id"], metadata)
        return metadata

    return await api.store.run(write)


def _missing(owner: Owner, request: Request) -> NotFound:
    return NotFound(
        f"{owner.what} {request.params[f'{owner.what.lower()}_id'][:64]} has no metadata with key "
        f"{request.params['key'][:64]}."
    )


def calls(owner: Owner) -> Calls:
    async def listing(api: Api, request: Request) -> Response:
        """Since 3.15 those of a volume have an ETag, which a change may insist on."""
        metadata = (await api.store.read(owner.get, request))["metadata"]
        response = Response(200, {"metadata": metadata})
        if owner.has_etags and request.version >= ETAGS_SINCE:
            response.headers.append((b"etag", f'"{_etag(metadata)}"'.encode()))
        return response

    @takes_kind(METADATA, "metadata")
    async def extend(api: Api, request: Request, given: Items) -> Response:
        return Response(200, {"metadata": await _change(owner, api, request, lambda there: there | given)})

    @takes_kind(METADATA, "metadata")
    async def replace(api: Api, request: Request, given: Items) -> Response:
        return Response(200, {"metadata": await _change(owner, api, request, lambda _: given)})

    async def show(api: Api, request: Request) -> Response:
        key, metadata = request.params["key"], (await api.store.read(owner.get, request))["metadata"]
        if key not in metadata:
            raise _missing(owner, request)
        return Response(200, {"meta": {key: metadata[key]}})

    @takes_kind(_ONE, "meta")
    async def set_item(api: Api, request: Request, given: Items) -> Response:
        if request.params["key"] not in given:
            raise BadRequest("Request body and URI mismatch")
        await _change(owner, api, request, lambda there: there | given)
        return Response(200, {"meta": given})

    async def remove(api: Api, request: Request) -> Response:
        key = request.params["key"]

        def without(there: Items) -> Items:
            if key not in there:
                raise _missing(owner, request)
            return {name: value for name, value in there.items() if name != key}

        await _change(owner, api, request, without)
        return Response(200)

    return Calls(listing, extend, replace, show, set_item, remove)


def _of_volume(tx: Tx, request: Request) -> Row:
    return volumes.get(tx, request.params["volume_id"], request.scope)


def _of_snapshot(tx: Tx, request: Request) -> Row:
    return snapshots.get(tx, request.params["snapshot_id"], request.scope)


def _volume_may_change(row: Row) -> None:
    making.must_be_allowed_now(Verb.CHANGE_METADATA, row)  # type: ignore[arg-type]


OF_VOLUMES = calls(
    Owner(
        "Volume", _of_volume, lambda tx, of_id, items: volumes.set_(tx, of_id, metadata=items), _volume_may_change, True
    )
)
OF_SNAPSHOTS = calls(
    Owner("Snapshot", _of_snapshot, lambda tx, of_id, items: snapshots.set_(tx, of_id, metadata=items), lambda _: None)
)
