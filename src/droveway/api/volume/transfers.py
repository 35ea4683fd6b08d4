"""Transfers: `os-volume-transfer`, and since 3.55 `volume-transfers`, where snapshots go along."""

from __future__ import annotations

from typing import Annotated, Any

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import FLAG, of
from droveway.api.http.render import FieldTable
from droveway.api.http.request import Request, Response, encode
from droveway.api.volume import fields, listing
from droveway.api.volume.fields import VolumeView
from droveway.api.volume.here import links
from droveway.api.volume.kinds import TEXT, UUID
from droveway.api.volume.listing import Filter, Listed
from droveway.api.wiring import Api
from droveway.store.engine.transaction import Tx
from droveway.store.volume import listing as rows_of
from droveway.store.volume import transfers, volumes
from droveway.store.volume.rows import TransferRow
from droveway.store.volume.tables import volume_transfers as table

SNAPSHOTS_SINCE = 55
LISTED = Listed(
    filters={"id": Filter("id"), "name": Filter("name"), "volume_id": Filter("volume_id")},
    sorts={"id": "id", "name": "name", "volume_id": "volume_id", "created_at": "created_at_us"},
    ignored={"is_public": lambda value: True},
)


async def summaries(api: Api, request: Request) -> Response:
    return await _listing(api, request, fields.TRANSFER_SUMMARY)


async def detail(api: Api, request: Request) -> Response:
    return await _listing(api, request, fields.TRANSFER)


async def _listing(api: Api, request: Request, of_: FieldTable[TransferRow]) -> Response:
    query = listing.read(api, request, LISTED)

    def read(tx: Tx) -> bytes:
        rows = rows_of.find(tx, TransferRow, table, query.wanted)
        shown = of_.render(rows, request.version, VolumeView(api.settings.base_url))
        return encode(listing.body(api, request, "transfers", shown, rows[-1]["id"] if rows else None, query, None))

    return Response(200, await api.store.read(read))


def _shown(api: Api, request: Request, row: TransferRow, of_: FieldTable[TransferRow]) -> dict[str, Any]:
    return of_.renderer(request.version, is_admin=request.caller.is_admin)(row, VolumeView(api.settings.base_url))


async def show(api: Api, request: Request) -> Response:
    row = await api.store.read(transfers.get, request.params["transfer_id"], request.scope)
    return Response(200, {"transfer": _shown(api, request, row, fields.TRANSFER)})


class NewTransfer(Body, frozen=True):
    """`no_snapshots`: it is refused to be taken while it has any."""

    volume_id: Annotated[str, UUID]
    name: Annotated[str | None, TEXT] = None
    no_snapshots: Annotated[bool, FLAG.since(SNAPSHOTS_SINCE)] = False


@takes(NewTransfer, "transfer")
async def create(api: Api, request: Request, given: NewTransfer) -> Response:
    """Answers with the key, which is told this once."""

    def write(tx: Tx) -> tuple[TransferRow, str]:
        volume = volumes.get(tx, given.volume_id, request.scope)
        return transfers.create(tx, volume, given.name, no_snapshots=given.no_snapshots)

    row, key = await api.store.run(write)
    return Response(202, {"transfer": {**_shown(api, request, row, fields.TRANSFER), "auth_key": key}})


class Accept(Body, frozen=True):
    auth_key: Annotated[str, of(lambda _, value: str(value), anyOf=[{"type": "string"}, {"type": "integer"}])]


@takes(Accept, "accept")
async def accept(api: Api, request: Request, given: Accept) -> Response:
    """By a user of the project that takes it, which must know the key."""
    caller = request.caller

    def write(tx: Tx) -> TransferRow:
        row = transfers.get(tx, request.params["transfer_id"])
        return transfers.accept(
            tx, row, given.auth_key, caller.project_id or "", caller.user_id, api.settings.volumes.quotas
        )

    row = await api.store.run(write)
    own = {"id": row["id"], "volume_id": row["volume_id"], "name": row["name"]}
    return Response(202, {"transfer": own | {"links": links(api.settings.base_url, "volume-transfers", row["id"])}})


async def delete(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        transfers.cancel(tx, transfers.get(tx, request.params["transfer_id"], request.scope))

    await api.store.run(write)
    return Response(202)
