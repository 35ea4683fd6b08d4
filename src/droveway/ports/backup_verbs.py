"""What is asked about backups: three verbs to the service of a volume's backend, about the volume, and one to a backup
service, about the backup."""

from __future__ import annotations

from typing import Annotated

from droveway.domain.network_plan import Id
from droveway.domain.volume.model import VolumeSpec
from droveway.domain.wire import FEW
from droveway.ports.replies import BackupDone, VolumeBackedUp, VolumeDone
from droveway.ports.verb import VerbWithReply


class BackupVolume(VerbWithReply[VolumeBackedUp], frozen=True, tag="backup_volume"):
    """Store it as that backup: as it is at this moment, or as that snapshot of a user is. `parent_id`: the backup that
    this one continues. `former`: backups of the same volume whose own snapshots are needed no longer then."""

    volume: VolumeSpec
    backup_id: Id
    parent_id: Id | None = None
    snapshot_id: Id | None = None
    former: Annotated[tuple[Id, ...], FEW] = ()


class RestoreBackup(VerbWithReply[VolumeDone], frozen=True, tag="restore_backup"):
    """Let the volume hold what that backup does. `is_blank`: it was made for it, and holds nothing else."""

    volume: VolumeSpec
    backup_id: Id
    is_blank: bool = False


class ForgetBackup(VerbWithReply[VolumeDone], frozen=True, tag="forget_backup"):
    """It was given up, or deleted: what it has left at the backend goes."""

    backup_id: Id


class DeleteBackup(VerbWithReply[BackupDone], frozen=True, tag="delete_backup"):
    """To a backup service, about the backup: it goes from the store, and with it what no other one holds."""
