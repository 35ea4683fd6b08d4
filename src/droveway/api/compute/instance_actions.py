"""`/servers/{id}/os-instance-actions`: what was asked of a server, newest first, and step by step what came of it. What
the program does of itself is no action.

Events are the steps of its saga: each with when it began and ended and whether it succeeded; what was undone begins
with `undo_`. Before 2.51 administrators alone are told of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from droveway.api.http import paging
from droveway.api.http.render import Field, FieldTable, host_id, micros
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_time_us
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.domain.model import ENDED_SAGA, SagaKind
from droveway.scheduler.summaries import NOT_ENOUGH
from droveway.store.compute import actions, instances
from droveway.store.engine.transaction import Tx
from droveway.store.rows import ActionRow, EventRow, InstanceRow

PAGED_SINCE, BEFORE_SINCE = 58, 66
DELETED_SINCE = 21  # a deleted server tells, too
EVENTS_SINCE, HOSTS_SINCE, DETAILS_SINCE = 51, 62, 84
_WORDS: dict[str, str] = {  # kinds of sagas that Nova calls by another name
    SagaKind.BOOT: "create",
    SagaKind.HARD_REBOOT: "reboot",
    SagaKind.LIVE_MIGRATION: "live-migration",
}
_RESULTS = {"+": "Success", "-": "Success", "!": "Error"}

ACTION = FieldTable(
    ActionRow,
    Field("action", lambda row, _: _WORDS.get(row["kind"], row["kind"])),
    Field("instance_uuid", "instance_id"),
    Field("request_id", "request_id"),
    Field("user_id", "user_id"),
    Field("project_id", lambda row, _: row["project_id"] or None),
    Field("start_time", lambda row, _: micros(row["created_at_us"])),
    Field("message", lambda row, _: _message(row)),
    Field("updated_at", lambda row, _: micros(row["updated_at_us"]), PAGED_SINCE),
)


def _message(row: ActionRow) -> str | None:
    """What one that is under way waits for, once that takes long; then Nova's word. Tenants may read it: what the
    hosts lack is not in it."""
    if row["blocked"]:
        step, waits_for_room, _ = row["blocked"].partition(" waits for room: ")
        return f"{step}{waits_for_room}{NOT_ENOUGH}" if waits_for_room else str(row["blocked"])
    return "Error" if row["error"] else None


# -- list -------------------------------------------------------------------------------------------------------------
async def listing(api: Api, request: Request) -> Response:
    known: tuple[str, ...] = ()
    if request.version >= PAGED_SINCE:
        known = ("limit", "marker", "changes-since", *(("changes-before",) if request.version >= BEFORE_SINCE else ()))
    given = request.known_query(known)
    page = paging.asked(api, request) if known else paging.whole(api.settings.page_max)
    times = {
        word: as_time_us(name, given[name]) if name in given else None
        for word, name in (("since_us", "changes-since"), ("before_us", "changes-before"))
    }
    since_us, before_us = times["since_us"], times["before_us"]
    if since_us is not None and before_us is not None and before_us < since_us:
        raise BadRequest("The value of changes-since must be less than or equal to changes-before.")

    def read(tx: Tx) -> list[ActionRow]:
        server_id = _server(tx, request)["id"]
        with paging.marked(page.marker):
            return actions.of_server(tx, server_id, marker=page.marker, limit=page.limit, **times)

    rows = await api.store.read(read)
    items = ACTION.render(_folded(rows), request.version, None)
    return Response(
        200, paging.listed(api, request, page, "instanceActions", items, rows, key="request_id", links="links")
    )


def _folded(rows: Sequence[ActionRow]) -> list[ActionRow]:
    """Several sagas of one request are one action: begun with the first, and as the last one stands."""
    found: list[ActionRow] = []
    for row in rows:
        if found and found[-1]["request_id"] == row["request_id"]:
            found[-1] = {**found[-1], "created_at_us": row["created_at_us"]}
        else:
            found.append(row)
    return found


def _server(tx: Tx, request: Request) -> InstanceRow:
    with_deleted = request.version >= DELETED_SINCE
    return instances.get(tx, request.params["server_id"], request.scope, deleted=with_deleted)


# -- show -------------------------------------------------------------------------------------------------------------
class _Seen(NamedTuple):
    """How much of an event the caller sees."""

    project_id: str
    is_admin: bool
    version: int


async def show(api: Api, request: Request) -> Response:
    is_admin = request.caller.is_admin
    has_events = is_admin or request.version >= EVENTS_SINCE

    def read(tx: Tx) -> tuple[InstanceRow, list[ActionRow], list[EventRow]]:
        server = _server(tx, request)
        rows = actions.of_request(tx, server["id"], request.params["request_id"])
        return server, rows, actions.ticks(tx, [row["id"] for row in rows]) if has_events else []

    server, rows, ticks = await api.store.read(read)
    (row,) = _folded(rows)
    body = ACTION.renderer(request.version, is_admin=False)(row, None)
    if has_events:
        seen = _Seen(server["project_id"], is_admin, request.version)
        body["events"] = [event for one in reversed(rows) for event in _events(one, ticks, server["host"], seen)]
    return Response(200, {"instanceAction": body})


def _events(row: ActionRow, ticks: Sequence[EventRow], now_on: str | None, seen: _Seen) -> list[dict[str, Any]]:
    notes = row["notes"]
    host = str(notes.get("host") or notes.get("source") or now_on or "")
    found = []
    for event in ticks:
        if event["subject_id"] != row["id"]:
            continue
        for tick in event["body"]["ticks"]:
            if tick["mark"] in _RESULTS:
                name = f"undo_{tick['step']}" if tick["mark"] == "-" else tick["step"]
                began_us = event["at_us"] - int(tick["ms"] * 1000)
                times = (max(began_us, row["created_at_us"]), event["at_us"])
                found.append(_event(seen, name, times, _RESULTS[tick["mark"]], host, tick.get("text")))
    if row["status"] in ENDED_SAGA:
        if not found:  # done at once; or so long ago that its steps are forgotten
            times = (row["created_at_us"], row["updated_at_us"])
            found.append(_event(seen, f"api_{row['kind']}", times, "Error" if row["error"] else "Success", "", None))
    elif row["step"]:
        found.append(_event(seen, row["step"], (row["updated_at_us"], None), None, host, row["blocked"]))
    return found


def _event(
    seen: _Seen, name: str, times: tuple[int, int | None], result: str | None, host: str, details: str | None
) -> dict[str, Any]:
    event: dict[str, Any] = {
        "event": name,
        "start_time": micros(times[0]),
        "finish_time": micros(times[1]),
        "result": result,
    }
    if seen.is_admin:
        event["traceback"] = None
    if seen.version >= HOSTS_SINCE:
        event["hostId"] = host_id(host, seen.project_id) if host else ""
        if seen.is_admin:
            event["host"] = host
    if seen.version >= DETAILS_SINCE and seen.is_admin:
        event["details"] = details
    return event
