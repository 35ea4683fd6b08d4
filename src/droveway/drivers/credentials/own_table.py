"""The program's own table of users, as a driver: passwords as hashes in the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from droveway.ports.credentials import LoginRefusal, Person
from droveway.store.engine.transaction import Store
from droveway.store.identity import accounts
from droveway.store.identity.rows import UserRow

Matches = Callable[[str | None, str], Awaitable[bool]]


class OwnTable:
    """`matches(hash, password)`: whether it is that password's; of None, that of nobody, after the same time."""

    is_writable = True

    def __init__(self, store: Store, matches: Matches) -> None:
        self._store, self._matches = store, matches

    async def verify(self, domain_id: str, name: str, password: str) -> Person | LoginRefusal:
        row = await self._row(domain_id, name)
        is_right = await self._matches((row and row["password_hash"]) or None, password)
        if row is None:
            return LoginRefusal.NO_USER
        if not is_right or not password:
            return LoginRefusal.WRONG_PASSWORD
        return _person(row) if row["enabled"] else LoginRefusal.DISABLED

    async def find(self, domain_id: str, name: str) -> Person | None:
        row = await self._row(domain_id, name)
        return None if row is None else _person(row)

    async def people(self, domain_id: str, most: int) -> Sequence[Person]:
        rows = await self._store.read(accounts.list_users, domain_id=domain_id)
        return [_person(row) for row in rows[:most]]

    async def close(self) -> None:
        """Nothing is held."""

    async def _row(self, domain_id: str, name: str) -> UserRow | None:
        return await self._store.read(accounts.find_user, domain_id=domain_id, name=name)


def _person(row: UserRow) -> Person:
    return Person(row["id"], row["name"], row["enabled"], row["email"], row["description"])
