"""What a new server may be connected to, where its user names nothing, or names it by another word than its id."""

from __future__ import annotations

from sqlalchemy import Select, bindparam, select

from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network.rbac import SHARED
from droveway.store.network.tables import networks, rbac_policies, security_groups, subnets

n, g, r = networks.c, security_groups.c, rbac_policies.c
_HAS_SUBNET = Prepared(select(subnets.c.id).where(subnets.c.network_id == bindparam("of")).limit(1))
_GROUPS = Prepared(
    select(g.id).where(g.project_id == bindparam("of"), (g.id == bindparam("called")) | (g.name == bindparam("called")))
)


def _usable() -> Select[tuple[str]]:
    there = select(subnets.c.id).where(subnets.c.network_id == n.id).exists()
    return select(n.id).where(~n.external, n.admin_state_up, there).order_by(n.created_at_us, n.id).limit(2)


_OWN = Prepared(_usable().where(n.project_id == bindparam("of")))
_SHARED = Prepared(
    _usable().where(n.shared | n.id.in_(select(r.object_id).where(r.action == SHARED, r.target == bindparam("of"))))
)


def usable_networks(tx: Tx, project_id: str) -> list[str]:
    """Two at most, with subnets: the project's own, or shared ones where it has none of its own."""
    return list(tx.execute(_OWN, {"of": project_id}).scalars()) or list(
        tx.execute(_SHARED, {"of": project_id}).scalars()
    )


def has_subnet(tx: Tx, network_id: str) -> bool:
    return tx.execute(_HAS_SUBNET, {"of": network_id}).first() is not None


def groups_called(tx: Tx, project_id: str, name: str) -> list[str]:
    """The ids of the project's groups with that id or name."""
    return list(tx.execute(_GROUPS, {"of": project_id, "called": name}).scalars())
