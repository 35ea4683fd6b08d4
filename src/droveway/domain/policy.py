"""Who may do what: five roles, each with what it implies, and the few things a route may need.

Every row has its project. Without `admin` a caller sees the rows of the project of its token and no others; another
project's row is not refused but absent, so that its existence is not revealed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

IMPLIES = {"admin": "manager", "manager": "member", "member": "reader"}
ROLES = ("admin", "manager", "member", "reader", "service")


class Need(StrEnum):
    """What a route needs of its caller."""

    PUBLIC = "public"  # no token at all: version documents, login
    TOKEN = "token"  # any valid one, scoped or not
    READER = "reader"  # a project, and a role in it
    MEMBER = "member"  # a project, and the right to change things in it
    ADMIN = "admin"
    IDENTITY_ADMIN = "identity admin"  # the role admin in the project or on the domain of the token


def expand(roles: Iterable[str]) -> frozenset[str]:
    """The roles with everything they imply."""
    all_roles: set[str] = set()
    for role in roles:
        step: str | None = role
        while step is not None and step not in all_roles:
            all_roles.add(step)
            step = IMPLIES.get(step)
    return frozenset(all_roles)


def refusal(need: Need, roles: Collection[str], *, has_project: bool) -> str | None:
    """Why a caller with these (expanded) roles may not pass, as a sentence; None when it may."""
    if need in (Need.PUBLIC, Need.TOKEN):
        return None
    if need is Need.IDENTITY_ADMIN:
        return None if "admin" in roles else "This needs the role admin in the project or on the domain of the token."
    if not has_project:
        return "The token is not scoped to a project; ask for one that is."
    if need.value not in roles:
        return f"This needs the role {need.value} in the project of the token."
    return None
