"""Decisions where a guest shall run, each with its request, its reasons and the races it lost. Bounded and aged out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, insert, select

from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import PlacementRow
from droveway.store.schema import placements

KEPT_MAX = 20  # of one instance
_INSERT = Prepared(insert(placements))
_OF = select(placements).where(placements.c.instance_id == bindparam("of")).order_by(placements.c.id.desc())
_OLDEST_KEPT = (
    select(placements.c.id)
    .where(placements.c.instance_id == bindparam("of"))
    .order_by(placements.c.id.desc())
    .limit(1)
    .offset(KEPT_MAX - 1)
    .scalar_subquery()
)
_TRIM = Prepared(delete(placements).where(placements.c.instance_id == bindparam("of"), placements.c.id < _OLDEST_KEPT))


def record(
    tx: Tx,
    instance_id: str,
    saga_id: str,
    project_id: str,
    host: str | None,
    body: dict[str, Any],
    *,
    is_first: bool = False,
) -> None:
    """Keep that decision; `host` None: no host was found. `is_first`: of that instance, so nothing is to be trimmed."""
    tx.execute(
        _INSERT,
        {
            "at_us": tx.now_us,
            "instance_id": instance_id,
            "saga_id": saga_id,
            "project_id": project_id,
            "host": host,
            "body": body,
        },
    )
    if not is_first:
        tx.execute(_TRIM, {"of": instance_id})


def of_instance(tx: Tx, instance_id: str, limit: int = KEPT_MAX) -> list[PlacementRow]:
    """Its decisions, newest first."""
    return results.every(PlacementRow, tx.execute(_OF.limit(limit), {"of": instance_id}))


def newest(tx: Tx, limit: int) -> list[PlacementRow]:
    """The last decisions of all instances, newest first."""
    return results.every(PlacementRow, tx.execute(select(placements).order_by(placements.c.id.desc()).limit(limit)))


def forget_before(tx: Tx, at_us: int, most: int = 5_000) -> int:
    """Age out at most `most` decisions older than `at_us`; returns how many."""
    old = select(placements.c.id).where(placements.c.at_us < at_us).order_by(placements.c.id).limit(most)
    return tx.execute(delete(placements).where(placements.c.id.in_(old))).rowcount
