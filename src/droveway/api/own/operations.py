"""Droveway's own resources, beside OpenStack's: sagas with their ticks, and services.

GET /droveway/v1/sagas?all=1&limit=N     {"sagas": [...]}, newest first; without `all` those not yet ended
GET /droveway/v1/sagas/{id}              {"saga": {..., "steps": [...]}}; an unambiguous beginning of the id will do
POST /droveway/v1/sagas/{id}/retry       202: a broken saga goes on from its cursor
POST /droveway/v1/sagas/{id}/cancel      202: it is undone, if its point of no return has not passed
GET /droveway/v1/services?host=&binary=  {"services": [...]}: compute's list, with the sentence of each verdict
"""

from __future__ import annotations

from typing import Any

from droveway.api.compute import service_fields
from droveway.api.compute.fields import View
from droveway.api.http import paging
from droveway.api.http.request import Request, Response, encode
from droveway.api.wiring import Api
from droveway.domain.model import of_saga
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.rows import EventRow, SagaRow
from droveway.store.work import events, sagas

LIMIT = 1000


def _body(row: SagaRow) -> dict[str, Any]:
    return {
        "id": row["id"],
        "kind": row["kind"],
        "subject_kind": row["subject_kind"],
        "subject_id": row["subject_id"],
        "status": row["status"],
        "step": row["step"],
        "unreadable": row["unreadable"],
        "generation": row["generation"],
        "owner": row["owner"],
        "error": row["error"],
        "blocked": row["blocked"],
        "cancel": row["cancel"],
        "created_at_us": row["created_at_us"],
        "updated_at_us": row["updated_at_us"],
        "request_id": row["request_id"],
    }


async def list_sagas(api: Api, request: Request) -> Response:
    given = request.known_query(("all", "limit"))
    limit = paging.newest(given, LIMIT)
    everything = given.get("all", "0") not in ("", "0", "false")
    rows = await api.store.read(lambda tx: sagas.listing(tx, limit=limit, only_open=not everything))
    return Response(200, {"sagas": [_body(row) for row in rows]})


async def show_saga(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> tuple[SagaRow, list[EventRow]]:
        row = sagas.find(tx, request.params["saga_id"])
        return row, events.of_subject(tx, of_saga(row["id"]))

    row, ticks = await api.store.read(read)
    steps = [
        {"at_us": event["at_us"], "generation": event["body"]["generation"], **tick}
        for event in ticks
        for tick in event["body"]["ticks"]
    ]
    return Response(200, {"saga": {**_body(row), "params": row["params"], "steps": steps}})


async def retry_saga(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        sagas.retry(tx, sagas.find(tx, request.params["saga_id"])["id"])

    await api.store.run(write)
    return Response(202)


async def cancel_saga(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        sagas.cancel_by_hand(tx, sagas.find(tx, request.params["saga_id"]), "an operator cancelled it")

    await api.store.run(write)
    return Response(202)


async def list_services(api: Api, request: Request) -> Response:
    given = request.known_query(("host", "binary"))

    def read(tx: Tx) -> bytes:
        rows = services.list_all(tx, given.get("host") or None, given.get("binary") or None)
        return encode({"services": service_fields.OWN_SERVICE.render(rows, request.version, View(""))})

    return Response(200, await api.store.read(read))
