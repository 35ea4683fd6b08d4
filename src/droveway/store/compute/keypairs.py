"""Key pairs: public keys of users, each under a name of its user's. A server takes a copy when it is made."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import delete, func, insert, select

from droveway.domain import quota
from droveway.domain.faults import Conflict, Forbidden, NotFound
from droveway.domain.quota import Quotas
from droveway.store.compute import quotas
from droveway.store.engine import results
from droveway.store.engine.transaction import Tx
from droveway.store.rows import KeypairRow
from droveway.store.schema import keypairs


class NewKeypair(msgspec.Struct, frozen=True):
    user_id: str
    name: str
    type: str
    public_key: str
    fingerprint: str


def create(tx: Tx, new: NewKeypair, project_id: str, configured: Quotas) -> KeypairRow:
    """One more of that user, whose number the quota of the caller's project bounds. Raises Forbidden, Conflict."""
    c = keypairs.c
    limit = quotas.limits(tx, project_id, configured)["key_pairs"]
    held = int(tx.execute(select(func.count()).select_from(keypairs).where(c.user_id == new.user_id)).scalar_one())
    if quota.is_over(limit, held, 1):
        raise Forbidden(f"Quota exceeded, too many key pairs: {limit} is the most that a user may have.")
    if _find(tx, new.user_id, new.name) is not None:
        raise Conflict(f"Key pair '{new.name}' already exists.")
    tx.execute(insert(keypairs), {**msgspec.structs.asdict(new), "created_at_us": tx.now_us})
    return get(tx, new.user_id, new.name)


def _find(tx: Tx, user_id: str, name: str) -> KeypairRow | None:
    query = select(keypairs).where(keypairs.c.user_id == user_id, keypairs.c.name == name)
    return results.first(KeypairRow, tx.execute(query))


def get(tx: Tx, user_id: str, name: str) -> KeypairRow:
    row = _find(tx, user_id, name)
    if row is None:
        raise NotFound(f"Keypair {name} not found for user {user_id}")
    return row


def find(tx: Tx, user_id: str, *, after: str | None = None, limit: int) -> Sequence[KeypairRow]:
    """Those of that user by name; `after` the one of that name. Raises NotFound."""
    c = keypairs.c
    query = select(keypairs).where(c.user_id == user_id).order_by(c.name).limit(limit)
    if after is not None:
        query = query.where(c.name > get(tx, user_id, after)["name"])
    return results.every(KeypairRow, tx.execute(query))


def remove(tx: Tx, user_id: str, name: str) -> None:
    """Servers keep their copies. Raises NotFound."""
    get(tx, user_id, name)
    tx.execute(delete(keypairs).where(keypairs.c.user_id == user_id, keypairs.c.name == name))
