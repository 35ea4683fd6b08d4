"""What may be done to a volume or a snapshot in which status, what is shown of it meanwhile, and the sentence that
refuses the rest, in the words of Cinder that clients look for. Pure.

A verb that a saga carries out is called as its saga's kind. A saga that undoes goes back to the status that the volume
had before (`previous` of its params); one that fails for good writes what stands in FAILED.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from droveway.domain.volume.model import AttachmentStatus, SnapshotStatus, VolumeStatus


class Verb(StrEnum):
    """What may be done to a volume."""

    CREATE = "create_volume"
    DELETE = "delete_volume"
    EXTEND = "extend_volume"
    RETYPE = "retype_volume"
    MIGRATE = "migrate_volume"  # the saga of a retype, to another backend
    REVERT = "revert_volume"
    UPLOAD = "upload_volume"
    SNAPSHOT = "create_snapshot"  # about the snapshot; it holds the volume
    ATTACH = "attach_volume"  # about the server; it holds the volume
    DETACH = "detach_volume"
    BACKUP = "backup_volume"
    RESTORE = "restore_backup"  # into a volume that is there
    CONNECT = "admit_connector"
    TRANSFER = "transfer"  # from here on: by a row alone, without a saga
    RESERVE = "reserve"
    UNMANAGE = "unmanage"
    SET_READ_ONLY = "set_read_only"
    CHANGE_METADATA = "change_metadata"
    CLONE = "clone"  # another volume is made of it


@dataclass(frozen=True, slots=True)
class VolumeRule:
    statuses: frozenset[VolumeStatus]
    meanwhile: VolumeStatus | None  # shown while it is under way; None: what it was before
    forced: frozenset[VolumeStatus] = frozenset()  # beside those: where the caller says force


V, S = VolumeStatus, SnapshotStatus


def _rule(meanwhile: VolumeStatus | None, *statuses: VolumeStatus, forced: Collection[VolumeStatus] = ()) -> VolumeRule:
    return VolumeRule(frozenset(statuses), meanwhile, frozenset(forced))


# A guest may hold the volume, or is about to be given it by a saga: only the server's calls lead out of these.
ATTACHED = frozenset({V.RESERVED, V.ATTACHING, V.IN_USE, V.DETACHING})
_ENDED_BADLY = (V.ERROR, V.ERROR_DELETING, V.ERROR_EXTENDING, V.ERROR_RESTORING)
LIFECYCLE: Mapping[Verb, VolumeRule] = {
    Verb.CREATE: _rule(V.CREATING, V.CREATING),
    Verb.DELETE: _rule(V.DELETING, V.AVAILABLE, *_ENDED_BADLY, forced=set(V)),
    Verb.EXTEND: _rule(V.EXTENDING, V.AVAILABLE, V.IN_USE),
    Verb.RETYPE: _rule(V.RETYPING, V.AVAILABLE, V.IN_USE),
    Verb.MIGRATE: _rule(None, V.AVAILABLE, V.IN_USE),
    Verb.REVERT: _rule(V.REVERTING, V.AVAILABLE),
    Verb.UPLOAD: _rule(V.UPLOADING, V.AVAILABLE, forced={V.IN_USE}),
    Verb.SNAPSHOT: _rule(None, V.AVAILABLE, forced={V.IN_USE}),
    Verb.ATTACH: _rule(V.ATTACHING, V.AVAILABLE, V.RESERVED, V.ATTACHING),
    Verb.DETACH: _rule(V.DETACHING, V.IN_USE, V.DETACHING),
    Verb.BACKUP: _rule(V.BACKING_UP, V.AVAILABLE, forced={V.IN_USE}),
    Verb.RESTORE: _rule(V.RESTORING_BACKUP, V.AVAILABLE),
    Verb.CONNECT: _rule(None, V.RESERVED),
    Verb.TRANSFER: _rule(V.AWAITING_TRANSFER, V.AVAILABLE),
    Verb.RESERVE: _rule(V.RESERVED, V.AVAILABLE),
    Verb.UNMANAGE: _rule(None, V.AVAILABLE, V.ERROR),
    Verb.SET_READ_ONLY: _rule(None, V.AVAILABLE),
    Verb.CHANGE_METADATA: _rule(None, *(set(V) - {V.MAINTENANCE, V.UPLOADING})),
    Verb.CLONE: _rule(None, V.AVAILABLE, V.IN_USE),
}
# A volume that an attachment names is nobody else's, whatever its status says: none of these begins.
OF_FREE_ONES = frozenset(
    {Verb.DELETE, Verb.RESERVE, Verb.TRANSFER, Verb.REVERT, Verb.RESTORE, Verb.UNMANAGE, Verb.SET_READ_ONLY}
)
FAILED: Mapping[Verb, VolumeStatus] = {  # what is written when it could neither be done nor undone
    Verb.CREATE: V.ERROR,
    Verb.DELETE: V.ERROR_DELETING,
    Verb.EXTEND: V.ERROR_EXTENDING,
    Verb.REVERT: V.ERROR,
    Verb.RESTORE: V.ERROR_RESTORING,
}
_NOT_WHILE = (
    "must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from "
    "snapshots after volume transfer."
)


def allowed(verb: Verb, status: str, *, force: bool = False) -> bool:
    rule = LIFECYCLE[verb]
    return status in rule.statuses or (force and status in rule.forced)


def listed(statuses: Collection[str]) -> str:
    """available or error"""
    words = sorted(statuses)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def refusal(verb: Verb, volume_id: str, status: str, *, force: bool = False) -> str | None:
    """The sentence that refuses it to a volume of that status, or None when it may begin."""
    if allowed(verb, status, force=force):
        return None
    wanted = listed(LIFECYCLE[verb].statuses)
    match verb:
        case Verb.DELETE:
            must = f"status must be {wanted} and " if not force else ""
            return f"Invalid volume: Volume {volume_id} {must}{_NOT_WHILE} It is {status}."
        case Verb.EXTEND:
            return f"Invalid volume: Volume {volume_id} status must be '{wanted}' to extend, currently {status}."
        case Verb.RESERVE | Verb.ATTACH:
            return (
                f"Invalid volume: Volume {volume_id} status must be {wanted} to reserve, but the current status is "
                f"{status}."
            )
        case Verb.DETACH:
            return (
                "Invalid volume: Unable to detach volume. Volume status must be 'in-use' and attach_status must be "
                f"'attached' to detach; volume {volume_id} is {status}."
            )
        case Verb.RETYPE:
            return (
                "Invalid volume: Retype needs volume to be in available or in-use state, not be part of an active "
                f"migration or a consistency group; volume {volume_id} is {status}."
            )
        case Verb.CHANGE_METADATA:
            return f"Invalid volume: Updating volume metadata is not allowed for volumes in {status} status."
        case Verb.SET_READ_ONLY:
            return (
                f"Invalid volume: Volume {volume_id} status must be available to update readonly flag, but current "
                f"status is: {status}."
            )
        case Verb.TRANSFER:
            return f"Invalid volume: status must be available; volume {volume_id} is {status}."
        case Verb.REVERT:
            return (
                f"Invalid volume: Can't revert volume {volume_id} to its latest snapshot. Volume's status must be "
                f"'available'; it is {status}."
            )
    return f"Invalid volume: Volume {volume_id} status must be {wanted}, but current status is: {status}."


def still_attached(volume_id: str) -> str:
    return f"Invalid volume: Volume {volume_id} is still attached, detach volume first. It must not be attached."


def busy(volume_id: str, work: str) -> str:
    """The sentence that refuses what does not wait: a saga is at work on it."""
    return f"Invalid volume: Volume {volume_id} is busy: its {work} is under way; wait until that has ended."


def reset_refusal(volume_id: str, status: str, held_by: str | None) -> str | None:
    """The sentence that refuses to say of a volume that a guest holds that it is free, or None. Whatever it is told to
    be, the export stays as it is: it ends with the detaching, which asks the host."""
    if held_by is None or status in ATTACHED:
        return None
    return (
        f"Invalid volume: Volume {volume_id} is held by {held_by}: its status cannot be reset to {status} before it "
        "was detached there by the Compute API."
    )


# -- snapshots --------------------------------------------------------------------------------------------------------
SNAPSHOT_DELETABLE = frozenset({S.AVAILABLE, S.ERROR, S.ERROR_DELETING})


def snapshot_deletion_refusal(snapshot_id: str, status: str, *, force: bool = False) -> str | None:
    if status in SNAPSHOT_DELETABLE or force:
        return None
    return (
        f"Invalid snapshot: Snapshot status must be {listed(SNAPSHOT_DELETABLE)} and Snapshot must not be part of a "
        f"group. Snapshot {snapshot_id} is {status}."
    )


def snapshot_use_refusal(snapshot_id: str, status: str) -> str | None:
    """The sentence that refuses to make a volume of it, or to revert to it."""
    if status == S.AVAILABLE:
        return None
    return (
        f"Invalid snapshot: Originating snapshot status must be one of 'available' values; {snapshot_id} is {status}."
    )


# -- attachments ------------------------------------------------------------------------------------------------------
# Held: a host was admitted, or is about to be.
ATTACHMENT_HELD = frozenset({AttachmentStatus.ATTACHED, AttachmentStatus.ATTACHING, AttachmentStatus.DETACHING})


def attachment_refusal(attachment_id: str, instance_id: str | None, host: str | None) -> str | None:
    """The sentence that refuses to end an attachment behind the back of who holds it (CVE-2023-2088), or None."""
    if instance_id is not None:
        return (
            f"Detach volume from instance {instance_id} using the Compute API; attachment {attachment_id} is its own."
        )
    if host is not None:
        return f"Attachment {attachment_id} is held by host {host}: end it there first."
    return None
