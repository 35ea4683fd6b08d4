"""Security groups and their rules; the default group of a project is made when something first needs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, insert, or_, select

from droveway.domain.network import rules
from droveway.domain.network.quota import NetworkQuotas
from droveway.domain.network.refusals import (
    SecurityGroupCannotRemoveDefault,
    SecurityGroupCannotUpdateDefault,
    SecurityGroupDefaultAlreadyExists,
    SecurityGroupInUse,
    SecurityGroupNotFound,
    SecurityGroupRuleExists,
    SecurityGroupRuleNotFound,
)
from droveway.domain.network.rules import RuleSpec
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import finding, quotas
from droveway.store.network.changes import changed, touch
from droveway.store.network.finding import Asked
from droveway.store.network.rows import Group, GroupRow, RuleRow
from droveway.store.network.tables import port_groups, security_group_rules, security_groups

DEFAULT = "default"
SHOWN = 5
g, r = security_groups.c, security_group_rules.c
_GET = Prepared(select(security_groups).where(g.id == bindparam("of")))
_DEFAULT = Prepared(select(g.id).where(g.project_id == bindparam("of"), g.name == DEFAULT))
_INSERT, _INSERT_RULE = Prepared(insert(security_groups)), Prepared(insert(security_group_rules))
_RULES_OF = Prepared(select(security_group_rules).where(in_list(r.group_id, "ids")).order_by(r.created_at_us, r.id))
_RULE = Prepared(select(security_group_rules).where(r.id == bindparam("of")))
_SAME = Prepared(select(r.id).where(r.group_id == bindparam("of"), r.meaning == bindparam("meant")))
_PORTS = Prepared(select(port_groups.c.port_id).where(port_groups.c.group_id == bindparam("of")).limit(SHOWN))
_NAMED_BY = Prepared(
    select(r.group_id).distinct().where(r.remote_group_id == bindparam("of"), r.group_id != bindparam("of"))
)
_OWNED = Prepared(select(g.id).where(in_list(g.id, "ids"), g.project_id == bindparam("of")))
_ANY = Prepared(select(g.id).where(in_list(g.id, "ids")))


def default_of(tx: Tx, project_id: str) -> str:
    """The id of the project's default group, which is made when there is none, whatever its quota."""
    found: str | None = tx.execute(_DEFAULT, {"of": project_id}).scalar()
    if found is not None:
        return found
    return _make(tx, project_id, DEFAULT, "Default security group", ())["id"]


def has_default(tx: Tx, project_id: str) -> bool:
    return tx.execute(_DEFAULT, {"of": project_id}).first() is not None


def create(
    tx: Tx, project_id: str, name: str, description: str, configured: NetworkQuotas, tags: Sequence[str] = ()
) -> Group:
    """With the rules that every group begins with; the default group of the project, too, if it is not there."""
    if name == DEFAULT:
        if has_default(tx, project_id):
            raise SecurityGroupDefaultAlreadyExists("Default security group already exists.")
    else:
        default_of(tx, project_id)
        quotas.claim(tx, "security_group", project_id, configured)
    return _make(tx, project_id, name, description, tags)


def _make(tx: Tx, project_id: str, name: str, description: str, tags: Sequence[str]) -> Group:
    row = GroupRow(
        id=tx.names.uuid(),
        project_id=project_id,
        name=name,
        description=description,
        tags=list(tags),
        revision=1,
        created_at_us=tx.now_us,
        updated_at_us=tx.now_us,
    )
    tx.execute(_INSERT, dict(row))
    first = [_rule_row(tx, row["id"], project_id, one) for one in rules.defaults(row["id"], is_default=name == DEFAULT)]
    tx.execute(_INSERT_RULE, [dict(one) for one in first])
    changed(tx, security_groups, row["id"])
    return Group(**row, rules=first)


def _rule_row(tx: Tx, group_id: str, project_id: str, rule: RuleSpec) -> RuleRow:
    return RuleRow(
        id=tx.names.uuid(),
        project_id=project_id,
        group_id=group_id,
        direction=str(rule.direction),
        ethertype=rule.ethertype,
        protocol=rule.protocol,
        port_min=rule.port_min,
        port_max=rule.port_max,
        remote_cidr=rule.remote_cidr,
        remote_group_id=rule.remote_group_id,
        description=rule.description,
        meaning=rules.meaning(rule),
        revision=0,
        created_at_us=tx.now_us,
        updated_at_us=tx.now_us,
    )


def row_of(tx: Tx, group_id: str, scope: str | None = None) -> GroupRow:
    row = results.first(GroupRow, tx.execute(_GET, {"of": group_id}))
    if row is None or scope not in (None, row["project_id"]):
        raise SecurityGroupNotFound(f"Security group {group_id[:64]} does not exist")
    return row


