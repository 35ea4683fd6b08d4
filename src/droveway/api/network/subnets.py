"""Subnets: list, show, create, update, delete."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType, field

from droveway.api.http.bodies import Body, given_in, takes, takes_several
from droveway.api.http.kinds import of, one_of, or_null
from droveway.api.http.request import Request, Response
from droveway.api.network import fields, policy
from droveway.api.network.kinds import (
    ADDRESS_OR_NULL,
    ADDRESSES,
    FLAG,
    NOTHING,
    POOLS,
    PROJECT,
    ROUTES,
    TAGS,
    TEXT,
    UUID,
)
from droveway.api.network.listing import FLAG as FLAG_FILTER
from droveway.api.network.listing import NAMED, Filter, Resource, as_null, as_number, listed, made, shown
from droveway.api.wiring import Api
from droveway.domain.network.refusals import InvalidInput
from droveway.domain.network.subnets import Asked, SubnetSpec, checked
from droveway.domain.network_plan import Ipv6Mode
from droveway.store.engine.transaction import Tx
from droveway.store.network import networks, subnets
from droveway.store.network.rows import SubnetRow


def _pool(name: str, value: str) -> tuple[str, str]:
    return "subnetpool_id", value


def _shared(name: str, value: str) -> tuple[str, str]:
    return "shared", "yes" if FLAG_FILTER(name, value) else ""


SUBNETS = Resource(
    "subnet",
    "subnets",
    fields.SUBNET,
    NAMED
    | {
        "network_id": Filter("network_id"),
        "ip_version": Filter("ip_version", as_number),
        "cidr": Filter("cidr"),
        "gateway_ip": Filter("gateway", as_null),
        "enable_dhcp": Filter("enable_dhcp", FLAG_FILTER),
        "subnetpool_id": Filter("", _pool, is_column=False),
        "shared": Filter("", _shared, is_column=False),
        "ipv6_address_mode": Filter("ipv6_address_mode", as_null),
        "ipv6_ra_mode": Filter("ipv6_ra_mode", as_null),
    },
    subnets.find,
)


def _version(path: str, value: Any) -> int:
    if value not in (4, 6, "4", "6") or isinstance(value, bool):
        raise InvalidInput(f"Invalid input for {path}. Reason: {str(value)[:16]!r} is not in [4, 6].")
    return int(value)


VERSION = of(_version, enum=[4, 6, "4", "6"])
MODE = or_null(one_of([mode.value for mode in Ipv6Mode if mode.value]))


class _Common(Body, frozen=True, kw_only=True):
    name: Annotated[str | UnsetType, TEXT] = UNSET
    description: Annotated[str | UnsetType, TEXT] = UNSET
    gateway: Annotated[str | UnsetType | None, ADDRESS_OR_NULL] = field(default=UNSET, name="gateway_ip")
    pools: Annotated[tuple[tuple[str, str], ...] | UnsetType, POOLS] = field(default=UNSET, name="allocation_pools")
    dns: Annotated[tuple[str, ...] | UnsetType, ADDRESSES] = field(default=UNSET, name="dns_nameservers")
    routes: Annotated[tuple[tuple[str, str], ...] | UnsetType, ROUTES] = field(default=UNSET, name="host_routes")
    enable_dhcp: Annotated[bool | UnsetType, FLAG] = UNSET


class NewSubnetBody(_Common, frozen=True, kw_only=True):
    """A range of addresses of a network."""

    network_id: Annotated[str, UUID]
    cidr: Annotated[str, TEXT]
    ip_version: Annotated[int, VERSION]
    project_id: Annotated[str, PROJECT] = ""
    tenant_id: Annotated[str, PROJECT] = ""
    tags: Annotated[tuple[str, ...], TAGS] = ()
    ipv6_address_mode: Annotated[str | None, MODE] = None
    ipv6_ra_mode: Annotated[str | None, MODE] = None
    subnetpool_id: Annotated[None, NOTHING] = None


class ChangedSubnet(_Common, frozen=True, kw_only=True):
    """What is there of it."""


async def listing(api: Api, request: Request) -> Response:
    return await listed(api, request, SUBNETS)


async def show(api: Api, request: Request) -> Response:
    return shown(request, SUBNETS, await api.store.read(subnets.get, request.params["id"], request.scope))


@takes_several(NewSubnetBody, "subnet", "subnets")
async def create(api: Api, request: Request, given: Any) -> Response:
    several: list[NewSubnetBody] = given if isinstance(given, list) else [given]
    specs = [_spec(one) for one in several]

    def write(tx: Tx) -> list[SubnetRow]:
        return [_make(tx, api, request, one, spec) for one, spec in zip(several, specs, strict=True)]

    return made(request, SUBNETS, await api.store.run(write), are_several=isinstance(given, list))


def _spec(given: NewSubnetBody) -> SubnetSpec:
    gateway, pools, dns, routes = given.gateway, given.pools, given.dns, given.routes
    return checked(
        Asked(
            given.ip_version,
            given.cidr,
            "" if isinstance(gateway, UnsetType) else gateway,
            None if isinstance(pools, UnsetType) or not pools else pools,
            () if isinstance(dns, UnsetType) else dns,
            () if isinstance(routes, UnsetType) else routes,
            given.enable_dhcp is not False,
            given.ipv6_address_mode,
            given.ipv6_ra_mode,
        )
    )


def _make(tx: Tx, api: Api, request: Request, given: NewSubnetBody, spec: SubnetSpec) -> SubnetRow:
    policy.project_of(request, given, "Subnets")
    network = networks.row_of(tx, given.network_id, request.scope)
    policy.own(request, network, "create_subnet")
    return subnets.create(
        tx,
        network,
        spec,
        api.settings.network.quotas,
        name=given.name or "",
        description=given.description or "",
        tags=given.tags,
    )


@takes(ChangedSubnet, "subnet")
async def update(api: Api, request: Request, given: ChangedSubnet) -> Response:
    columns = {
        "gateway_ip": "gateway",
        "allocation_pools": "pools",
        "dns_nameservers": "dns",
        "host_routes": "routes",
    }
    changes = {columns.get(name, name): value for name, value in given_in(given).items()}

    def write(tx: Tx) -> SubnetRow:
        row = subnets.get(tx, request.params["id"], request.scope)
        policy.own(request, row, "update_subnet")
        return subnets.update(tx, row["id"], changes, networks.row_of(tx, row["network_id"]))

    return shown(request, SUBNETS, await api.store.run(write))


async def delete(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        row = subnets.get(tx, request.params["id"], request.scope)
        policy.own(request, row, "delete_subnet")
        subnets.remove(tx, row["id"])

    await api.store.run(write)
    return Response(204)
