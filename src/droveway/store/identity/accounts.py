"""Domains, users and groups: finding them, and the first ones. What is changed here that could end a user's right to
something is nudged as CHANGED, so that no API goes on with what it remembers of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import Select, Table, delete, insert, select, update

from droveway.domain.faults import Conflict, NotFound
from droveway.domain.policy import ADMIN, IMPLIES, ROLES
from droveway.store.engine import results
from droveway.store.engine.transaction import Tx
from droveway.store.identity.rows import DomainRow, GroupRow, ProjectRow, RoleRow, UserRow
from droveway.store.identity.tables import (
    application_credentials,
    assignments,
    credentials,
    domains,
    group_members,
    project_ancestors,
    projects,
    role_implications,
    roles,
    tokens,
    user_groups,
    users,
)
from droveway.store.schema import keypairs

DEFAULT_DOMAIN_ID = "default"
CHANGED = "identity"  # the nudge of every write that could end a user's right to something
_R = TypeVar("_R")


# -- finding ----------------------------------------------------------------------------------------------------------
def _where(table: Table, filters: Mapping[str, Any]) -> Select[Any]:
    """By columns; a list is any of several values."""
    conditions = [
        table.c[name].in_(value) if isinstance(value, list | tuple | frozenset) else table.c[name] == value
        for name, value in filters.items()
    ]
    return select(table).where(*conditions)


def _one(tx: Tx, row_type: type[_R], table: Table, filters: Mapping[str, Any]) -> _R | None:
    return results.first(row_type, tx.execute(_where(table, filters)))


def _many(tx: Tx, row_type: type[_R], table: Table, filters: Mapping[str, Any]) -> list[_R]:
    return results.every(row_type, tx.execute(_where(table, filters).order_by(table.c.name, table.c.id)))


def find_domain(tx: Tx, /, **filters: Any) -> DomainRow | None:
    return _one(tx, DomainRow, domains, filters)


def find_project(tx: Tx, /, **filters: Any) -> ProjectRow | None:
    return _one(tx, ProjectRow, projects, filters)


def find_user(tx: Tx, /, **filters: Any) -> UserRow | None:
    return _one(tx, UserRow, users, filters)


def find_group(tx: Tx, /, **filters: Any) -> GroupRow | None:
    return _one(tx, GroupRow, user_groups, filters)


def find_role(tx: Tx, /, **filters: Any) -> RoleRow | None:
    return _one(tx, RoleRow, roles, filters)


def list_domains(tx: Tx, /, **filters: Any) -> list[DomainRow]:
    return _many(tx, DomainRow, domains, filters)


def list_projects(tx: Tx, /, **filters: Any) -> list[ProjectRow]:
    return _many(tx, ProjectRow, projects, filters)


def list_users(tx: Tx, /, **filters: Any) -> list[UserRow]:
    return _many(tx, UserRow, users, filters)


def list_groups(tx: Tx, /, **filters: Any) -> list[GroupRow]:
    return _many(tx, GroupRow, user_groups, filters)


def list_roles(tx: Tx, /, **filters: Any) -> list[RoleRow]:
    return _many(tx, RoleRow, roles, filters)


def there(row: _R | None, kind: str, wanted: str) -> _R:
    """The row that was looked for. Raises NotFound naming it."""
    if row is None:
        raise NotFound(f"Could not find {kind}: {wanted[:64]}.")
    return row


# -- the first ones ---------------------------------------------------------------------------------------------------
def new_id(tx: Tx) -> str:
    return tx.names.uuid().replace("-", "")


def seed(tx: Tx, admin_password_hash: str) -> bool:
    """What an empty cloud needs before anyone can log in. True when the user `admin` was made now; an existing one,
    with its password, is left as it is."""
    if find_domain(tx, id=DEFAULT_DOMAIN_ID) is None:
        tx.execute(insert(domains).values(id=DEFAULT_DOMAIN_ID, name="Default", description="The default domain"))
    _seed_roles(tx)
    project = find_project(tx, name="admin", domain_id=DEFAULT_DOMAIN_ID)
    project_id = project["id"] if project is not None else add_project(tx, "admin")
    if find_user(tx, name="admin", domain_id=DEFAULT_DOMAIN_ID) is not None:
        return False
    user_id = add_user(tx, "admin", admin_password_hash, default_project_id=project_id)
    grant(tx, user_id, project_id, ADMIN)
    role = there(find_role(tx, name=ADMIN), "role", ADMIN)
    values = {"actor_kind": "user", "actor_id": user_id, "role_id": role["id"], "inherited": False}
    tx.execute(insert(assignments).values(**values, target_kind="system", target_id="all"))
    return True


def _seed_roles(tx: Tx) -> None:
    known = {row["name"]: row["id"] for row in list_roles(tx)}
    for name in ROLES:
        if name not in known:
            known[name] = new_id(tx)
            tx.execute(insert(roles).values(id=known[name], name=name))
    held = {(row.prior_id, row.implied_id) for row in tx.execute(select(role_implications))}
    for prior, several in IMPLIES.items():
        for implied in several:
            if (known[prior], known[implied]) not in held:
                tx.execute(insert(role_implications).values(prior_id=known[prior], implied_id=known[implied]))


def add_project(
    tx: Tx,
    name: str,
    description: str = "",
    *,
    domain_id: str = DEFAULT_DOMAIN_ID,
    parent: ProjectRow | None = None,
    **more: Any,
) -> str:
    """Raises Conflict when there is one of that name in the domain."""
    if find_project(tx, name=name, domain_id=domain_id) is not None:
        raise Conflict(f"There is a project {name} already.")
    project_id = new_id(tx)
    values: dict[str, Any] = {"enabled": True, "tags": [], "parent_id": None if parent is None else parent["id"]}
    values |= {"id": project_id, "domain_id": domain_id, "name": name, "description": description, **more}
    tx.execute(insert(projects).values(values))
    above = [domain_id]
    if parent is not None:
        query = select(project_ancestors.c.ancestor_id).where(project_ancestors.c.project_id == parent["id"])
        above = [parent["id"], *tx.execute(query).scalars()]
    tx.execute(insert(project_ancestors), [{"project_id": project_id, "ancestor_id": one} for one in above])
    return project_id


def add_user(
    tx: Tx,
    name: str,
    password_hash: str,
    *,
    domain_id: str = DEFAULT_DOMAIN_ID,
    default_project_id: str | None = None,
    **more: Any,
) -> str:
    """Raises Conflict when there is one of that name in the domain."""
    if find_user(tx, name=name, domain_id=domain_id) is not None:
        raise Conflict(f"There is a user {name} already.")
    user_id = new_id(tx)
    row = {"id": user_id, "domain_id": domain_id, "name": name, "password_hash": password_hash}
    more = {"enabled": True, "options": {}, "default_project_id": default_project_id, **more}
    tx.execute(insert(users).values(row | more))
    return user_id


def grant(tx: Tx, user_id: str, project_id: str, role: str) -> None:
    """Give a user a role in a project; nothing to do when it has it."""
    role_id = there(find_role(tx, name=role), "role", role)["id"]
    values: dict[str, Any] = {"actor_kind": "user", "actor_id": user_id, "role_id": role_id, "inherited": False}
    values |= {"target_kind": "project", "target_id": project_id}
    if tx.execute(select(assignments).filter_by(**values)).first() is None:
        tx.execute(insert(assignments).values(**values))
        tx.nudges.append(CHANGED)


# -- changing ---------------------------------------------------------------------------------------------------------
def update_user(tx: Tx, user_id: str, values: Mapping[str, Any]) -> None:
    """Its tokens end when it is disabled or gets a new password. Raises Conflict when its new name is taken, or nobody
    would be left who administers the cloud."""
    row = there(find_user(tx, id=user_id), "user", user_id)
    name = values.get("name", row["name"])
    if name != row["name"] and find_user(tx, name=name, domain_id=row["domain_id"]) is not None:
        raise Conflict(f"There is a user {name} already.")
    if values:
        tx.execute(update(users).where(users.c.id == user_id).values(**values))
    if values.get("enabled") is False or "password_hash" in values:
        end_tokens(tx, tokens.c.user_id == user_id)
    if values.get("enabled") is False:
        must_have_admin(tx)
    tx.nudges.append(CHANGED)


def set_password(tx: Tx, user_id: str, password_hash: str) -> None:
    """A new password; every token of that user ends."""
    update_user(tx, user_id, {"password_hash": password_hash})


def end_tokens(tx: Tx, *conditions: Any) -> None:
    tx.execute(delete(tokens).where(*conditions))
    tx.nudges.append(CHANGED)


def remove_user(tx: Tx, user_id: str) -> None:
    """With its roles, tokens and keys; what it made for projects stays. Raises Conflict for the last admin."""
    for table in (application_credentials, credentials, group_members, tokens, keypairs):
        tx.execute(delete(table).where(table.c.user_id == user_id))
    tx.execute(delete(assignments).where(assignments.c.actor_id == user_id))
    tx.execute(delete(users).where(users.c.id == user_id))
    must_have_admin(tx)
    tx.nudges.append(CHANGED)


def must_have_admin(tx: Tx) -> None:
    """Raises Conflict when nobody who can log in would be an administrator of the cloud any more. One on a domain or
    on the system is not: such a token opens identity alone."""
    held = (
        select(projects.c.id)
        .select_from(assignments)
        .join(roles, roles.c.id == assignments.c.role_id)
        .outerjoin(project_ancestors, project_ancestors.c.ancestor_id == assignments.c.target_id)
        .join(
            projects,
            (projects.c.id == assignments.c.target_id) & ~assignments.c.inherited
            | (projects.c.id == project_ancestors.c.project_id) & assignments.c.inherited,
        )
        .outerjoin(group_members, group_members.c.group_id == assignments.c.actor_id)
        .join(users, (users.c.id == assignments.c.actor_id) | (users.c.id == group_members.c.user_id))
        .join(domains, domains.c.id == projects.c.domain_id)
        .where(roles.c.name == ADMIN, users.c.enabled, projects.c.enabled, domains.c.enabled)
        .where(users.c.domain_id.in_(select(domains.c.id).where(domains.c.enabled)))
    )
    if tx.execute(held.limit(1)).first() is None:
        raise Conflict("That is the last administrator; give the role admin to another user before.")


# -- where one may go -------------------------------------------------------------------------------------------------
def _held_by(user_id: str) -> Any:
    """The assignments of a user, those of its groups among them."""
    groups = select(group_members.c.group_id).where(group_members.c.user_id == user_id)
    return (assignments.c.actor_id == user_id) | assignments.c.actor_id.in_(groups)


def projects_of(tx: Tx, user_id: str) -> list[ProjectRow]:
    """The enabled projects that the user has any role in."""
    held = _held_by(user_id)
    at = select(assignments.c.target_id).where(held, ~assignments.c.inherited)
    above = select(assignments.c.target_id).where(held, assignments.c.inherited)
    below = select(project_ancestors.c.project_id).where(project_ancestors.c.ancestor_id.in_(above))
    query = select(projects).where(projects.c.id.in_(at) | projects.c.id.in_(below), projects.c.enabled)
    query = query.where(projects.c.domain_id.in_(select(domains.c.id).where(domains.c.enabled)))
    return results.every(ProjectRow, tx.execute(query.order_by(projects.c.name, projects.c.id)))


def domains_of(tx: Tx, user_id: str) -> list[DomainRow]:
    """The enabled domains that the user has any role on."""
    at = select(assignments.c.target_id).where(_held_by(user_id), ~assignments.c.inherited)
    query = select(domains).where(domains.c.id.in_(at), domains.c.enabled).order_by(domains.c.name)
    return results.every(DomainRow, tx.execute(query))


def is_on_system(tx: Tx, user_id: str) -> bool:
    query = select(assignments.c.role_id).where(_held_by(user_id), assignments.c.target_kind == "system")
    return tx.execute(query).first() is not None
