"""Messages: why something failed, told to the project that asked for it. Since 3.3."""

from __future__ import annotations

from typing import Any

from droveway.api.http.request import Request, Response, encode
from droveway.api.volume import fields, listing
from droveway.api.volume.fields import VolumeView
from droveway.api.volume.listing import Filter, Listed
from droveway.api.wiring import Api
from droveway.store.engine.transaction import Tx
from droveway.store.volume import listing as rows_of
from droveway.store.volume import messages
from droveway.store.volume.rows import VolumeMessageRow
from droveway.store.volume.tables import volume_messages as table

LISTED = Listed(
    filters={
        "id": Filter("id", admin_only=True),
        "resource_uuid": Filter("resource_id"),
        "resource_type": Filter("resource_type", lambda _, value: value.upper()),
        "event_id": Filter("event_id"),
        "request_id": Filter("request_id"),
        "message_level": Filter("level", lambda _, value: value.upper()),
    },
    sorts={
        "id": "id",
        "event_id": "event_id",
        "resource_uuid": "resource_id",
        "resource_type": "resource_type",
        "request_id": "request_id",
        "message_level": "level",
        "created_at": "created_at_us",
        "guaranteed_until": "expires_at_us",
    },
)


async def listing_(api: Api, request: Request) -> Response:
    query = listing.read(api, request, LISTED)

    def read(tx: Tx) -> bytes:
        rows = rows_of.find(tx, VolumeMessageRow, table, query.wanted)
        shown = fields.MESSAGE.render(rows, request.version, VolumeView(api.settings.base_url))
        return encode(listing.body(api, request, "messages", shown, rows[-1]["id"] if rows else None, query, None))

    return Response(200, await api.store.read(read))


async def show(api: Api, request: Request) -> Response:
    row: Any = await api.store.read(messages.get, request.params["message_id"], request.scope)
    render = fields.MESSAGE.renderer(request.version, is_admin=request.caller.is_admin)
    return Response(200, {"message": render(row, VolumeView(api.settings.base_url))})


async def delete(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        messages.remove(tx, messages.get(tx, request.params["message_id"], request.scope)["id"])

    await api.store.run(write)
    return Response(204)
