"""What is shown of each resource of Block Storage, from which microversion, and to whom: one table a resource. What is
not built shows its constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from droveway.api.http.render import ABSENT, Field, FieldTable, constant, micros
from droveway.api.volume.here import links
from droveway.domain.volume.model import AttachmentStatus
from droveway.store.volume.rows import (
    AttachmentRow,
    BackupRow,
    SnapshotRow,
    TransferRow,
    VolumeMessageRow,
    VolumeQosRow,
    VolumeRow,
    VolumeTypeRow,
)


class VolumeView(NamedTuple):
    """What the rows do not say. `shows_hosts`: to an administrator or a service."""

    base: str
    types: Mapping[str, str] = {}  # names by id
    attachments: Mapping[str, AttachmentRow] = {}  # by volume
    services: Mapping[str, str] = {}  # uuids by backend
    shows_hosts: bool = False


def _time(column: str) -> Any:
    def read(row: Mapping[str, Any], view: Any) -> str | None:
        return micros(row[column])

    return read


CREATED: Field[Any] = Field("created_at", _time("created_at_us"), 0)
UPDATED: Field[Any] = Field("updated_at", _time("updated_at_us"), 0)


# -- volumes ----------------------------------------------------------------------------------------------------------
def _type_name(row: VolumeRow, view: VolumeView) -> str | None:
    return view.types.get(row["volume_type_id"] or "")


def _metadata(row: VolumeRow, view: VolumeView) -> dict[str, str]:
    return {**row["metadata"], "readonly": "True"} if row["read_only"] else row["metadata"]


def _image_metadata(row: VolumeRow, view: VolumeView) -> Any:
    return row["image_metadata"] or ABSENT


def _attachments(row: VolumeRow, view: VolumeView) -> list[dict[str, Any]]:
    """None before the guest has it."""
    found = view.attachments.get(row["id"])
    if found is None or found["status"] not in (AttachmentStatus.ATTACHED, AttachmentStatus.DETACHING):
        return []
    device = found["device"]
    return [
        {
            "id": found["volume_id"],
            "attachment_id": found["id"],
            "volume_id": found["volume_id"],
            "server_id": found["instance_id"],
            "host_name": found["host"] if view.shows_hosts else None,
            "device": device if device is None or device.startswith("/") else f"/dev/{device}",
            "attached_at": micros(found["attached_at_us"]),
        }
    ]


def _service(row: VolumeRow, view: VolumeView) -> str | None:
    return view.services.get(row["host"] or "")


def _pool(row: VolumeRow, view: VolumeView) -> str | None:
    """HOST@BACKEND#POOL: a backend is one pool, of its own name."""
    return None if row["host"] is None else pool_of(row["host"])


def pool_of(host: str) -> str:
    return f"{host}#{host.partition('@')[2]}"


def _links(collection: str) -> Any:
    return lambda row, view: links(view.base, collection, row["id"])


_VOLUME: tuple[Field[VolumeRow], ...] = (
    Field("id", "id", 0),
    Field("status", "status", 0),
    Field("size", "size_gb", 0),
    Field("availability_zone", "zone", 0),
    CREATED,
    UPDATED,
    Field("name", "name", 0),
    Field("description", "description", 0),
    Field("volume_type", _type_name, 0),
    Field("snapshot_id", "snapshot_id", 0),
    Field("source_volid", "source_volume_id", 0),
    Field("metadata", _metadata, 0),
    Field("links", _links("volumes"), 0),
    Field("user_id", "user_id", 0),
    Field("bootable", lambda row, _: "true" if row["bootable"] else "false", 0),
    constant("encrypted", False, 0),
    constant("replication_status", None, 0),
    constant("consistencygroup_id", None, 0),
    constant("multiattach", False, 0),
    Field("attachments", _attachments, 0),
    Field("migration_status", "migration_status", 0, admin_only=True),
    constant("group_id", None, 13),
    constant("provider_id", None, 21, admin_only=True),
    constant("shared_targets", False, 48),
    Field("service_uuid", _service, 48),
    constant("cluster_name", None, 61, admin_only=True),
    Field("volume_type_id", "volume_type_id", 63),
    constant("consumes_quota", True, 65),
)
VOLUME_MADE = FieldTable[VolumeRow](VolumeRow, *_VOLUME)  # the reply to what makes or changes one
VOLUME = FieldTable[VolumeRow](
    VolumeRow,
    *_VOLUME,
    Field("volume_image_metadata", _image_metadata, 0),
    Field("os-vol-tenant-attr:tenant_id", "project_id", 0),
    Field("os-vol-host-attr:host", _pool, 0, admin_only=True),
    Field("os-vol-mig-status-attr:migstat", "migration_status", 0, admin_only=True),
    constant("os-vol-mig-status-attr:name_id", None, 0, admin_only=True),
)


