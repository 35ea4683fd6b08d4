"""Ports: list, show, create, update, delete."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType, field

from droveway.api.http.bodies import Body, given_in, takes, takes_several
from droveway.api.http.kinds import one_of, or_null
from droveway.api.http.request import Request, Response
from droveway.api.network import fields, policy
from droveway.api.network.kinds import FIXED_IPS, FLAG, MAC, PAIRS, PROFILE, PROJECT, TAGS, TEXT, UUID, UUIDS
from droveway.api.network.listing import FLAG as FLAG_FILTER
from droveway.api.network.listing import NAMED, Filter, Resource, listed, made, shown
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.domain.model import Nic, SagaKind
from droveway.domain.network.refusals import PortSecurityAndIPRequiredForSecurityGroups
from droveway.store.compute import instances, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.network import groups, networks, ports
from droveway.store.network.addressing import AddressRequest
from droveway.store.network.ports import SERVICE_OWNER, NewPort
from droveway.store.network.rows import Network, NetworkRow, Port, PortRow

_BY_ADDRESS = ("subnet_id", "ip_address", "ip_address_substr")


def _address(name: str, value: str) -> tuple[str, str]:
    """`subnet_id=ID`, `ip_address=ADDRESS` or `ip_address_substr=PART`."""
    key, _, wanted = value.partition("=")
    if key not in _BY_ADDRESS or not wanted:
        raise BadRequest(f"Invalid input for {name}: it is {' or '.join(f'{one}=…' for one in _BY_ADDRESS)}.")
    return key, wanted


def _group(name: str, value: str) -> tuple[str, str]:
    return "security_groups", value


PORTS = Resource(
    "port",
    "ports",
    fields.PORT,
    NAMED
    | {
        "network_id": Filter("network_id"),
        "mac_address": Filter("mac"),
        "admin_state_up": Filter("admin_state_up", FLAG_FILTER),
        "status": Filter("status"),
        "device_id": Filter("device_id"),
        "device_owner": Filter("device_owner"),
        "binding:host_id": Filter("host"),
        "binding:vnic_type": Filter("vnic_type"),
        "port_security_enabled": Filter("port_security", FLAG_FILTER),
        "fixed_ips": Filter("", _address, is_column=False),
        "security_groups": Filter("", _group, is_column=False),
    },
    ports.find,
    find_in_parts=ports.find_in_parts,
)
_OF_ADMIN = ("binding:host_id", "binding:profile")
_OF_NETWORK_OWNER = ("mac_address", "port_security_enabled", "allowed_address_pairs")  # on a shared network
_COLUMNS = {
    "mac_address": "mac",
    "binding:host_id": "host",
    "binding:profile": "profile",
    "binding:vnic_type": "vnic_type",
    "port_security_enabled": "port_security",
    "allowed_address_pairs": "pairs",
}


class _Common(Body, frozen=True, kw_only=True):
    name: Annotated[str | UnsetType, TEXT] = UNSET
    description: Annotated[str | UnsetType, TEXT] = UNSET
    admin_state_up: Annotated[bool | UnsetType, FLAG] = UNSET
    mac: Annotated[str | UnsetType | None, or_null(MAC)] = field(default=UNSET, name="mac_address")
    fixed_ips: Annotated[tuple[AddressRequest, ...] | UnsetType, FIXED_IPS] = UNSET
    device_id: Annotated[str | UnsetType, TEXT] = UNSET
    device_owner: Annotated[str | UnsetType, TEXT] = UNSET
    groups: Annotated[tuple[str, ...] | UnsetType, UUIDS] = field(default=UNSET, name="security_groups")
    pairs: Annotated[tuple[tuple[str, str], ...] | UnsetType, PAIRS] = field(
        default=UNSET, name="allowed_address_pairs"
    )
    port_security: Annotated[bool | UnsetType, FLAG] = field(default=UNSET, name="port_security_enabled")
    host: Annotated[str | UnsetType | None, or_null(TEXT)] = field(default=UNSET, name="binding:host_id")
    profile: Annotated[dict[str, Any] | UnsetType, PROFILE] = field(default=UNSET, name="binding:profile")
    vnic_type: Annotated[str | UnsetType, one_of(("normal",))] = field(default=UNSET, name="binding:vnic_type")


class NewPortBody(_Common, frozen=True, kw_only=True):
    """A port of a network."""

    network_id: Annotated[str, UUID]
    project_id: Annotated[str, PROJECT] = ""
    tenant_id: Annotated[str, PROJECT] = ""
    tags: Annotated[tuple[str, ...], TAGS] = ()


class ChangedPort(_Common, frozen=True, kw_only=True):
    """What is there of it."""


async def listing(api: Api, request: Request) -> Response:
    return await listed(api, request, PORTS)


async def show(api: Api, request: Request) -> Response:
    return shown(request, PORTS, await api.store.read(ports.get, request.params["id"], request.scope))


@takes_several(NewPortBody, "port", "ports")
async def create(api: Api, request: Request, given: Any) -> Response:
    several: list[NewPortBody] = given if isinstance(given, list) else [given]
    for one in several:
        policy.only_admin(request, one, _OF_ADMIN, "create_port")
    projects = [policy.project_of(request, one, "Ports") for one in several]

    def write(tx: Tx) -> list[Port]:
        return [_make(tx, api, request, *each) for each in zip(several, projects, strict=True)]

    return made(request, PORTS, await api.store.run(write), are_several=isinstance(given, list))


def _make(tx: Tx, api: Api, request: Request, given: NewPortBody, project_id: str) -> Port:
    network = networks.row_of(tx, given.network_id, request.scope)
    _check_of_owner(request, network, given, "create_port")
    has_security = network["port_security"] if given.port_security is UNSET else bool(given.port_security)
    in_groups = None if isinstance(given.groups, UnsetType) else given.groups
    _check_security(has_security, in_groups or (), given.pairs or ())
    if in_groups:
        groups.check_usable(tx, in_groups, request.scope)
    new = NewPort(
        project_id,
        given.name or "",
        given.description or "",
        given.tags,
        given.mac or None,
        None if isinstance(given.fixed_ips, UnsetType) else given.fixed_ips,
        given.admin_state_up is not False,
        given.device_id or "",
        given.device_owner or "",
        given.host or "",
        profile=given.profile or {},
        vnic_type=given.vnic_type or "normal",
        port_security=has_security,
        pairs=given.pairs or (),
        groups=in_groups,
    )
    return ports.create(tx, network, new, api.settings.network.quotas)


def _check_of_owner(request: Request, network: NetworkRow | Network, given: _Common, action: str) -> None:
    """On a network that is not the caller's there is less to be said. Raises PolicyNotAuthorized."""
    if request.scope is None:
        return
    if str(given.device_owner or "").startswith(SERVICE_OWNER):
        policy.refuse(action, "device_owner")
    if request.scope == network["project_id"]:
        return
    policy.only_admin(request, given, _OF_NETWORK_OWNER, action)
    if not isinstance(given.fixed_ips, UnsetType) and any(one.address for one in given.fixed_ips):
        policy.refuse(action, "fixed_ips:ip_address")
    if not network["shared"]:
        policy.refuse(action, "network_id")


