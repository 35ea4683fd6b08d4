"""Migrations as an operator follows them: what is copied, how fast, what is done about it, and how long it will take.

GET /droveway/v1/migrations?server=&all=&limit=N   {"migrations": [...]}, newest first; without `all` those under way
GET /droveway/v1/migrations/{migration}            {"migration": {..., "events": [...]}}: by its number or its uuid, or
                                                   the newest one of a server, by that one's id or name
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from droveway.api.http import paging
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import NotFound
from droveway.domain.model import of_saga
from droveway.store.compute import migrations
from droveway.store.compute.migrations import ShownProgress
from droveway.store.engine import lookup
from droveway.store.engine.transaction import Tx
from droveway.store.rows import MigrationWithName
from droveway.store.work import events, sagas

LIMIT = 1000
_BYTES = tuple(f"{of}_{what}_bytes" for of in ("memory", "disk") for what in ("total", "processed", "remaining"))


async def listing(api: Api, request: Request) -> Response:
    given = request.known_query(("server", "all", "limit"))
    limit = paging.newest(given, LIMIT)
    everything = given.get("all", "0") not in ("", "0", "false")

    def read(tx: Tx) -> list[dict[str, Any]]:
        server_id = lookup.server(tx, given["server"])["id"] if given.get("server") else None
        rows = migrations.find(tx, instance_id=server_id, under_way=not everything, limit=limit)
        return [_shown(tx, row) for row in rows]

    return Response(200, {"migrations": await api.store.read(read)})


async def show(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> dict[str, Any]:
        row = _find(tx, request.params["migration"])
        waits = step = ""
        with contextlib.suppress(NotFound):  # it has aged out
            saga = sagas.get(tx, row["saga_id"])
            step, waits = saga["step"], saga["blocked"] or ""
        recorded = [
            {"at_us": event["at_us"], "step": tick["step"], "mark": tick["mark"], "text": tick["text"]}
            for event in events.of_subject(tx, of_saga(row["saga_id"]))
            for tick in event["body"]["ticks"]
            if "text" in tick
        ]
        return _shown(tx, row) | {"step": step, "waits": waits, "events": recorded}

    return Response(200, {"migration": await api.store.read(read)})


def _find(tx: Tx, given: str) -> MigrationWithName:
    if (row := migrations.named(tx, given)) is not None:
        return row
    try:
        server = lookup.server(tx, given)
    except NotFound:
        raise NotFound(
            f"There is no migration, and no server, {given[:64]}; 'droveway migration list --all' shows what there is."
        ) from None
    if rows := migrations.find(tx, instance_id=server["id"], limit=1):
        return rows[0]
    raise NotFound(f"Server {server['name']} has never been migrated.")


def _shown(tx: Tx, row: MigrationWithName) -> dict[str, Any]:
    progress = msgspec.convert(row["progress"] or {}, ShownProgress)
    return {
        "id": row["id"],
        "uuid": row["uuid"],
        "server": {"id": row["instance_id"], "name": row["instance_name"]},
        "type": row["migration_type"],
        "status": row["status"],
        "source": row["source"],
        "destination": row["destination"],
        "forced": row["forced"],
        "queue_place": migrations.queue_place(tx, row),
        "saga_id": row["saga_id"],
        "error": row["error"],
        "created_at_us": row["created_at_us"],
        "updated_at_us": row["updated_at_us"],
        **{name: row[name] for name in _BYTES},  # type: ignore[literal-required]
        **msgspec.structs.asdict(progress),
    }
