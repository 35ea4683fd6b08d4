"""One history: transitions, saga ticks and decisions in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select

from droveway.domain.model import Subject
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import EventRow
from droveway.store.schema import events

SERVICE = "service"
SERVICES_CHANGED = "services"  # the nudge of a transaction that recorded something about a service
_INSERT = Prepared(insert(events))
_OF_SUBJECT = Prepared(
    select(events)
    .where(events.c.subject_id == bindparam("of"), events.c.subject_kind == bindparam("of_kind"))
    .order_by(events.c.id)
)
_LAST = Prepared(select(func.max(events.c.id)))
_AFTER = Prepared(
    select(events)
    .where(events.c.id > bindparam("cursor"), events.c.kind == bindparam("of_kind"))
    .order_by(events.c.id)
    .limit(bindparam("most"))
)


def record(tx: Tx, kind: str, subject: Subject, body: dict[str, Any], project_id: str | None = None) -> None:
    tx.execute(
        _INSERT,
        {
            "at_us": tx.now_us,
            "kind": kind,
            "subject_kind": subject.kind.value,
            "subject_id": subject.id,
            "project_id": project_id,
            "body": body,
        },
    )
    if kind == SERVICE and SERVICES_CHANGED not in tx.nudges[-1:]:
        tx.nudges.append(SERVICES_CHANGED)


def record_all(tx: Tx, kind: str, bodies: Sequence[tuple[Subject, dict[str, Any]]]) -> None:
    """Of many subjects at once, each with what is recorded of it; they are of no project."""
    if not bodies:
        return
    tx.execute(
        _INSERT,
        [
            {
                "at_us": tx.now_us,
                "kind": kind,
                "subject_kind": subject.kind.value,
                "subject_id": subject.id,
                "project_id": None,
                "body": body,
            }
            for subject, body in bodies
        ],
    )
    if kind == SERVICE and SERVICES_CHANGED not in tx.nudges[-1:]:
        tx.nudges.append(SERVICES_CHANGED)


def of_subject(tx: Tx, subject: Subject) -> list[EventRow]:
    """Everything recorded about one subject, oldest first."""
    return results.every(EventRow, tx.execute(_OF_SUBJECT, {"of": subject.id, "of_kind": subject.kind.value}))


def last_id(tx: Tx) -> int:
    """Of whatever was recorded last; 0 when nothing was."""
    return tx.execute(_LAST).scalar() or 0


def after(tx: Tx, kind: str, cursor: int, most: int) -> tuple[list[EventRow], int]:
    """At most `most` events of that kind after the one with the id `cursor`, oldest first; and where to go on."""
    last = last_id(tx)
    if cursor > last:  # a history that has begun anew
        cursor = 0
    if cursor == last:
        return [], cursor
    found = results.every(EventRow, tx.execute(_AFTER, {"cursor": cursor, "of_kind": kind, "most": most}))
    return found, found[-1]["id"] if len(found) == most else last


def forget_before(tx: Tx, at_us: int, most: int = 5_000) -> int:
    """Age out at most `most` events older than `at_us`; returns how many."""
    old = select(events.c.id).where(events.c.at_us < at_us).order_by(events.c.id).limit(most)
    return tx.execute(delete(events).where(events.c.id.in_(old))).rowcount
