"""Roles, and which implies which. The program's own stay as they are: what the APIs ask of a caller is said by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from droveway.domain.faults import Conflict, Forbidden, NotFound
from droveway.domain.policy import ADMIN, IMPLIES, ROLES, makes_a_circle
from droveway.store.engine.transaction import Tx
from droveway.store.identity.accounts import CHANGED, find_role, list_roles, new_id, there
from droveway.store.identity.rows import RoleRow
from droveway.store.identity.tables import assignments, role_implications, roles
from droveway.store.identity.tokens import role_graph

ROLES_MAX = 1000  # each token that is looked up reads them all


def add(tx: Tx, values: Mapping[str, Any]) -> str:
    """Raises Conflict when the name is taken, or there are too many."""
    _name_is_free(tx, values["name"])
    if tx.execute(select(func.count()).select_from(roles)).scalar_one() >= ROLES_MAX:
        raise Conflict(f"There are {ROLES_MAX} roles already, which is the most.")
    role_id = new_id(tx)
    tx.execute(insert(roles).values(id=role_id, **values))
    return role_id


def _name_is_free(tx: Tx, name: str) -> None:
    if find_role(tx, name=name) is not None:
        raise Conflict(f"There is a role {name} already.")


def _changeable(tx: Tx, role_id: str) -> RoleRow:
    row = there(find_role(tx, id=role_id), "role", role_id)
    if row["name"] in ROLES:
        raise Forbidden(f"The role {row['name']} is the program's own, and stays as it is; make one of another name.")
    return row


def update_role(tx: Tx, role_id: str, values: Mapping[str, Any]) -> None:
    row = _changeable(tx, role_id)
    if "name" in values and values["name"] != row["name"]:
        _name_is_free(tx, values["name"])
    if values:
        tx.execute(update(roles).where(roles.c.id == role_id).values(**values))
    tx.nudges.append(CHANGED)


def remove(tx: Tx, role_id: str) -> None:
    """Users and groups that had it have it no longer."""
    _changeable(tx, role_id)
    tx.execute(delete(assignments).where(assignments.c.role_id == role_id))
    both = (role_implications.c.prior_id == role_id) | (role_implications.c.implied_id == role_id)
    tx.execute(delete(role_implications).where(both))
    tx.execute(delete(roles).where(roles.c.id == role_id))
    tx.nudges.append(CHANGED)


def implied_by(tx: Tx, prior_id: str) -> tuple[RoleRow, list[RoleRow]]:
    """The role, and those that it implies at once."""
    prior = there(find_role(tx, id=prior_id), "role", prior_id)
    return prior, list_roles(tx, id=role_graph(tx)[1].get(prior_id, []))


def implication(tx: Tx, prior_id: str, implied_id: str) -> tuple[RoleRow, RoleRow]:
    """Both roles of it. Raises NotFound."""
    prior, implied = _pair(tx, prior_id, implied_id)
    if implied_id not in role_graph(tx)[1].get(prior_id, []):
        raise NotFound(f"The role {prior['name']} does not imply {implied['name']}.")
    return prior, implied


def _pair(tx: Tx, prior_id: str, implied_id: str) -> tuple[RoleRow, RoleRow]:
    return (
        there(find_role(tx, id=prior_id), "role", prior_id),
        there(find_role(tx, id=implied_id), "role", implied_id),
    )


def imply(tx: Tx, prior_id: str, implied_id: str) -> tuple[RoleRow, RoleRow]:
    """Nothing to do when it does already. Raises Forbidden for `admin`, and for a role that would imply itself."""
    prior, implied = _pair(tx, prior_id, implied_id)
    graph = role_graph(tx)[1]
    if implied_id in graph.get(prior_id, []):
        return prior, implied
    if implied["name"] == ADMIN:
        raise Forbidden("No role implies admin: those who may give that role could make administrators.")
    if makes_a_circle(prior_id, implied_id, graph):
        raise Forbidden(f"The role {prior['name']} would imply itself: {implied['name']} implies it already.")
    tx.execute(insert(role_implications).values(prior_id=prior_id, implied_id=implied_id))
    tx.nudges.append(CHANGED)
    return prior, implied


def imply_no_longer(tx: Tx, prior_id: str, implied_id: str) -> None:
    """Raises NotFound, and Forbidden for the program's own."""
    prior, implied = implication(tx, prior_id, implied_id)
    if implied["name"] in IMPLIES.get(prior["name"], ()):
        raise Forbidden(f"That {prior['name']} implies {implied['name']} is the program's own, and stays.")
    tx.execute(delete(role_implications).filter_by(prior_id=prior_id, implied_id=implied_id))
    tx.nudges.append(CHANGED)


def implications(tx: Tx) -> dict[str, list[str]]:
    return role_graph(tx)[1]
