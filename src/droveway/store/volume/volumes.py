"""Volumes as rows, one at a time; lists of them: store/volume/listing.py."""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import bindparam, delete, insert, or_, select, update

from droveway.domain.faults import NotFound
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.volume.rows import VolumeRow
from droveway.store.volume.tables import snapshots, volume_transfers, volumes

_GET = Prepared(select(volumes).where(volumes.c.id == bindparam("of")))
_INSERT = Prepared(insert(volumes))
_ON = or_(volumes.c.host == bindparam("of"), volumes.c.moving_to == bindparam("of"))
_ON_BACKEND = Prepared(select(volumes).where(_ON).order_by(volumes.c.created_at_us, volumes.c.id))
_FORGET_TRANSFER = Prepared(delete(volume_transfers).where(volume_transfers.c.volume_id == bindparam("of")))
_A_SNAPSHOT = Prepared(select(snapshots.c.id).where(snapshots.c.volume_id == bindparam("of")).limit(1))
_DELETE = Prepared(delete(volumes).where(volumes.c.id == bindparam("of")))


def insert_row(tx: Tx, row: VolumeRow) -> None:
    tx.execute(_INSERT, dict(row))


def get(tx: Tx, volume_id: str, project_id: str | None = None) -> VolumeRow:
    """That volume; another project's is as absent as one that never was. Raises NotFound."""
    row = results.first(VolumeRow, tx.execute(_GET, {"of": volume_id}))
    if row is None or project_id not in (None, row["project_id"]):
        raise NotFound(f"Volume {volume_id[:64]} could not be found.")
    return row


def find(tx: Tx, volume_id: str) -> VolumeRow | None:
    return results.first(VolumeRow, tx.execute(_GET, {"of": volume_id}))


def on_backend(tx: Tx, name: str) -> list[VolumeRow]:
    """Those that lie there, or move there."""
    return results.every(VolumeRow, tx.execute(_ON_BACKEND, {"of": name}))


def set_(tx: Tx, volume_id: str, **values: Any) -> None:
    new = {f"new_{name}": value for name, value in values.items()}
    tx.execute(_update(tuple(values)), {"of": volume_id, "new_updated_at_us": tx.now_us, **new})


@functools.lru_cache(maxsize=64)
def _update(names: tuple[str, ...]) -> Prepared:
    """Built once for each set of columns: building costs more than running."""
    new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in (*names, "updated_at_us")}
    return Prepared(update(volumes).where(volumes.c.id == bindparam("of")).values(new))


def remove(tx: Tx, volume_id: str) -> None:
    """For good: nothing of it is left on its backend."""
    tx.execute(_DELETE, {"of": volume_id})


def forget_transfer(tx: Tx, volume_id: str) -> None:
    """It is offered to nobody any more."""
    tx.execute(_FORGET_TRANSFER, {"of": volume_id})


def has_snapshots(tx: Tx, volume_id: str) -> bool:
    return tx.execute(_A_SNAPSHOT, {"of": volume_id}).first() is not None
