"""Attachments: to which server each volume is attached, and which host is admitted to it. A volume has one at most.

`host` and `source` are written by the sagas that admitted that host, and taken back by those that withdrew it: a guest
is given what has a source, and nothing else. `to_host` is the other host that may be admitted while its server moves.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, func, insert, or_, select, update

from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.volume import qos
from droveway.domain.volume.disks import DiskFormat, DiskSource, VolumeDisk
from droveway.domain.volume.model import AttachmentStatus, VolumeSpec, VolumeStatus
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.volume import volumes as volume_rows
from droveway.store.volume.rows import AttachmentRow
from droveway.store.volume.tables import snapshots, volume_attachments, volume_qos, volume_types, volumes

_C = volume_attachments.c
_GET = Prepared(select(volume_attachments).where(_C.id == bindparam("of")))
_OF_VOLUME = Prepared(select(volume_attachments).where(_C.volume_id == bindparam("of")))
_OF_VOLUMES = Prepared(select(volume_attachments).where(in_list(_C.volume_id, "ids")))
_OF_INSTANCE = Prepared(
    select(volume_attachments).where(_C.instance_id == bindparam("of")).order_by(_C.place, _C.created_at_us, _C.id)
)
_OF_INSTANCES = Prepared(
    select(volume_attachments)
    .where(in_list(_C.instance_id, "ids"))
    .order_by(_C.instance_id, _C.place, _C.created_at_us, _C.id)
)
_WITH_VOLUMES = Prepared(
    select(
        *(_C[name] for name in ("id", "volume_id", "host", "to_host", "device", "source", "bus", "boot_index")),
        or_(_C.read_only, volumes.c.read_only).label("read_only"),
        volumes.c.size_gb,
        volumes.c.disk_format,
        volumes.c.host.label("backend"),
        volume_qos.c.consumer,
        volume_qos.c.specs,
    )
    .join_from(volume_attachments, volumes, volumes.c.id == _C.volume_id)
    .outerjoin(volume_types, volume_types.c.id == volumes.c.volume_type_id)
    .outerjoin(volume_qos, volume_qos.c.id == volume_types.c.qos_id)
    .where(_C.instance_id == bindparam("of"))
    .order_by(_C.place, _C.created_at_us, _C.id)
)
_A_SNAPSHOT = Prepared(select(snapshots.c.id).where(snapshots.c.volume_id == bindparam("of")).limit(1))
_NEXT_PLACE = Prepared(select(func.max(_C.place) + 1).where(_C.instance_id == bindparam("of")))
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


def of_instances(tx: Tx, ids: Iterable[str]) -> dict[str, list[AttachmentRow]]:
    """Likewise of many servers; one without volumes is left out."""
    found: dict[str, list[AttachmentRow]] = {}
    for row in results.one_by_one(AttachmentRow, tx.execute(_OF_INSTANCES, {"ids": tuple(ids)})):
        found.setdefault(row["instance_id"] or "", []).append(row)
    return found


class NewAttachment(msgspec.Struct, frozen=True):
    """Of a volume to a server. `bus`: empty, and it is that of the server's disks. `is_being_made`: its row was written
    in this very transaction."""

    volume_id: str
    boot_index: int = -1
    delete_on_termination: bool = False
    tag: str | None = None
    bus: str = ""
    device: str | None = None
    is_being_made: bool = False


def reserve(tx: Tx, server: Mapping[str, Any], new: NewAttachment) -> str:
    """From now on the volume is that server's and nobody else's; no host is admitted to it yet. The attachment's id.
    Raises NotFound, BadRequest."""
    volume = volume_rows.get(tx, new.volume_id, server["project_id"])
    held, status = of_volume(tx, volume["id"]), volume["status"]
    if held is not None and held["instance_id"] == server["id"]:
        raise BadRequest(f"Invalid volume: volume {volume['id']} is attached to this server already.")
    if held is not None or not (new.is_being_made or status == VolumeStatus.AVAILABLE):
        shown = VolumeStatus.IN_USE.value if held is not None and status == VolumeStatus.AVAILABLE else status
        raise BadRequest(
            f"Invalid volume: volume '{volume['id']}' status must be 'available'. Currently in '{shown}'; a volume is "
            "attached to one server at a time."
        )
    if volume["moving_to"] is not None:
        raise BadRequest(f"Invalid volume: volume {volume['id']} is being migrated; attach it once that has ended.")
    row = AttachmentRow(
        id=tx.names.uuid(),
        volume_id=volume["id"],
        project_id=server["project_id"],
        instance_id=server["id"],
        host=None,
        to_host=None,
        status=AttachmentStatus.RESERVED.value,
        read_only=False,
        device=new.device,
        source=None,
        connector=None,
        bus=new.bus or "virtio",
        boot_index=new.boot_index,
        place=int(tx.execute(_NEXT_PLACE, {"of": server["id"]}).scalar() or 0),
        delete_on_termination=new.delete_on_termination,
        tag=new.tag,
        attached_at_us=None,
        created_at_us=tx.now_us,
    )
    insert_row(tx, row)
    if not new.is_being_made:
        volume_rows.set_(tx, volume["id"], status=VolumeStatus.RESERVED.value, previous_status=status)
    return row["id"]


class HeldVolume(msgspec.Struct, frozen=True):
    """One that a server has, as its stories need it. `host`: which is admitted to it, empty: none; `left`: another one
    that may be."""

    attachment_id: str
    volume: VolumeSpec
    backend: str  # HOST@BACKEND; empty: it never got one
    host: str = ""
    left: str = ""
    read_only: bool = False
    is_root: bool = False

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(filter(None, (self.host, self.left))))


def held_by(tx: Tx, instance_id: str) -> tuple[HeldVolume, ...]:
    """In the order in which the guest sees them."""
    return tuple(
        HeldVolume(
            row.id,
            VolumeSpec(row.volume_id, row.size_gb, DiskFormat(row.disk_format)),
            row.backend or "",
            row.host or "",
            row.to_host or "",
            bool(row.read_only),
            row.boot_index == 0,
        )
        for row in tx.execute(_WITH_VOLUMES, {"of": instance_id})
    )


def disks(tx: Tx, instance_id: str) -> tuple[VolumeDisk, ...]:
    """The volumes that the guest of that server has, each of which its host is admitted to."""
    return tuple(
        VolumeDisk(
            row.volume_id,
            row.id,
            msgspec.convert(row.source, DiskSource),
            row.device,
            row.size_gb,
            DiskFormat(row.disk_format),
            row.bus,
            bool(row.read_only),
            row.boot_index,
            qos.limits(row.consumer, row.specs, row.size_gb),
        )
        for row in tx.execute(_WITH_VOLUMES, {"of": instance_id})
        if row.source is not None
    )


def root_of(tx: Tx, instance_id: str) -> AttachmentRow | None:
    """The volume from which that server begins; None where that is a disk of its host."""
    return next((row for row in of_instance(tx, instance_id) if row["boot_index"] == 0), None)


def has_snapshots(tx: Tx, volume_id: str) -> bool:
    return tx.execute(_A_SNAPSHOT, {"of": volume_id}).first() is not None


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
