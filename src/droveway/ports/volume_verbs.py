"""What control asks of the volume services of a host."""

from __future__ import annotations

from typing import Annotated

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.domain.network_plan import Id
from droveway.domain.volume.model import VolumeOrigin, VolumeSpec
from droveway.domain.wire import FEW, HostName, ShortText, Text
from droveway.ports.replies import (
    BackupDone,
    PoolStatus,
    VolumeAdmitted,
    VolumeBackedUp,
    VolumeDone,
    VolumeList,
    VolumeSent,
)
from droveway.ports.verb import VerbWithReply


class ReadPool(VerbWithReply[PoolStatus], frozen=True, tag="read_pool"):
    """Read-only, as all that follows to the service of a backend: how its pool stands now. About no volume."""


class ListVolumes(VerbWithReply[VolumeList], frozen=True, tag="list_volumes"):
    """Read-only: all that it has of ours. About no volume."""


class CreateVolume(VerbWithReply[VolumeDone], frozen=True, tag="create_volume"):
    """Make it, empty or of what the origin holds."""

    volume: VolumeSpec
    origin: VolumeOrigin | None = None


class FillVolume(VerbWithReply[VolumeDone], frozen=True, tag="fill_volume"):
    """Let it begin with the bytes of that image. `ticket`: once the service has answered that it needs one."""

    volume: VolumeSpec
    image: ImageRef
    ticket: ImageTicket | None = None


class SendVolume(VerbWithReply[VolumeSent], frozen=True, tag="send_volume"):
    """Give its bytes to an API as the data of that image. `ticket`: once the service has asked for one."""

    volume: VolumeSpec
    image_id: Id
    disk_format: ShortText
    ticket: ImageTicket | None = None


class DeleteVolume(VerbWithReply[VolumeDone], frozen=True, tag="delete_volume"):
    """For good. Refused while something hangs on it or a host has it open."""


class ExtendVolume(VerbWithReply[VolumeDone], frozen=True, tag="extend_volume"):
    """Make it as large as its spec says now."""

    volume: VolumeSpec


class SnapshotVolume(VerbWithReply[VolumeDone], frozen=True, tag="snapshot_volume"):
    """About its volume, as all that is done to a snapshot: what is done to one volume is done in turn."""

    snapshot_id: Id


class DeleteSnapshot(VerbWithReply[VolumeDone], frozen=True, tag="delete_snapshot"):
    snapshot_id: Id


class RevertVolume(VerbWithReply[VolumeDone], frozen=True, tag="revert_volume"):
    """Let it hold again what the snapshot holds."""

    volume: VolumeSpec
    snapshot_id: Id


class AdmitVolume(VerbWithReply[VolumeAdmitted], frozen=True, tag="admit_volume"):
    """To the service of its backend: let that host open the volume, and say how. `identity`: the certificate by which
    an export knows it."""

    volume: VolumeSpec
    host: HostName
    read_only: bool = False
    identity: Text = ""


class WithdrawVolume(VerbWithReply[VolumeDone], frozen=True, tag="withdraw_volume"):
    """That host may open it no longer. Refused while it has it open, unless forced: then it is cut off."""

    host: HostName
    force: bool = False


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