def get(tx: Tx, group_id: str, scope: str | None = None) -> Group:
    return with_rules(tx, [row_of(tx, group_id, scope)])[0]


def find(tx: Tx, asked: Asked) -> list[Group]:
    mine = [] if asked.scope is None else [g.project_id == asked.scope]
    return with_rules(tx, finding.rows(tx, GroupRow, security_groups, asked, *mine, what="Security group"))


def with_rules(tx: Tx, rows: Iterable[GroupRow]) -> list[Group]:
    found = {row["id"]: Group(**row, rules=[]) for row in rows}
    for rule in results.one_by_one(RuleRow, tx.execute(_RULES_OF, {"ids": list(found)})):
        found[rule["group_id"]]["rules"].append(rule)
    return list(found.values())


def check_usable(tx: Tx, ids: Sequence[str], scope: str | None) -> None:
    """A port may have these groups. Raises SecurityGroupNotFound."""
    query, given = (_ANY, {"ids": ids}) if scope is None else (_OWNED, {"ids": ids, "of": scope})
    there = set(tx.execute(query, given).scalars())
    for group_id in ids:
        if group_id not in there:
            raise SecurityGroupNotFound(f"Security group {group_id[:64]} does not exist")


def update(tx: Tx, group_id: str, changes: dict[str, Any]) -> Group:
    row = row_of(tx, group_id)
    if row["name"] == DEFAULT and changes.get("name", DEFAULT) != DEFAULT:
        raise SecurityGroupCannotUpdateDefault("Updating default security group not allowed.")
    if changes.get("name") == DEFAULT != row["name"]:
        raise SecurityGroupDefaultAlreadyExists("Default security group already exists.")
    touch(tx, security_groups, group_id, **changes)
    return get(tx, group_id)


def remove(tx: Tx, group_id: str, *, is_admin: bool = False) -> None:
    """And, as in Neutron, the rules of other groups that name it: it has no members that they could let in. The default
    one of a project is removed by an administrator alone, who clears up after the project."""
    row = row_of(tx, group_id)
    if row["name"] == DEFAULT and not is_admin:
        raise SecurityGroupCannotRemoveDefault("Insufficient rights for removing default security group.")
    used = list(tx.execute(_PORTS, {"of": group_id}).scalars())
    if used:
        raise SecurityGroupInUse(
            f"Security Group {group_id} in use: it is on port {', '.join(used)}; take it from them first."
        )
    named_by = list(tx.execute(_NAMED_BY, {"of": group_id}).scalars())
    tx.execute(delete(security_group_rules).where(or_(r.group_id == group_id, r.remote_group_id == group_id)))
    for other in named_by:
        touch(tx, security_groups, other)
    tx.execute(delete(security_groups).where(g.id == group_id))
    changed(tx, security_groups, group_id)


# -- rules ------------------------------------------------------------------------------------------------------------
def add_rule(tx: Tx, group_id: str, given: RuleSpec, scope: str | None, configured: NetworkQuotas) -> RuleRow:
    """Of a group of one's own; `given` has been checked. Raises SecurityGroupRuleExists, and names it."""
    group = row_of(tx, group_id, scope)
    if given.remote_group_id is not None:
        row_of(tx, given.remote_group_id, scope)
    quotas.claim(tx, "security_group_rule", group["project_id"], configured)
    row = _rule_row(tx, group_id, group["project_id"], given)
    same = tx.execute(_SAME, {"of": group_id, "meant": row["meaning"]}).scalar()
    if same is not None:
        raise SecurityGroupRuleExists(f"Security group rule already exists. Rule id is {same}.")
    tx.execute(_INSERT_RULE, dict(row))
    touch(tx, security_groups, group_id)
    return row


def rule(tx: Tx, rule_id: str, scope: str | None = None) -> RuleRow:
    row = results.first(RuleRow, tx.execute(_RULE, {"of": rule_id}))
    if row is None or scope not in (None, row["project_id"]):
        raise SecurityGroupRuleNotFound(f"Security group rule {rule_id[:64]} does not exist")
    return row


def find_rules(tx: Tx, asked: Asked) -> list[RuleRow]:
    mine = [] if asked.scope is None else [or_(r.project_id == asked.scope)]
    return finding.rows(tx, RuleRow, security_group_rules, asked, *mine, what="Security group rule")


def remove_rule(tx: Tx, rule_id: str, scope: str | None) -> None:
    row = rule(tx, rule_id, scope)
    tx.execute(delete(security_group_rules).where(r.id == rule_id))
    touch(tx, security_groups, row["group_id"])
