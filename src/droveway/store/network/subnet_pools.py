"""Subnet pools, and the ranges that subnets have of them: those are the subnets' own rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, bindparam, delete, insert, or_, select

from droveway.domain.network import pools
from droveway.domain.network.pools import Pool
from droveway.domain.network.quota import NetworkQuotas
from droveway.domain.network.refusals import InvalidInput, SubnetPoolDeleteError, SubnetPoolNotFound
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import finding, quotas
from droveway.store.network.changes import touch
from droveway.store.network.finding import Asked
from droveway.store.network.rows import SubnetPoolRow
from droveway.store.network.tables import subnet_pools, subnets

SHOWN = 5
c = subnet_pools.c
_GET = Prepared(select(subnet_pools).where(c.id == bindparam("of")))
_DEFAULT = Prepared(
    select(subnet_pools).where(
        c.is_default, c.ip_version == bindparam("version"), or_(c.shared, c.project_id == bindparam("by"))
    )
)
_OTHER_DEFAULT = Prepared(
    select(c.id).where(c.is_default, c.ip_version == bindparam("version"), c.id != bindparam("but"))
)
_TAKEN = Prepared(select(subnets.c.cidr, subnets.c.project_id).where(subnets.c.pool_id == bindparam("of")))
_USERS = Prepared(select(subnets.c.id).where(subnets.c.pool_id == bindparam("of")).limit(SHOWN))


class NewPool(msgspec.Struct, frozen=True):
    project_id: str
    pool: Pool
    name: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    shared: bool = False
    is_default: bool = False


def create(tx: Tx, new: NewPool, configured: NetworkQuotas) -> SubnetPoolRow:
    quotas.claim(tx, "subnetpool", new.project_id, configured)
    row = SubnetPoolRow(
        id=tx.names.uuid(),
        project_id=new.project_id,
        name=new.name,
        description=new.description,
        tags=list(new.tags),
        revision=0,
        created_at_us=tx.now_us,
        updated_at_us=tx.now_us,
        shared=new.shared,
        is_default=new.is_default,
        ip_version=new.pool.ip_version,
        prefixes=list(new.pool.prefixes),
        default_prefixlen=new.pool.default_prefixlen,
        min_prefixlen=new.pool.min_prefixlen,
        max_prefixlen=new.pool.max_prefixlen,
        default_quota=new.pool.default_quota,
    )
    tx.execute(insert(subnet_pools), dict(row))
    _check_one_default(tx, row)
    return row


def _check_one_default(tx: Tx, row: SubnetPoolRow) -> None:
    asked = {"version": row["ip_version"], "but": row["id"]}
    if row["is_default"] and tx.execute(_OTHER_DEFAULT, asked).first() is not None:
        raise InvalidInput("Invalid input for operation: A default subnetpool for this IP family has already been set.")


def of_row(row: SubnetPoolRow) -> Pool:
    return Pool(
        row["ip_version"],
        tuple(row["prefixes"]),
        row["default_prefixlen"],
        row["min_prefixlen"],
        row["max_prefixlen"],
        row["default_quota"],
    )


def visible(scope: str | None) -> list[ColumnElement[bool]]:
    return [] if scope is None else [or_(c.project_id == scope, c.shared.is_(True))]


def get(tx: Tx, pool_id: str, scope: str | None = None) -> SubnetPoolRow:
    row = results.first(SubnetPoolRow, tx.execute(_GET, {"of": pool_id}))
    if row is None or (scope not in (None, row["project_id"]) and not row["shared"]):
        raise SubnetPoolNotFound(f"Subnet pool {pool_id[:64]} could not be found.")
    return row


def find(tx: Tx, asked: Asked) -> list[SubnetPoolRow]:
    return finding.rows(tx, SubnetPoolRow, subnet_pools, asked, *visible(asked.scope), what="Subnet pool")


def default_of(tx: Tx, version: int, project_id: str) -> SubnetPoolRow | None:
    """The default pool of that IP version, if that project sees it."""
    return results.first(SubnetPoolRow, tx.execute(_DEFAULT, {"version": version, "by": project_id}))


def update(tx: Tx, pool_id: str, changes: Mapping[str, Any]) -> SubnetPoolRow:
    """What is wrong as a whole is refused, whichever part was said."""
    row = get(tx, pool_id)
    now: dict[str, Any] = {**row, **changes}
    lengths = (now["default_prefixlen"], now["min_prefixlen"], now["max_prefixlen"])
    pool = pools.checked(now["prefixes"], *lengths, now["default_quota"])
    if pool.ip_version != row["ip_version"]:
        raise InvalidInput("Invalid input for prefixes. Reason: a subnet pool keeps its IP version.")
    pools.check_grows(row["prefixes"], pool.prefixes)
    columns = msgspec.structs.asdict(pool) | {"prefixes": list(pool.prefixes)}
    touch(tx, subnet_pools, pool_id, **{**changes, **columns})
    found = get(tx, pool_id)
    _check_one_default(tx, found)
    return found


def remove(tx: Tx, pool_id: str) -> None:
    used = list(tx.execute(_USERS, {"of": pool_id}).scalars())
    if used:
        raise SubnetPoolDeleteError(
            f"Unable to delete subnet pool: Subnet pool has existing allocations: {', '.join(used)}; delete "
            "these first."
        )
    tx.execute(delete(subnet_pools).where(c.id == pool_id))


def range_of(tx: Tx, row: SubnetPoolRow, project_id: str, cidr: str | None, prefixlen: int | None) -> str:
    """What a subnet of that project gets of it: that range, or one of that length, or of the usual one. It is taken by
    the subnet that is written in this transaction. Raises what is in the way."""
    pool, there = of_row(row), list(tx.execute(_TAKEN, {"of": row["id"]}))
    taken = [one.cidr for one in there]
    if cidr is None:
        cidr = pools.chosen(pool, row["id"], prefixlen, taken)
    else:
        pools.check_range(pool, row["id"], cidr, taken)
    pools.check_quota(pool, [one.cidr for one in there if one.project_id == project_id], cidr)
    return cidr
