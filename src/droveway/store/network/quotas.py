"""Quotas of networks: what was set for a project, what it has, and the claim, which is checked in the transaction that
writes the rows: writers stand in one queue, so no race exceeds a limit."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Table, bindparam, delete, func, insert, select

from droveway.domain.network import quota
from droveway.domain.network.quota import NetworkQuotas
from droveway.domain.quota import UNLIMITED
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import tables as t

TABLES: Mapping[str, Table] = {
    "network": t.networks,
    "subnet": t.subnets,
    "subnetpool": t.subnet_pools,
    "port": t.ports,
    "router": t.routers,
    "floatingip": t.floating_ips,
    "security_group": t.security_groups,
    "security_group_rule": t.security_group_rules,
    "rbac_policy": t.rbac_policies,
}
_SET = Prepared(
    select(t.network_quotas.c.resource, t.network_quotas.c.hard_limit).where(
        t.network_quotas.c.project_id == bindparam("of")
    )
)
_USED = {
    resource: Prepared(select(func.count()).select_from(table).where(table.c.project_id == bindparam("of")))
    for resource, table in TABLES.items()
}
_PROJECTS = Prepared(select(t.network_quotas.c.project_id).group_by(t.network_quotas.c.project_id))


def limits(tx: Tx, project_id: str, configured: NetworkQuotas) -> dict[str, int]:
    return quota.limits(configured, {row.resource: row.hard_limit for row in tx.execute(_SET, {"of": project_id})})


def used(tx: Tx, project_id: str) -> dict[str, int]:
    return {resource: _count(tx, resource, project_id) for resource in quota.RESOURCES}


def _count(tx: Tx, resource: str, project_id: str) -> int:
    return int(tx.execute(_USED[resource], {"of": project_id}).scalar_one())


def claim(tx: Tx, resource: str, project_id: str, configured: NetworkQuotas, more: int = 1) -> None:
    """So many rows are about to be written. Raises OverQuota. What is of no project is not counted."""
    if not project_id:
        return
    limit = limits(tx, project_id, configured)[resource]
    if limit != UNLIMITED:
        quota.check(resource, limit, _count(tx, resource, project_id), more)


def changed_projects(tx: Tx) -> list[str]:
    """Those for which something was set."""
    return list(tx.execute(_PROJECTS).scalars())


def set_(tx: Tx, project_id: str, changes: Mapping[str, int]) -> None:
    forgotten = delete(t.network_quotas).where(
        t.network_quotas.c.project_id == project_id, t.network_quotas.c.resource.in_(sorted(changes))
    )
    tx.execute(forgotten)
    rows = [
        {"project_id": project_id, "resource": name, "hard_limit": limit, "set_at_us": tx.now_us}
        for name, limit in sorted(changes.items())
    ]
    if rows:
        tx.execute(insert(t.network_quotas), rows)


def forget(tx: Tx, project_id: str) -> None:
    """Back to the defaults."""
    tx.execute(delete(t.network_quotas).where(t.network_quotas.c.project_id == project_id))
