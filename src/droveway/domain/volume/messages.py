"""What went wrong, as a message to a user names it: Cinder's numbers of actions, so that who reads them by program
understands ours. The sentence beside it is our own."""

from __future__ import annotations

from enum import StrEnum

from droveway.domain.model import SubjectKind


class Action(StrEnum):
    SCHEDULE = "001"
    ATTACH = "002"
    UPLOAD = "003"
    UPDATE_ATTACHMENT = "004"
    FILL_FROM_IMAGE = "005"
    UNMANAGE = "006"
    EXTEND = "007"
    CREATE = "008"
    SNAPSHOT_CREATE = "009"
    SNAPSHOT_DELETE = "010"
    BACKUP_CREATE = "013"
    BACKUP_DELETE = "014"
    BACKUP_RESTORE = "015"
    DELETE = "101"  # from here on ours: Cinder says nothing of these
    RETYPE = "102"
    REVERT = "103"
    DETACH = "104"


RESOURCE_TYPES = {
    SubjectKind.VOLUME: "VOLUME",
    SubjectKind.SNAPSHOT: "VOLUME_SNAPSHOT",
    SubjectKind.BACKUP: "VOLUME_BACKUP",
}


def event_id(kind: SubjectKind, action: Action) -> str:
    """VOLUME_VOLUME_008_001: what it is about, what was done; the detail is in the sentence."""
    return f"VOLUME_{RESOURCE_TYPES[kind]}_{action.value}_001"
