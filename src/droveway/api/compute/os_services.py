"""Compute's services: who should be alive, who is, and what an operator says of them."""

from __future__ import annotations

from typing import Annotated, Any

from droveway.api.compute import service_fields
from droveway.api.compute.fields import View
from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import FLAG, HOST, either, text
from droveway.api.http.request import Request, Response, encode
from droveway.api.http.validate import as_integer, canonical, is_uuid
from droveway.api.wiring import Api
from droveway.domain import service_kinds
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.service_kinds import ListedBy
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.rows import ServiceRow

COMPUTE = service_kinds.COMPUTE


async def listing(api: Api, request: Request) -> Response:
    given = request.known_query(("host", "binary"))

    def read(tx: Tx) -> bytes:
        rows = shown_by(ListedBy.COMPUTE, services.list_all(tx, given.get("host") or None, given.get("binary") or None))
        return encode({"services": service_fields.SERVICE.render(rows, request.version, View(""))})

    return Response(200, await api.store.read(read))


def shown_by(api: ListedBy, rows: list[ServiceRow]) -> list[ServiceRow]:
    """Those of the kinds that this API's lists show."""
    shown = {binary for binary, kind in service_kinds.KINDS.items() if kind.listed_by is api}
    return [row for row in rows if row["binary"] in shown]


def _must_allow(binary: str, changes: dict[str, Any]) -> None:
    """Only what a host carries is forced down, and only what control gives work to is disabled. Raises BadRequest."""
    kind = service_kinds.KINDS.get(binary)
    if kind is None or not kind.on_hosts or kind.listed_by is not ListedBy.COMPUTE:
        may = [name for name, one in service_kinds.KINDS.items() if one.on_hosts and one.listed_by is ListedBy.COMPUTE]
        raise BadRequest(
            f"Updating a {binary[:64]} service is not supported. Only {' and '.join(may)} services can be updated."
        )
    if changes.get("disabled") and not kind.may_be_disabled:
        raise BadRequest(
            f"A {binary} service cannot be disabled: control gives it no work that could be kept back. "
            "Stop its process, or force it down."
        )


# -- from 2.53 on: by uuid --------------------------------------------------------------------------------------------
class ServiceChanges(Body, frozen=True):
    status: Annotated[str | None, either("enabled", "disabled")] = None
    disabled_reason: Annotated[str | None, text(255, 1)] = None
    forced_down: Annotated[bool | None, FLAG] = None


@takes(ServiceChanges)
async def update(api: Api, request: Request, given: ServiceChanges) -> Response:
    uuid = request.params["service"]
    if not is_uuid(uuid):
        raise BadRequest(f"Invalid uuid {uuid[:64]}")
    uuid = canonical(uuid)
    changes = _changes(given)

    def write(tx: Tx) -> ServiceRow:
        _must_allow(services.get(tx, uuid)["binary"], changes)
        return services.set_(tx, uuid, **changes)

    row = await api.store.run(write)
    render = service_fields.SERVICE.renderer(request.version, is_admin=True)
    return Response(200, {"service": render(row, View(""))})


def _changes(given: ServiceChanges) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if given.status is not None:
        changes = {"disabled": given.status == "disabled", "disabled_reason": given.disabled_reason}
    if given.disabled_reason is not None and given.status != "disabled":
        raise BadRequest("Specifying 'disabled_reason' when status is not 'disabled' is invalid.")
    if given.forced_down is not None:
        changes["forced_down"] = given.forced_down
    if not changes:
        raise BadRequest("No updates were requested. Fields 'status' or 'forced_down' should be specified.")
    return changes


# -- a host that is gone for good -------------------------------------------------------------------------------------
async def delete(api: Api, request: Request) -> Response:
    """By uuid since 2.53, by its number before. Only what is down and holds nothing."""
    wanted = request.params["service"]
    by_uuid = request.version >= 53
    if by_uuid and not is_uuid(wanted):
        raise BadRequest(f"Invalid uuid {wanted[:64]}")
    wanted = canonical(wanted) if by_uuid else wanted
    number = None if by_uuid else as_integer("service_id", wanted, 0)

    def write(tx: Tx) -> None:
        row = services.get(tx, wanted) if number is None else services.get_by_number(tx, number)
        services.remove(tx, row["uuid"])

    await api.store.run(write)
    return Response(204)


# -- up to 2.52: an action as the path, the service in the body -------------------------------------------------------
class OldServiceChanges(Body, frozen=True):
    host: Annotated[str, HOST]
    binary: Annotated[str, text(255, 1)]
    disabled_reason: Annotated[str | None, text(255, 1)] = None
    forced_down: Annotated[bool | None, FLAG.since(11)] = None


@takes(OldServiceChanges)
async def update_by_name(api: Api, request: Request, given: OldServiceChanges) -> Response:
    """The path ends with enable, disable, disable-log-reason or (since 2.11) force-down."""
    changes, shown = _old_changes(request.params["service"], given, request.version)
    _must_allow(given.binary, changes)

    def write(tx: Tx) -> None:
        rows = services.list_all(tx, given.host, given.binary)
        if not rows:
            raise NotFound(f"Could not find binary {given.binary} on host {given.host}.")
        services.set_(tx, rows[0]["uuid"], **changes)

    await api.store.run(write)
    return Response(200, {"service": {"host": given.host, "binary": given.binary, **shown}})


def _old_changes(action: str, given: OldServiceChanges, version: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What to set, and what the reply says of it."""
    if action == "enable":
        return {"disabled": False}, {"status": "enabled"}
    if action == "disable":
        return {"disabled": True, "disabled_reason": None}, {"status": "disabled"}
    if action == "disable-log-reason":
        reason = given.disabled_reason
        if reason is None:
            raise BadRequest("Missing disabled reason field")
        return {"disabled": True, "disabled_reason": reason}, {"status": "disabled", "disabled_reason": reason}
    if action == "force-down" and version >= 11:
        if given.forced_down is None:
            raise BadRequest("Invalid input for the body: 'forced_down' is a required property.")
        return {"forced_down": given.forced_down}, {"forced_down": given.forced_down}
    raise NotFound(f"Unknown action {action[:64]}")
