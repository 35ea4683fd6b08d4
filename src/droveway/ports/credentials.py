"""Who a user is: asked of whatever knows the passwords of a domain, the program's own table or a directory.

A driver keeps no state of its own. It raises Unreachable when nobody answers within its bound, which is no verdict: the
caller is told to try again, and it counts as no wrong password. No name and no password makes it ask for anything but
that very person; an empty password is nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import msgspec


class LoginRefusal(StrEnum):
    """Why a user is not let in: for the log alone. The client is told the same words for each."""

    NO_USER = "there is no such user"
    WRONG_PASSWORD = "the password is wrong"
    DISABLED = "the user is disabled"


class Person(msgspec.Struct, frozen=True):
    """`key` is what this person is known by for good, also under a new name: an id, at most 255 characters."""

    key: str
    name: str
    is_enabled: bool = True
    email: str | None = None
    description: str | None = None


class Credentials(Protocol):
    """The guarantees of a driver. `is_writable`: passwords are changed, and people made, through the API; otherwise
    elsewhere."""

    is_writable: bool

    async def verify(self, domain_id: str, name: str, password: str) -> Person | LoginRefusal:
        """Who has that name and that password. The table takes as long for every refusal as for a wrong password; with
        a directory it is the directory that says how long. Raises Unreachable, Busy."""
        ...

    async def find(self, domain_id: str, name: str) -> Person | None:
        """Raises Unreachable, Busy."""
        ...

    async def people(self, domain_id: str, most: int) -> Sequence[Person]:
        """At most so many of them. Raises Unreachable, Busy."""
        ...

    async def close(self) -> None: ...
