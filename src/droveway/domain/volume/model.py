"""The nouns of block storage. Sizes of volumes are whole GiB, as in Cinder's API."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from droveway.domain.model import Subject, SubjectKind
from droveway.domain.network_plan import Id
from droveway.domain.volume.disks import DiskFormat
from droveway.domain.wire import FEW, LIST, Count, Reason, ShortText


class VolumeStatus(StrEnum):
    """Cinder's words."""

    CREATING = "creating"
    DOWNLOADING = "downloading"  # from an image
    AVAILABLE = "available"
    RESERVED = "reserved"
    ATTACHING = "attaching"
    IN_USE = "in-use"
    DETACHING = "detaching"
    DELETING = "deleting"
    EXTENDING = "extending"
    UPLOADING = "uploading"
    RETYPING = "retyping"
    MAINTENANCE = "maintenance"
    REVERTING = "reverting"
    BACKING_UP = "backing-up"
    RESTORING_BACKUP = "restoring-backup"
    AWAITING_TRANSFER = "awaiting-transfer"
    ERROR = "error"
    ERROR_DELETING = "error_deleting"
    ERROR_EXTENDING = "error_extending"
    ERROR_RESTORING = "error_restoring"


class SnapshotStatus(StrEnum):
    CREATING = "creating"
    AVAILABLE = "available"
    DELETING = "deleting"
    RESTORING = "restoring"
    UNMANAGING = "unmanaging"
    ERROR = "error"
    ERROR_DELETING = "error_deleting"


class AttachmentStatus(StrEnum):
    RESERVED = "reserved"
    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"
    ERROR_ATTACHING = "error_attaching"


class Clone(StrEnum):
    """How a driver makes a volume of another volume or of a snapshot."""

    INSTANT = "instant"  # copy on write: no bytes move
    COPY = "copy"


class StorageGuarantees(msgspec.Struct, frozen=True):
    """What a driver declares; the API refuses the rest with a sentence. Shown as capabilities of the pool."""

    clone: Clone
    snapshots: bool
    independent_snapshots: bool  # one may be deleted while volumes made of it are there
    grows_in_use: bool
    reverts: bool
    thin: bool
    changed_blocks: bool  # it names what changed between two snapshots
    exclusive: ShortText  # by what proof no second writer is there; a sentence
    fencing: ShortText  # how a client is cut off; a sentence
    isolation: ShortText  # what a host reaches beside the volumes that are attached to it; a sentence


class BackendSettings(msgspec.Struct, frozen=True):
    """What an operator says of a backend to the volume scheduler, where its service is configured."""

    volume_backend_name: ShortText = ""  # what volume types ask for; several backends may have the same
    max_over_subscription_ratio: float = 20.0  # promised to actual, where the backend is thin
    reserved_percentage: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0  # of the pool, given to no volume
    capabilities: Annotated[dict[ShortText, ShortText], FEW] = {}  # more words that volume types may ask for


class StoragePool(msgspec.Struct, frozen=True):
    """What a backend says of itself at one moment. `trouble`: why it cannot be used now, a sentence that stays the same
    meanwhile; empty while it can."""

    total_gb: float
    free_gb: float
    guarantees: StorageGuarantees
    driver: ShortText = ""
    trouble: Reason = ""
    settings: BackendSettings = BackendSettings()  # told by its service, and by no driver


class VolumeSpec(msgspec.Struct, frozen=True):
    """A volume as its backend makes it."""

    volume_id: Id
    size_gb: Count
    disk_format: DiskFormat = DiskFormat.RAW


class FromVolume(msgspec.Struct, frozen=True, tag="volume"):
    """Made of what that volume holds now."""

    volume_id: Id


class FromSnapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    snapshot_id: Id
    volume_id: Id  # whose


VolumeOrigin = FromVolume | FromSnapshot


class StoredVolume(msgspec.Struct, frozen=True):
    """One that lies on a backend. `holders`: the hosts that its export admits or that have it open, as far as the
    backend can tell."""

    volume_id: Id
    size_bytes: Count
    snapshots: Annotated[tuple[Id, ...], LIST] = ()
    holders: Annotated[tuple[ShortText, ...], LIST] = ()


def of_volume(volume_id: str) -> Subject:
    return Subject(SubjectKind.VOLUME, volume_id)


def of_snapshot(snapshot_id: str) -> Subject:
    return Subject(SubjectKind.SNAPSHOT, snapshot_id)
