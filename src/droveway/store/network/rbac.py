"""Policies that let other projects use a network: as a shared one, or as an external one; `*` stands for all.

What all may do is in the network's own row, too (`shared`, `external`), which is what most questions are about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from sqlalchemy import ColumnElement, Select, bindparam, delete, false, insert, select, update

from droveway.domain.network.quota import NetworkQuotas
from droveway.domain.network.refusals import DuplicatePolicy, RbacPolicyInUse, RbacPolicyNotFound
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import finding, quotas
from droveway.store.network.changes import changed, touch
from droveway.store.network.finding import Asked
from droveway.store.network.tables import networks, ports, rbac_policies, routers

SHARED, EXTERNAL = "access_as_shared", "access_as_external"
COLUMNS = {SHARED: "shared", EXTERNAL: "external"}
ALL = "*"
DHCP_OWNER = "network:dhcp"
c = rbac_policies.c
_GET = Prepared(select(rbac_policies).where(c.id == bindparam("of")))
_SAME = Prepared(
    select(c.id).where(c.object_id == bindparam("of"), c.action == bindparam("doing"), c.target == bindparam("by"))
)
_GRANTED = Prepared(
    select(c.object_id, c.action).where(in_list(c.object_id, "ids"), c.target == bindparam("by")).distinct()
)


class Policy(TypedDict):
    id: str
    project_id: str
    object_id: str
    action: str
    target: str
    created_at_us: int


# -- who may --------------------------------------------------------------------------------------------------------
def granted_to(project_id: str, *actions: str) -> ColumnElement[bool]:
    """Of networks: that project was allowed one of these, or any of them when none is named."""
    let = select(c.object_id).where(c.target == project_id)
    return networks.c.id.in_(let.where(c.action.in_(actions)) if actions else let)


def grants(tx: Tx, ids: Iterable[str], project_id: str) -> dict[str, set[str]]:
    """Of each network the columns that stand as true for that project."""
    found: dict[str, set[str]] = {}
    for object_id, action in tx.execute(_GRANTED, {"ids": list(ids), "by": project_id}):
        found.setdefault(object_id, set()).add(COLUMNS[action])
    return found


def targets(network_id: str, action: str) -> Select[tuple[str]]:
    return select(c.target).where(c.object_id == network_id, c.action == action)


# -- policies -------------------------------------------------------------------------------------------------------
def create(tx: Tx, network_id: str, project_id: str, action: str, target: str, configured: NetworkQuotas) -> Policy:
    quotas.claim(tx, "rbac_policy", project_id, configured)
    made = _add(tx, network_id, project_id, action, target)
    if target == ALL:
        touch(tx, networks, network_id, **{COLUMNS[action]: True})
    changed(tx, networks, network_id)
    return made


def _add(tx: Tx, network_id: str, project_id: str, action: str, target: str) -> Policy:
    if tx.execute(_SAME, {"of": network_id, "doing": action, "by": target}).first() is not None:
        raise DuplicatePolicy("An RBAC policy already exists with those values.")
    row = Policy(
        id=tx.names.uuid(),
        project_id=project_id,
        object_id=network_id,
        action=action,
        target=target,
        created_at_us=tx.now_us,
    )
    tx.execute(insert(rbac_policies), dict(row))
    return row


def for_all(tx: Tx, network: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """The policies of what is in the network's own row now; `before`: what was there."""
    for action, column in COLUMNS.items():
        is_so, was_so = network[column], before.get(column, False)
        if is_so and not was_so:
            _add(tx, network["id"], network["project_id"], action, ALL)
        elif was_so and not is_so:
            tx.execute(delete(rbac_policies).where(c.object_id == network["id"], c.action == action, c.target == ALL))


def get(tx: Tx, policy_id: str, scope: str | None = None) -> Policy:
    row = results.first(Policy, tx.execute(_GET, {"of": policy_id}))
    if row is None or scope not in (None, row["project_id"]):
        raise RbacPolicyNotFound(f"RBAC policy of type network with ID {policy_id[:64]} not found")
    return row


def find(tx: Tx, asked: Asked) -> list[Policy]:
    mine = [] if asked.scope is None else [c.project_id == asked.scope]
    if set(asked.others.get("object_type", ())) - {"network"}:
        mine.append(false())
    return finding.rows(tx, Policy, rbac_policies, asked, *mine, what="RBAC policy")


def retarget(tx: Tx, policy_id: str, target: str, scope: str | None) -> Policy:
    """For another project from now on. Raises RbacPolicyInUse when the one before uses it."""
    row = get(tx, policy_id, scope)
    if target == row["target"]:
        return row
    if tx.execute(_SAME, {"of": row["object_id"], "doing": row["action"], "by": target}).first() is not None:
        raise DuplicatePolicy("An RBAC policy already exists with those values.")
    tx.execute(update(rbac_policies).where(c.id == policy_id).values(target=target))
    _check_unused(tx, row)
    _set_column(tx, row, target)
    return get(tx, policy_id)


def remove(tx: Tx, policy_id: str, scope: str | None) -> None:
    row = get(tx, policy_id, scope)
    tx.execute(delete(rbac_policies).where(c.id == policy_id))
    _check_unused(tx, row)
    _set_column(tx, row, "")


def _set_column(tx: Tx, row: Policy, target: str) -> None:
    if ALL in (row["target"], target):
        more = {"is_default": False} if row["action"] == EXTERNAL and target != ALL else {}  # only such a one can be it
        touch(tx, networks, row["object_id"], **{COLUMNS[row["action"]]: target == ALL}, **more)
    changed(tx, networks, row["object_id"])


def forget(tx: Tx, network_id: str) -> None:
    tx.execute(delete(rbac_policies).where(c.object_id == network_id))


def _check_unused(tx: Tx, gone: Policy) -> None:
    """Nobody uses the network by that policy alone, which is no longer there. Raises RbacPolicyInUse."""
    network_id, action = gone["object_id"], gone["action"]
    still = targets(network_id, action)
    owner = select(networks.c.project_id).where(networks.c.id == network_id).scalar_subquery()
    of_all = select(c.id).where(c.object_id == network_id, c.action == action, c.target == ALL).exists()
    if action == SHARED:
        users = select(ports.c.id).where(ports.c.network_id == network_id, ports.c.device_owner != DHCP_OWNER)
        table, what = ports, "port"
    else:
        users = select(routers.c.id).where(routers.c.external_network_id == network_id)
        table, what = routers, "router"
    column = table.c.project_id
    users = users.where(column.not_in(still), column != owner, column != "", ~of_all)
    if gone["target"] != ALL:
        users = users.where(column == gone["target"])
    found = tx.execute(users.limit(1)).scalar()
    if found is not None:
        raise RbacPolicyInUse(
            f"RBAC policy on object {network_id} cannot be removed because other objects depend on it. Details: "
            f"{what} {found} of another project is there; delete it first."
        )
