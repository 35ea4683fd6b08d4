"""Snapshots as rows, one at a time."""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from droveway.domain.faults import NotFound
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.volume.rows import SnapshotRow
from droveway.store.volume.tables import snapshots

_GET = Prepared(select(snapshots).where(snapshots.c.id == bindparam("of")))
_INSERT = Prepared(insert(snapshots))
_OF_VOLUME = Prepared(
    select(snapshots.c.id)
    .where(snapshots.c.volume_id == bindparam("of"))
    .order_by(snapshots.c.created_at_us, snapshots.c.id)
)
_LAST = Prepared(
    select(snapshots)
    .where(snapshots.c.volume_id == bindparam("of"))
    .order_by(snapshots.c.created_at_us.desc(), snapshots.c.id.desc())
    .limit(1)
)
_DELETE = Prepared(delete(snapshots).where(snapshots.c.id == bindparam("of")))


def insert_row(tx: Tx, row: SnapshotRow) -> None:
    tx.execute(_INSERT, dict(row))


def get(tx: Tx, snapshot_id: str, project_id: str | None = None) -> SnapshotRow:
    """That snapshot; another project's is as absent as one that never was. Raises NotFound."""
    row = results.first(SnapshotRow, tx.execute(_GET, {"of": snapshot_id}))
    if row is None or project_id not in (None, row["project_id"]):
        raise NotFound(f"Snapshot {snapshot_id[:64]} could not be found.")
    return row


def of_volume(tx: Tx, volume_id: str) -> list[str]:
    """The ids of all that were made of it, the oldest first."""
    return list(tx.execute(_OF_VOLUME, {"of": volume_id}).scalars())


def set_(tx: Tx, snapshot_id: str, **values: Any) -> None:
    new = {f"new_{name}": value for name, value in values.items()}
    tx.execute(_update(tuple(values)), {"of": snapshot_id, "new_updated_at_us": tx.now_us, **new})


@functools.lru_cache(maxsize=64)
def _update(names: tuple[str, ...]) -> Prepared:
    """Built once for each set of columns: building costs more than running."""
    new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in (*names, "updated_at_us")}
    return Prepared(update(snapshots).where(snapshots.c.id == bindparam("of")).values(new))


def remove(tx: Tx, snapshot_id: str) -> None:
    """For good: nothing of it is left on its backend."""
    tx.execute(_DELETE, {"of": snapshot_id})


def last_of(tx: Tx, volume_id: str) -> SnapshotRow | None:
    """The newest of that volume."""
    return results.first(SnapshotRow, tx.execute(_LAST, {"of": volume_id}))
