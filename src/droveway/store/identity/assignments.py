"""Who has which role where: a user or a group, on a project, a domain or the system. What is taken away is gone from
every token at once."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Label, String, and_, case, delete, func, insert, literal, select

from droveway.domain.faults import NotFound
from droveway.store.engine import results
from droveway.store.engine.transaction import Tx
from droveway.store.identity.accounts import (
    CHANGED,
    end_tokens,
    find_domain,
    find_group,
    find_project,
    find_role,
    find_user,
    must_have_admin,
    remove_user,
    there,
)
from droveway.store.identity.rows import AssignmentRow, RoleRow
from droveway.store.identity.tables import (
    assignments,
    domains,
    group_members,
    project_ancestors,
    projects,
    roles,
    tokens,
    user_groups,
    users,
)
from droveway.store.identity.tokens import SYSTEM, Place, roles_in

__all__ = ["SYSTEM", "Actor", "AssignmentTarget", "remove_user"]


class Actor(NamedTuple):
    """Who holds a role."""

    kind: str  # user, group
    id: str


class AssignmentTarget(NamedTuple):
    """What a role is held on. `inherited`: not there, but in every project below."""

    kind: str  # project, domain, system
    id: str
    inherited: bool = False


_FIND: dict[str, Any] = {"user": find_user, "group": find_group, "project": find_project, "domain": find_domain}


def must_be(tx: Tx, actor: Actor, target: AssignmentTarget, role_id: str | None = None) -> None:
    """Raises NotFound naming the first that there is none of."""
    there(_FIND[actor.kind](tx, id=actor.id), actor.kind, actor.id)
    if target.kind != "system":
        there(_FIND[target.kind](tx, id=target.id), target.kind, target.id)
    if role_id is not None:
        there(find_role(tx, id=role_id), "role", role_id)


def _values(actor: Actor, target: AssignmentTarget) -> dict[str, Any]:
    return {
        "actor_kind": actor.kind,
        "actor_id": actor.id,
        "target_kind": target.kind,
        "target_id": target.id,
        "inherited": target.inherited,
    }


def grant(tx: Tx, actor: Actor, target: AssignmentTarget, role_id: str) -> None:
    """Give a role there; nothing to do when it is held. Raises NotFound."""
    must_be(tx, actor, target, role_id)
    if not holds(tx, actor, target, role_id):
        tx.execute(insert(assignments).values(**_values(actor, target), role_id=role_id))
        tx.nudges.append(CHANGED)


def holds(tx: Tx, actor: Actor, target: AssignmentTarget, role_id: str) -> bool:
    query = select(assignments.c.role_id).filter_by(**_values(actor, target), role_id=role_id)
    return tx.execute(query).first() is not None


def roles_of(tx: Tx, actor: Actor, target: AssignmentTarget) -> list[RoleRow]:
    """Those assigned there, without what they imply."""
    held = select(assignments.c.role_id).filter_by(**_values(actor, target))
    return results.every(RoleRow, tx.execute(select(roles).where(roles.c.id.in_(held)).order_by(roles.c.name)))


def revoke(tx: Tx, actor: Actor, target: AssignmentTarget, role_id: str) -> None:
    """Take a role away; with the last one there, a user's tokens for that place end. Raises NotFound, Conflict."""
    if not holds(tx, actor, target, role_id):
        raise NotFound(
            f"Could not find that role assignment: the {actor.kind} {actor.id[:64]} has no role {role_id[:64]} on "
            f"{'the system' if target.kind == 'system' else f'the {target.kind} {target.id[:64]}'}."
        )
    tx.execute(delete(assignments).filter_by(**_values(actor, target), role_id=role_id))
    must_have_admin(tx)
    if actor.kind == "user" and not target.inherited:
        _end_tokens(tx, actor.id, target)
    tx.nudges.append(CHANGED)


