"""Backups of volumes: lists, one, its creation, restoring and deletion, and its record for another cloud."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from droveway.api.http.actions import Action, dispatch
from droveway.api.http.bodies import Body, given_in, takes
from droveway.api.http.kinds import FLAG, one_of, or_null, text
from droveway.api.http.render import FieldTable
from droveway.api.http.request import Request, Response, encode, encode_each
from droveway.api.volume import fields, listing
from droveway.api.volume.backup_services import must_have_backups
from droveway.api.volume.fields import BackupView
from droveway.api.volume.kinds import METADATA, METADATA_OR_NULL, NOTHING, TEXT, UUID, UUID_OR_NULL
from droveway.api.volume.listing import Filter, Listed
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.domain.policy import Need
from droveway.store.engine.transaction import Tx
from droveway.store.volume import backups, making, types, volumes
from droveway.store.volume import listing as rows_of
from droveway.store.volume.backups import NewBackup
from droveway.store.volume.making import Asked, NewVolume
from droveway.store.volume.rows import BackupRow, VolumeRow
from droveway.store.volume.tables import backups as table

UPDATE_SINCE, METADATA_SINCE, ZONE_SINCE = 9, 43, 51
LISTED = Listed(
    filters={
        "id": Filter("id", admin_only=True),
        "name": Filter("name"),
        "display_name": Filter("name"),
        "status": Filter("status"),
        "volume_id": Filter("volume_id"),
        "snapshot_id": Filter("snapshot_id", admin_only=True),
        "size": Filter("size_gb", listing.as_number, admin_only=True),
    },
    sorts={
        "id": "id",
        "name": "name",
        "status": "status",
        "volume_id": "volume_id",
        "size": "size_gb",
        "created_at": "created_at_us",
        "updated_at": "updated_at_us",
    },
)


async def names(api: Api, request: Request) -> Response:
    return await _listing(api, request, fields.BACKUP_SUMMARY)


async def detail(api: Api, request: Request) -> Response:
    return await _listing(api, request, fields.BACKUP)


async def _listing(api: Api, request: Request, of: FieldTable[BackupRow]) -> Response:
    query = listing.read(api, request, LISTED)

    def read(tx: Tx) -> bytes:
        rows = rows_of.find(tx, BackupRow, table, query.wanted)
        render = of.renderer(request.version, is_admin=request.caller.is_admin)
        view = BackupView(api.settings.base_url, backups.parents_among(tx))
        number = rows_of.count(tx, table, query.wanted) if query.with_count else None
        items = encode_each(render(row, view) for row in rows)
        return encode(listing.body(api, request, "backups", items, rows[-1]["id"] if rows else None, query, number))

    return Response(200, await api.store.read(read))


def _own(tx: Tx, request: Request) -> BackupRow:
    return backups.get(tx, request.params["backup_id"], request.scope)


async def show(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> dict[str, Any]:
        render = fields.BACKUP.renderer(request.version, is_admin=request.caller.is_admin)
        return render(_own(tx, request), BackupView(api.settings.base_url, backups.parents_among(tx)))

    return Response(200, {"backup": await api.store.read(read)})


def _summary(api: Api, request: Request, row: BackupRow) -> dict[str, Any]:
    render = fields.BACKUP_SUMMARY.renderer(request.version, is_admin=request.caller.is_admin)
    return {"backup": render(row, BackupView(api.settings.base_url))}


class NewBackupBody(Body, frozen=True):
    """`incremental`: of what has changed since the last one. `force`: of a volume in use too."""

    volume_id: Annotated[str, UUID]
    name: Annotated[str | None, TEXT] = None
    description: Annotated[str | None, TEXT] = None
    container: Annotated[str | None, or_null(text(255))] = None
    incremental: Annotated[bool, FLAG] = False
    force: Annotated[bool, FLAG] = False
    snapshot_id: Annotated[str | None, UUID_OR_NULL] = None
    metadata: Annotated[dict[str, str] | None, METADATA_OR_NULL.since(METADATA_SINCE)] = None
    availability_zone: Annotated[str | None, or_null(text(255)).since(ZONE_SINCE)] = None


@takes(NewBackupBody, "backup")
async def create(api: Api, request: Request, given: NewBackupBody) -> Response:
    new = NewBackup(
        user_id=request.caller.user_id,
        name=given.name,
        description=given.description,
        container=given.container,
        zone=given.availability_zone,
        snapshot_id=given.snapshot_id,
        incremental=given.incremental,
        force=given.force,
        metadata=given.metadata or {},
        request_id=request.id,
    )

    def write(tx: Tx) -> BackupRow:
        volume = volumes.get(tx, given.volume_id, request.scope)
        must_have_backups(tx)
        return backups.create(tx, volume, new, api.settings.volumes.quotas)

    return Response(202, _summary(api, request, await api.store.run(write)))


class BackupChanges(Body, frozen=True):
    name: Annotated[str | UnsetType | None, TEXT] = UNSET
    description: Annotated[str | UnsetType | None, TEXT] = UNSET
    metadata: Annotated[dict[str, str] | UnsetType, METADATA.since(METADATA_SINCE)] = UNSET


@takes(BackupChanges, "backup")
async def update(api: Api, request: Request, given: BackupChanges) -> Response:
    changes = given_in(given)
    if not changes:
        raise BadRequest("Missing updates: name, description or (since 3.43) metadata.")

    def write(tx: Tx) -> BackupRow:
        backups.set_(tx, _own(tx, request)["id"], **changes)
        return _own(tx, request)

    return Response(200, _summary(api, request, await api.store.run(write)))


async def delete(api: Api, request: Request) -> Response:
    asked = Asked(request.id, request.caller.user_id)
    await api.store.run(lambda tx: backups.begin_deletion(tx, _own(tx, request), asked))
    return Response(202)


# -- restoring --------------------------------------------------------------------------------------------------------
class Restore(Body, frozen=True):
    """Into that volume; without one, into a new one of that name."""

    volume_id: Annotated[str | None, UUID_OR_NULL] = None
    name: Annotated[str | None, TEXT] = None


@takes(Restore, "restore")
async def restore(api: Api, request: Request, given: Restore) -> Response:
    asked = Asked(request.id, request.caller.user_id)

    def write(tx: Tx) -> dict[str, Any]:
        row = _own(tx, request)
        must_have_backups(tx)
        if given.volume_id is None:
            volume = _new_volume(tx, api, request, row, given.name)
        else:
            volume = volumes.get(tx, given.volume_id, request.scope)
        backups.restore(tx, row, volume, asked, is_new=given.volume_id is None)
        return {"backup_id": row["id"], "volume_id": volume["id"], "volume_name": volume["name"]}

    return Response(202, {"restore": await api.store.run(write)})


def _new_volume(tx: Tx, api: Api, request: Request, row: BackupRow, name: str | None) -> VolumeRow:
    """Like the one that was backed up, where that is still there."""
    own = types.default(tx, row["project_id"], api.settings.volumes.default_type)
    like = volumes.find(tx, row["volume_id"])
    new = NewVolume(
        project_id=row["project_id"],
        user_id=request.caller.user_id,
        size_gb=row["size_gb"],
        name=name or f"restore_backup_{row['id']}",
        zone=api.settings.volumes.zone,
        volume_type=(own["id"], own["name"]),
        metadata={} if like is None else like["metadata"],
        image_metadata={} if like is None else like["image_metadata"],
        bootable=like is not None and like["bootable"],
        request_id=request.id,
    )
    return making.create(tx, new, api.settings.volumes.quotas)


# -- records, for another cloud ---------------------------------------------------------------------------------------
async def export_record(api: Api, request: Request) -> Response:
    """All that another cloud with the same store of backups must know of it."""
    row = await api.store.read(_own, request)
    if row["status"] != backups.AVAILABLE:
        raise BadRequest(f"Invalid backup: Backup status must be available; {row['id']} is {row['status']}.")
    encoded = base64.b64encode(msgspec.json.encode(backups.record_of(row))).decode()
    return Response(200, {"backup-record": {"backup_service": "droveway", "backup_url": encoded}})


class ImportRecord(Body, frozen=True):
    backup_service: Annotated[str, text(255)]
    backup_url: Annotated[str, text(1 << 16, 1)]


@takes(ImportRecord, "backup-record")
async def import_record(api: Api, request: Request, given: ImportRecord) -> Response:
    if given.backup_service != "droveway":
        raise BadRequest(f"Invalid backup: a record of {given.backup_service[:64]!r} is not understood here.")
    try:
        record = msgspec.json.decode(base64.b64decode(given.backup_url, validate=True), type=backups.Record)
    except (ValueError, msgspec.DecodeError):
        raise BadRequest("Invalid backup: Can't parse backup record.") from None
    if record.status != backups.AVAILABLE:
        raise BadRequest("Invalid backup: Can't parse backup record.")

    def write(tx: Tx) -> BackupRow:
        if rows_of.count(tx, table, rows_of.RowQuery(equal=(("id", record.id),))):
            raise BadRequest(f"Invalid backup: Backup already exists in database: {record.id[:64]}.")
        return backups.take_in(tx, record, request.caller.project_id or "", request.caller.user_id)

    return Response(201, _summary(api, request, await api.store.run(write)))


# -- actions of administrators ----------------------------------------------------------------------------------------
class ResetStatus(Body, frozen=True):
    status: Annotated[str, one_of((backups.AVAILABLE, backups.ERROR))]


async def _reset_status(api: Api, request: Request, given: ResetStatus) -> Response:
    await api.store.run(lambda tx: backups.set_(tx, _own(tx, request)["id"], status=given.status))
    return Response(202)


async def _force_delete(api: Api, request: Request, given: None) -> Response:
    asked = Asked(request.id, request.caller.user_id)
    await api.store.run(lambda tx: backups.begin_deletion(tx, _own(tx, request), asked, force=True))
    return Response(202)


action = dispatch(
    {
        "os-reset_status": Action(_reset_status, ResetStatus, Need.ADMIN, since=0),
        "os-force_delete": Action(_force_delete, NOTHING, Need.ADMIN, since=0),
    },
    "What administrators do to a backup.",
    major=3,
)