# -- snapshots --------------------------------------------------------------------------------------------------------
def _progress(row: SnapshotRow, view: VolumeView) -> str:
    return "100%" if row["status"] == "available" else "0%"


_SNAPSHOT: tuple[Field[SnapshotRow], ...] = (
    Field("id", "id", 0),
    CREATED,
    UPDATED,
    Field("name", "name", 0),
    Field("description", "description", 0),
    Field("volume_id", "volume_id", 0),
    Field("status", "status", 0),
    Field("size", "size_gb", 0),
    Field("metadata", "metadata", 0),
)
_SNAPSHOT_DETAIL: tuple[Field[SnapshotRow], ...] = (
    *_SNAPSHOT,
    constant("group_snapshot_id", None, 14),
    Field("user_id", "user_id", 41),
    constant("consumes_quota", True, 65),
)
SNAPSHOT_MADE = FieldTable[SnapshotRow](SnapshotRow, *_SNAPSHOT_DETAIL)  # the reply to what makes or changes one
SNAPSHOT = FieldTable[SnapshotRow](
    SnapshotRow,
    *_SNAPSHOT_DETAIL,
    Field("os-extended-snapshot-attributes:project_id", "project_id", 0),
    Field("os-extended-snapshot-attributes:progress", _progress, 0),
)
SNAPSHOT_SUMMARY = FieldTable[SnapshotRow](SnapshotRow, *_SNAPSHOT)


# -- attachments ------------------------------------------------------------------------------------------------------
def _attached_at(row: AttachmentRow, view: VolumeView) -> str:
    return micros(row["attached_at_us"]) or ""


def _instance(row: AttachmentRow, view: VolumeView) -> str | None:
    """A server of ours; or what a client has called its own."""
    found: str | None = row["instance_id"] or (row["connector"] or {}).get("instance")
    return found


def _mode(row: AttachmentRow, view: VolumeView) -> str:
    return "ro" if row["read_only"] else "rw"


def connection_info(row: AttachmentRow, view: VolumeView) -> dict[str, Any]:
    """How a host opens it: for a service or an administrator. A tenant who knew it could come to the storage by
    another way than its server."""
    source = row["source"]
    if source is None or not view.shows_hosts:
        return {}
    return {
        "driver_volume_type": source["type"],
        "data": {name: value for name, value in source.items() if name != "type"},
        "attachment_id": row["id"],
    }


_ATTACHMENT: tuple[Field[AttachmentRow], ...] = (
    Field("id", "id", 0),
    Field("status", "status", 0),
    Field("instance", _instance, 0),
    Field("volume_id", "volume_id", 0),
)
ATTACHMENT = FieldTable[AttachmentRow](
    AttachmentRow,
    *_ATTACHMENT,
    Field("attached_at", _attached_at, 0),
    constant("detached_at", "", 0),
    Field("attach_mode", _mode, 0),
    Field("connection_info", connection_info, 0),
)
ATTACHMENT_SUMMARY = FieldTable[AttachmentRow](AttachmentRow, *_ATTACHMENT)

# -- transfers --------------------------------------------------------------------------------------------------------
_TRANSFER: tuple[Field[TransferRow], ...] = (
    Field("id", "id", 0),
    Field("volume_id", "volume_id", 0),
    Field("name", "name", 0),
    Field("links", _links("volume-transfers"), 0),
)
TRANSFER = FieldTable[TransferRow](
    TransferRow,
    *_TRANSFER,
    CREATED,
    Field("no_snapshots", "no_snapshots", 55),
    constant("destination_project_id", None, 57),
    Field("source_project_id", "project_id", 57),
    constant("accepted", False, 57),
)
TRANSFER_SUMMARY = FieldTable[TransferRow](TransferRow, *_TRANSFER)

