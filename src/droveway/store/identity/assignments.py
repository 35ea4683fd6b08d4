"""Who has which role where: on a project, or on a domain. What is taken away is gone from every token at once."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Column, Select, Table, delete, insert, literal, null, select, union_all

from droveway.domain.faults import Conflict, NotFound
from droveway.store.engine import results
from droveway.store.engine.transaction import Tx
from droveway.store.identity.accounts import CHANGED, find_domain, find_project, find_role, find_user
from droveway.store.rows import AssignmentRow, RoleRow
from droveway.store.schema import domain_role_assignments, domains, projects, role_assignments, roles, tokens, users


class AssignmentTarget(NamedTuple):
    """What a role is held on."""

    kind: str  # project, domain
    id: str


_TABLES: dict[str, tuple[Table, Column[str], Column[str]]] = {  # assignments; their column; that of tokens
    "project": (role_assignments, role_assignments.c.project_id, tokens.c.project_id),
    "domain": (domain_role_assignments, domain_role_assignments.c.domain_id, tokens.c.domain_id),
}


def grant(tx: Tx, user_id: str, target: AssignmentTarget, role_id: str) -> None:
    """Give a user a role there; nothing to do when it has it. Raises NotFound."""
    must_be(tx, user_id, target, role_id)
    if not holds(tx, user_id, target, role_id):
        table, column, _ = _TABLES[target.kind]
        tx.execute(insert(table).values({"user_id": user_id, column.name: target.id, "role_id": role_id}))
        tx.nudges.append(CHANGED)


def must_be(tx: Tx, user_id: str, target: AssignmentTarget, role_id: str | None = None) -> None:
    """Raises NotFound naming the first that there is none of."""
    find = find_project if target.kind == "project" else find_domain
    for kind, identifier, row in (
        ("user", user_id, find_user(tx, id=user_id)),
        (target.kind, target.id, find(tx, id=target.id)),
        ("role", role_id, role_id is None or find_role(tx, id=role_id)),
    ):
        if not row:
            raise NotFound(f"Could not find {kind}: {str(identifier)[:64]}.")


def holds(tx: Tx, user_id: str, target: AssignmentTarget, role_id: str) -> bool:
    table, column, _ = _TABLES[target.kind]
    query = select(table.c.role_id).where(table.c.user_id == user_id, column == target.id, table.c.role_id == role_id)
    return tx.execute(query).first() is not None


def roles_of(tx: Tx, user_id: str, target: AssignmentTarget) -> list[RoleRow]:
    """Those assigned there, without what they imply."""
    table, column, _ = _TABLES[target.kind]
    held = select(table.c.role_id).where(table.c.user_id == user_id, column == target.id)
    return results.every(RoleRow, tx.execute(select(roles).where(roles.c.id.in_(held)).order_by(roles.c.name)))


def revoke(tx: Tx, user_id: str, target: AssignmentTarget, role_id: str) -> None:
    """Take a role away; with the last one there, the tokens for that place end. Raises NotFound, Conflict."""
    if not holds(tx, user_id, target, role_id):
        raise NotFound(
            f"Could not find that role assignment: user {user_id[:64]} has no role {role_id[:64]} on the "
            f"{target.kind} {target.id[:64]}."
        )
    table, column, of_tokens = _TABLES[target.kind]
    tx.execute(delete(table).where(table.c.user_id == user_id, column == target.id, table.c.role_id == role_id))
    if not _has_admin(tx):
        raise Conflict("That is the last administrator's role admin; give it to another user before.")
    if not roles_of(tx, user_id, target):
        tx.execute(delete(tokens).where(tokens.c.user_id == user_id, of_tokens == target.id))
    tx.nudges.append(CHANGED)


def remove_user(tx: Tx, user_id: str) -> None:
    """With its roles and tokens; what it made belongs to projects and stays. Raises Conflict for the last admin."""
    for table in (role_assignments, domain_role_assignments, tokens):
        tx.execute(delete(table).where(table.c.user_id == user_id))
    tx.execute(delete(users).where(users.c.id == user_id))
    if not _has_admin(tx):
        raise Conflict("That is the last administrator; give the role admin to another user before.")
    tx.nudges.append(CHANGED)


def _has_admin(tx: Tx) -> bool:
    """Whether anybody who can log in is still an administrator of the cloud. One on a domain is not: such a token opens
    identity alone."""
    admins = (
        select(users.c.id)
        .join(role_assignments, role_assignments.c.user_id == users.c.id)
        .join(roles, roles.c.id == role_assignments.c.role_id)
        .join(projects, projects.c.id == role_assignments.c.project_id)
        .where(roles.c.name == "admin", users.c.enabled, projects.c.enabled)
    )
    return tx.execute(admins.limit(1)).first() is not None


_user_domain, _place_domain = domains.alias("user_domain"), domains.alias("place_domain")
_NAMES = (
    roles.c.name.label("role_name"),
    users.c.name.label("user_name"),
    users.c.domain_id.label("user_domain_id"),
    _user_domain.c.name.label("user_domain_name"),
)


def _with_names(query: Select[Any], table: Table) -> Select[Any]:
    return (
        query.add_columns(*_NAMES)
        .join(roles, roles.c.id == table.c.role_id)
        .join(users, users.c.id == table.c.user_id)
        .join(_user_domain, _user_domain.c.id == users.c.domain_id)
    )


def listing(tx: Tx, /, **filters: Any) -> list[AssignmentRow]:
    """Role assignments with the names of everything they join, those on projects first. Filters are user_id, role_id,
    project_id, domain_id."""
    at, on = role_assignments.c, domain_role_assignments.c
    on_projects = (
        select(
            at.user_id,
            at.role_id,
            at.project_id,
            projects.c.name.label("project_name"),
            projects.c.domain_id.label("project_domain_id"),
            _place_domain.c.name.label("project_domain_name"),
            null().label("domain_id"),
            null().label("domain_name"),
            literal(0).label("rank"),
        )
        .join(projects, projects.c.id == at.project_id)
        .join(_place_domain, _place_domain.c.id == projects.c.domain_id)
    )
    on_domains = select(
        on.user_id, on.role_id, null(), null(), null(), null(), on.domain_id, _place_domain.c.name, literal(1)
    ).join(_place_domain, _place_domain.c.id == on.domain_id)
    both = union_all(
        _with_names(on_projects, role_assignments), _with_names(on_domains, domain_role_assignments)
    ).subquery()
    c = both.c
    query = select(both).where(*(c[name] == value for name, value in filters.items()))
    order = (c.rank, c.user_name, c.project_name, c.domain_name, c.role_name)
    return results.every(AssignmentRow, tx.execute(query.order_by(*order)))
