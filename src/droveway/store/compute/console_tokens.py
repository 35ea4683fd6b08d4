"""Tokens of consoles, each stored as its sha256 alone and gone when it is used; and what sessions hang on."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, insert, select

from droveway.domain.consoles import ConsoleGrant, ConsoleKind, ServerState, why_over
from droveway.domain.faults import Forbidden
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.identity import tokens
from droveway.store.rows import ConsoleTokenRow
from droveway.store.schema import console_tokens, instances

PER_SERVER_MAX = 32  # the oldest go first
NOT_GOOD = "This console URL was used already, has expired, or is for another server: ask for another URL."
_c = console_tokens.c
_INSERT = Prepared(insert(console_tokens))
_FORGET_EXPIRED = Prepared(delete(console_tokens).where(_c.expires_at_us <= bindparam("now_us")))
_OF_SERVER = Prepared(
    select(_c.hash).where(_c.instance_id == bindparam("of")).order_by(_c.expires_at_us.desc(), _c.hash)
)
_FIND = Prepared(select(console_tokens).where(_c.hash == bindparam("of"), _c.expires_at_us > bindparam("now_us")))
_FORGET = Prepared(delete(console_tokens).where(in_list(_c.hash, "hashes")))
_SERVERS = Prepared(
    select(instances.c.id, instances.c.host, instances.c.vm_state, instances.c.power_state, instances.c.deleted).where(
        in_list(instances.c.id, "ids")
    )
)


def issue(tx: Tx, token_hash: str, grant: ConsoleGrant, lives_us: int) -> None:
    """What has expired goes, and the oldest of a server that has too many: the table does not grow."""
    tx.execute(_FORGET_EXPIRED, {"now_us": tx.now_us})
    beyond = [row.hash for row in tx.execute(_OF_SERVER, {"of": grant.instance_id})][PER_SERVER_MAX - 1 :]
    if beyond:
        tx.execute(_FORGET, {"hashes": beyond})
    tx.execute(
        _INSERT,
        {
            "hash": token_hash,
            "instance_id": grant.instance_id,
            "host": grant.host,
            "kind": grant.kind.value,
            "user_id": grant.user_id,
            "project_id": grant.project_id,
            "as_admin": grant.as_admin,
            "expires_at_us": tx.now_us + lives_us,
        },
    )


def find(tx: Tx, token_hash: str) -> ConsoleTokenRow | None:
    """Looked at, not used. None when it is none, was used or has expired."""
    return results.first(ConsoleTokenRow, tx.execute(_FIND, {"of": token_hash, "now_us": tx.now_us}))


def redeem(tx: Tx, token_hash: str, instance_id: str, kind: ConsoleKind) -> ConsoleGrant:
    """Use it: nobody can again. One that is shown for another server or console stays what it is. Raises Forbidden."""
    row = find(tx, token_hash)
    if row is None or (row["instance_id"], row["kind"]) != (instance_id, kind.value):
        raise Forbidden(NOT_GOOD)
    tx.execute(_FORGET, {"hashes": [token_hash]})
    grant = ConsoleGrant(
        instance_id, row["host"], kind, row["user_id"], row["project_id"], as_admin=bool(row["as_admin"])
    )
    (why,) = why_over_each(tx, [grant])
    if why:
        raise Forbidden(why)
    return grant


def why_over_each(tx: Tx, grants: Sequence[ConsoleGrant]) -> list[str]:
    """Of each why it is good no longer; empty where it is."""
    rows = tx.execute(_SERVERS, {"ids": list({one.instance_id for one in grants})}).fetchall()
    servers = {row.id: ServerState(row.host, row.vm_state, row.power_state, bool(row.deleted)) for row in rows}
    people = {(one.user_id, one.project_id) for one in grants}
    roles = {who: tokens.role_names_in(tx, *who) for who in people}
    return [why_over(one, servers.get(one.instance_id), roles[one.user_id, one.project_id]) for one in grants]
