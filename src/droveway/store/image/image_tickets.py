"""The keys that sign tickets for image data, and the tickets that are spent.

A key signs until it is replaced, and is known for KEYS_KEPT - 1 replacements more: so long its tickets are good.
"""

from __future__ import annotations

from sqlalchemy import bindparam, delete, func, insert, select

from droveway.domain.faults import Conflict
from droveway.domain.image_tickets import Claims, Direction, read, seal
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.schema import spent_tickets, ticket_keys

KEYS_KEPT = 3
_NUMBER = Prepared(select(func.coalesce(func.max(ticket_keys.c.number), 0)))
_SECRET = Prepared(select(ticket_keys.c.secret).where(ticket_keys.c.number == bindparam("of")))
_SPENT = Prepared(select(spent_tickets.c.id).where(spent_tickets.c.id == bindparam("of")))
_INSERT_KEY, _INSERT_SPENT = Prepared(insert(ticket_keys)), Prepared(insert(spent_tickets))
_FORGET_KEYS = Prepared(delete(ticket_keys).where(ticket_keys.c.number <= bindparam("last")))
_FORGET_SPENT = Prepared(delete(spent_tickets).where(spent_tickets.c.key_number <= bindparam("last")))
_NEWEST = Prepared(select(ticket_keys).order_by(ticket_keys.c.number.desc()).limit(1))


def newest(tx: Tx) -> int:
    """The number of the key that signs now; 0 when there is none yet."""
    return int(tx.execute(_NUMBER).scalar_one())


def replace(tx: Tx, seen: int) -> int:
    """Another key instead of that one, unless it was replaced already. The number of the newest."""
    now = newest(tx)
    if now != seen:
        return now
    tx.execute(_INSERT_KEY, {"number": now + 1, "secret": tx.names.secret()})
    last = now + 1 - KEYS_KEPT
    tx.execute(_FORGET_KEYS, {"last": last})
    tx.execute(_FORGET_SPENT, {"last": last})
    return now + 1


def issue(tx: Tx, image_id: str, host: str, direction: Direction, max_bytes: int, challenge: str) -> str | None:
    """A token; None when there is no key to sign it with: `replace` makes the first one."""
    key = tx.execute(_NEWEST).first()
    if key is None:
        return None
    claims = Claims(key.number, tx.names.uuid(), image_id, host, direction, max_bytes, challenge)
    return seal(claims, key.secret)


def admit(tx: Tx, token: str, image_id: str, direction: Direction, verifier: str) -> Claims:
    """What that ticket allows its bearer. Raises Unauthorized, Forbidden, Conflict."""

    def secret(number: int) -> str | None:
        found = tx.execute(_SECRET, {"of": number}).scalar()
        return None if found is None else str(found)

    claims = read(token, secret)
    claims.check(image_id, direction, verifier)
    if tx.execute(_SPENT, {"of": claims.id}).first() is not None:
        raise Conflict(
            f"This ticket was used already: host {claims.host} has been given all of image {image_id} with "
            "it; the next command brings another one."
        )
    return claims


def spend(tx: Tx, claims: Claims) -> None:
    """All that it was for is done. Once more is the same."""
    if tx.execute(_SPENT, {"of": claims.id}).first() is None:
        tx.execute(_INSERT_SPENT, {"id": claims.id, "key_number": claims.key})
