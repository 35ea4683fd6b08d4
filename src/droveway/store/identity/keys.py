"""What a user has beside its password: application credentials, and keys of other kinds such as EC2's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from droveway.domain.faults import Conflict
from droveway.store.engine import results
from droveway.store.engine.transaction import Tx
from droveway.store.identity.accounts import CHANGED, end_tokens, new_id, there
from droveway.store.identity.rows import ApplicationCredentialRow, CredentialRow
from droveway.store.identity.tables import application_credentials, credentials, tokens

KEYS_PER_USER_MAX = 1000  # of each of the two sorts


def find_application(tx: Tx, /, **filters: Any) -> ApplicationCredentialRow | None:
    query = select(application_credentials).filter_by(**filters)
    return results.first(ApplicationCredentialRow, tx.execute(query))


def list_applications(tx: Tx, /, **filters: Any) -> list[ApplicationCredentialRow]:
    query = select(application_credentials).filter_by(**filters).order_by(application_credentials.c.name)
    return results.every(ApplicationCredentialRow, tx.execute(query))


def add_application(tx: Tx, values: Mapping[str, Any]) -> str:
    """Raises Conflict when the user has one of that name, or too many."""
    user_id, name = values["user_id"], values["name"]
    if find_application(tx, user_id=user_id, name=name) is not None:
        raise Conflict(f"You have an application credential {name} already.")
    _must_be_few(tx, application_credentials, user_id)
    key_id = new_id(tx)
    tx.execute(insert(application_credentials).values(id=key_id, **values))
    return key_id


def _must_be_few(tx: Tx, table: Any, user_id: str) -> None:
    number = tx.execute(select(func.count()).select_from(table).where(table.c.user_id == user_id)).scalar_one()
    if number >= KEYS_PER_USER_MAX:
        raise Conflict(f"The user has {number} of them already, which is the most; delete some first.")


def remove_application(tx: Tx, user_id: str, key_id: str) -> None:
    """Every token that was bought with it ends."""
    there(find_application(tx, id=key_id, user_id=user_id), "application credential", key_id)
    end_tokens(tx, tokens.c.user_id == user_id, tokens.c.application_credential_id == key_id)
    tx.execute(delete(application_credentials).where(application_credentials.c.id == key_id))
    tx.nudges.append(CHANGED)


# -- keys of other kinds ----------------------------------------------------------------------------------------------
def find_credential(tx: Tx, /, **filters: Any) -> CredentialRow | None:
    return results.first(CredentialRow, tx.execute(select(credentials).filter_by(**filters)))


def list_credentials(tx: Tx, /, **filters: Any) -> list[CredentialRow]:
    query = select(credentials).filter_by(**filters).order_by(credentials.c.id)
    return results.every(CredentialRow, tx.execute(query))


def add_credential(tx: Tx, values: Mapping[str, Any]) -> None:
    """Raises Conflict."""
    if find_credential(tx, id=values["id"]) is not None:
        raise Conflict("There is such a credential already.")
    _must_be_few(tx, credentials, values["user_id"])
    tx.execute(insert(credentials).values(**values))


def update_credential(tx: Tx, credential_id: str, values: Mapping[str, Any]) -> None:
    """What was bought with it before ends."""
    if values:
        end_tokens(tx, tokens.c.credential_id == credential_id)
        tx.execute(update(credentials).where(credentials.c.id == credential_id).values(**values))


def remove_credential(tx: Tx, credential_id: str) -> None:
    """Every token that was bought with it ends."""
    end_tokens(tx, tokens.c.credential_id == credential_id)
    tx.execute(delete(credentials).where(credentials.c.id == credential_id))
