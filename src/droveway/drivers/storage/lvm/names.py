"""What logical volumes of ours are called."""

from __future__ import annotations

from collections.abc import Iterable

from droveway.domain.volume.model import FromSnapshot, VolumeOrigin
from droveway.drivers.storage.image_data import checked
from droveway.drivers.storage.lvm.volume_group import LogicalVolume
from droveway.ports.storage import OWN_SNAPSHOT

VOLUME, SNAPSHOT, UNFINISHED, REPLACED = "volume-", "_snapshot-", "new-", "old-"


def volume_name(volume_id: str) -> str:
    return f"{VOLUME}{checked(volume_id)}"


def snapshot_name(snapshot_id: str) -> str:
    return f"{SNAPSHOT}{checked(snapshot_id)}"


def is_snapshot_of(one: LogicalVolume, volume_id: str) -> bool:
    return one.name.startswith(SNAPSHOT) and volume_name(volume_id) in one.tags


def origin_name(origin: VolumeOrigin) -> str:
    if isinstance(origin, FromSnapshot):
        return snapshot_name(origin.snapshot_id)
    return volume_name(origin.volume_id)


def snapshots_of(volume_id: str, there: Iterable[LogicalVolume]) -> list[str]:
    """Of users: those of backups go with the volume."""
    found = (one.name.removeprefix(SNAPSHOT) for one in there if is_snapshot_of(one, volume_id))
    return sorted(name for name in found if not name.startswith(OWN_SNAPSHOT))
