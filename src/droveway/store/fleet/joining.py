"""Join tokens: each lets one agent in, once, for a while. Only their hashes are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete, func, insert, select, update

from droveway.domain.faults import Conflict, NotFound, Unauthorized
from droveway.store.engine import results
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.rows import JoinTokenRow
from droveway.store.schema import certificate_names, hosts, join_tokens
from droveway.store.schema import services as service_rows

OPEN_MAX = 10_000  # not used and not expired
KEPT_US = 24 * 3600 * 1_000_000  # after its end, so that it is still known why it does not work
FORGOTTEN_AT_ONCE = 1000
MAKE_ANOTHER = "make another one with 'droveway agent token create'"


SHOWN_MAX = 1000
ID_LENGTH = 12  # of the hash: enough to name one of OPEN_MAX, and of no use for joining


class KnownToken(NamedTuple):
    """What is known of one that was made; `id` is the beginning of its hash."""

    id: str
    host: str | None
    state: str  # open, used, expired
    created_at_us: int
    expires_at_us: int
    used_at_us: int | None
    used_by: str | None


class JoinToken(NamedTuple):
    """What may be told of a token that was just made."""

    id: str
    host: str | None
    expires_at_us: int


def create(tx: Tx, token_hash: str, host: str | None, expires_in_us: int, addresses: Sequence[str] = ()) -> JoinToken:
    """A new one, for that host alone when it is given, whose certificate names these addresses. Raises Conflict."""
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
        insert(join_tokens).values(
            hash=token_hash, host=host, created_at_us=tx.now_us, expires_at_us=expires_at_us, addresses=list(addresses)
        )
    )
    return JoinToken(token_hash[:ID_LENGTH], host, expires_at_us)


def listing(tx: Tx, *, everything: bool) -> list[KnownToken]:
    """Those that can be used, the newest first; or all that are still known."""
    query = select(join_tokens).order_by(join_tokens.c.created_at_us.desc(), join_tokens.c.hash).limit(SHOWN_MAX)
    if not everything:
        query = query.where(join_tokens.c.expires_at_us > tx.now_us, join_tokens.c.used_at_us.is_(None))
    return [_known(tx, row) for row in results.every(JoinTokenRow, tx.execute(query))]


def revoke(tx: Tx, token_id: str) -> KnownToken:
    """Forget the one whose hash begins so, so that no host joins with it. Raises NotFound, and Conflict when it was
    used or several begin so."""
    begins = join_tokens.c.hash.startswith(token_id, autoescape=True)
    rows = results.every(JoinTokenRow, tx.execute(select(join_tokens).where(begins).limit(2)))
    if not rows:
        raise NotFound(
            f"There is no join token {token_id[:64]}; 'droveway agent token list --all' shows those there are."
        )
    if len(rows) > 1:
        raise Conflict(f"Several join tokens begin with {token_id[:64]}: give more of the id.")
    if rows[0]["used_at_us"] is not None:
        host = rows[0]["used_by"]
        raise Conflict(
            f"That join token was used by host {host}: there is nothing left to revoke. To keep that host out, "
            f"stop its agent and then: droveway host remove {host}"
        )
    tx.execute(delete(join_tokens).where(join_tokens.c.hash == rows[0]["hash"]))
    return _known(tx, rows[0])


def _known(tx: Tx, row: JoinTokenRow) -> KnownToken:
    state = "used" if row["used_at_us"] is not None else "open" if row["expires_at_us"] > tx.now_us else "expired"
    return KnownToken(
        row["hash"][:ID_LENGTH],
        row["host"],
        state,
        row["created_at_us"],
        row["expires_at_us"],
        row["used_at_us"],
        row["used_by"],
    )


def usable(tx: Tx, token_hash: str, host: str) -> JoinTokenRow:
    """The token, by which that host may join now; writes nothing. Raises Unauthorized and Conflict."""
    row = results.first(JoinTokenRow, tx.execute(select(join_tokens).where(join_tokens.c.hash == token_hash)))
    if row is None:
        raise Unauthorized(
            f"That join token is not known here: see that it was copied whole and not revoked, or {MAKE_ANOTHER}."
        )
    if row["used_at_us"] is not None:
        raise Unauthorized(f"That join token was used already, by host {row['used_by']}; {MAKE_ANOTHER}.")
    if row["expires_at_us"] <= tx.now_us:
        raise Unauthorized(f"That join token has expired; {MAKE_ANOTHER}.")
    if row["host"] is not None and row["host"] != host:
        raise Unauthorized(f"That join token is for host {row['host']}, not for {host}; {MAKE_ANOTHER}.")
    _must_be_free(tx, host)
    if row["host"] is None:
        _must_be_new(tx, host)
    return row


def use(tx: Tx, token_hash: str, host: str) -> list[str]:
    """The one use of a token, by that host: the addresses that an operator gave it. Raises as `usable` does, and then
    nothing is used up."""
    row = usable(tx, token_hash, host)
    done = tx.execute(
        update(join_tokens)
        .where(join_tokens.c.hash == token_hash, join_tokens.c.used_at_us.is_(None))
        .values(used_at_us=tx.now_us, used_by=host)
    )
    if not done.rowcount:  # on a database where two may write at once
        raise Unauthorized(f"That join token was used already, this very moment; {MAKE_ANOTHER}.")
    return list(row["addresses"] or ())


def _must_be_free(tx: Tx, host: str) -> None:
    """A host that is alive has its services; one that is down may join again, on a new machine perhaps."""
    for one in services.on_host(tx, host):
        if one.is_up:
            raise Conflict(
                f"Host {host} is alive already: its {one.service} is up. Stop that agent if its machine "
                "is to be replaced, or join under another name."
            )


def _must_be_new(tx: Tx, host: str) -> None:
    """A host that chooses its own name takes none that is known: not that of a host which is down, of a service, or of
    one that another token was made for. In any spelling, since names in certificates have none."""
    name = host.lower()
    told_apart = func.lower(service_rows.c.host)  # `host@backend` is a part of its host
    token_of = func.lower(join_tokens.c.host) == name
    holders: dict[str, ColumnElement[bool]] = {
        "a host": select(hosts.c.name).where(func.lower(hosts.c.name) == name).exists(),
        "a service": select(service_rows.c.id)
        .where((told_apart == name) | told_apart.startswith(f"{name}@", autoescape=True))
        .exists(),
        "the holder of a certificate": select(certificate_names.c.name)
        .where((certificate_names.c.name == name) | (func.lower(certificate_names.c.owner) == name))
        .exists(),
        "a host that has joined": select(join_tokens.c.hash).where(func.lower(join_tokens.c.used_by) == name).exists(),
        "a host for which a token was made": select(join_tokens.c.hash)
        .where(token_of, join_tokens.c.used_at_us.is_(None), join_tokens.c.expires_at_us > tx.now_us)
        .exists(),
    }
    row = tx.execute(select(*(found.label(f"h{n}") for n, found in enumerate(holders.values())))).one()
    for holder, is_there in zip(holders, row, strict=True):
        if is_there:
            raise Conflict(
                f"{host} is the name of {holder} already, and this token is for a host that is new here: join under "
                f"another name, or with a token of its own: droveway agent token create --host {host}"
            )