def _check_security(has_security: bool, in_groups: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> None:
    if not has_security and (in_groups or pairs):
        raise PortSecurityAndIPRequiredForSecurityGroups(
            "Port security must be enabled and port must have an IP address in order to use security groups or allowed "
            "address pairs: leave them out, or set port_security_enabled to true."
        )


@takes(ChangedPort, "port")
async def update(api: Api, request: Request, given: ChangedPort) -> Response:
    policy.only_admin(request, given, (*_OF_ADMIN, "mac_address"), "update_port")
    fixed_ips = None if isinstance(given.fixed_ips, UnsetType) else given.fixed_ips
    in_groups = None if isinstance(given.groups, UnsetType) else given.groups
    changes = {
        _COLUMNS.get(name, name): "" if name == "binding:host_id" and value is None else value
        for name, value in given_in(given).items()
        if name not in ("fixed_ips", "security_groups") and not (name == "mac_address" and value is None)
    }

    def write(tx: Tx) -> Port:
        row = ports.row_of(tx, request.params["id"], request.scope)
        policy.own(request, row, "update_port")  # those of others on its network a project sees, and may delete
        ports.check_changeable(row, given_in(given))
        _check_of_owner(request, networks.row_of(tx, row["network_id"]), given, "update_port")
        joins = _groups_of(tx, row, given, in_groups, changes)
        if joins:
            groups.check_usable(tx, joins, request.scope)
        return ports.update(tx, row, changes, fixed_ips, joins)

    return shown(request, PORTS, await api.store.run(write))


def _groups_of(
    tx: Tx, row: PortRow, given: ChangedPort, in_groups: tuple[str, ...] | None, changes: Mapping[str, Any]
) -> tuple[str, ...] | None:
    """The groups from now on; None: as before. Port security and groups go together."""
    has_security = changes.get("port_security", row["port_security"])
    if not has_security and in_groups is None and given.port_security is False:
        had = ports.get(tx, row["id"])["groups"]
        _check_security(has_security, tuple(had), ())
    _check_security(has_security, in_groups or (), changes.get("pairs", ()))
    return in_groups


def _unplug(tx: Tx, request: Request, server_id: str, nic: Nic) -> None:
    """From the guest, too, where nothing else is under way; its next start is without it in any case."""
    params = {"port_id": nic.port_id, "nic": msgspec.to_builtins(nic), "user_id": request.caller.user_id}
    with contextlib.suppress(Conflict, NotFound):
        instances.intend(tx, server_id, SagaKind.DETACH_INTERFACE, params, request.id)


async def delete(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        row = ports.row_of(tx, request.params["id"], request.scope)
        ports.check_removable(row)
        server_id = server_ports.owner_of(tx, row["id"])
        nics = server_ports.nics(tx, server_id) if server_id is not None else ()
        ports.remove(tx, row["id"])
        for nic in nics:
            if server_id is not None and nic.port_id == row["id"]:
                _unplug(tx, request, server_id, nic)

    await api.store.run(write)
    return Response(204)
