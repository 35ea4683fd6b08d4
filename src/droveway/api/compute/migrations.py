"""Migrations, of all servers and of one; one that is under way may be aborted, or forced to complete. Managers of a
project see those of their project, and not the hosts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from droveway.api.compute import fields, server_access
from droveway.api.compute.fields import View
from droveway.api.http import paging
from droveway.api.http.actions import Action, dispatch
from droveway.api.http.kinds import NULL
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_time_us
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden, NotFound
from droveway.domain.migration import AFTER_SWITCH
from droveway.domain.model import MigrationStatus
from droveway.domain.policy import Need
from droveway.store.compute import instances, migrations
from droveway.store.engine.transaction import Tx
from droveway.store.rows import MigrationWithName
from droveway.store.work import sagas

LIVE = "live-migration"
UNPAGED_MAX = 10_000  # before 2.59 there were no pages

_COLUMNS = {
    "instance_uuid": "instance_id",
    "host": "host",
    "status": "status",
    "migration_type": "migration_type",
    "source_compute": "source",
}
_SINCE_59 = ("limit", "marker", "changes-since")


def _known(version: int) -> set[str]:
    known = {*_COLUMNS, "hidden"}
    if version >= 59:
        known.update(_SINCE_59)
    if version >= 66:
        known.add("changes-before")
    if version >= 80:
        known.update(("user_id", "project_id"))
    return known


async def listing(api: Api, request: Request) -> Response:
    """`GET /os-migrations`: newest first."""
    given = request.known_query(_known(request.version), refuses_unknown=request.version >= 59)
    since = as_time_us("changes-since", given["changes-since"]) if "changes-since" in given else None
    before = as_time_us("changes-before", given["changes-before"]) if "changes-before" in given else None
    if since is not None and before is not None and before < since:
        raise BadRequest("The value of changes-since must be less than or equal to changes-before.")
    if not request.caller.is_admin:
        _check_own(request, given)
    page = paging.asked(api, request) if request.version >= 59 else paging.whole(UNPAGED_MAX)
    filters: dict[str, Any] = {column: given[name] for name, column in _COLUMNS.items() if name in given}
    filters |= {name: given[name] for name in ("user_id", "project_id") if name in given}
    filters |= {"changed_since_us": since, "changed_before_us": before, "marker": page.marker, "limit": page.limit}
    rows = await api.store.read(_find, filters)
    view, is_admin = View(api.settings.base_url), request.caller.is_admin
    items = fields.MIGRATION.render(rows, request.version, view, is_admin=is_admin)
    return Response(200, paging.listed(api, request, page, "migrations", items, rows, key="uuid"))


def _check_own(request: Request, given: dict[str, str]) -> None:
    """Who is no administrator names the project, as with Nova; and looks for no hosts. Raises Forbidden."""
    request.project_of(given.get("project_id", ""), "Migrations")
    if "host" in given or "source_compute" in given:
        raise Forbidden("Looking for migrations by their hosts needs the role admin.")


def _find(tx: Tx, filters: dict[str, Any]) -> list[MigrationWithName]:
    with paging.marked(filters["marker"]):
        return migrations.find(tx, **filters)


# -- of one server ----------------------------------------------------------------------------------------------------
def _under_way(tx: Tx, request: Request) -> list[MigrationWithName]:
    row = instances.get(tx, request.params["server_id"], request.scope)
    return migrations.find(tx, instance_id=row["id"], migration_type=LIVE, under_way=True)


async def of_server(api: Api, request: Request) -> Response:
    """The live migrations of a server that have not ended."""
    rows = await api.store.read(_under_way, request)
    is_admin = request.caller.is_admin
    return Response(
        200, {"migrations": fields.SERVER_MIGRATION.render(rows, request.version, View(""), is_admin=is_admin)}
    )


async def of_server_show(api: Api, request: Request) -> Response:
    wanted, server_id = request.params["migration_id"], request.params["server_id"]
    for row in await api.store.read(_under_way, request):
        if wanted == str(row["id"]):
            render = fields.SERVER_MIGRATION.renderer(request.version, is_admin=True)
            return Response(200, {"migration": render(row, View(""))})
    raise NotFound(f"In-progress live migration {wanted[:64]} is not found for server {server_id}.")


ABORTS_QUEUED_SINCE = 65
Write = Callable[[Tx, MigrationWithName], None]


async def abort(api: Api, request: Request) -> Response:
    """Undo a live migration that is under way: 202, also when that was asked before. 400 once its server runs on the
    destination; before 2.65 also while the copy has not begun."""

    def cancel(tx: Tx, row: MigrationWithName) -> None:
        if request.version < ABORTS_QUEUED_SINCE and row["status"] != MigrationStatus.RUNNING:
            raise _wrong_state(row, "abort live migration")
        _must_not_have_switched(tx, row, "abort live migration")
        sagas.cancel(tx, row["saga_id"], "its migration was aborted")

    await _change(api, request, cancel)
    return Response(202)


async def _force_complete(api: Api, request: Request, given: None) -> Response:
    """By post-copy where the policy of its server allows that, or else by pausing it until its memory is there."""

    def force(tx: Tx, row: MigrationWithName) -> None:
        if row["status"] != MigrationStatus.RUNNING:
            raise _wrong_state(row, "force_complete")
        if not row["forced"]:
            migrations.force(tx, row["saga_id"])

    await _change(api, request, force)
    return Response(202)


async def _change(api: Api, request: Request, change: Write) -> None:
    """Raises NotFound; Conflict when the server is locked."""
    wanted, server_id = request.params["migration_id"], request.params["server_id"]

    def write(tx: Tx) -> None:
        server_access.changeable(tx, request)
        for row in _under_way(tx, request):
            if wanted == str(row["id"]):
                change(tx, row)
                return
        raise NotFound(f"In-progress live migration {wanted[:64]} is not found for server {server_id}.")

    await api.store.run(write)


def _wrong_state(row: MigrationWithName, what: str, is_in: str = "") -> BadRequest:
    """Nova's sentence."""
    return BadRequest(
        f"Migration {row['id']} state of instance {row['instance_id']} is {is_in or row['status']}. Cannot {what} "
        "while the migration is in this state."
    )


def _must_not_have_switched(tx: Tx, row: MigrationWithName, what: str) -> None:
    if (row["progress"] or {}).get("post_copy", "none") != "none":
        raise _wrong_state(row, what, "post-copy: the server runs on its destination already")
    if sagas.get(tx, row["saga_id"])["step"] in AFTER_SWITCH:
        raise _wrong_state(row, what, "past its switch: the server runs on its destination already")


action = dispatch(
    {"force_complete": Action(_force_complete, NULL, Need.MANAGER, since=22)},
    "What is done to a live migration that is under way.",
)
