"""What was foreseen of each migration before its copy began, and how it was: kept as long as what else is told of the
past, and learnt from."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select, update

from droveway.domain.move_prediction import LEARNT_FROM_MAX, Outcome
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import PredictionRow, PredictionWithName
from droveway.store.schema import instances, migration_predictions

_C = migration_predictions.c
COMPLETED, FAILED = "completed", "failed"
_INSERT = Prepared(insert(migration_predictions))
_DELETE = Prepared(delete(migration_predictions).where(_C.saga_id == bindparam("of")))
_END = Prepared(
    update(migration_predictions)
    .where(_C.saga_id == bindparam("of"))
    .values(
        outcome=bindparam("new_outcome"),
        duration_ms=bindparam("new_duration_ms"),
        downtime_ms=bindparam("new_downtime_ms"),
    )
)
_LEARNT = Prepared(
    select(_C.bytes, _C.duration_ms, _C.downtime_ms, _C.dirty_bytes_per_s)
    .where(_C.outcome == COMPLETED)
    .order_by(_C.at_us.desc(), _C.saga_id)
    .limit(bindparam("most"))
)
_NEWEST = Prepared(
    select(migration_predictions, instances.c.name.label("instance_name"))
    .outerjoin(instances, instances.c.id == _C.instance_id)
    .order_by(_C.at_us.desc(), _C.saga_id)
    .limit(bindparam("most"))
)


def record(tx: Tx, row: PredictionRow) -> None:
    """Before its copy begins; said again, the later word stands."""
    tx.execute(_DELETE, {"of": row["saga_id"]})
    tx.execute(_INSERT, dict(row))


def end(tx: Tx, saga_id: str, outcome: str, duration_ms: int, downtime_ms: int | None) -> None:
    """How it was. One of which nothing was foreseen is passed over."""
    values = {"new_outcome": outcome, "new_duration_ms": duration_ms, "new_downtime_ms": downtime_ms}
    tx.execute(_END, {"of": saga_id, **values})


def outcomes(tx: Tx) -> list[Outcome]:
    """Of the newest that have ended well, newest first."""
    return [
        Outcome(row.bytes, row.duration_ms / 1000, None if row.downtime_ms is None else row.downtime_ms / 1000, row[3])
        for row in tx.execute(_LEARNT, {"most": LEARNT_FROM_MAX})
    ]


def newest(tx: Tx, limit: int) -> list[PredictionWithName]:
    return results.every(PredictionWithName, tx.execute(_NEWEST, {"most": limit}))


def forget_before(tx: Tx, before_us: int, batch: int) -> int:
    old = select(_C.saga_id).where(_C.at_us < before_us).limit(batch)
    return int(tx.execute(delete(migration_predictions).where(_C.saga_id.in_(old))).rowcount)
