"""What was asked of a server: the sagas that requests began, and what was done at once (`server_requests`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, delete, insert, literal, null, select, union_all

from droveway.domain.faults import NotFound
from droveway.domain.model import SagaStatus, SubjectKind, of_saga
from droveway.store.engine import order, results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import ActionRow, EventRow
from droveway.store.schema import events, sagas, server_requests

_S, _R = sagas.c, server_requests.c
_SAME = ("id", "kind", "request_id", "user_id", "project_id")
_INSERT = Prepared(insert(server_requests))
_TICKS = Prepared(
    select(events)
    .where(in_list(events.c.subject_id, "ids"), events.c.subject_kind == SubjectKind.SAGA.value)
    .order_by(events.c.id)
)


def record(tx: Tx, instance_id: str, kind: str, request_id: str, user_id: str, project_id: str | None) -> None:
    """That request has done something to the server at once; `kind` is Nova's word for it."""
    tx.execute(
        _INSERT,
        {
            "id": tx.names.uuid(),
            "instance_id": instance_id,
            "kind": kind,
            "request_id": request_id,
            "user_id": user_id,
            "project_id": project_id or "",
            "at_us": tx.now_us,
        },
    )


def _asked(instance_id: str) -> Any:
    """Both kinds alike; what the program does of itself has no request."""
    by_sagas = select(
        *(_S[name] for name in _SAME),
        _S.subject_id.label("instance_id"),
        _S.created_at_us,
        _S.updated_at_us,
        _S.blocked,
        _S.error,
        _S.status,
        _S.step,
        _S.notes,
    ).where(_S.subject_id == instance_id, _S.subject_kind == SubjectKind.INSTANCE.value, _S.request_id != "")
    at_once = select(
        *(_R[name] for name in _SAME),
        _R.instance_id,
        _R.at_us.label("created_at_us"),
        _R.at_us.label("updated_at_us"),
        cast(null(), Text).label("blocked"),
        literal("").label("error"),
        literal(SagaStatus.DONE.value).label("status"),
        literal("").label("step"),
        cast(literal("{}"), _S.notes.type).label("notes"),
    ).where(_R.instance_id == instance_id)
    return union_all(by_sagas, at_once).subquery()


def _keys(asked: Any) -> tuple[tuple[ColumnElement[Any], bool], ...]:
    return (asked.c.created_at_us, True), (asked.c.id, True)


def of_server(
    tx: Tx, instance_id: str, *, marker: str | None, limit: int, since_us: int | None, before_us: int | None
) -> list[ActionRow]:
    """Newest first. `marker` is the request of the last one of the page before; raises NotFound."""
    asked = _asked(instance_id)
    query = select(asked).order_by(*order.clauses(_keys(asked)))
    if since_us is not None:
        query = query.where(asked.c.updated_at_us >= since_us)
    if before_us is not None:
        query = query.where(asked.c.updated_at_us <= before_us)
    if marker is not None:
        last = of_request(tx, instance_id, marker)[-1]
        query = query.where(order.behind(_keys(asked), (last["created_at_us"], last["id"])))
    return results.every(ActionRow, tx.execute(query.limit(limit)))


def of_request(tx: Tx, instance_id: str, request_id: str) -> list[ActionRow]:
    """Newest first: a boot that was tried on several hosts was several sagas. Raises NotFound."""
    asked = _asked(instance_id)
    query = select(asked).where(asked.c.request_id == request_id).order_by(*order.clauses(_keys(asked)))
    rows = results.every(ActionRow, tx.execute(query))
    if not rows:
        raise NotFound(f"Action for request_id {request_id[:64]} on instance {instance_id} not found")
    return rows


def ticks(tx: Tx, saga_ids: Iterable[str]) -> list[EventRow]:
    """What those sagas have done, in its order."""
    ids = [of_saga(saga_id).id for saga_id in saga_ids]
    return results.every(EventRow, tx.execute(_TICKS, {"ids": ids}))


def forget_before(tx: Tx, at_us: int, most: int) -> int:
    """Age out at most `most` requests older than that; returns how many."""
    old = select(_R.id).where(_R.at_us < at_us).limit(most)
    return tx.execute(delete(server_requests).where(_R.id.in_(old))).rowcount
