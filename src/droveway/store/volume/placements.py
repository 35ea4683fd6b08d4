"""Decisions where a volume shall lie, each with its request, its reasons and the races it lost: bounded, aged out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, insert, select

from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.volume.rows import VolumePlacementRow
from droveway.store.volume.tables import volume_placements

KEPT_MAX = 20  # of one volume
_C = volume_placements.c
_INSERT = Prepared(insert(volume_placements))
_OF = select(volume_placements).where(_C.volume_id == bindparam("of")).order_by(_C.id.desc())
_KEPT = Prepared(_OF.limit(KEPT_MAX))
_OLDEST_KEPT = (
    select(_C.id)
    .where(_C.volume_id == bindparam("of"))
    .order_by(_C.id.desc())
    .limit(1)
    .offset(KEPT_MAX - 1)
    .scalar_subquery()
)
_TRIM = Prepared(delete(volume_placements).where(_C.volume_id == bindparam("of"), _C.id < _OLDEST_KEPT))


def record(
    tx: Tx, volume_id: str, project_id: str, backend: str | None, body: dict[str, Any], *, is_first: bool = False
) -> None:
    """Keep that decision; `backend` None: none was found. `is_first`: of that volume, so nothing is to be trimmed."""
    new = {
        "at_us": tx.now_us,
        "volume_id": volume_id,
        "project_id": project_id,
        "backend": backend,
        "body": body,
    }
    tx.execute(_INSERT, new)
    if not is_first:
        tx.execute(_TRIM, {"of": volume_id})


def of_volume(tx: Tx, volume_id: str) -> list[VolumePlacementRow]:
    """Its decisions, newest first."""
    return results.every(VolumePlacementRow, tx.execute(_KEPT, {"of": volume_id}))


def forget_old(tx: Tx, before_us: int, most: int) -> int:
    """Returns how many."""
    old = select(_C.id).where(_C.at_us < before_us).limit(most)
    return tx.execute(delete(volume_placements).where(_C.id.in_(old))).rowcount
