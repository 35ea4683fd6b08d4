"""Subnet pools: list, show, create, update, delete."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, given_in, takes
from droveway.api.http.kinds import or_null, whole
from droveway.api.http.request import Request, Response
from droveway.api.network import fields, policy
from droveway.api.network.kinds import CIDRS, FLAG, PROJECT, TAGS, TEXT
from droveway.api.network.listing import FLAG as FLAG_FILTER
from droveway.api.network.listing import NAMED, Filter, Resource, as_number, listed, made, shown
from droveway.api.wiring import Api
from droveway.domain.network import pools
from droveway.store.engine.transaction import Tx
from droveway.store.network import subnet_pools
from droveway.store.network.rows import SubnetPoolRow
from droveway.store.network.subnet_pools import NewPool

QUOTA_MAX = 1 << 62
LENGTH_MAX = 128
LENGTH = or_null(whole(0, LENGTH_MAX))
POOLS = Resource(
    "subnetpool",
    "subnetpools",
    fields.SUBNET_POOL,
    NAMED
    | {
        "ip_version": Filter("ip_version", as_number),
        "default_prefixlen": Filter("default_prefixlen", as_number),
        "min_prefixlen": Filter("min_prefixlen", as_number),
        "max_prefixlen": Filter("max_prefixlen", as_number),
        "default_quota": Filter("default_quota", as_number),
        "shared": Filter("shared", FLAG_FILTER),
        "is_default": Filter("is_default", FLAG_FILTER),
    },
    subnet_pools.find,
)
_OF_ADMIN = ("shared", "is_default")


class _Common(Body, frozen=True, kw_only=True):
    name: Annotated[str | UnsetType, TEXT] = UNSET
    description: Annotated[str | UnsetType, TEXT] = UNSET
    prefixes: Annotated[tuple[str, ...] | UnsetType, CIDRS] = UNSET
    default_prefixlen: Annotated[int | UnsetType | None, LENGTH] = UNSET
    min_prefixlen: Annotated[int | UnsetType | None, LENGTH] = UNSET
    max_prefixlen: Annotated[int | UnsetType | None, LENGTH] = UNSET
    default_quota: Annotated[int | UnsetType | None, or_null(whole(0, QUOTA_MAX))] = UNSET
    is_default: Annotated[bool | UnsetType, FLAG] = UNSET


class NewSubnetPoolBody(_Common, frozen=True, kw_only=True):
    """Ranges of addresses of which subnets get theirs."""

    shared: Annotated[bool | UnsetType, FLAG] = UNSET
    project_id: Annotated[str, PROJECT] = ""
    tenant_id: Annotated[str, PROJECT] = ""
    tags: Annotated[tuple[str, ...], TAGS] = ()


class ChangedSubnetPool(_Common, frozen=True, kw_only=True):
    """What is there of it."""


async def listing(api: Api, request: Request) -> Response:
    return await listed(api, request, POOLS)


async def show(api: Api, request: Request) -> Response:
    return shown(request, POOLS, await api.store.read(subnet_pools.get, request.params["id"], request.scope))


def _or_none(value: Any) -> Any:
    return None if value is UNSET else value


@takes(NewSubnetPoolBody, "subnetpool")
async def create(api: Api, request: Request, given: NewSubnetPoolBody) -> Response:
    policy.only_admin(request, given, _OF_ADMIN, "create_subnetpool")
    lengths = map(_or_none, (given.default_prefixlen, given.min_prefixlen, given.max_prefixlen, given.default_quota))
    new = NewPool(
        policy.project_of(request, given, "Subnet pools"),
        pools.checked(_or_none(given.prefixes) or (), *lengths),
        given.name or "",
        given.description or "",
        given.tags,
        given.shared is True,
        given.is_default is True,
    )
    pool = await api.store.run(subnet_pools.create, new, api.settings.network.quotas)
    return made(request, POOLS, [pool], are_several=False)


@takes(ChangedSubnetPool, "subnetpool")
async def update(api: Api, request: Request, given: ChangedSubnetPool) -> Response:
    policy.only_admin(request, given, _OF_ADMIN, "update_subnetpool")
    changes = {name: list(value) if name == "prefixes" else value for name, value in given_in(given).items()}

    def write(tx: Tx) -> SubnetPoolRow:
        row = subnet_pools.get(tx, request.params["id"], request.scope)
        policy.own(request, row, "update_subnetpool")
        return subnet_pools.update(tx, row["id"], changes)

    return shown(request, POOLS, await api.store.run(write))


async def delete(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        row = subnet_pools.get(tx, request.params["id"], request.scope)
        policy.own(request, row, "delete_subnetpool")
        subnet_pools.remove(tx, row["id"])

    await api.store.run(write)
    return Response(204)
