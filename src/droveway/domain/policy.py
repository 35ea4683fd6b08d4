"""Who may do what: the roles, what each implies, and what a route may need of its caller. This is the one table of it;
`api/routes.py` says which route needs what.

Every row has its project. Without `admin` a caller sees the rows of the project of its token and no others; another
project's row is not refused but absent, so that its existence is not revealed. Rows of identity have a domain instead:
an administrator reaches all of them, a manager or a reader of a domain those of that domain (`domain_bound`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol

ADMIN = "admin"
ROLES = (ADMIN, "manager", "member", "reader", "service")  # the program's own: they are always there, as they are
IMPLIES: Mapping[str, Collection[str]] = {ADMIN: ("manager",), "manager": ("member",), "member": ("reader",)}


class Need(StrEnum):
    """What a route needs of its caller."""

    PUBLIC = "public"  # no token at all: version documents, login
    TOKEN = "token"  # any valid one, scoped or not
    READER = "reader"  # a project, and a role in it
    MEMBER = "member"  # a project, and the right to change things in it
    MANAGER = "manager"  # a project, and the right to change what its members may not
    ADMIN = "admin"
    SERVICE = "service"  # who checks what others send: a service, or an administrator
    OWNER = "owner"  # the user that the path names, and nobody else
    USER_READER = "user reader"  # that user, or who may look into identity
    USER_ADMIN = "user admin"  # that user, or an administrator
    IDENTITY_READER = "identity reader"  # who may look into identity, of the cloud or of a domain
    IDENTITY_MANAGER = "identity manager"  # who may change people and projects, of the cloud or of a domain
    IDENTITY_AUDITOR = "identity auditor"  # who may look at what is the cloud's: regions, domains, the system
    IDENTITY_ADMIN = "identity admin"  # who may change that


PROJECT, DOMAIN, SYSTEM = "a project", "a domain", "the system"


class Requirement(NamedTuple):
    """That role, held where the token is good for: any of these places."""

    role: str
    places: tuple[str, ...]


_ANYWHERE = Requirement(ADMIN, (PROJECT, DOMAIN, SYSTEM))
_LOOKS = (_ANYWHERE, Requirement("reader", (SYSTEM,)), Requirement("reader", (DOMAIN,)))
REQUIREMENTS: Mapping[Need, tuple[Requirement, ...]] = {
    Need.READER: (Requirement("reader", (PROJECT,)),),
    Need.MEMBER: (Requirement("member", (PROJECT,)),),
    Need.MANAGER: (Requirement("manager", (PROJECT,)),),
    Need.ADMIN: (Requirement(ADMIN, (PROJECT,)),),
    Need.SERVICE: (_ANYWHERE, Requirement("service", (PROJECT, DOMAIN, SYSTEM))),
    Need.OWNER: (),
    Need.USER_READER: _LOOKS,
    Need.USER_ADMIN: (_ANYWHERE,),
    Need.IDENTITY_READER: _LOOKS,
    Need.IDENTITY_MANAGER: (_ANYWHERE, Requirement("manager", (DOMAIN,))),
    Need.IDENTITY_AUDITOR: (_ANYWHERE, Requirement("reader", (SYSTEM,))),
    Need.IDENTITY_ADMIN: (_ANYWHERE,),
}
OF_ONESELF = frozenset({Need.OWNER, Need.USER_READER, Need.USER_ADMIN})


class Bearer(Protocol):
    """Of a token, what is asked of it here. `role_names` are expanded."""

    @property
    def user_id(self) -> str: ...
    @property
    def role_names(self) -> frozenset[str]: ...
    @property
    def project_id(self) -> str | None: ...
    @property
    def domain_id(self) -> str | None: ...
    @property
    def is_system(self) -> bool: ...


def expand(roles: Iterable[str], implies: Mapping[str, Collection[str]] = IMPLIES) -> frozenset[str]:
    """The roles with everything they imply; by name, or by id where `implies` is."""
    found: set[str] = set()
    waiting = list(roles)
    while waiting:
        role = waiting.pop()
        if role not in found:
            found.add(role)
            waiting.extend(implies.get(role, ()))
    return frozenset(found)


def makes_a_circle(prior: str, implied: str, implies: Mapping[str, Collection[str]]) -> bool:
    """Whether a role would imply itself if `prior` implied `implied`."""
    return prior in expand([implied], implies)


def place_of(bearer: Bearer) -> str | None:
    """What its token is good for; None: for nothing."""
    if bearer.project_id is not None:
        return PROJECT
    if bearer.domain_id is not None:
        return DOMAIN
    return SYSTEM if bearer.is_system else None


def domain_bound(bearer: Bearer) -> str | None:
    """The domain whose rows alone the bearer of an identity need reaches; None: all."""
    return None if ADMIN in bearer.role_names else bearer.domain_id


def may_give(bearer: Bearer, role: str) -> bool:
    """Whether it may give that role to a user, or take it away: an administrator any, others what they have."""
    return ADMIN in bearer.role_names or role in bearer.role_names


def refusal(need: Need, bearer: Bearer, user_id: str | None = None) -> str | None:
    """Why the bearer of a token may not pass, as a sentence; None when it may. `user_id`: whom the path names."""
    if need in (Need.PUBLIC, Need.TOKEN):
        return None
    if need in OF_ONESELF and user_id == bearer.user_id:
        return None
    place, several = place_of(bearer), REQUIREMENTS[need]
    if any(rule.role in bearer.role_names and place in rule.places for rule in several):
        return None
    if need is Need.OWNER:
        return "This is for that user alone."
    if place is None and several[0].places == (PROJECT,):
        return "The token is not scoped to a project; ask for one that is."
    if several[0].places == (PROJECT,) and place is not PROJECT:
        return f"The token is good for {place}; ask for one that is scoped to a project."
    if several[0].places == (PROJECT,):
        return f"This needs the role {need.value} in the project of the token."
    return f"This needs {_wanted(need)}, and a token for that."


def _wanted(need: Need) -> str:
    return " or ".join(f"the role {rule.role} on {' or '.join(rule.places)}" for rule in REQUIREMENTS[need])


def described(need: Need) -> str:
    """What a route with that need says of it."""
    if need is Need.PUBLIC:
        return "No token is needed."
    if need is Need.TOKEN:
        return "Needs a token."
    if need is Need.OWNER:
        return "For that user alone."
    own = "That user itself may, too. " if need in OF_ONESELF else ""
    if REQUIREMENTS[need][0].places == (PROJECT,):
        return f"Needs the role {need.value} in the project of the token."
    return f"{own}Needs {_wanted(need)}."
