"""Block Storage's services: the rows of those kinds that it shows (domain/service_kinds.py), and what an operator says
of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from droveway.api.compute.os_services import shown_by
from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import or_null, text
from droveway.api.http.render import ABSENT, Field, FieldTable, constant, micros
from droveway.api.http.request import Request, Response
from droveway.api.http.router import refusal
from droveway.api.volume.kinds import BACKEND
from droveway.api.wiring import Api
from droveway.domain import service_kinds
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.service_kinds import VOLUME, ListedBy
from droveway.domain.volume.placement import BackendFacts
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.rows import ServiceRow
from droveway.store.volume import backends, held


class View(NamedTuple):
    """What the rows of backends say of their services."""

    backends: Mapping[str, BackendFacts]


def _is_up(row: ServiceRow) -> bool:
    return row["is_up"] and not row["forced_down"]


def _backend_state(row: ServiceRow, view: View) -> Any:
    facts = view.backends.get(row["host"])
    if row["binary"] != VOLUME:
        return ABSENT
    return "up" if _is_up(row) and facts is not None and not facts.trouble else "down"


def _frozen(row: ServiceRow, view: View) -> Any:
    facts = view.backends.get(row["host"])
    return ABSENT if row["binary"] != VOLUME else facts is not None and facts.frozen


SERVICE = FieldTable[ServiceRow](
    ServiceRow,
    Field("binary", "binary", 0),
    Field("host", "host", 0),
    Field("zone", "zone", 0),
    Field("status", lambda row, _: "disabled" if row["disabled"] else "enabled", 0),
    Field("state", lambda row, _: "up" if _is_up(row) else "down", 0),
    Field("updated_at", lambda row, _: micros(row["updated_at_us"]), 0),
    Field("disabled_reason", "disabled_reason", 0),
    constant("replication_status", "disabled", 0),
    constant("active_backend_id", None, 0),
    Field("frozen", _frozen, 0),
    constant("cluster", None, 7),
    Field("backend_state", _backend_state, 49),
)


async def listing(api: Api, request: Request) -> Response:
    """`host` is HOST@BACKEND, or the host with all its backends."""
    given = dict(request.query)
    host, binary = given.get("host", "").partition("#")[0], given.get("binary") or given.get("service") or None

    def read(tx: Tx) -> list[dict[str, Any]]:
        rows = shown_by(ListedBy.VOLUME, services.list_all(tx, None, binary))
        rows = [row for row in rows if host in ("", row["host"], row["host"].partition("@")[0])]
        view = View({facts.name: facts for facts in backends.facts_of_all(tx)})
        return SERVICE.render(rows, request.version, view)

    return Response(200, {"services": await api.store.read(read)})


# -- what an operator says --------------------------------------------------------------------------------------------
class ServiceChange(Body, frozen=True):
    host: Annotated[str | None, or_null(BACKEND)] = None
    binary: Annotated[str | None, or_null(text(255, 1))] = None
    service: Annotated[str | None, or_null(text(255, 1))] = None
    cluster: Annotated[str | None, or_null(text(255))] = None
    disabled_reason: Annotated[str | None, or_null(text(255, 1))] = None
    backend_id: Annotated[str | None, or_null(text(255))] = None


@takes(ServiceChange)
async def update(api: Api, request: Request, given: ServiceChange) -> Response:
    """The path ends with what is to be done: enable, disable, disable-log-reason, freeze or thaw."""
    action = request.params["action"]
    if action in ("freeze", "thaw"):
        return await _freeze(api, given, frozen=action == "freeze")
    if action in {"failover_host", "failover"}:
        raise BadRequest("No backend here is replicated to another one: there is nothing to fail over to.")
    if action not in ("enable", "disable", "disable-log-reason"):
        raise NotFound(f"Unknown action {action[:64]}")
    return await _set_disabled(api, action, given)


async def _set_disabled(api: Api, action: str, given: ServiceChange) -> Response:
    binary = given.binary or given.service
    if binary is None:
        raise BadRequest("Invalid input for the body: 'binary' is a required property.")
    if action == "disable-log-reason" and given.disabled_reason is None:
        raise BadRequest("Missing disabled reason field")
    is_disabled = action != "enable"
    reason = given.disabled_reason if action == "disable-log-reason" else None

    def write(tx: Tx) -> None:
        row = _found(tx, binary, given.host)
        kind = service_kinds.KINDS[row["binary"]]
        if is_disabled and not kind.may_be_disabled:
            raise BadRequest(f"A {binary} service cannot be disabled: nothing is given to it that could be kept back.")
        services.set_(tx, row["uuid"], disabled=is_disabled, disabled_reason=reason)

    await api.store.run(write)
    shown = {"host": given.host, "service": given.service or "", "binary": given.binary or ""}
    status = {"status": "disabled" if is_disabled else "enabled", "disabled": is_disabled}
    return Response(200, shown | status | ({} if action == "disable" else {"disabled_reason": reason}))


def _found(tx: Tx, binary: str, host: str | None) -> ServiceRow:
    """Raises NotFound."""
    rows = shown_by(ListedBy.VOLUME, services.list_all(tx, host, binary)) if host else []
    if not rows:
        raise NotFound(f"Service {binary[:64]} could not be found on host {(host or '')[:64]}.")
    return rows[0]


async def _freeze(api: Api, given: ServiceChange, *, frozen: bool) -> Response:
    """A frozen backend takes nothing new and loses nothing; what is attached goes on."""
    host = given.host
    if host is None:
        raise BadRequest("Invalid input for the body: 'host' is a required property.")

    def write(tx: Tx) -> None:
        try:
            backends.freeze(tx, host, frozen=frozen)
        except NotFound as fault:
            raise BadRequest(f"Invalid input received: {fault.reason}") from None

    await api.store.run(write)
    return Response(200)


@refusal
async def no_logs(api: Api, request: Request) -> Response:
    raise BadRequest("The level of the log is one for the whole program, and stands in its configuration: log_level.")


# -- os-hosts: the same by host, as it was asked for before -----------------------------------------------------------
async def hosts(api: Api, request: Request) -> Response:
    rows = await api.store.read(lambda tx: shown_by(ListedBy.VOLUME, services.list_all(tx)))
    return Response(200, {"hosts": [_host(row) for row in rows]})


_OF_HOST = ("volume_count", "total_volume_gb", "snapshot_count", "total_snapshot_gb")


def _host(row: ServiceRow) -> dict[str, Any]:
    return {
        "host_name": row["host"],
        "service": row["binary"],
        "zone": row["zone"],
        "service-status": "available" if _is_up(row) else "unavailable",
        "service-state": "disabled" if row["disabled"] else "enabled",
        "last-update": micros(row["updated_at_us"]),
    }


async def host(api: Api, request: Request) -> Response:
    """How much each project has on a backend."""
    name = request.params["host"].partition("#")[0]

    def read(tx: Tx) -> dict[str, held.Held]:
        _found(tx, VOLUME, name)
        return held.by_projects(tx, name)

    rows = await api.store.read(read)
    shown = [_resource(name, "(total)", held.total(rows.values())), *(_resource(name, *row) for row in rows.items())]
    return Response(200, {"host": shown})


def _resource(name: str, project_id: str, has: held.Held) -> dict[str, Any]:
    texts = {key: str(number) for key, number in zip(_OF_HOST, has, strict=True)}
    return {"resource": {"host": name, "project": project_id, **texts}}


# -- zones ------------------------------------------------------------------------------------------------------------
async def zones(api: Api, request: Request) -> Response:
    """Where there are backends; one is available while a service in it is enabled."""

    def read(tx: Tx) -> dict[str, bool]:
        found: dict[str, bool] = {}
        for row in services.list_all(tx, None, VOLUME):
            found[row["zone"]] = found.get(row["zone"], False) or not row["disabled"]
        return found

    found = await api.store.read(read)
    infos = [{"zoneName": name, "zoneState": {"available": available}} for name, available in sorted(found.items())]
    return Response(200, {"availabilityZoneInfo": infos})
