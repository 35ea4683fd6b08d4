"""One history: transitions, saga ticks and decisions in one table."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping, bindparam, delete, insert, select

from droveway.store.schema import events
from droveway.store.transaction import Tx

_INSERT = insert(events)
_OF_SUBJECT = select(events).where(events.c.subject == bindparam("of")).order_by(events.c.id)


def record(tx: Tx, kind: str, subject: str, body: dict[str, Any], project_id: str | None = None) -> None:
    tx.execute(_INSERT, {"at_us": tx.now_us, "kind": kind, "subject": subject, "project_id": project_id, "body": body})


def of_subject(tx: Tx, subject: str) -> list[RowMapping]:
    """Everything recorded about one subject, oldest first."""
    return list(tx.execute(_OF_SUBJECT, {"of": subject}).mappings())


def forget_before(tx: Tx, at_us: int, most: int = 5_000) -> int:
    """Age out at most `most` events older than `at_us`; returns how many."""
    old = select(events.c.id).where(events.c.at_us < at_us).order_by(events.c.id).limit(most)
    return tx.execute(delete(events).where(events.c.id.in_(old))).rowcount
