"""Groups of users: who is in one has its roles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, insert, select, update

from droveway.domain.faults import Conflict, NotFound
from droveway.domain.policy import expand
from droveway.store.engine import results
from droveway.store.engine.transaction import Tx
from droveway.store.identity.accounts import CHANGED, find_group, find_user, must_have_admin, new_id, there
from droveway.store.identity.rows import GroupRow, UserRow
from droveway.store.identity.tables import assignments, group_members, user_groups, users
from droveway.store.identity.tokens import role_graph


def add(tx: Tx, values: Mapping[str, Any]) -> str:
    """Raises Conflict when there is one of that name in the domain."""
    _name_is_free(tx, values["name"], values["domain_id"])
    group_id = new_id(tx)
    tx.execute(insert(user_groups).values(id=group_id, **values))
    return group_id


def _name_is_free(tx: Tx, name: str, domain_id: str) -> None:
    if find_group(tx, name=name, domain_id=domain_id) is not None:
        raise Conflict(f"There is a group {name} in that domain already.")


def update_group(tx: Tx, group_id: str, values: Mapping[str, Any]) -> None:
    row = there(find_group(tx, id=group_id), "group", group_id)
    if "name" in values and values["name"] != row["name"]:
        _name_is_free(tx, values["name"], row["domain_id"])
    if values:
        tx.execute(update(user_groups).where(user_groups.c.id == group_id).values(**values))


def remove(tx: Tx, group_id: str) -> None:
    """With its roles. Raises Conflict when the last administrator is one by it."""
    there(find_group(tx, id=group_id), "group", group_id)
    tx.execute(delete(group_members).where(group_members.c.group_id == group_id))
    tx.execute(delete(assignments).where(assignments.c.actor_id == group_id))
    tx.execute(delete(user_groups).where(user_groups.c.id == group_id))
    must_have_admin(tx)
    tx.nudges.append(CHANGED)


def is_member(tx: Tx, group_id: str, user_id: str) -> bool:
    there(find_group(tx, id=group_id), "group", group_id)
    there(find_user(tx, id=user_id), "user", user_id)
    return tx.execute(select(group_members).filter_by(group_id=group_id, user_id=user_id)).first() is not None


def add_member(tx: Tx, group_id: str, user_id: str) -> None:
    """Nothing to do when it is in it."""
    if not is_member(tx, group_id, user_id):
        tx.execute(insert(group_members).values(group_id=group_id, user_id=user_id))
        tx.nudges.append(CHANGED)


def remove_member(tx: Tx, group_id: str, user_id: str) -> None:
    """Raises NotFound, and Conflict for the last administrator."""
    if not is_member(tx, group_id, user_id):
        raise NotFound(f"Could not find the user {user_id[:64]} in the group {group_id[:64]}.")
    tx.execute(delete(group_members).filter_by(group_id=group_id, user_id=user_id))
    must_have_admin(tx)
    tx.nudges.append(CHANGED)


def members(tx: Tx, group_id: str) -> list[UserRow]:
    there(find_group(tx, id=group_id), "group", group_id)
    inside = select(group_members.c.user_id).where(group_members.c.group_id == group_id)
    query = select(users).where(users.c.id.in_(inside)).order_by(users.c.name, users.c.id)
    return results.every(UserRow, tx.execute(query))


def groups_of(tx: Tx, user_id: str) -> list[GroupRow]:
    there(find_user(tx, id=user_id), "user", user_id)
    around = select(group_members.c.group_id).where(group_members.c.user_id == user_id)
    query = select(user_groups).where(user_groups.c.id.in_(around)).order_by(user_groups.c.name, user_groups.c.id)
    return results.every(GroupRow, tx.execute(query))


def role_names(tx: Tx, group_id: str) -> list[str]:
    """Of the roles that it has anywhere, with what they imply."""
    query = select(assignments.c.role_id).where(assignments.c.actor_id == group_id)
    names, implied = role_graph(tx)
    held = expand(tx.execute(query).scalars(), implied)
    return [name for role_id, name in names.items() if role_id in held]
