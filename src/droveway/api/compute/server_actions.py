"""POST /servers/{id}/action: each writes what is wanted and returns; the sagas do it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from droveway.api.compute import (
    remote_consoles,
    server_addresses,
    server_images,
    server_locks,
    server_rebuild,
    server_resizing,
    server_shelving,
)
from droveway.api.compute.server_intents import intend
from droveway.api.http.actions import Action, dispatch
from droveway.api.http.bodies import Body
from droveway.api.http.kinds import FLAG, HOST, NULL, anything, either, of, or_null, whole
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_flag
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, Forbidden, NotFound
from droveway.domain.model import SagaKind
from droveway.domain.policy import Need
from droveway.scheduler.summaries import NOT_ENOUGH
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.rows import InstanceRow

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f]")
_LINES_MAX = 1_000_000


def _upper(path: str, value: Any) -> Any:
    return _REBOOTS.read(path, value.upper() if isinstance(value, str) else value)


_REBOOTS = either("HARD", "SOFT")


class Reboot(Body, frozen=True):
    """HARD cuts the power; SOFT asks the guest first, by its agent and its power button, and cuts the power when it
    does not listen."""

    type: Annotated[str, of(_upper, **_REBOOTS.schema)]


async def _reboot(api: Api, request: Request, given: Reboot) -> Response:
    await intend(api, request, SagaKind.SOFT_REBOOT if given.type == "SOFT" else SagaKind.HARD_REBOOT)
    return Response(202)


def _plain(kind: SagaKind) -> Callable[[Api, Request, Any], Awaitable[Response]]:
    """One that says nothing but its name."""

    async def perform(api: Api, request: Request, value: Any) -> Response:
        await intend(api, request, kind)
        return Response(202)

    return perform


class ResetState(Body, frozen=True):
    """`error` is taken at its word; for `active` its host is asked how the server really is."""

    state: Annotated[str, either("active", "error")]


async def _reset_state(api: Api, request: Request, given: ResetState) -> Response:
    await intend(api, request, SagaKind.RESET_STATE, {"state": given.state})
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
    _check_force(given)
    is_admin = request.caller.is_admin
    if given.host is not None and not is_admin:
        raise Forbidden("Naming the host that a server is moved to needs the role admin.")
    params = {
        "destination": given.host,
        "block_migration": given.block_migration,
        "disk_over_commit": given.disk_over_commit if request.version < 25 else None,
        "force": given.force,
        "user_id": request.caller.user_id,
        "project_id": request.caller.project_id,
    }

    def check_host(tx: Tx, row: InstanceRow) -> None:
        if given.host is not None:
            try:
                hosts.get(tx, given.host)
            except NotFound:
                raise BadRequest(f"Compute host {given.host} could not be found.") from None

    saga_id = await intend(api, request, SagaKind.LIVE_MIGRATION, params, check_host)
    if request.version < 34:
        ok, reason = await api.sagas_settled(saga_id, api.settings.precheck_timeout_s)
        if not ok:
            raise BadRequest(f"Migration pre-check error: {reason if is_admin else NOT_ENOUGH}")
    return Response(202)


def _check_force(given: MigrateLive) -> None:
    if given.force and given.host is None:
        raise BadRequest("Can't force to a non-provided destination")


_IGNORED = anything(description="Not looked at; null is usual.")
ACTIONS = {
    "os-start": Action(_plain(SagaKind.START), _IGNORED, Need.MEMBER),
    "os-stop": Action(_plain(SagaKind.STOP), _IGNORED, Need.MEMBER),
    "reboot": Action(_reboot, Reboot, Need.MEMBER),
    "pause": Action(_plain(SagaKind.PAUSE), _IGNORED, Need.MEMBER),
    "unpause": Action(_plain(SagaKind.UNPAUSE), _IGNORED, Need.MEMBER),
    "suspend": Action(_plain(SagaKind.SUSPEND), _IGNORED, Need.MEMBER),
    "resume": Action(_plain(SagaKind.RESUME), _IGNORED, Need.MEMBER),
    "trigger_crash_dump": Action(_plain(SagaKind.TRIGGER_CRASH_DUMP), NULL, Need.MEMBER, since=17),
    "os-resetState": Action(_reset_state, ResetState, Need.ADMIN),
    "os-getConsoleOutput": Action(_console_output, ConsoleOutput, Need.MEMBER),
    "os-migrateLive": Action(_migrate_live, MigrateLive, Need.MANAGER),
    "unrescue": Action(_plain(SagaKind.UNRESCUE), _IGNORED, Need.MEMBER),
    "shelveOffload": Action(_plain(SagaKind.SHELVE_OFFLOAD), _IGNORED, Need.ADMIN),
    "restore": Action(_plain(SagaKind.RESTORE), _IGNORED, Need.MEMBER),
    "forceDelete": Action(_plain(SagaKind.DELETE), _IGNORED, Need.MEMBER),
    **server_images.ACTIONS,
    **server_rebuild.ACTIONS,
    **server_shelving.ACTIONS,
    **server_resizing.ACTIONS,
    **server_addresses.ACTIONS,
    **server_locks.ACTIONS,
    **remote_consoles.ACTIONS,
}
action = dispatch(ACTIONS, "Each writes what is wanted and returns; the sagas do it.")
