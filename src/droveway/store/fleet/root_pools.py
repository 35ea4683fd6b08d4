"""Pools of Ceph in which hosts keep root disks. A host shows the size of its pool and what all of its users have been
promised of it; whatever adds hosts up counts a pool once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from sqlalchemy import bindparam, func, select

from droveway.domain.placement import HostFacts
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import HostWithUse
from droveway.store.schema import instances

_ALL = Prepared(
    select(instances.c.root_pool, func.sum(instances.c.disk_gb))
    .where(instances.c.deleted.is_(False), instances.c.root_pool.is_not(None))
    .group_by(instances.c.root_pool)
)
_ONE = Prepared(
    select(func.coalesce(func.sum(instances.c.disk_gb), 0)).where(
        instances.c.deleted.is_(False), instances.c.root_pool == bindparam("of")
    )
)


def of_host(row: HostWithUse) -> str:
    """FSID/NAME; empty: its root disks are files of its own."""
    return str((row["resources"] or {}).get("root_pool", ""))


def used_gb(tx: Tx, pool: str) -> int:
    return int(tx.execute(_ONE, {"of": pool}).scalar_one())


def all_used_gb(tx: Tx) -> dict[str, int]:
    """What is promised of each, on whichever host its guests are. One that moves counts once."""
    return {pool: int(used) for pool, used in tx.execute(_ALL)}


def with_use(tx: Tx, found: list[HostFacts]) -> list[HostFacts]:
    if not any(one.root_pool for one in found):
        return found
    used = all_used_gb(tx)
    return [
        msgspec.structs.replace(one, disk_gb_used=used.get(one.root_pool, 0)) if one.root_pool else one for one in found
    ]


def rows_with_use(tx: Tx, rows: Iterable[HostWithUse]) -> Iterator[HostWithUse]:
    used: dict[str, int] | None = None
    for row in rows:
        if pool := of_host(row):
            used = all_used_gb(tx) if used is None else used
            row["disk_gb_used"] = used.get(pool, 0)
        yield row
