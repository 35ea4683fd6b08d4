"""Subnets: list, show, create, update, delete."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType, field

from droveway.api.http.bodies import Body, given_in, takes, takes_several
from droveway.api.http.kinds import of, one_of, or_null, whole
from droveway.api.http.request import Request, Response
from droveway.api.network import fields, policy
from droveway.api.network.kinds import (
    ADDRESS_OR_NULL,
    ADDRESSES,
    FLAG,
    POOLS,
    PROJECT,
    ROUTES,
    TAGS,
    TEXT,
    UUID,
    UUID_OR_NULL,
)
from droveway.api.network.listing import FLAG as FLAG_FILTER
from droveway.api.network.listing import NAMED, Filter, Resource, as_null, as_number, listed, made, shown
from droveway.api.wiring import Api
from droveway.domain.network.addresses import network
from droveway.domain.network.refusals import InvalidInput
from droveway.domain.network.subnets import Asked, SubnetSpec, checked
from droveway.domain.network_plan import Ipv6Mode
from droveway.store.engine.transaction import Tx
from droveway.store.network import networks, subnet_pools, subnets
from droveway.store.network.rows import SubnetRow


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
        "subnetpool_id": Filter("pool_id", as_null),
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
    cidr: Annotated[str | None, or_null(TEXT)] = None
    ip_version: Annotated[int, VERSION]
    project_id: Annotated[str, PROJECT] = ""
    tenant_id: Annotated[str, PROJECT] = ""
    tags: Annotated[tuple[str, ...], TAGS] = ()
    ipv6_address_mode: Annotated[str | None, MODE] = None
    ipv6_ra_mode: Annotated[str | None, MODE] = None
    subnetpool_id: Annotated[str | None, UUID_OR_NULL] = None
    prefixlen: Annotated[int | None, or_null(whole(0, 128))] = None
    use_default_subnetpool: Annotated[bool, FLAG] = False


class ChangedSubnet(_Common, frozen=True, kw_only=True):
    """What is there of it."""


async def listing(api: Api, request: Request) -> Response:
    return await listed(api, request, SUBNETS)


async def show(api: Api, request: Request) -> Response:
    return shown(request, SUBNETS, await api.store.read(subnets.get, request.params["id"], request.scope))


@takes_several(NewSubnetBody, "subnet", "subnets")
async def create(api: Api, request: Request, given: Any) -> Response:
    several: list[NewSubnetBody] = given if isinstance(given, list) else [given]
    for one in several:
        if not _is_of_pool(one):
            _spec(one, one.cidr or "")

    def write(tx: Tx) -> list[SubnetRow]:
        return [_make(tx, api, request, one) for one in several]

    return made(request, SUBNETS, await api.store.run(write), are_several=isinstance(given, list))


def _is_of_pool(given: NewSubnetBody) -> bool:
    """Raises what cannot be meant."""
    is_so = given.subnetpool_id is not None or given.use_default_subnetpool
    if given.subnetpool_id is not None and given.use_default_subnetpool:
        raise InvalidInput(
            "Invalid input for operation: subnetpool_id and use_default_subnetpool cannot both be given."
        )
    if given.cidr is None and not is_so:
        raise InvalidInput("Invalid input for operation: a subnetpool must be specified in the absence of a cidr.")
    if given.cidr is not None and given.prefixlen is not None:
        raise InvalidInput("Invalid input for operation: cidr and prefixlen must not be supplied together.")
    return is_so


def _range(tx: Tx, request: Request, given: NewSubnetBody, project_id: str) -> tuple[str, str | None]:
    """Its range, and the pool that it is of."""
    if not _is_of_pool(given):
        assert given.cidr is not None, "or it is of a pool"
        return given.cidr, None
    if given.subnetpool_id is not None:
        pool = subnet_pools.get(tx, given.subnetpool_id, request.scope)
    else:
        found = subnet_pools.default_of(tx, given.ip_version, project_id)
        if found is None:
            raise InvalidInput(f"Invalid input for operation: No default subnetpool found for IPv{given.ip_version}.")
        pool = found
    if pool["ip_version"] != given.ip_version:
        raise InvalidInput(
            f"Invalid input for operation: Cannot allocate IPv{given.ip_version} subnet from IPv{pool['ip_version']} "
            "subnet pool."
        )
    cidr = None if given.cidr is None else str(network("cidr", given.cidr))
    return subnet_pools.range_of(tx, pool, project_id, cidr, given.prefixlen), pool["id"]


def _spec(given: NewSubnetBody, cidr: str) -> SubnetSpec:
    gateway, pools, dns, routes = given.gateway, given.pools, given.dns, given.routes
    return checked(
        Asked(
            given.ip_version,
            cidr,
            "" if isinstance(gateway, UnsetType) else gateway,
            None if isinstance(pools, UnsetType) or not pools else pools,
            () if isinstance(dns, UnsetType) else dns,
            () if isinstance(routes, UnsetType) else routes,
            given.enable_dhcp is not False,
            given.ipv6_address_mode,
            given.ipv6_ra_mode,
        )
    )


def _make(tx: Tx, api: Api, request: Request, given: NewSubnetBody) -> SubnetRow:
    policy.project_of(request, given, "Subnets")
    on = networks.row_of(tx, given.network_id, request.scope)
    policy.own(request, on, "create_subnet")
    cidr, pool_id = _range(tx, request, given, on["project_id"])
    return subnets.create(
        tx,
        on,
        _spec(given, cidr),
        api.settings.network.quotas,
        name=given.name or "",
        description=given.description or "",
        tags=given.tags,
        pool_id=pool_id,
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
