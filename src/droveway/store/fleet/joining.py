"""Join tokens: each lets one agent in, once, for a while. Only their hashes are kept."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import delete, func, insert, select, update

from droveway.domain.faults import Conflict, Unauthorized
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.schema import join_tokens

OPEN_MAX = 10_000  # not used and not expired
KEPT_US = 24 * 3600 * 1_000_000  # after its end, so that it is still known why it does not work
FORGOTTEN_AT_ONCE = 1000
MAKE_ANOTHER = "make another one with 'droveway agent token create'"


class JoinToken(NamedTuple):
    """What may be told of a token."""

    host: str | None
    expires_at_us: int


def create(tx: Tx, token_hash: str, host: str | None, expires_in_us: int) -> JoinToken:
    """A new one, for that host alone when it is given. Raises Conflict."""
    if host is not None:
        _must_be_free(tx, host)
    old = select(join_tokens.c.hash).where(join_tokens.c.expires_at_us < tx.now_us - KEPT_US).limit(FORGOTTEN_AT_ONCE)
    tx.execute(delete(join_tokens).where(join_tokens.c.hash.in_(old)))
    count = tx.execute(
        select(func.count()).where(join_tokens.c.expires_at_us > tx.now_us, join_tokens.c.used_at_us.is_(None))
    ).scalar_one()
    if count >= OPEN_MAX:
        raise Conflict(
            f"{count} join tokens wait to be used, which is the bound; they end by themselves when they expire."
        )
    expires_at_us = tx.now_us + expires_in_us
    tx.execute(
        insert(join_tokens).values(hash=token_hash, host=host, created_at_us=tx.now_us, expires_at_us=expires_at_us)
    )
    return JoinToken(host, expires_at_us)


def use(tx: Tx, token_hash: str, host: str) -> None:
    """The one use of a token, by that host. Raises Unauthorized and Conflict, and then nothing is used up."""
    row = tx.execute(select(join_tokens).where(join_tokens.c.hash == token_hash)).mappings().first()
    if row is None:
        raise Unauthorized(f"That join token is not known here: see that it was copied whole, or {MAKE_ANOTHER}.")
    if row["used_at_us"] is not None:
        raise Unauthorized(f"That join token was used already, by host {row['used_by']}; {MAKE_ANOTHER}.")
    if row["expires_at_us"] <= tx.now_us:
        raise Unauthorized(f"That join token has expired; {MAKE_ANOTHER}.")
    if row["host"] is not None and row["host"] != host:
        raise Unauthorized(f"That join token is for host {row['host']}, not for {host}; {MAKE_ANOTHER}.")
    _must_be_free(tx, host)
    done = tx.execute(
        update(join_tokens)
        .where(join_tokens.c.hash == token_hash, join_tokens.c.used_at_us.is_(None))
        .values(used_at_us=tx.now_us, used_by=host)
    )
    if not done.rowcount:  # on a database where two may write at once
        raise Unauthorized(f"That join token was used already, this very moment; {MAKE_ANOTHER}.")


def _must_be_free(tx: Tx, host: str) -> None:
    """A host that is alive has its agent; one that is down may join again, on a new machine perhaps."""
    for row in services.list_all(tx, host):
        if row["binary"] in services.CONTROL:
            continue
        if row["is_up"]:
            raise Conflict(
                f"Host {host} is alive already: its {row['binary']} is up. Stop that agent if its machine "
                "is to be replaced, or join under another name."
            )
