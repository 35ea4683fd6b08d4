"""POST /servers/{id}/action: each writes what is wanted and returns; the sagas do it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from droveway.api.compute import remote_consoles, server_access, server_addresses, server_locks
from droveway.api.http.actions import Action, dispatch
from droveway.api.http.bodies import Body
from droveway.api.http.kinds import FLAG, HOST, anything, either, of, or_null, whole
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_flag
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.domain.model import SagaKind
from droveway.domain.policy import Need
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f]")
_LINES_MAX = 1_000_000


async def _intend(api: Api, request: Request, kind: SagaKind, params: dict[str, Any]) -> str:
    """Write the intent, after looking whether the caller may touch that server. Returns the id of the saga."""

    def write(tx: Tx) -> str:
        row = server_access.changeable(tx, request)
        destination = params.get("destination")
        if destination is not None:
            try:
                hosts.get(tx, destination)
            except NotFound:
                raise BadRequest(f"Compute host {destination} could not be found.") from None
        return instances.intend(tx, row["id"], kind, params, request.id, request.caller.user_id)

    return await api.store.run(write)


async def _start(api: Api, request: Request, value: Any) -> Response:
    await _intend(api, request, SagaKind.START, {})
    return Response(202)


async def _stop(api: Api, request: Request, value: Any) -> Response:
    await _intend(api, request, SagaKind.STOP, {})
    return Response(202)


def _upper(path: str, value: Any) -> Any:
    return _REBOOTS.read(path, value.upper() if isinstance(value, str) else value)


_REBOOTS = either("HARD", "SOFT")


class Reboot(Body, frozen=True):
    """HARD cuts the power; SOFT asks the guest first, and cuts the power when it does not listen."""

    type: Annotated[str, of(_upper, **_REBOOTS.schema)]


async def _reboot(api: Api, request: Request, given: Reboot) -> Response:
    await _intend(api, request, SagaKind.HARD_REBOOT, {"graceful": True} if given.type == "SOFT" else {})
    return Response(202)


# -- console ----------------------------------------------------------------------------------------------------------
class ConsoleOutput(Body, frozen=True):
    """The last lines of the serial console; -1 or nothing: all of it."""

    length: Annotated[int | None, or_null(whole(-1, _LINES_MAX))] = None


async def _console_output(api: Api, request: Request, given: ConsoleOutput) -> Response:
    row = await api.store.read(instances.get, request.params["server_id"], request.scope)
    if row["host"] is None:
        raise Conflict(f"Instance {row['id']} is not ready: it has no host yet.")
    text = await api.control.read_console(row["host"], row["id"], None if given.length == -1 else given.length)
    return Response(200, {"output": _UNPRINTABLE.sub("", text)})


# -- live migration ---------------------------------------------------------------------------------------------------
def _or_auto(path: str, value: Any) -> bool | str:
    return "auto" if value == "auto" else as_flag(path, value)


_OR_AUTO = of(_or_auto, anyOf=[*FLAG.schema["anyOf"], {"const": "auto"}])


class MigrateLive(Body, frozen=True):
    """2.1: disk_over_commit is required; 2.25: it is gone, block_migration may be `auto`; 2.30 to 2.67: force."""

    host: Annotated[str | None, or_null(HOST)]
    block_migration: Annotated[bool | str, FLAG.until(24), _OR_AUTO.since(25)]
    disk_over_commit: Annotated[bool, FLAG.until(24).needed()] = False
    force: Annotated[bool, FLAG.since(30).until(67)] = False


async def _migrate_live(api: Api, request: Request, given: MigrateLive) -> Response:
    """Up to 2.33 the checks are part of the answer; from 2.34 on they are part of the migration."""
    _refuse_unbuilt(given)
    params = {
        "destination": given.host,
        "block_migration": given.block_migration,
        "user_id": request.caller.user_id,
        "project_id": request.caller.project_id,
    }
    saga_id = await _intend(api, request, SagaKind.LIVE_MIGRATION, params)
    if request.version < 34:
        ok, reason = await api.sagas_settled(saga_id, api.settings.precheck_timeout_s)
        if not ok:
            raise BadRequest(f"Migration pre-check error: {reason}")
    return Response(202)


def _refuse_unbuilt(given: MigrateLive) -> None:
    if given.force and given.host is None:
        raise BadRequest("Can't force to a non-provided destination")
    if given.force:
        raise BadRequest(
            "Invalid input for os-migrateLive.force: no check of the destination is left out here; name the host "
            "without force."
        )
    if given.disk_over_commit:
        raise BadRequest(
            "Invalid input for os-migrateLive.disk_over_commit: hosts share their disks and none is copied, so there "
            "is no disk to overcommit; set it to false."
        )


_IGNORED = anything(description="Not looked at; null is usual.")
ACTIONS = {
    "os-start": Action(_start, _IGNORED, Need.MEMBER),
    "os-stop": Action(_stop, _IGNORED, Need.MEMBER),
    "reboot": Action(_reboot, Reboot, Need.MEMBER),
    "os-getConsoleOutput": Action(_console_output, ConsoleOutput, Need.MEMBER),
    "os-migrateLive": Action(_migrate_live, MigrateLive, Need.ADMIN),
    **server_addresses.ACTIONS,
    **server_locks.ACTIONS,
    **remote_consoles.ACTIONS,
}
action = dispatch(ACTIONS, "Each writes what is wanted and returns; the sagas do it.")
