"""People who stand in a directory: a row each, made when one is first met, so that roles can be given to them."""

from __future__ import annotations

import hashlib

from sqlalchemy import insert, update

from droveway.ports.credentials import Person
from droveway.store.engine.transaction import Tx
from droveway.store.identity.accounts import CHANGED, end_tokens, find_domain, find_user, there
from droveway.store.identity.rows import UserRow
from droveway.store.identity.tables import domains, tokens, users


def user_id_of(domain_id: str, key: str) -> str:
    """The same in every API, whichever meets that person first."""
    return hashlib.sha256(f"{domain_id}/{key}".encode()).hexdigest()


def domain_id_of(name: str) -> str:
    return hashlib.sha256(f"domain {name}".encode()).hexdigest()[:32]


def make_domain(tx: Tx, name: str) -> None:
    """The domain of a directory, at the start of the program; nothing to do when it is there."""
    if find_domain(tx, id=domain_id_of(name)) is None:
        tx.execute(
            insert(domains).values(id=domain_id_of(name), name=name, description="Its people are in a directory")
        )


def keep(tx: Tx, domain_id: str, person: Person) -> UserRow:
    """The row of that person, made or brought up to date. Who is disabled there is logged out here."""
    user_id = user_id_of(domain_id, person.key)
    now = {"name": person.name, "enabled": person.is_enabled, "email": person.email, "description": person.description}
    row = find_user(tx, id=user_id)
    if row is not None and all(row[name] == value for name, value in now.items()):  # type: ignore[literal-required]
        return row
    namesake = find_user(tx, domain_id=domain_id, name=person.name)
    if namesake is not None and namesake["id"] != user_id:  # the directory has given the name to another
        _retire(tx, namesake)
    if row is None:
        made = {"id": user_id, "domain_id": domain_id, "password_hash": "", "options": {}}
        tx.execute(insert(users).values(made | now))
    else:
        tx.execute(update(users).where(users.c.id == user_id).values(now))
    if not person.is_enabled:
        end_tokens(tx, tokens.c.user_id == user_id)
    tx.nudges.append(CHANGED)
    return there(find_user(tx, id=user_id), "user", user_id)


def _retire(tx: Tx, row: UserRow) -> None:
    tx.execute(
        update(users).where(users.c.id == row["id"]).values(name=f"{row['name'][:180]} {row['id']}", enabled=False)
    )
    end_tokens(tx, tokens.c.user_id == row["id"])
