"""What sagas are about: the fence of each subject, which saga is at work on it, and what a saga holds beside its own.

The fence is a column of the subject's own row, which the loops read together with the rest of it: a table of fences
would cost each of them a join. A new kind of subject is a line of `_FENCED` and that column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    delete,
    insert,
    or_,
    select,
    true,
    update,
)

from droveway.domain.faults import NotFound
from droveway.domain.model import SagaStatus, Subject, SubjectKind
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list, one_of
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import SagaRow
from droveway.store.schema import hosts, instances, saga_subjects, sagas
from droveway.store.volume.tables import backups, snapshots, volumes

ACTIVE = (SagaStatus.FORWARD.value, SagaStatus.BACKWARD.value, SagaStatus.BROKEN.value)
_FENCED = {
    SubjectKind.INSTANCE: (instances.c.id, instances.c.fence),
    SubjectKind.HOST: (hosts.c.name, hosts.c.fence),
    SubjectKind.VOLUME: (volumes.c.id, volumes.c.fence),
    SubjectKind.SNAPSHOT: (snapshots.c.id, snapshots.c.fence),
    SubjectKind.BACKUP: (backups.c.id, backups.c.fence),
}
_READ = {kind: Prepared(select(fence).where(name == bindparam("of"))) for kind, (name, fence) in _FENCED.items()}
_RAISE = {
    kind: Prepared(update(fence.table).where(name == bindparam("of")).values(fence=bindparam("new_fence")))
    for kind, (name, fence) in _FENCED.items()
}
_ABOUT = and_(sagas.c.subject_id == bindparam("of"), sagas.c.subject_kind == bindparam("of_kind"))
_BESIDE = and_(saga_subjects.c.subject_id == bindparam("of"), saga_subjects.c.subject_kind == bindparam("of_kind"))
_FIRST = select(sagas).where(sagas.c.ended.is_(False)).order_by(sagas.c.created_at_us, sagas.c.id).limit(1)


def _needs(only_held: ColumnElement[bool]) -> ColumnElement[bool]:
    """Of a saga: it is about that subject, or has it beside its own."""
    return or_(_ABOUT, sagas.c.id.in_(select(saga_subjects.c.saga_id).where(_BESIDE, only_held)))


_IN_THE_WAY = Prepared(_FIRST.where(_needs(true())))
_LAST_IN_LINE = Prepared(
    select(sagas)
    .where(sagas.c.ended.is_(False), _needs(true()))
    .order_by(sagas.c.created_at_us.desc(), sagas.c.id.desc())
    .limit(1)
)
_AT_WORK = Prepared(_FIRST.where(one_of(sagas.c.status, ACTIVE), _needs(saga_subjects.c.held)))
_BEFORE = Prepared(
    _FIRST.where(
        _needs(true()),
        sagas.c.id != bindparam("saga"),
        or_(
            one_of(sagas.c.status, ACTIVE),
            sagas.c.created_at_us < bindparam("since"),
            and_(sagas.c.created_at_us == bindparam("since"), sagas.c.id < bindparam("saga")),
        ),
    )
)
_WAITING = Prepared(
    select(sagas.c.id, sagas.c.subject_kind, sagas.c.subject_id, sagas.c.holds, sagas.c.created_at_us).where(
        sagas.c.status == SagaStatus.QUEUED.value, _needs(true())
    )
)
_BUSY = Prepared(
    select(sagas.c.subject_id)
    .where(
        in_list(sagas.c.subject_id, "ids"), sagas.c.subject_kind == bindparam("of_kind"), one_of(sagas.c.status, ACTIVE)
    )
    .union_all(
        select(saga_subjects.c.subject_id).where(
            in_list(saga_subjects.c.subject_id, "ids"),
            saga_subjects.c.subject_kind == bindparam("of_kind"),
            saga_subjects.c.held,
        )
    )
)
_OF_SAGA = Prepared(
    select(saga_subjects.c.subject_kind, saga_subjects.c.subject_id).where(saga_subjects.c.saga_id == bindparam("of"))
)
_BESIDE_OTHERS = Prepared(
    select(saga_subjects.c.subject_id).where(saga_subjects.c.subject_kind == bindparam("of_kind"))
)
_HOLD = Prepared(update(saga_subjects).where(saga_subjects.c.saga_id == bindparam("of")).values(held=True))
_FORGET = Prepared(delete(saga_subjects).where(saga_subjects.c.saga_id == bindparam("of")))
_INSERT = Prepared(insert(saga_subjects))


def in_the_way(tx: Tx, subjects: Iterable[Subject]) -> SagaRow | None:
    """The oldest saga that has not ended and needs one of them, be it that it waits for its turn itself."""
    return _first(tx, _IN_THE_WAY, subjects)


def last_in_line(tx: Tx, subjects: Iterable[Subject]) -> SagaRow | None:
    """The newest saga that has not ended and needs one of them: who needs them too comes after it."""
    found = (_first(tx, _LAST_IN_LINE, (subject,)) for subject in subjects)
    rows = [row for row in found if row is not None]
    return max(rows, key=lambda row: (row["created_at_us"], row["id"]), default=None)


def at_work(tx: Tx, subject: Subject) -> SagaRow | None:
    """The active saga that is about it or holds it."""
    return _first(tx, _AT_WORK, (subject,))


def _first(tx: Tx, query: Prepared, subjects: Iterable[Subject], **more: object) -> SagaRow | None:
    for subject in subjects:
        row = results.first(SagaRow, tx.execute(query, {**_named(subject), **more}))
        if row is not None:
            return row
    return None


def _named(subject: Subject) -> dict[str, Any]:
    return {"of": subject.id, "of_kind": subject.kind.value}


def busy_among(tx: Tx, kind: SubjectKind, ids: Iterable[str]) -> set[str]:
    """Those of the subjects that an active saga is about, or holds."""
    wanted = tuple(ids)
    return set(tx.execute(_BUSY, {"ids": wanted, "of_kind": kind.value}).scalars()) if wanted else set()


def beside(tx: Tx, kind: SubjectKind) -> set[str]:
    """The subjects that some saga that has not ended needs beside its own."""
    return set(tx.execute(_BESIDE_OTHERS, {"of_kind": kind.value}).scalars())


# -- fences -----------------------------------------------------------------------------------------------------------
def fence(tx: Tx, subjects: Iterable[Subject]) -> int:
    """The highest of theirs. Raises NotFound for one that is not there."""
    return max(_fence(tx, subject) for subject in subjects)


def _fence(tx: Tx, subject: Subject) -> int:
    found = tx.execute(_READ[subject.kind], {"of": subject.id}).scalar()
    if found is None:
        raise NotFound(f"there is no {subject.kind.value} {subject.id[:64]}")
    return int(found)


def highest_fence(tx: Tx, subjects: Iterable[Subject]) -> int:
    """Of those that are there still: one may have been deleted for good while a saga waited for it."""
    found = (tx.execute(_READ[one.kind], {"of": one.id}).scalar() for one in subjects)
    return max((int(fence) for fence in found if fence is not None), default=0)


def set_fence(tx: Tx, subjects: Iterable[Subject], generation: int) -> None:
    for subject in subjects:
        tx.execute(_RAISE[subject.kind], {"of": subject.id, "new_fence": generation})


# -- what a saga holds ------------------------------------------------------------------------------------------------
def want(tx: Tx, saga_id: str, subjects: Iterable[Subject], *, held: bool) -> None:
    """Beside its own; held from now on, or once its turn has come."""
    tx.execute(
        _INSERT,
        [{"saga_id": saga_id, "subject_kind": one.kind.value, "subject_id": one.id, "held": held} for one in subjects],
    )


def hold_what_it_wants(tx: Tx, saga_id: str) -> None:
    tx.execute(_HOLD, {"of": saga_id})


def needs_of(tx: Tx, saga_id: str) -> tuple[Subject, ...]:
    """What it needs beside its own."""
    return tuple(Subject(SubjectKind(kind), one) for kind, one in tx.execute(_OF_SAGA, {"of": saga_id}))


def release(tx: Tx, saga_id: str) -> None:
    tx.execute(_FORGET, {"of": saga_id})


# -- whose turn it is -------------------------------------------------------------------------------------------------
def next_ones(tx: Tx, freed: Sequence[Subject]) -> Iterator[tuple[str, tuple[Subject, ...]]]:
    """The queued sagas whose turn has come now that no saga is at work on `freed`, each with all that it needs. They
    come in the order in which they were asked for: one that waits for something else as well keeps its place, so each
    has its turn, and none holds one thing while it waits for another."""
    waiting = {row.id: row for subject in freed for row in tx.execute(_WAITING, _named(subject))}
    taken: set[Subject] = set()
    for row in sorted(waiting.values(), key=lambda row: (row.created_at_us, row.id)):
        own = Subject(SubjectKind(row.subject_kind), row.subject_id)
        needs = (own, *(needs_of(tx, row.id) if row.holds else ()))
        others = [one for one in needs if one not in freed]
        order = {"saga": row.id, "since": row.created_at_us}
        if taken.isdisjoint(needs) and (not others or _first(tx, _BEFORE, others, **order) is None):
            yield row.id, needs
        taken.update(needs)
