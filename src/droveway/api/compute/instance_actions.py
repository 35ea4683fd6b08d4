"""`/servers/{id}/os-instance-actions`: what was asked of a server, newest first. Each was a saga; what the program does
of itself is no action."""

from __future__ import annotations

from typing import Any

from droveway.api.http import paging
from droveway.api.http.render import Field, FieldTable, micros
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_time_us
from droveway.api.wiring import Api
from droveway.domain.model import SagaKind
from droveway.scheduler.summaries import NOT_ENOUGH
from droveway.store.compute import actions, instances
from droveway.store.engine.transaction import Tx
from droveway.store.rows import ActionRow

PAGED_SINCE, BEFORE_SINCE = 58, 66
DELETED_SINCE = 21  # a deleted server tells, too
_WORDS: dict[str, str] = {  # kinds of sagas that Nova calls by another name
    SagaKind.BOOT: "create",
    SagaKind.HARD_REBOOT: "reboot",
    SagaKind.SOFT_REBOOT: "reboot",
    SagaKind.RESET_STATE: "resetState",
    SagaKind.CREATE_IMAGE: "createImage",
    SagaKind.CREATE_BACKUP: "createBackup",
    SagaKind.SHELVE_OFFLOAD: "shelveOffload",
    SagaKind.SOFT_DELETE: "delete",
    SagaKind.LIVE_MIGRATION: "live-migration",
}

ACTION = FieldTable(
    ActionRow,
    Field("action", lambda row, _: _WORDS.get(row["kind"], row["kind"])),
    Field("instance_uuid", "subject_id"),
    Field("request_id", "request_id"),
    Field("user_id", lambda row, _: _user(row)),
    Field("project_id", "project_id"),
    Field("start_time", lambda row, _: micros(row["created_at_us"])),
    Field("message", lambda row, _: _message(row)),
    Field("updated_at", lambda row, _: micros(row["updated_at_us"]), PAGED_SINCE),
)


def _user(row: ActionRow) -> Any:
    """Who asked, as far as it is known."""
    return row["params"].get("user_id", row["owner_id"] if row["kind"] == SagaKind.BOOT else None)


def _message(row: ActionRow) -> str | None:
    """What one that is under way waits for, once that takes long; then Nova's word. Tenants may read it: what the
    hosts lack is not in it."""
    if row["blocked"]:
        step, waits_for_room, _ = row["blocked"].partition(" waits for room: ")
        return f"{step}{waits_for_room}{NOT_ENOUGH}" if waits_for_room else str(row["blocked"])
    return "Error" if row["error"] else None


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

    def read(tx: Tx) -> list[ActionRow]:
        server_id = _server(tx, request)
        with paging.marked(page.marker):
            return actions.of_server(tx, server_id, marker=page.marker, limit=page.limit, **times)

    rows = await api.store.read(read)
    items = ACTION.render(rows, request.version, None)
    return Response(
        200, paging.listed(api, request, page, "instanceActions", items, rows, key="request_id", links="links")
    )


def _server(tx: Tx, request: Request) -> str:
    with_deleted = request.version >= DELETED_SINCE
    return str(instances.get(tx, request.params["server_id"], request.scope, deleted=with_deleted)["id"])


async def show(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> ActionRow:
        return actions.of_request(tx, _server(tx, request), request.params["request_id"])

    body = ACTION.renderer(request.version, is_admin=False)(await api.store.read(read), None)
    return Response(200, {"instanceAction": {**body, "events": []}})