def _end_tokens(tx: Tx, user_id: str, target: AssignmentTarget) -> None:
    places = {
        "project": (Place(project_id=target.id), tokens.c.project_id == target.id),
        "domain": (Place(domain_id=target.id), tokens.c.domain_id == target.id),
        "system": (Place(is_system=True), tokens.c.is_system),
    }
    place, condition = places[target.kind]
    if not roles_in(tx, user_id, place):
        end_tokens(tx, tokens.c.user_id == user_id, condition)


# -- all of them ------------------------------------------------------------------------------------------------------
_actor_domain, _target_domain = domains.alias("actor_domain"), domains.alias("target_domain")


def _text(value: str, name: str) -> Label[str]:
    return literal(value, String()).label(name)


def listing(tx: Tx, /, *, effective: bool = False, **filters: Any) -> list[AssignmentRow]:
    """Role assignments with the names of everything they join. `effective`: of groups their members, of what is
    inherited the projects below. Filters are columns of AssignmentRow."""
    a = assignments.c
    nothing = (_text("", "by_id"), a.target_kind.label("on_kind"), _text("", "on_id"))
    part = select(a.actor_kind, a.actor_id, a.target_kind, a.target_id, a.role_id, a.inherited, *nothing)
    if effective:
        member, below = group_members.c.user_id, project_ancestors.c.project_id
        part = (
            select(
                _text("user", "actor_kind"),
                func.coalesce(member, a.actor_id).label("actor_id"),
                case((a.inherited, "project"), else_=a.target_kind).label("target_kind"),
                case((a.inherited, below), else_=a.target_id).label("target_id"),
                a.role_id,
                a.inherited,
                case((a.actor_kind == "group", a.actor_id), else_="").label("by_id"),
                a.target_kind.label("on_kind"),
                case((a.inherited, a.target_id), else_="").label("on_id"),
            )
            .outerjoin(group_members, and_(a.actor_kind == "group", group_members.c.group_id == a.actor_id))
            .outerjoin(project_ancestors, and_(a.inherited, project_ancestors.c.ancestor_id == a.target_id))
            .where((a.actor_kind == "user") | member.is_not(None), ~a.inherited | below.is_not(None))
        )
    held = part.subquery("held")
    c = held.c
    names: tuple[tuple[str, ColumnElement[Any]], ...] = (
        ("actor_name", func.coalesce(users.c.name, user_groups.c.name, "")),
        ("actor_domain_id", func.coalesce(users.c.domain_id, user_groups.c.domain_id, "")),
        ("actor_domain_name", func.coalesce(_actor_domain.c.name, "")),
        ("role_name", roles.c.name),
        ("target_name", func.coalesce(projects.c.name, domains.c.name, "")),
        ("target_domain_id", func.coalesce(projects.c.domain_id, "")),
        ("target_domain_name", func.coalesce(_target_domain.c.name, "")),
    )
    named = (
        select(held, *(column.label(name) for name, column in names))
        .join(roles, roles.c.id == c.role_id)
        .outerjoin(users, and_(c.actor_kind == "user", users.c.id == c.actor_id))
        .outerjoin(user_groups, and_(c.actor_kind == "group", user_groups.c.id == c.actor_id))
        .outerjoin(_actor_domain, _actor_domain.c.id == func.coalesce(users.c.domain_id, user_groups.c.domain_id))
        .outerjoin(projects, and_(c.target_kind == "project", projects.c.id == c.target_id))
        .outerjoin(domains, and_(c.target_kind == "domain", domains.c.id == c.target_id))
        .outerjoin(_target_domain, _target_domain.c.id == projects.c.domain_id)
    ).subquery("named")
    n = named.c
    query = select(named).where(*(n[name] == value for name, value in filters.items()))
    order = (n.target_kind.desc(), n.actor_name, n.target_name, n.role_name, n.inherited)
    return results.every(AssignmentRow, tx.execute(query.order_by(*order)))