# -- types ------------------------------------------------------------------------------------------------------------
USER_VISIBLE_SPECS = ("RESKEY:availability_zones", "multiattach", "replication_enabled")


def _extra_specs(row: VolumeTypeRow, is_admin: bool) -> dict[str, str]:
    """Most of them tell of the operator's machines; these tell a user what it may ask for."""
    specs = row["extra_specs"]
    return specs if is_admin else {name: specs[name] for name in USER_VISIBLE_SPECS if name in specs}


_TYPE: tuple[Field[VolumeTypeRow], ...] = (  # rendered with whether the caller is an administrator
    Field("id", "id", 0),
    Field("name", "name", 0),
    Field("is_public", "is_public", 0),
    Field("description", "description", 0),
    Field("extra_specs", _extra_specs, 0),
)
_PUBLIC: Field[VolumeTypeRow] = Field("os-volume-type-access:is_public", "is_public", 0)
TYPE_CHANGED = FieldTable[VolumeTypeRow](VolumeTypeRow, *_TYPE)
TYPE_MADE = FieldTable[VolumeTypeRow](VolumeTypeRow, *_TYPE, _PUBLIC)
TYPE = FieldTable[VolumeTypeRow](VolumeTypeRow, *_TYPE, _PUBLIC, Field("qos_specs_id", "qos_id", 0, admin_only=True))
QOS = FieldTable[VolumeQosRow](
    VolumeQosRow,
    Field("id", "id", 0),
    Field("name", "name", 0),
    Field("consumer", "consumer", 0),
    Field("specs", "specs", 0),
)

# -- messages ---------------------------------------------------------------------------------------------------------
MESSAGE = FieldTable[VolumeMessageRow](
    VolumeMessageRow,
    Field("id", "id", 0),
    Field("event_id", "event_id", 0),
    Field("user_message", "sentence", 0),
    Field("message_level", "level", 0),
    CREATED,
    Field("guaranteed_until", _time("expires_at_us"), 0),
    Field("request_id", "request_id", 0),
    Field("links", _links("messages"), 0),
    Field("resource_type", "resource_type", 0),
    Field("resource_uuid", lambda row, _: row["resource_id"] or ABSENT, 0),
)


# -- backups ----------------------------------------------------------------------------------------------------------
class BackupView(NamedTuple):
    base: str
    parents: frozenset[str] = frozenset()  # those that others continue
    volume_names: Mapping[str, str | None] = {}


_BACKUP: tuple[Field[BackupRow], ...] = (
    Field("id", "id", 0),
    Field("name", "name", 0),
    Field("links", _links("backups"), 0),
)
BACKUP = FieldTable[BackupRow](
    BackupRow,
    *_BACKUP,
    Field("status", "status", 0),
    Field("size", "size_gb", 0),
    Field("object_count", "object_count", 0),
    Field("availability_zone", "zone", 0),
    Field("container", "container", 0),
    CREATED,
    UPDATED,
    Field("description", "description", 0),
    Field("fail_reason", lambda row, _: row["fault"] or None, 0),
    Field("volume_id", "volume_id", 0),
    Field("is_incremental", lambda row, _: row["parent_id"] is not None, 0),
    Field("has_dependent_backups", lambda row, view: row["id"] in view.parents, 0),
    Field("snapshot_id", "snapshot_id", 0),
    Field("data_timestamp", lambda row, _: micros(row["data_at_us"] or row["created_at_us"]), 0),
    Field("os-backup-project-attr:project_id", "project_id", 18, admin_only=True),
    Field("metadata", "metadata", 43),
    Field("user_id", "user_id", 56),
)
BACKUP_SUMMARY = FieldTable[BackupRow](BackupRow, *_BACKUP)


def names_of(rows: Sequence[tuple[str, str | None]], base: str, collection: str) -> list[dict[str, Any]]:
    """A list that shows nothing else."""
    return [{"id": row_id, "name": name, "links": links(base, collection, row_id)} for row_id, name in rows]
