"""Attachments: to which server each volume is attached, and which host is admitted to it. A volume has one at most."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from droveway.domain.faults import NotFound
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.volume.rows import AttachmentRow
from droveway.store.volume.tables import volume_attachments

_C = volume_attachments.c
_GET = Prepared(select(volume_attachments).where(_C.id == bindparam("of")))
_OF_VOLUME = Prepared(select(volume_attachments).where(_C.volume_id == bindparam("of")))
_OF_VOLUMES = Prepared(select(volume_attachments).where(in_list(_C.volume_id, "ids")))
_OF_INSTANCE = Prepared(
    select(volume_attachments).where(_C.instance_id == bindparam("of")).order_by(_C.place, _C.created_at_us, _C.id)
)
_INSERT = Prepared(insert(volume_attachments))
_DELETE = Prepared(delete(volume_attachments).where(_C.id == bindparam("of")))


def insert_row(tx: Tx, row: AttachmentRow) -> None:
    """The database refuses a second one of its volume: look first."""
    tx.execute(_INSERT, dict(row))


def get(tx: Tx, attachment_id: str, project_id: str | None = None) -> AttachmentRow:
    row = results.first(AttachmentRow, tx.execute(_GET, {"of": attachment_id}))
    if row is None or project_id not in (None, row["project_id"]):
        raise NotFound(f"Volume attachment {attachment_id[:64]} could not be found.")
    return row


def of_volume(tx: Tx, volume_id: str) -> AttachmentRow | None:
    return results.first(AttachmentRow, tx.execute(_OF_VOLUME, {"of": volume_id}))


def of_volumes(tx: Tx, volume_ids: Sequence[str]) -> dict[str, AttachmentRow]:
    """By the volume."""
    rows = results.every(AttachmentRow, tx.execute(_OF_VOLUMES, {"ids": volume_ids}))
    return {row["volume_id"]: row for row in rows}


def of_instance(tx: Tx, instance_id: str) -> list[AttachmentRow]:
    """In the order in which the guest sees them."""
    return results.every(AttachmentRow, tx.execute(_OF_INSTANCE, {"of": instance_id}))


def set_(tx: Tx, attachment_id: str, **values: Any) -> None:
    new = {f"new_{name}": value for name, value in values.items()}
    tx.execute(_update(tuple(values)), {"of": attachment_id, **new})


@functools.lru_cache(maxsize=64)
def _update(names: tuple[str, ...]) -> Prepared:
    """Built once for each set of columns: building costs more than running."""
    new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names}
    return Prepared(update(volume_attachments).where(_C.id == bindparam("of")).values(new))


def remove(tx: Tx, attachment_id: str) -> None:
    tx.execute(_DELETE, {"of": attachment_id})
