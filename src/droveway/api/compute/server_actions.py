"""POST /servers/{id}/action: each writes what is wanted and returns; the sagas do it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from droveway.api.compute.servers import scope_of
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import Fields, as_flag, as_host, as_integer
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, Forbidden, NotFound
from droveway.domain.model import SagaKind
from droveway.domain.policy import Need, refusal
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f]")
_LINES_MAX = 1_000_000

Perform = Callable[[Api, Request, Any], Awaitable[Response]]


class Action(NamedTuple):
    perform: Perform
    need: Need = Need.MEMBER


async def action(api: Api, request: Request) -> Response:
    body = await request.json(api.settings.max_body_bytes)
    if not isinstance(body, dict) or len(body) != 1:
        raise BadRequest("The body must be an object with one member, named by the action.")
    ((name, value),) = body.items()
    wanted = ACTIONS.get(name)
    if wanted is None:
        raise BadRequest(f"There is no such action: {name[:64]}")
    sentence = refusal(wanted.need, request.caller.role_names, has_project=True)
    if sentence is not None:
        raise Forbidden(sentence)
    return await wanted.perform(api, request, value)


async def _intend(api: Api, request: Request, kind: SagaKind, params: dict[str, Any]) -> str:
    """Write the intent, after looking whether the caller may touch that server. Returns the id of the saga."""

    def write(tx: Tx) -> str:
        row = instances.get(tx, request.params["server_id"], scope_of(request))
        destination = params.get("destination")
        if destination is not None:
            try:
                hosts.get(tx, destination)
            except NotFound:
                raise BadRequest(f"Compute host {destination} could not be found.") from None
        return instances.intend(tx, row["id"], kind, params, request.id)

    return await api.store.run(write)


async def _start(api: Api, request: Request, value: Any) -> Response:
    await _intend(api, request, SagaKind.START, {})
    return Response(202)


async def _stop(api: Api, request: Request, value: Any) -> Response:
    await _intend(api, request, SagaKind.STOP, {})
    return Response(202)


async def _reboot(api: Api, request: Request, value: Any) -> Response:
    """HARD cuts the power; SOFT asks the guest first, and cuts the power when it does not listen."""
    kind = Fields(value, "reboot", ("type",)).required("type")
    if not isinstance(kind, str) or kind.upper() not in ("HARD", "SOFT"):
        raise BadRequest("Invalid input for reboot.type: it must be HARD or SOFT.")
    await _intend(api, request, SagaKind.HARD_REBOOT, {"graceful": True} if kind.upper() == "SOFT" else {})
    return Response(202)


# -- console ----------------------------------------------------------------------------------------------------------
async def _console_output(api: Api, request: Request, value: Any) -> Response:
    """The last lines of the serial console, asked of the host now."""
    given = Fields(value, "os-getConsoleOutput", ("length",)).value("length")
    lines = None if given is None else as_integer("os-getConsoleOutput.length", given, -1, _LINES_MAX)
    row = await api.store.read(instances.get, request.params["server_id"], scope_of(request))
    if row["host"] is None:
        raise Conflict(f"Instance {row['id']} is not ready: it has no host yet.")
    text = await api.read_console(row["host"], row["id"], None if lines == -1 else lines)
    return Response(200, {"output": _UNPRINTABLE.sub("", text)})


# -- live migration ---------------------------------------------------------------------------------------------------
async def _migrate_live(api: Api, request: Request, value: Any) -> Response:
    """Up to 2.33 the checks are part of the answer; from 2.34 on they are part of the migration."""
    params = _migration_params(request, value)
    saga_id = await _intend(api, request, SagaKind.LIVE_MIGRATION, params)
    if request.version < 34:
        ok, sentence = await api.sagas_settled(saga_id, api.settings.precheck_timeout_s)
        if not ok:
            raise BadRequest(f"Migration pre-check error: {sentence}")
    return Response(202)


def _migration_params(request: Request, value: Any) -> dict[str, Any]:
    """2.1: disk_over_commit is required; 2.25: it is gone, block_migration may be `auto`; 2.30 to 2.67: force."""
    version = request.version
    known = {"host", "block_migration"}
    if version < 25:
        known.add("disk_over_commit")
    if 30 <= version < 68:
        known.add("force")
    fields = Fields(value, "os-migrateLive", known)
    host = fields.required("host")
    destination = as_host("os-migrateLive.host", host) if host is not None else None
    block_migration = fields.required("block_migration")
    if not (version >= 25 and block_migration == "auto"):
        block_migration = as_flag("os-migrateLive.block_migration", block_migration)
    over_commit = version < 25 and as_flag("os-migrateLive.disk_over_commit", fields.required("disk_over_commit"))
    force = fields.flag("force", default=False)
    if force and destination is None:
        raise BadRequest("Can't force to a non-provided destination")
    if force:
        raise BadRequest(
            "Invalid input for os-migrateLive.force: no check of the destination is left out here; name the host "
            "without force."
        )
    if over_commit:
        raise BadRequest(
            "Invalid input for os-migrateLive.disk_over_commit: hosts share their disks and none is copied, so there "
            "is no disk to overcommit; set it to false."
        )
    return {
        "destination": destination,
        "block_migration": block_migration,
        "user_id": request.caller.user_id,
        "project_id": request.caller.project_id,
    }


ACTIONS = {
    "os-start": Action(_start),
    "os-stop": Action(_stop),
    "reboot": Action(_reboot),
    "os-getConsoleOutput": Action(_console_output),
    "os-migrateLive": Action(_migrate_live, Need.ADMIN),
}
