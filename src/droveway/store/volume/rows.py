"""The rows of block storage, as store/rows.py has those of the others."""

from __future__ import annotations

from typing import TypedDict

from droveway.store.rows import Object


class OwnedRow(TypedDict):
    """What everything has that a project has made here: a part of its row."""

    id: str
    project_id: str
    user_id: str
    name: str | None
    description: str | None
    created_at_us: int
    updated_at_us: int | None


class BackendRow(TypedDict):
    name: str
    driver: str
    guarantees: Object
    settings: Object
    total_gb: float
    free_gb: float
    trouble: str
    frozen: bool
    claims: int
    reported_at_us: int | None
    generation: int


class BackendWithService(BackendRow):
    """A backend, and how its service stands."""

    zone: str
    is_up: bool
    forced_down: bool
    reason: str
    disabled: bool
    disabled_reason: str | None


class VolumeRow(OwnedRow):
    size_gb: int
    status: str
    previous_status: str | None
    migration_status: str | None
    zone: str
    host: str | None
    moving_to: str | None
    volume_type_id: str | None
    snapshot_id: str | None
    source_volume_id: str | None
    image_id: str | None
    disk_format: str
    bootable: bool
    read_only: bool
    metadata: dict[str, str]
    image_metadata: dict[str, str]
    hints: Object | None
    growing_to_gb: int | None
    fault: str
    launched_at_us: int | None
    fence: int


class SnapshotRow(OwnedRow):
    volume_id: str
    size_gb: int
    status: str
    metadata: dict[str, str]
    fault: str
    fence: int


class AttachmentRow(TypedDict):
    id: str
    volume_id: str
    project_id: str
    instance_id: str | None
    host: str | None
    to_host: str | None
    status: str
    read_only: bool
    device: str | None
    source: Object | None
    connector: Object | None
    bus: str
    boot_index: int
    place: int
    delete_on_termination: bool
    tag: str | None
    attached_at_us: int | None
    created_at_us: int


class VolumeTypeRow(TypedDict):
    id: str
    name: str
    description: str | None
    is_public: bool
    extra_specs: dict[str, str]
    qos_id: str | None
    created_at_us: int
    updated_at_us: int | None


class VolumeQosRow(TypedDict):
    id: str
    name: str
    consumer: str
    specs: dict[str, str]
    created_at_us: int
    updated_at_us: int | None


class TransferRow(TypedDict):
    id: str
    volume_id: str
    project_id: str
    name: str | None
    key_hash: str
    no_snapshots: bool
    created_at_us: int


class VolumeMessageRow(TypedDict):
    id: str
    project_id: str
    request_id: str
    resource_type: str
    resource_id: str | None
    event_id: str
    level: str
    sentence: str
    created_at_us: int
    expires_at_us: int


class BackupRow(OwnedRow):
    volume_id: str
    snapshot_id: str | None
    parent_id: str | None
    status: str
    size_gb: int
    host: str | None
    container: str | None
    object_count: int
    stored_bytes: int
    zone: str | None
    metadata: dict[str, str]
    fault: str
    data_at_us: int | None
    fence: int


class VolumePlacementRow(TypedDict):
    id: int
    at_us: int
    volume_id: str
    project_id: str
    backend: str | None
    body: Object
