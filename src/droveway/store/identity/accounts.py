"""Queries of identity: domains, projects, users, roles, tokens. A token is stored only as its sha256."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Column, Select, Table, and_, bindparam, delete, insert, select, update

from droveway.domain.faults import Conflict, NotFound
from droveway.domain.policy import ROLES, expand
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import DomainRow, ProjectRow, RoleRow, UserRow
from droveway.store.schema import domain_role_assignments, domains, projects, role_assignments, roles, tokens, users

DEFAULT_DOMAIN_ID = "default"
TOKENS_PER_USER_MAX = 1000  # each call of the openstack command takes one and leaves it until it expires
_R = TypeVar("_R")
CHANGED = "identity"  # the nudge of every write that could end a user's right to something


# Asked with every request where an API may not remember tokens; built once: building costs more than running.
_user_domain, _project_domain = domains.alias("user_domain"), domains.alias("project_domain")
_TOKEN = Prepared(
    select(
        tokens,
        users.c.name.label("user_name"),
        users.c.domain_id.label("user_domain_id"),
        _user_domain.c.name.label("user_domain_name"),
        projects.c.name.label("project_name"),
        projects.c.domain_id.label("project_domain_id"),
        projects.c.enabled.label("project_enabled"),
        _project_domain.c.name.label("project_domain_name"),
    )
    .join(users, users.c.id == tokens.c.user_id)
    .join(_user_domain, _user_domain.c.id == users.c.domain_id)
    .outerjoin(projects, projects.c.id == tokens.c.project_id)
    .outerjoin(_project_domain, _project_domain.c.id == projects.c.domain_id)
    .where(tokens.c.hash == bindparam("of"), tokens.c.expires_at_us > bindparam("now_us"), users.c.enabled)
)


def _held(table: Table, place: Column[str]) -> Select[Any]:
    """All roles there are (a few), and whether that user has each in that place."""
    assigned = and_(
        table.c.role_id == roles.c.id, table.c.user_id == bindparam("of_user"), place == bindparam("of_place")
    )
    query = select(roles.c.id, roles.c.name, table.c.role_id.is_not(None).label("is_assigned"))
    return query.outerjoin(table, assigned).order_by(roles.c.name)


_ROLES_IN = Prepared(_held(role_assignments, role_assignments.c.project_id))
_ROLES_ON = Prepared(_held(domain_role_assignments, domain_role_assignments.c.domain_id))


class Caller(msgspec.Struct, frozen=True):
    """A valid token, with its user, scope and roles."""

    token_hash: str
    audit_id: str
    methods: tuple[str, ...]
    issued_at_us: int
    expires_at_us: int
    user_id: str
    user_name: str
    user_domain_id: str
    user_domain_name: str
    project_id: str | None
    project_name: str
    project_domain_id: str
    project_domain_name: str
    roles: tuple[tuple[str, str], ...]  # (id, name), with what they imply
    role_names: frozenset[str]
    domain_id: str | None = None  # of a token that is good for a domain instead of a project
    domain_name: str = ""

    @property
    def is_admin(self) -> bool:
        return "admin" in self.role_names


# -- seeding ----------------------------------------------------------------------------------------------------------
def _new_id(tx: Tx) -> str:
    return tx.names.uuid().replace("-", "")


def seed(tx: Tx, admin_password_hash: str) -> bool:
    """What an empty cloud needs before anyone can log in. True when the user `admin` was made now; an existing one,
    with its password, is left as it is."""
    if tx.execute(select(domains.c.id).where(domains.c.id == DEFAULT_DOMAIN_ID)).first() is None:
        tx.execute(insert(domains).values(id=DEFAULT_DOMAIN_ID, name="Default", description="The default domain"))
    known = set(tx.execute(select(roles.c.name)).scalars())
    for name in ROLES:
        if name not in known:
            tx.execute(insert(roles).values(id=_new_id(tx), name=name))
    project = find_project(tx, name="admin", domain_id=DEFAULT_DOMAIN_ID)
    project_id = project["id"] if project is not None else add_project(tx, "admin")
    if find_user(tx, name="admin", domain_id=DEFAULT_DOMAIN_ID) is not None:
        return False
    user_id = add_user(tx, "admin", admin_password_hash, default_project_id=project_id)
    grant(tx, user_id, project_id, "admin")
    return True


def add_project(tx: Tx, name: str, description: str = "") -> str:
    if find_project(tx, name=name, domain_id=DEFAULT_DOMAIN_ID) is not None:
        raise Conflict(f"There is a project {name} already.")
    project_id = _new_id(tx)
    tx.execute(
        insert(projects).values(
            id=project_id, domain_id=DEFAULT_DOMAIN_ID, name=name, description=description, enabled=True
        )
    )
    return project_id


def add_user(tx: Tx, name: str, password_hash: str, *, default_project_id: str | None = None) -> str:
    if find_user(tx, name=name, domain_id=DEFAULT_DOMAIN_ID) is not None:
        raise Conflict(f"There is a user {name} already.")
    user_id = _new_id(tx)
    tx.execute(
        insert(users).values(
            id=user_id,
            domain_id=DEFAULT_DOMAIN_ID,
            name=name,
            password_hash=password_hash,
            default_project_id=default_project_id,
            enabled=True,
        )
    )
    return user_id


def grant(tx: Tx, user_id: str, project_id: str, role: str) -> None:
    """Give a user a role in a project; nothing to do when it has it."""
    role_id = tx.execute(select(roles.c.id).where(roles.c.name == role)).scalar()
    if role_id is None:
        raise NotFound(f"There is no role {role}.")
    values = {"user_id": user_id, "project_id": project_id, "role_id": role_id}
    if tx.execute(select(role_assignments).filter_by(**values)).first() is None:
        tx.execute(insert(role_assignments).values(**values))
        tx.nudges.append(CHANGED)


def set_password(tx: Tx, user_id: str, password_hash: str) -> None:
    """A new password; every token of that user ends."""
    tx.execute(update(users).where(users.c.id == user_id).values(password_hash=password_hash))
    tx.execute(delete(tokens).where(tokens.c.user_id == user_id))
    tx.nudges.append(CHANGED)


def set_user_enabled(tx: Tx, user_id: str, enabled: bool) -> None:
    tx.execute(update(users).where(users.c.id == user_id).values(enabled=enabled))
    tx.nudges.append(CHANGED)


# -- reading ----------------------------------------------------------------------------------------------------------
def _one(tx: Tx, row_type: type[_R], table: Table, filters: dict[str, Any]) -> _R | None:
    conditions = [table.c[name] == value for name, value in filters.items()]
    return results.first(row_type, tx.execute(select(table).where(*conditions)))


def _many(tx: Tx, row_type: type[_R], table: Table, filters: dict[str, Any]) -> list[_R]:
    conditions = [table.c[name] == value for name, value in filters.items()]
    query = select(table).where(*conditions).order_by(table.c.name, table.c.id)
    return results.every(row_type, tx.execute(query))


def find_domain(tx: Tx, /, **filters: Any) -> DomainRow | None:
    return _one(tx, DomainRow, domains, filters)


def find_project(tx: Tx, /, **filters: Any) -> ProjectRow | None:
    return _one(tx, ProjectRow, projects, filters)


def find_user(tx: Tx, /, **filters: Any) -> UserRow | None:
    return _one(tx, UserRow, users, filters)


def find_role(tx: Tx, /, **filters: Any) -> RoleRow | None:
    return _one(tx, RoleRow, roles, filters)


def list_domains(tx: Tx, /, **filters: Any) -> list[DomainRow]:
    return _many(tx, DomainRow, domains, filters)


def list_projects(tx: Tx, /, **filters: Any) -> list[ProjectRow]:
    return _many(tx, ProjectRow, projects, filters)


def list_users(tx: Tx, /, **filters: Any) -> list[UserRow]:
    return _many(tx, UserRow, users, filters)


def list_roles(tx: Tx, /, **filters: Any) -> list[RoleRow]:
    return _many(tx, RoleRow, roles, filters)


def projects_of(tx: Tx, user_id: str) -> list[ProjectRow]:
    """The enabled projects that the user has any role in."""
    mine = select(role_assignments.c.project_id).where(role_assignments.c.user_id == user_id)
    query = select(projects).where(projects.c.id.in_(mine), projects.c.enabled).order_by(projects.c.name)
    return results.every(ProjectRow, tx.execute(query))


def domains_of(tx: Tx, user_id: str) -> list[DomainRow]:
    """The domains that the user has any role on."""
    mine = select(domain_role_assignments.c.domain_id).where(domain_role_assignments.c.user_id == user_id)
    query = select(domains).where(domains.c.id.in_(mine)).order_by(domains.c.name)
    return results.every(DomainRow, tx.execute(query))


# -- tokens -----------------------------------------------------------------------------------------------------------
def issue_token(
    tx: Tx,
    *,
    token_hash: str,
    audit_id: str,
    user_id: str,
    project_id: str | None,
    methods: Sequence[str],
    expires_at_us: int,
    domain_id: str | None = None,
) -> Caller | None:
    """Store a token. None (and nothing stored) when the user may not have it: disabled, or no role in that place.
    Clears away what has expired, and the oldest of a user that has too many, so that the table does not grow."""
    tx.execute(delete(tokens).where(tokens.c.expires_at_us < tx.now_us))
    tx.execute(
        insert(tokens).values(
            hash=token_hash,
            audit_id=audit_id,
            user_id=user_id,
            project_id=project_id,
            domain_id=domain_id,
            methods=list(methods),
            issued_at_us=tx.now_us,
            expires_at_us=expires_at_us,
        )
    )
    caller = find_token(tx, token_hash)
    if caller is None:
        tx.execute(delete(tokens).where(tokens.c.hash == token_hash))
    else:
        _end_oldest(tx, user_id, token_hash)
    return caller


def _end_oldest(tx: Tx, user_id: str, newest: str) -> None:
    """A token buys others without a password and without end, so their number is bounded."""
    of_user = select(tokens.c.hash).where(tokens.c.user_id == user_id, tokens.c.hash != newest)
    beyond = of_user.order_by(tokens.c.issued_at_us.desc()).offset(TOKENS_PER_USER_MAX - 1)
    if tx.execute(delete(tokens).where(tokens.c.hash.in_(beyond))).rowcount:
        tx.nudges.append(CHANGED)


def find_token(tx: Tx, token_hash: str) -> Caller | None:
    """The caller behind a token; None when it is unknown, expired or revoked, or its user or project is disabled, or
    its user has no role left in the project, or on the domain."""
    row = tx.execute(_TOKEN, {"of": token_hash, "now_us": tx.now_us}).first()
    if row is None:
        return None
    held: tuple[tuple[str, str], ...] = ()
    if row.project_id is not None:
        held = _roles(tx, _ROLES_IN, row.user_id, row.project_id)
        if not held or not row.project_enabled:
            return None
    domain_name = ""
    if row.domain_id is not None:
        held = _roles(tx, _ROLES_ON, row.user_id, row.domain_id)
        domain = find_domain(tx, id=row.domain_id)
        if not held or domain is None:
            return None
        domain_name = domain["name"]
    return Caller(
        token_hash=token_hash,
        audit_id=row.audit_id,
        methods=tuple(row.methods),
        issued_at_us=row.issued_at_us,
        expires_at_us=row.expires_at_us,
        user_id=row.user_id,
        user_name=row.user_name,
        user_domain_id=row.user_domain_id,
        user_domain_name=row.user_domain_name,
        project_id=row.project_id,
        project_name=row.project_name or "",
        project_domain_id=row.project_domain_id or "",
        project_domain_name=row.project_domain_name or "",
        roles=held,
        role_names=frozenset(name for _, name in held),
        domain_id=row.domain_id,
        domain_name=domain_name,
    )


def _roles(tx: Tx, query: Prepared, user_id: str, place: str) -> tuple[tuple[str, str], ...]:
    """The roles assigned, with what they imply, as (id, name)."""
    rows = tx.execute(query, {"of_user": user_id, "of_place": place}).fetchall()
    names = expand(row.name for row in rows if row.is_assigned)
    return tuple((row.id, row.name) for row in rows if row.name in names)


def revoke_token(tx: Tx, token_hash: str) -> bool:
    """End a token for good. False when there was none."""
    tx.nudges.append(CHANGED)
    return tx.execute(delete(tokens).where(tokens.c.hash == token_hash)).rowcount > 0
