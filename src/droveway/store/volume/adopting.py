"""What lies on a backend without a row gets one: it is not made, and nothing there changes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import select

from droveway.domain.faults import Conflict
from droveway.domain.volume.model import SnapshotStatus, VolumeStatus
from droveway.domain.volume.quota import VolumeQuotas
from droveway.store.engine.in_list import in_list
from droveway.store.engine.transaction import Tx
from droveway.store.volume import backends, quotas, types
from droveway.store.volume import snapshots as snapshot_rows
from droveway.store.volume import volumes as volume_rows
from droveway.store.volume.quotas import Claim
from droveway.store.volume.rows import SnapshotRow, VolumeRow
from droveway.store.volume.tables import snapshots, volumes


class AdoptedVolume(msgspec.Struct, frozen=True):
    """`backend`: HOST@BACKEND; `volume_type`: its id and its name."""

    id: str
    project_id: str
    user_id: str
    size_gb: int
    backend: str
    zone: str
    volume_type: tuple[str, str]
    name: str | None = None
    description: str | None = None
    bootable: bool = False
    metadata: dict[str, str] = {}


def known_volumes(tx: Tx, ids: Sequence[str]) -> set[str]:
    """Those that have a row."""
    return set(tx.execute(select(volumes.c.id).where(in_list(volumes.c.id, list(ids)))).scalars())


def known_snapshots(tx: Tx, ids: Sequence[str]) -> set[str]:
    return set(tx.execute(select(snapshots.c.id).where(in_list(snapshots.c.id, list(ids)))).scalars())


def adopt_volume(tx: Tx, new: AdoptedVolume, configured: VolumeQuotas) -> VolumeRow:
    """Raises Conflict where it has a row, TooLarge."""
    if known_volumes(tx, [new.id]):
        raise Conflict(f"Unable to manage existing volume. Volume {new.id} already managed.")
    quotas.claim(tx, new.project_id, configured, Claim(volumes=1, gigabytes=new.size_gb), new.volume_type)
    row = VolumeRow(
        id=new.id,
        project_id=new.project_id,
        user_id=new.user_id,
        name=new.name,
        description=new.description,
        created_at_us=tx.now_us,
        updated_at_us=None,
        size_gb=new.size_gb,
        status=VolumeStatus.AVAILABLE.value,
        previous_status=None,
        migration_status=None,
        zone=new.zone,
        host=new.backend,
        moving_to=None,
        volume_type_id=new.volume_type[0],
        snapshot_id=None,
        source_volume_id=None,
        image_id=None,
        disk_format="raw",
        bootable=new.bootable,
        read_only=False,
        metadata=new.metadata,
        image_metadata={},
        hints=None,
        growing_to_gb=None,
        fault="",
        launched_at_us=tx.now_us,
        fence=0,  # its service may have seen more, and says so to the first saga
    )
    volume_rows.insert_row(tx, row)
    backends.touch(tx, new.backend)
    return row


def adopt_snapshot(
    tx: Tx,
    volume: VolumeRow,
    snapshot_id: str,
    texts: tuple[str | None, str | None],
    metadata: dict[str, str],
    configured: VolumeQuotas,
) -> SnapshotRow:
    """`texts`: its name and its description. Raises Conflict where it has a row, TooLarge."""
    if known_snapshots(tx, [snapshot_id]):
        raise Conflict(f"Unable to manage existing snapshot. Snapshot {snapshot_id} already managed.")
    type_id = volume["volume_type_id"]
    named = None if type_id is None else (type_id, types.names(tx).get(type_id, ""))
    quotas.claim(tx, volume["project_id"], configured, Claim(snapshots=1, gigabytes=volume["size_gb"]), named)
    row = SnapshotRow(
        id=snapshot_id,
        project_id=volume["project_id"],
        user_id=volume["user_id"],
        name=texts[0],
        description=texts[1],
        created_at_us=tx.now_us,
        updated_at_us=None,
        volume_id=volume["id"],
        size_gb=volume["size_gb"],
        status=SnapshotStatus.AVAILABLE.value,
        metadata=metadata,
        fault="",
        fence=0,
    )
    snapshot_rows.insert_row(tx, row)
    return row
