"""Tokens, stored only as their sha256, and the callers behind them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import and_, bindparam, delete, insert, literal_column, or_, select

from droveway.domain.policy import ADMIN, expand
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.identity.accounts import CHANGED
from droveway.store.identity.tables import (
    application_credentials,
    assignments,
    domains,
    group_members,
    project_ancestors,
    projects,
    role_implications,
    roles,
    tokens,
    users,
)

TOKENS_PER_USER_MAX = 1000  # each call of the openstack command takes one and leaves it until it expires
SYSTEM = "all"  # the id of the system, as a place where roles are held
Role = tuple[str, str]  # id, name

# Asked with every request where an API may not remember tokens; built once: building costs more than running.
_user_domain, _project_domain = domains.alias("user_domain"), domains.alias("project_domain")
_token_domain = domains.alias("token_domain")
_TOKEN = Prepared(
    select(
        tokens,
        users.c.name.label("user_name"),
        users.c.domain_id.label("user_domain_id"),
        users.c.password_expires_at_us,
        _user_domain.c.name.label("user_domain_name"),
        projects.c.name.label("project_name"),
        projects.c.domain_id.label("project_domain_id"),
        and_(projects.c.enabled, _project_domain.c.enabled).label("project_enabled"),
        _project_domain.c.name.label("project_domain_name"),
        _token_domain.c.name.label("domain_name"),
        _token_domain.c.enabled.label("domain_enabled"),
        application_credentials.c.name.label("key_name"),
        application_credentials.c.role_ids.label("key_roles"),
        application_credentials.c.unrestricted.label("key_unrestricted"),
    )
    .join(users, users.c.id == tokens.c.user_id)
    .join(_user_domain, _user_domain.c.id == users.c.domain_id)
    .outerjoin(projects, projects.c.id == tokens.c.project_id)
    .outerjoin(_project_domain, _project_domain.c.id == projects.c.domain_id)
    .outerjoin(_token_domain, _token_domain.c.id == tokens.c.domain_id)
    .outerjoin(application_credentials, application_credentials.c.id == tokens.c.application_credential_id)
    .where(
        tokens.c.hash == bindparam("of"),
        tokens.c.expires_at_us > bindparam("now_us"),
        users.c.enabled,
        _user_domain.c.enabled,
    )
)
_of_groups = select(group_members.c.group_id).where(group_members.c.user_id == bindparam("of_user"))
_above = select(project_ancestors.c.ancestor_id).where(project_ancestors.c.project_id == bindparam("of_place"))
_HELD = Prepared(
    select(assignments.c.role_id).where(
        or_(assignments.c.actor_id == bindparam("of_user"), assignments.c.actor_id.in_(_of_groups)),
        or_(
            and_(
                assignments.c.target_id == bindparam("of_place"),
                assignments.c.target_kind == bindparam("of_kind"),
                ~assignments.c.inherited,
            ),
            and_(assignments.c.inherited, assignments.c.target_id.in_(_above)),
        ),
    )
)
_ROLES = Prepared(
    select(roles.c.id, roles.c.name, role_implications.c.implied_id)
    .outerjoin(role_implications, role_implications.c.prior_id == roles.c.id)
    .order_by(roles.c.name)
)


_ENABLED = Prepared(
    select(users.c.id)
    .join(_user_domain, _user_domain.c.id == users.c.domain_id)
    .join(projects, projects.c.id == bindparam("of_place"))
    .join(_project_domain, _project_domain.c.id == projects.c.domain_id)
    .where(
        users.c.id == bindparam("of_user"),
        users.c.enabled,
        _user_domain.c.enabled,
        projects.c.enabled,
        _project_domain.c.enabled,
    )
)


_ADD = Prepared(insert(tokens))
_END = Prepared(delete(tokens).where(tokens.c.hash == bindparam("of")))
_END_EXPIRED = Prepared(delete(tokens).where(tokens.c.expires_at_us < bindparam("now_us")))
_beyond = (
    select(tokens.c.hash)
    .where(tokens.c.user_id == bindparam("of_user"), tokens.c.hash != bindparam("newest"))
    .order_by(tokens.c.issued_at_us.desc())
    .offset(literal_column(str(TOKENS_PER_USER_MAX - 1)))
)
_END_OLDEST = Prepared(delete(tokens).where(tokens.c.hash.in_(_beyond)))


class ApplicationKey(msgspec.Struct, frozen=True):
    """The application credential with which a token was bought."""

    id: str
    name: str
    is_restricted: bool


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
    roles: tuple[Role, ...]  # with what they imply
    role_names: frozenset[str]
    domain_id: str | None = None  # of a token that is good for a domain instead of a project
    domain_name: str = ""
    is_system: bool = False
    password_expires_at_us: int | None = None
    key: ApplicationKey | None = None
    credential_id: str | None = None  # of the EC2 key that it was bought with

    @property
    def is_admin(self) -> bool:
        return ADMIN in self.role_names


class Place(msgspec.Struct, frozen=True):
    """What a token is wanted for; for nothing, where all are empty."""

    project_id: str | None = None
    domain_id: str | None = None
    is_system: bool = False


NOWHERE = Place()


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
    is_system: bool = False,
    application_credential_id: str | None = None,
    credential_id: str | None = None,
) -> Caller | None:
    """Store a token. None (and nothing stored) when the user may not have it: disabled, or no role in that place.
    Clears away what has expired, and the oldest of a user that has too many, so that the table does not grow."""
    tx.execute(_END_EXPIRED, {"now_us": tx.now_us})
    row = {
        "hash": token_hash,
        "audit_id": audit_id,
        "user_id": user_id,
        "project_id": project_id,
        "domain_id": domain_id,
        "is_system": is_system,
        "application_credential_id": application_credential_id,
        "credential_id": credential_id,
        "methods": list(methods),
        "issued_at_us": tx.now_us,
        "expires_at_us": expires_at_us,
    }
    tx.execute(_ADD, row)
    caller = find_token(tx, token_hash)
    if caller is None:
        tx.execute(_END, {"of": token_hash})
    # A token buys others without a password and without end, so their number is bounded.
    elif tx.execute(_END_OLDEST, {"of_user": user_id, "newest": token_hash}).rowcount:
        tx.nudges.append(CHANGED)
    return caller


def find_token(tx: Tx, token_hash: str) -> Caller | None:
    """The caller behind a token; None when it is unknown, expired or revoked, or its user, project or domain is
    disabled, or its user has lost its last role there, or one that the application credential behind it promises."""
    row = tx.execute(_TOKEN, {"of": token_hash, "now_us": tx.now_us}).first()
    if row is None:
        return None
    place = Place(row.project_id, row.domain_id, row.is_system)
    if (row.project_id is not None and not row.project_enabled) or (
        row.domain_id is not None and not row.domain_enabled
    ):
        return None
    held: tuple[Role, ...] = ()
    if place != NOWHERE:
        promised = row.key_roles if row.application_credential_id is not None else None
        held = roles_in(tx, row.user_id, place, promised)
        if not held:
            return None
    key = None
    if row.application_credential_id is not None:
        if row.key_name is None:
            return None
        key = ApplicationKey(row.application_credential_id, row.key_name, not row.key_unrestricted)
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
        domain_name=row.domain_name or "",
        is_system=row.is_system,
        password_expires_at_us=row.password_expires_at_us,
        key=key,
        credential_id=row.credential_id,
    )


def roles_in(tx: Tx, user_id: str, place: Place, promised: Sequence[str] | None = None) -> tuple[Role, ...]:
    """The roles of a user in a place, with what they imply, by name. `promised`: of an application credential, which
    gives no others, and none at all when one of them is held no longer."""
    kind = "project" if place.project_id is not None else "domain" if place.domain_id is not None else "system"
    where = {"of_user": user_id, "of_kind": kind, "of_place": place.project_id or place.domain_id or SYSTEM}
    names, implied = role_graph(tx)
    held = expand((row.role_id for row in tx.execute(_HELD, where)), implied)
    if promised is not None:
        held = expand(promised, implied) if held.issuperset(promised) else frozenset()
    return tuple((role_id, name) for role_id, name in names.items() if role_id in held)


def role_names_in(tx: Tx, user_id: str, project_id: str) -> frozenset[str]:
    """What a user has in a project now, with what that implies; nothing where either, or its domain, is disabled."""
    row = tx.execute(_ENABLED, {"of_user": user_id, "of_place": project_id}).first()
    return frozenset() if row is None else frozenset(name for _, name in roles_in(tx, user_id, Place(project_id)))


def role_graph(tx: Tx) -> tuple[dict[str, str], dict[str, list[str]]]:
    """All roles: id -> name, in the order of their names; and which each implies at once, by id."""
    names: dict[str, str] = {}
    implied: dict[str, list[str]] = {}
    for row in tx.execute(_ROLES):
        names[row.id] = row.name
        if row.implied_id is not None:
            implied.setdefault(row.id, []).append(row.implied_id)
    return names, implied


def forget_token(tx: Tx, token_hash: str) -> None:
    """One that was told to nobody."""
    tx.execute(_END, {"of": token_hash})


def revoke_token(tx: Tx, token_hash: str) -> bool:
    """End a token for good. False when there was none."""
    tx.nudges.append(CHANGED)
    return tx.execute(_END, {"of": token_hash}).rowcount > 0
