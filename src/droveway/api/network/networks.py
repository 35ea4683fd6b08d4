"""Networks: list, show, create, update, delete."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType, field

from droveway.api.http.bodies import Body, given_in, takes, takes_several
from droveway.api.http.kinds import one_of, or_null, whole
from droveway.api.http.request import Request, Response
from droveway.api.network import fields, policy
from droveway.api.network.kinds import FLAG, NOTHING, PROJECT, TAGS, TEXT
from droveway.api.network.listing import FLAG as FLAG_FILTER
from droveway.api.network.listing import NAMED, Filter, Resource, as_number, listed, made, shown
from droveway.api.wiring import Api, NetworkSettings
from droveway.domain.network.refusals import InvalidInput
from droveway.domain.network_plan import VXLAN_OVERHEAD_BYTES
from droveway.store.engine.transaction import Tx
from droveway.store.network import networks, topologies
from droveway.store.network.networks import VNI_MAX, NewNetwork
from droveway.store.network.rows import Network

MTU_MIN, MTU_MAX = 68, 65535


def _status(name: str, value: str) -> tuple[str, str]:
    return "status", value


def _network_type(name: str, value: str) -> tuple[str, str]:
    return "network_type", value


NETWORKS = Resource(
    "network",
    "networks",
    fields.NETWORK,
    NAMED
    | {
        "admin_state_up": Filter("admin_state_up", FLAG_FILTER),
        "shared": Filter("shared", FLAG_FILTER),
        "router:external": Filter("external", FLAG_FILTER),
        "is_default": Filter("is_default", FLAG_FILTER),
        "port_security_enabled": Filter("port_security", FLAG_FILTER),
        "mtu": Filter("mtu_bytes", as_number),
        "status": Filter("", _status, is_column=False),
        "provider:network_type": Filter("", _network_type, is_column=False),
        "provider:physical_network": Filter("physical_network"),
        "provider:segmentation_id": Filter("vni", as_number),
    },
    networks.find,
)
_OF_ADMIN = (
    "shared",
    "router:external",
    "is_default",
    "provider:network_type",
    "provider:physical_network",
    "provider:segmentation_id",
)


class _Common(Body, frozen=True, kw_only=True):
    name: Annotated[str | UnsetType, TEXT] = UNSET
    description: Annotated[str | UnsetType, TEXT] = UNSET
    admin_state_up: Annotated[bool | UnsetType, FLAG] = UNSET
    shared: Annotated[bool | UnsetType, FLAG] = UNSET
    external: Annotated[bool | UnsetType, FLAG] = field(default=UNSET, name="router:external")
    is_default: Annotated[bool | UnsetType, FLAG] = UNSET
    port_security: Annotated[bool | UnsetType, FLAG] = field(default=UNSET, name="port_security_enabled")
    mtu: Annotated[int | UnsetType, whole(MTU_MIN, MTU_MAX)] = UNSET


class NewNetworkBody(_Common, frozen=True, kw_only=True):
    """A network, VXLAN or flat."""

    project_id: Annotated[str, PROJECT] = ""
    tenant_id: Annotated[str, PROJECT] = ""
    tags: Annotated[tuple[str, ...], TAGS] = ()
    availability_zone_hints: Annotated[None, NOTHING] = None
    network_type: Annotated[str | None, or_null(one_of(("vxlan", "flat")))] = field(
        default=None, name="provider:network_type"
    )
    physical_network: Annotated[str | None, or_null(TEXT)] = field(default=None, name="provider:physical_network")
    segmentation_id: Annotated[int | None, or_null(whole(1, VNI_MAX))] = field(
        default=None, name="provider:segmentation_id"
    )


class ChangedNetwork(_Common, frozen=True, kw_only=True):
    """What is there of it."""


async def listing(api: Api, request: Request) -> Response:
    return await listed(api, request, NETWORKS)


async def show(api: Api, request: Request) -> Response:
    return shown(request, NETWORKS, await api.store.read(networks.get, request.params["id"], request.scope))


@takes_several(NewNetworkBody, "network", "networks")
async def create(api: Api, request: Request, given: Any) -> Response:
    several = given if isinstance(given, list) else [given]
    wanted = [_new(api.settings.network, request, one) for one in several]

    def write(tx: Tx) -> list[Network]:
        return [_make(tx, api, one) for one in wanted]

    return made(request, NETWORKS, await api.store.run(write), are_several=isinstance(given, list))


def _make(tx: Tx, api: Api, wanted: NewNetwork) -> Network:
    network = networks.create(tx, wanted, api.settings.network.quotas)
    _check_default(tx, network)
    return network


def _check_default(tx: Tx, network: Network) -> None:
    """Where routers lead of themselves: one external network. Raises InvalidInput, DefaultExternalNetworkExists."""
    if network["is_default"] and not network["external"]:
        raise InvalidInput("Invalid input for is_default. Reason: only a network with router:external can be it.")
    if network["is_default"]:
        topologies.check_one_default(tx, network["id"])


def _new(settings: NetworkSettings, request: Request, given: NewNetworkBody) -> NewNetwork:
    policy.only_admin(request, given, _OF_ADMIN, "create_network")
    is_flat = given.network_type == "flat" or (given.network_type is None and given.physical_network is not None)
    if is_flat:
        _check_flat(settings, given)
    elif given.physical_network is not None:
        raise InvalidInput(
            "Invalid input for operation: provider:physical_network cannot be given for a VXLAN network."
        )
    most = settings.mtu_bytes if is_flat else settings.mtu_bytes - VXLAN_OVERHEAD_BYTES
    return NewNetwork(
        policy.project_of(request, given, "Networks"),
        _mtu(given.mtu, most),
        _or(given.name, ""),
        _or(given.description, ""),
        given.tags,
        _or(given.admin_state_up, True),
        _or(given.shared, False),
        _or(given.external, False),
        _or(given.is_default, False),
        _or(given.port_security, True),
        given.physical_network if is_flat else None,
        given.segmentation_id,
    )


def _or(value: Any, usual: Any) -> Any:
    return usual if value is UNSET else value


def _mtu(given: int | UnsetType, most: int) -> int:
    """What a guest is told. 0 is the usual one, too."""
    if given is UNSET:
        return most
    assert isinstance(given, int), "or it is not given"
    if given > most:
        raise InvalidInput(
            f"Invalid input for mtu. Reason: requested MTU {given} exceeds {most}, which is the most that this network "
            "type takes."
        )
    return given


def _check_flat(settings: NetworkSettings, given: NewNetworkBody) -> None:
    if given.segmentation_id is not None:
        raise InvalidInput("Invalid input for operation: provider:segmentation_id cannot be given for a flat network.")
    if given.physical_network not in settings.physical_networks:
        raise InvalidInput(
            f"Invalid input for operation: physical_network '{given.physical_network}' unknown for flat provider "
            f"network: there is {', '.join(settings.physical_networks) or 'none'}."
        )


@takes(ChangedNetwork, "network")
async def update(api: Api, request: Request, given: ChangedNetwork) -> Response:
    policy.only_admin(request, given, _OF_ADMIN, "update_network")
    changes = given_in(given)
    columns = {"router:external": "external", "port_security_enabled": "port_security", "mtu": "mtu_bytes"}

    def write(tx: Tx) -> Network:
        row = networks.row_of(tx, request.params["id"], request.scope)
        policy.own(request, row, "update_network")
        if given.mtu is not UNSET:
            link = api.settings.network.mtu_bytes
            _mtu(given.mtu, link if row["vni"] is None else link - VXLAN_OVERHEAD_BYTES)
        new = {columns.get(name, name): value for name, value in changes.items()}
        network = networks.update(tx, row["id"], new)
        _check_default(tx, network)
        return network

    return shown(request, NETWORKS, await api.store.run(write))


async def delete(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        row = networks.row_of(tx, request.params["id"], request.scope)
        policy.own(request, row, "delete_network")
        networks.remove(tx, row["id"])

    await api.store.run(write)
    return Response(204)
