"""Sagas as rows. Every save is a compare-and-swap on `generation`, which is also the fence of each command.

At most one active saga is about a subject or holds it; others that need it wait as `queued`, in the order in which they
were asked for, and are activated by the save that ends the one before.

More than 400 lines because every write of a saga's row stands here, each under its generation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import ColumnElement, and_, bindparam, func, insert, or_, select, update

from droveway.domain.faults import Conflict, NotFound, Stale
from droveway.domain.model import ENDED_SAGA, START, SagaKind, SagaStatus, Subject, SubjectKind, of_saga
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list, one_of
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import SagaRow, WaitingRow
from droveway.store.schema import instances, sagas
from droveway.store.work import events, subjects

RUNNABLE = (SagaStatus.FORWARD.value, SagaStatus.BACKWARD.value)
# A broken saga holds its subject: what the rows say of it may be wrong, so nothing else may touch it.
_GET = Prepared(select(sagas).where(sagas.c.id == bindparam("of")))
_RUNNING = (
    select(sagas).where(sagas.c.ended.is_(False), one_of(sagas.c.status, RUNNABLE)).order_by(sagas.c.created_at_us)
)
_OPEN = Prepared(_RUNNING)
_BROKEN = Prepared(select(sagas).where(sagas.c.ended.is_(False), sagas.c.status == SagaStatus.BROKEN.value))
_FREE = Prepared(
    _RUNNING.where(
        or_(
            sagas.c.owner.is_(None),
            and_(sagas.c.owner == bindparam("owner"), ~in_list(sagas.c.id, "held")),
            in_list(sagas.c.owner, "dead"),
        ),
        ~in_list(sagas.c.id, "passed_over"),
    ).limit(bindparam("most"))
)
_OPEN_OF_KIND = Prepared(
    select(sagas.c.id)
    .where(
        sagas.c.subject_kind == bindparam("of_subject_kind"),
        sagas.c.subject_id == bindparam("of"),
        sagas.c.kind == bindparam("of_kind"),
        sagas.c.ended.is_(False),
    )
    .limit(1)
)
_CANCEL_OF = Prepared(select(sagas.c.cancel).where(sagas.c.id == bindparam("of")))
_SAVE = Prepared(
    update(sagas)
    .where(sagas.c.id == bindparam("of"), sagas.c.generation == bindparam("seen"))
    .returning(sagas.c.cancel, sagas.c.holds)
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("step", "status", "generation", "notes", "error", "blocked", "updated_at_us", "ended")
        }
    )
)
_TAKE = Prepared(
    update(sagas)
    .where(sagas.c.id == bindparam("of"), sagas.c.generation == bindparam("seen"), one_of(sagas.c.status, RUNNABLE))
    .values(
        generation=bindparam("new_generation"),
        owner=bindparam("new_owner"),
        owner_epoch=bindparam("new_epoch"),
        unreadable=None,
    )
    .returning(sagas)
)
_CANCEL = Prepared(
    update(sagas).where(sagas.c.id == bindparam("of"), sagas.c.cancel.is_(None)).values(cancel=bindparam("new_cancel"))
)
_ACTIVATE = Prepared(
    update(sagas)
    .where(sagas.c.id == bindparam("of"))
    .values(
        status=SagaStatus.FORWARD.value,
        generation=bindparam("new_generation"),
        updated_at_us=bindparam("new_updated_at_us"),
    )
)
_INSERT = Prepared(insert(sagas))
_WAITING = (
    select(
        *(sagas.c[name] for name in ("id", "kind", "subject_id", "blocked", "params", "created_at_us")),
        instances.c.name,
        instances.c.project_id,
    )
    .join(instances, and_(instances.c.id == sagas.c.subject_id, sagas.c.subject_kind == SubjectKind.INSTANCE.value))
    .where(sagas.c.ended.is_(False), sagas.c.blocked.like("% waits for room: %"))
    .order_by(sagas.c.created_at_us, sagas.c.id)
)
FIRST_FENCE = 1


class Cursor(Protocol):
    """A saga as its runner last saw it."""

    id: str
    subject: Subject
    project_id: str
    generation: int


class Asked(NamedTuple):
    """By which request, and by whom; empty and None where nobody did."""

    request_id: str
    user_id: str | None


class Saved(NamedTuple):
    generation: int
    cancel: str | None  # its undoing was requested


def enqueue(
    tx: Tx,
    kind: SagaKind,
    subject: Subject,
    project_id: str,
    params: dict[str, Any],
    *,
    request_id: str,
    user_id: str | None = None,
    holds: Sequence[Subject] = (),
) -> str:
    """A new saga about that subject, which holds some more while it is active: active at once, or queued behind who
    needs one of them."""
    asked, needs = Asked(request_id, user_id), (subject, *holds)
    before = subjects.last_in_line(tx, needs)
    if before is not None:
        return _add(tx, kind, subject, project_id, params, asked, generation=0, holds=holds, after=before)
    generation = subjects.fence(tx, needs) + 1
    subjects.set_fence(tx, needs, generation)
    return _add(tx, kind, subject, project_id, params, asked, generation=generation, holds=holds)


def enqueue_first(
    tx: Tx,
    kind: SagaKind,
    subject: Subject,
    project_id: str,
    params: dict[str, Any],
    *,
    request_id: str,
    user_id: str | None = None,
) -> str:
    """The saga of a subject whose row is written in this very transaction, with FIRST_FENCE in it."""
    return _add(tx, kind, subject, project_id, params, Asked(request_id, user_id), generation=FIRST_FENCE)


def _add(
    tx: Tx,
    kind: SagaKind,
    subject: Subject,
    project_id: str,
    params: dict[str, Any],
    asked: Asked,
    *,
    generation: int,
    holds: Sequence[Subject] = (),
    after: SagaRow | None = None,
) -> str:
    saga_id = tx.names.uuid()
    # Turns come in the order of this time, and the writer of the one before may have had a clock that was ahead: one
    # that waits for another and yet stood before it would never be woken, and everybody behind them would wait.
    created_at_us = tx.now_us if after is None else max(tx.now_us, after["created_at_us"] + 1)
    row = {
        "id": saga_id,
        "kind": kind.value,
        "subject_kind": subject.kind.value,
        "subject_id": subject.id,
        "project_id": project_id,
        "holds": len(holds),
        "status": (SagaStatus.FORWARD if after is None else SagaStatus.QUEUED).value,
        "step": START,
        "generation": generation,
        "params": params,
        "notes": {},
        "error": "",
        "request_id": asked.request_id,
        "user_id": asked.user_id,
        "queued_after": None if after is None else after["id"],
        "owner": tx.owner[0] if tx.owner else None,
        "owner_epoch": tx.owner[1] if tx.owner else None,
        "created_at_us": created_at_us,
        "updated_at_us": tx.now_us,
        "ended": False,
    }
    tx.execute(_INSERT, row)
    if holds:
        subjects.want(tx, saga_id, holds, held=after is None)
    tx.nudges.append("sagas")
    return saga_id


def hold(tx: Tx, saga_id: str, subject: Subject) -> int:
    """An active saga takes one subject more. The fence of that subject: the save of this transaction must be above it.
    Raises Conflict when another saga needs it."""
    row = get(tx, saga_id)
    if subject == subject_of(row) or subject in subjects.needs_of(tx, saga_id):
        return 0
    other = subjects.in_the_way(tx, (subject,))
    if other is not None:
        raise Conflict(
            f"{subject.kind.value} {subject.id} is in use: the {other['kind']} {other['id']} of "
            f"{other['subject_kind']} {other['subject_id']} needs it and is {other['status']}"
        )
    fence = subjects.fence(tx, (subject,))
    subjects.want(tx, saga_id, (subject,), held=True)
    tx.execute(update(sagas).where(sagas.c.id == saga_id).values(holds=sagas.c.holds + 1))
    return fence


def subject_of(row: SagaRow) -> Subject:
    """What that saga is about."""
    return Subject(SubjectKind(row["subject_kind"]), row["subject_id"])


def get(tx: Tx, saga_id: str) -> SagaRow:
    row = results.first(SagaRow, tx.execute(_GET, {"of": saga_id}))
    if row is None:
        raise NotFound(f"there is no saga {saga_id}; 'droveway saga list' shows those there are")
    return row


def find(tx: Tx, beginning: str) -> SagaRow:
    """The saga whose id begins so. Raises NotFound when there is none, or more than one."""
    query = select(sagas).where(sagas.c.id.startswith(beginning, autoescape=True)).limit(2)
    rows = results.every(SagaRow, tx.execute(query))
    if len(rows) != 1:
        found = "more than one saga" if rows else "no saga"
        raise NotFound(f"{found} begins with {beginning[:64]!r}; 'droveway saga list --all' shows those there are")
    return rows[0]


def active_of(tx: Tx, subject: Subject) -> SagaRow | None:
    """The active saga that is about it or holds it."""
    return subjects.at_work(tx, subject)


def waiting_for_room(tx: Tx, *, instance_id: str | None = None, limit: int) -> list[WaitingRow]:
    """Those that no host has room for at present, the oldest first."""
    query = _WAITING if instance_id is None else _WAITING.where(sagas.c.subject_id == instance_id)
    return results.every(WaitingRow, tx.execute(query.limit(limit)))


def waiting_or_active(tx: Tx, subject: Subject, kind: SagaKind) -> str | None:
    """The id of a saga of that kind about it that has not ended."""
    wanted = {"of_subject_kind": subject.kind.value, "of": subject.id, "of_kind": kind.value}
    found: str | None = tx.execute(_OPEN_OF_KIND, wanted).scalar()
    return found


def _about(subject: Subject) -> tuple[ColumnElement[bool], ...]:
    return sagas.c.subject_id == subject.id, sagas.c.subject_kind == subject.kind.value


def busy_among(tx: Tx, ids: Iterable[str]) -> set[str]:
    """Those of the instances that an active saga is working on."""
    return subjects.busy_among(tx, SubjectKind.INSTANCE, ids)


def open_sagas(tx: Tx) -> list[SagaRow]:
    """Every active saga, oldest first, of all owners."""
    return results.every(SagaRow, tx.execute(_OPEN))


def listing(tx: Tx, *, limit: int, only_open: bool) -> list[SagaRow]:
    query = select(sagas).order_by(sagas.c.created_at_us.desc(), sagas.c.id).limit(limit)
    return results.every(SagaRow, tx.execute(query.where(sagas.c.ended.is_(False)) if only_open else query))


def count_open(tx: Tx) -> int:
    return int(tx.execute(select(func.count()).select_from(sagas).where(sagas.c.ended.is_(False))).scalar_one())


def count_open_of(tx: Tx, subject: Subject) -> int:
    query = select(func.count()).select_from(sagas).where(sagas.c.ended.is_(False), *_about(subject))
    return int(tx.execute(query).scalar_one())


def unheld(
    tx: Tx, owner: str, dead: Sequence[str], held: frozenset[str], passed_over: frozenset[str], *, most: int
) -> list[SagaRow]:
    """What no control runs: sagas without an owner, of a dead owner, or of `owner` but not among those it holds. Those
    that are passed over are left out."""
    wanted = {"owner": owner, "held": held, "dead": dead, "passed_over": passed_over, "most": most}
    return results.every(SagaRow, tx.execute(_FREE, wanted))


def adopt(tx: Tx, found: Sequence[SagaRow], owner: str, epoch: int) -> list[SagaRow]:
    """Take them over; those that are no longer as they were found are left out.

    The generation of each rises, which fences its older runner and that runner's messages.
    """
    return [row for old in found if (row := take_over(tx, old, owner, epoch)) is not None]


def take_over(tx: Tx, seen: SagaRow, owner: str, epoch: int) -> SagaRow | None:
    """Own that saga from now on; None when it is no longer as it was seen."""
    generation = seen["generation"] + 1
    values = {
        "of": seen["id"],
        "seen": seen["generation"],
        "new_generation": generation,
        "new_owner": owner,
        "new_epoch": epoch,
    }
    return results.first(SagaRow, tx.execute(_TAKE, values))


def save(
    tx: Tx,
    seen: Cursor,
    *,
    step: str,
    status: SagaStatus,
    notes: dict[str, Any],
    error: str,
    blocked: str | None,
    ticks: list[dict[str, Any]],
    above: int = 0,
) -> Saved:
    """Compare-and-swap the cursor and record its ticks. `above`: a generation that a host has seen. Raises Stale."""
    generation = max(seen.generation, above) + 1
    ended = status in ENDED_SAGA
    saved = tx.execute(
        _SAVE,
        {
            "of": seen.id,
            "seen": seen.generation,
            "new_step": step,
            "new_status": status.value,
            "new_generation": generation,
            "new_notes": notes,
            "new_error": error,
            "new_blocked": blocked,
            "new_updated_at_us": tx.now_us,
            "new_ended": ended,
        },
    ).first()
    if saved is None:
        raise Stale(f"saga {seen.id} has been taken over by another control")
    if ticks:
        _record(tx, seen.id, {"generation": generation, "ticks": ticks}, seen.project_id)
    if ended:  # until then the saga's generation is the fence: it alone may command what it is about and holds
        freed = (seen.subject, *(subjects.needs_of(tx, seen.id) if saved.holds else ()))
        subjects.set_fence(tx, freed, generation)
        if saved.holds:
            subjects.release(tx, seen.id)
        _activate_next(tx, freed)
    tx.nudges.append(f"saga:{seen.id}")
    return Saved(generation, saved.cancel)


def _record(tx: Tx, saga_id: str, body: dict[str, Any], project_id: str) -> None:
    events.record(tx, "saga", of_saga(saga_id), body, project_id)


def _activate_next(tx: Tx, freed: Sequence[Subject]) -> None:
    for saga_id, needs in subjects.next_ones(tx, freed):
        generation = subjects.highest_fence(tx, needs) + 1
        subjects.set_fence(tx, needs, generation)
        if len(needs) > 1:
            subjects.hold_what_it_wants(tx, saga_id)
        tx.execute(_ACTIVATE, {"of": saga_id, "new_generation": generation, "new_updated_at_us": tx.now_us})
        tx.nudges.append("sagas")


def broken(tx: Tx) -> list[SagaRow]:
    """Those that wait for an operator."""
    return results.every(SagaRow, tx.execute(_BROKEN))


def say_unreadable(tx: Tx, why: Mapping[str, str | None]) -> None:
    """Why no control can run them, or that one can. Nothing else of them is touched."""
    for saga_id, reason in why.items():
        tx.execute(update(sagas).where(sagas.c.id == saga_id, sagas.c.ended.is_(False)).values(unreadable=reason))


def remember_direction(tx: Tx, saga_id: str, status: SagaStatus) -> None:
    """In which direction a saga was going when it broke."""
    tx.execute(update(sagas).where(sagas.c.id == saga_id).values(broken_while=status.value))


def retry(tx: Tx, saga_id: str) -> None:
    """An operator lets a broken saga go on from its cursor. Raises Conflict when it is not broken."""
    row = get(tx, saga_id)
    _must_be_readable(row)
    if row["status"] != SagaStatus.BROKEN:
        raise Conflict(f"saga {saga_id} is {row['status']}, not broken; only a broken one is retried")
    status = row["broken_while"] or SagaStatus.FORWARD.value
    tx.execute(
        update(sagas)
        .where(sagas.c.id == saga_id, sagas.c.generation == row["generation"])
        .values(status=status, owner=None, owner_epoch=None, generation=row["generation"] + 1)
    )
    needs = (subject_of(row), *subjects.needs_of(tx, saga_id))
    subjects.set_fence(tx, needs, row["generation"] + 1)
    tick = {"step": "retry", "mark": "^", "ms": 0, "text": "an operator let it go on"}
    _record(tx, saga_id, {"generation": row["generation"] + 1, "ticks": [tick]}, row["project_id"])
    tx.nudges.append("sagas")


def last_of(tx: Tx, subject: Subject, kind: SagaKind) -> SagaRow | None:
    """The newest saga of that kind about it."""
    query = select(sagas).where(*_about(subject), sagas.c.kind == kind.value)
    return results.first(SagaRow, tx.execute(query.order_by(sagas.c.created_at_us.desc()).limit(1)))


def cancel_by_hand(tx: Tx, row: SagaRow, reason: str) -> None:
    """Like `cancel`. Raises Conflict when no control could undo it."""
    if row["ended"]:
        raise Conflict(f"saga {row['id']} has ended: it is {row['status']}")
    _must_be_readable(row)
    cancel(tx, row["id"], reason)


def _must_be_readable(row: SagaRow) -> None:
    if row["unreadable"]:
        raise Conflict(f"saga {row['id']} can be neither retried nor cancelled: {row['unreadable']}")


def cancel(tx: Tx, saga_id: str, reason: str) -> None:
    """Ask for its undoing. It is undone if its point of no return has not passed; its runner notices by itself."""
    tx.execute(_CANCEL, {"of": saga_id, "new_cancel": reason})
    tx.nudges.append(f"saga:{saga_id}")


def forget_cancel(tx: Tx, saga_id: str) -> None:
    """It came too late."""
    tx.execute(update(sagas).where(sagas.c.id == saga_id).values(cancel=None))


def cancel_asked(tx: Tx, saga_id: str) -> str | None:
    found: str | None = tx.execute(_CANCEL_OF, {"of": saga_id}).scalar()
    return found
