"""Sagas as rows. Every save is a compare-and-swap on `generation`, which is also the fence of each command.

At most one saga of an instance is active; others of it wait as `queued` and are activated by the save that ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import and_, bindparam, func, insert, or_, select, update

from droveway.domain.faults import Conflict, NotFound, Stale
from droveway.domain.model import ENDED_SAGA, SagaKind, SagaStatus
from droveway.store.engine import results
from droveway.store.engine.in_list import among, one_of
from droveway.store.engine.transaction import Tx
from droveway.store.rows import SagaRow, WaitingRow
from droveway.store.schema import instances, sagas
from droveway.store.work import events

RUNNABLE = (SagaStatus.FORWARD.value, SagaStatus.BACKWARD.value)
# A broken saga holds its instance: what the rows say of the guest may be wrong, so nothing else may touch it.
ACTIVE = (*RUNNABLE, SagaStatus.BROKEN.value)
_GET = select(sagas).where(sagas.c.id == bindparam("of"))
_ACTIVE_OF = select(sagas).where(sagas.c.instance_id == bindparam("of"), one_of(sagas.c.status, ACTIVE))
_OPEN = select(sagas).where(sagas.c.ended.is_(False), one_of(sagas.c.status, RUNNABLE)).order_by(sagas.c.created_at_us)
_FREE = _OPEN.where(
    or_(
        sagas.c.owner.is_(None),
        and_(sagas.c.owner == bindparam("owner"), ~among(sagas.c.id, "held")),
        among(sagas.c.owner, "dead"),
    )
).limit(bindparam("most"))
_BUSY = select(sagas.c.instance_id).where(among(sagas.c.instance_id, "ids"), one_of(sagas.c.status, ACTIVE))
_OPEN_OF_KIND = (
    select(sagas.c.id)
    .where(sagas.c.instance_id == bindparam("of"), sagas.c.kind == bindparam("of_kind"), sagas.c.ended.is_(False))
    .limit(1)
)
_CANCEL_OF = select(sagas.c.cancel).where(sagas.c.id == bindparam("of"))
_NEXT = (
    select(sagas.c.id)
    .where(sagas.c.instance_id == bindparam("of"), sagas.c.status == SagaStatus.QUEUED.value)
    .order_by(sagas.c.created_at_us, sagas.c.id)
    .limit(1)
)
_SAVE = (
    update(sagas)
    .where(sagas.c.id == bindparam("of"), sagas.c.generation == bindparam("seen"))
    .returning(sagas.c.cancel)
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("position", "status", "generation", "notes", "error", "blocked", "updated_at_us", "ended")
        }
    )
)
_TAKE = (
    update(sagas)
    .where(sagas.c.id == bindparam("of"), sagas.c.generation == bindparam("seen"), one_of(sagas.c.status, RUNNABLE))
    .values(generation=bindparam("new_generation"), owner=bindparam("new_owner"), owner_epoch=bindparam("new_epoch"))
    .returning(sagas)
)
_FENCE = update(instances).where(instances.c.id == bindparam("of")).values(fence=bindparam("new_fence"))
_CANCEL = (
    update(sagas).where(sagas.c.id == bindparam("of"), sagas.c.cancel.is_(None)).values(cancel=bindparam("new_cancel"))
)
_ACTIVATE = (
    update(sagas)
    .where(sagas.c.id == bindparam("of"))
    .values(status=SagaStatus.FORWARD.value, generation=bindparam("new_generation"), updated_at_us=bindparam("at_us"))
)
_INSERT = insert(sagas)
_WAITING = (
    select(
        *(sagas.c[name] for name in ("id", "kind", "instance_id", "blocked", "params", "created_at_us")),
        instances.c.name,
        instances.c.project_id,
    )
    .join(instances, instances.c.id == sagas.c.instance_id)
    .where(sagas.c.ended.is_(False), sagas.c.blocked.like("% waits for room: %"))
    .order_by(sagas.c.created_at_us, sagas.c.id)
)
FIRST_FENCE = 1
_FENCE_OF = select(instances.c.fence).where(instances.c.id == bindparam("of"))


class Cursor(Protocol):
    """A saga as its runner last saw it."""

    id: str
    instance_id: str
    project_id: str
    generation: int


class Saved(NamedTuple):
    generation: int
    cancel: str | None  # somebody has asked for its undoing


def enqueue(
    tx: Tx, kind: SagaKind, instance_id: str, project_id: str, params: dict[str, Any], *, request_id: str
) -> str:
    """A new saga of that instance: active at once, or queued behind the one that is."""
    active = results.first(SagaRow, tx.execute(_ACTIVE_OF, {"of": instance_id}))
    if active is not None:
        return _add(tx, kind, instance_id, project_id, params, request_id, generation=0, after=active["id"])
    generation = tx.execute(_FENCE_OF, {"of": instance_id}).scalar_one() + 1
    tx.execute(_FENCE, {"of": instance_id, "new_fence": generation})
    return _add(tx, kind, instance_id, project_id, params, request_id, generation=generation)


def enqueue_first(
    tx: Tx, kind: SagaKind, instance_id: str, project_id: str, params: dict[str, Any], *, request_id: str
) -> str:
    """The saga of an instance whose row is written in this very transaction, with FIRST_FENCE in it."""
    return _add(tx, kind, instance_id, project_id, params, request_id, generation=FIRST_FENCE)


def _add(
    tx: Tx,
    kind: SagaKind,
    instance_id: str,
    project_id: str,
    params: dict[str, Any],
    request_id: str,
    *,
    generation: int,
    after: str | None = None,
) -> str:
    saga_id = tx.names.uuid()
    row = {
        "id": saga_id,
        "kind": kind.value,
        "instance_id": instance_id,
        "project_id": project_id,
        "status": (SagaStatus.FORWARD if after is None else SagaStatus.QUEUED).value,
        "position": 0,
        "generation": generation,
        "params": params,
        "notes": {},
        "error": "",
        "request_id": request_id,
        "queued_after": after,
        "owner": tx.owner[0] if tx.owner else None,
        "owner_epoch": tx.owner[1] if tx.owner else None,
        "created_at_us": tx.now_us,
        "updated_at_us": tx.now_us,
        "ended": False,
    }
    tx.execute(_INSERT, row)
    tx.nudges.append("sagas")
    return saga_id


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


def active_of(tx: Tx, instance_id: str) -> SagaRow | None:
    return results.first(SagaRow, tx.execute(_ACTIVE_OF, {"of": instance_id}))


def waiting_for_room(tx: Tx, *, instance_id: str | None = None, limit: int) -> list[WaitingRow]:
    """Those that no host has room for at present, the oldest first."""
    query = _WAITING if instance_id is None else _WAITING.where(sagas.c.instance_id == instance_id)
    return results.every(WaitingRow, tx.execute(query.limit(limit)))


def waiting_or_active(tx: Tx, instance_id: str, kind: SagaKind) -> str | None:
    """The id of a saga of that kind that has not ended."""
    return tx.execute(_OPEN_OF_KIND, {"of": instance_id, "of_kind": kind.value}).scalar()


def busy_among(tx: Tx, ids: Iterable[str]) -> set[str]:
    """Those of the instances that an active saga is working on."""
    wanted = tuple(ids)
    return set(tx.execute(_BUSY, {"ids": wanted}).scalars()) if wanted else set()


def open_sagas(tx: Tx) -> list[SagaRow]:
    """Every active saga, oldest first, whoever owns it."""
    return results.every(SagaRow, tx.execute(_OPEN))


def listing(tx: Tx, *, limit: int, only_open: bool) -> list[SagaRow]:
    query = select(sagas).order_by(sagas.c.created_at_us.desc(), sagas.c.id).limit(limit)
    return results.every(SagaRow, tx.execute(query.where(sagas.c.ended.is_(False)) if only_open else query))


def count_open(tx: Tx) -> int:
    return int(tx.execute(select(func.count()).select_from(sagas).where(sagas.c.ended.is_(False))).scalar_one())


def unheld(tx: Tx, owner: str, dead: Sequence[str], held: frozenset[str], *, most: int) -> list[SagaRow]:
    """What nobody runs: sagas without an owner, of a dead owner, or of `owner` but not among those it holds."""
    wanted = {"owner": owner, "held": held, "dead": dead, "most": most}
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
    position: int,
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
    cancel = tx.execute(
        _SAVE,
        {
            "of": seen.id,
            "seen": seen.generation,
            "new_position": position,
            "new_status": status.value,
            "new_generation": generation,
            "new_notes": notes,
            "new_error": error,
            "new_blocked": blocked,
            "new_updated_at_us": tx.now_us,
            "new_ended": ended,
        },
    ).first()
    if cancel is None:
        raise Stale(f"saga {seen.id} has been taken by somebody else")
    if ticks:
        events.record(tx, "saga", seen.id, {"generation": generation, "ticks": ticks}, seen.project_id)
    if ended:  # until then the saga's generation is the fence: it alone may command the instance
        tx.execute(_FENCE, {"of": seen.instance_id, "new_fence": generation})
        _activate_next(tx, seen.instance_id, generation)
    tx.nudges.append(f"saga:{seen.id}")
    return Saved(generation, cancel[0])


def _activate_next(tx: Tx, instance_id: str, generation: int) -> None:
    waiting = tx.execute(_NEXT, {"of": instance_id}).scalar()
    if waiting is not None:
        tx.execute(_ACTIVATE, {"of": waiting, "new_generation": generation + 1, "at_us": tx.now_us})
        tx.execute(_FENCE, {"of": instance_id, "new_fence": generation + 1})
        tx.nudges.append("sagas")


def remember_direction(tx: Tx, saga_id: str, status: SagaStatus) -> None:
    """In which direction a saga was going when it broke."""
    tx.execute(update(sagas).where(sagas.c.id == saga_id).values(broken_while=status.value))


def retry(tx: Tx, saga_id: str) -> None:
    """An operator lets a broken saga go on from its cursor. Raises Conflict when it is not broken."""
    row = get(tx, saga_id)
    if row["status"] != SagaStatus.BROKEN:
        raise Conflict(f"saga {saga_id} is {row['status']}, not broken; only a broken one is retried")
    status = row["broken_while"] or SagaStatus.FORWARD.value
    tx.execute(
        update(sagas)
        .where(sagas.c.id == saga_id, sagas.c.generation == row["generation"])
        .values(status=status, owner=None, owner_epoch=None, generation=row["generation"] + 1)
    )
    tx.execute(_FENCE, {"of": row["instance_id"], "new_fence": row["generation"] + 1})
    tick = {"step": "retry", "mark": "^", "ms": 0, "text": "an operator let it go on"}
    events.record(tx, "saga", saga_id, {"generation": row["generation"] + 1, "ticks": [tick]}, row["project_id"])
    tx.nudges.append("sagas")


def last_of(tx: Tx, instance_id: str, kind: SagaKind) -> SagaRow | None:
    """The newest saga of that kind."""
    query = select(sagas).where(sagas.c.instance_id == instance_id, sagas.c.kind == kind.value)
    return results.first(SagaRow, tx.execute(query.order_by(sagas.c.created_at_us.desc()).limit(1)))


def cancel(tx: Tx, saga_id: str, sentence: str) -> None:
    """Ask for its undoing. It is undone if its point of no return has not passed; its runner notices by itself."""
    tx.execute(_CANCEL, {"of": saga_id, "new_cancel": sentence})
    tx.nudges.append(f"saga:{saga_id}")


def forget_cancel(tx: Tx, saga_id: str) -> None:
    """It came too late."""
    tx.execute(update(sagas).where(sagas.c.id == saga_id).values(cancel=None))


def cancel_asked(tx: Tx, saga_id: str) -> str | None:
    return tx.execute(_CANCEL_OF, {"of": saga_id}).scalar()
