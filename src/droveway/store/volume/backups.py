"""Backups as rows, and how work on them begins."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import msgspec
from sqlalchemy import bindparam, delete, insert, select, update

from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.model import SagaKind, Subject, SubjectKind
from droveway.domain.volume import lifecycle
from droveway.domain.volume.lifecycle import Verb
from droveway.domain.volume.model import VolumeStatus
from droveway.domain.volume.model import of_volume as volume_subject
from droveway.domain.volume.quota import VolumeQuotas
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.volume import making, quotas, snapshots, volumes
from droveway.store.volume.making import Asked
from droveway.store.volume.rows import BackupRow, VolumeRow
from droveway.store.volume.tables import backups
from droveway.store.work import sagas

_C = backups.c
CREATING, AVAILABLE, DELETING, RESTORING, ERROR = "creating", "available", "deleting", "restoring", "error"
ERROR_DELETING = "error_deleting"
STATUSES = (CREATING, AVAILABLE, DELETING, RESTORING, ERROR, ERROR_DELETING)
DELETABLE = (AVAILABLE, ERROR, ERROR_DELETING)
_GET = Prepared(select(backups).where(_C.id == bindparam("of")))
_INSERT = Prepared(insert(backups))
_DELETE = Prepared(delete(backups).where(_C.id == bindparam("of")))
_CHILD = Prepared(select(_C.id).where(_C.parent_id == bindparam("of")).limit(1))
_OF_VOLUME = Prepared(select(_C.id).where(_C.volume_id == bindparam("of")).order_by(_C.created_at_us.desc(), _C.id))
_LAST = Prepared(
    select(backups)
    .where(_C.volume_id == bindparam("of"), _C.status == AVAILABLE, _C.project_id == bindparam("project"))
    .order_by(_C.data_at_us.desc(), _C.created_at_us.desc(), _C.id)
    .limit(1)
)


def of_backup(backup_id: str) -> Subject:
    return Subject(SubjectKind.BACKUP, backup_id)


def insert_row(tx: Tx, row: BackupRow) -> None:
    tx.execute(_INSERT, dict(row))


def get(tx: Tx, backup_id: str, project_id: str | None = None) -> BackupRow:
    """That backup; another project's is as absent as one that never was. Raises NotFound."""
    row = results.first(BackupRow, tx.execute(_GET, {"of": backup_id}))
    if row is None or project_id not in (None, row["project_id"]):
        raise NotFound(f"Backup {backup_id[:64]} could not be found.")
    return row


def set_(tx: Tx, backup_id: str, **values: Any) -> None:
    new = {f"new_{name}": value for name, value in values.items()}
    tx.execute(_update(tuple(values)), {"of": backup_id, "new_updated_at_us": tx.now_us, **new})


@functools.lru_cache(maxsize=64)
def _update(names: tuple[str, ...]) -> Prepared:
    """Built once for each set of columns: building costs more than running."""
    new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in (*names, "updated_at_us")}
    return Prepared(update(backups).where(_C.id == bindparam("of")).values(new))


def remove(tx: Tx, backup_id: str) -> None:
    """For good: nothing of it is left where backups lie."""
    tx.execute(_DELETE, {"of": backup_id})


def has_children(tx: Tx, backup_id: str) -> bool:
    """Whether another backup continues it."""
    return tx.execute(_CHILD, {"of": backup_id}).first() is not None


def of_volume(tx: Tx, volume_id: str) -> list[str]:
    """The ids of its backups, the newest first."""
    return [str(one) for one in tx.execute(_OF_VOLUME, {"of": volume_id}).scalars()]


def parents_among(tx: Tx) -> frozenset[str]:
    """Those that others continue."""
    return frozenset(tx.execute(select(_C.parent_id).where(_C.parent_id.is_not(None)).distinct()).scalars())


# -- how work begins --------------------------------------------------------------------------------------------------
class NewBackup(msgspec.Struct, frozen=True):
    user_id: str
    name: str | None = None
    description: str | None = None
    container: str | None = None
    zone: str | None = None
    snapshot_id: str | None = None
    incremental: bool = False
    force: bool = False
    metadata: dict[str, str] = {}
    request_id: str = ""


def create(tx: Tx, volume: VolumeRow, new: NewBackup, configured: VolumeQuotas) -> BackupRow:
    """The row and its saga, which is about the backup and holds the volume. Raises BadRequest, TooLarge."""
    if new.snapshot_id is None:
        making.must_be_allowed(tx, Verb.BACKUP, volume, force=new.force)
    else:
        snapshot = snapshots.get(tx, new.snapshot_id, volume["project_id"])
        sentence = lifecycle.snapshot_use_refusal(snapshot["id"], snapshot["status"])
        if sentence is not None or snapshot["volume_id"] != volume["id"]:
            raise BadRequest(sentence or f"Invalid snapshot: {snapshot['id']} is not of volume {volume['id']}.")
    parent = _parent(tx, volume) if new.incremental else None
    quotas.claim_backup(tx, volume["project_id"], configured, volume["size_gb"])
    row = BackupRow(
        id=tx.names.uuid(),
        project_id=volume["project_id"],
        user_id=new.user_id,
        name=new.name,
        description=new.description,
        created_at_us=tx.now_us,
        updated_at_us=None,
        volume_id=volume["id"],
        snapshot_id=new.snapshot_id,
        parent_id=parent,
        status=CREATING,
        size_gb=volume["size_gb"],
        host=None,
        container=new.container,
        object_count=0,
        stored_bytes=0,
        zone=new.zone,
        metadata=new.metadata,
        fault="",
        data_at_us=None,
        fence=0,
    )
    insert_row(tx, row)
    if new.snapshot_id is None:
        volumes.set_(tx, volume["id"], status=VolumeStatus.BACKING_UP.value, previous_status=volume["status"])
    _enqueue(tx, Verb.BACKUP.value, row, volume, Asked(new.request_id, new.user_id), {"previous": volume["status"]})
    return row


def _parent(tx: Tx, volume: VolumeRow) -> str:
    """The one that an incremental backup continues. Raises BadRequest."""
    last = results.first(BackupRow, tx.execute(_LAST, {"of": volume["id"], "project": volume["project_id"]}))
    if last is None:
        raise BadRequest(
            f"Invalid backup: No backups available to do an incremental backup of volume {volume['id']}: make a full "
            "one first."
        )
    return last["id"]


def _enqueue(tx: Tx, kind: str, row: BackupRow, volume: VolumeRow | None, asked: Asked, params: dict[str, Any]) -> None:
    sagas.enqueue(
        tx,
        SagaKind(kind),
        of_backup(row["id"]),
        row["project_id"],
        params,
        request_id=asked.request_id,
        user_id=asked.user_id,
        holds=() if volume is None else (volume_subject(volume["id"]),),
    )


def restore(tx: Tx, row: BackupRow, volume: VolumeRow, asked: Asked, *, is_new: bool) -> None:
    """Into that volume, which may just be made for it: the saga waits until it is. Raises BadRequest."""
    if row["status"] != AVAILABLE:
        raise BadRequest(f"Invalid backup: Backup status must be available; {row['id']} is {row['status']}.")
    if volume["size_gb"] < row["size_gb"]:
        raise BadRequest(
            f"Invalid volume: volume size {volume['size_gb']} is too small to restore backup of size {row['size_gb']}."
        )
    if not is_new:
        making.must_be_allowed(tx, Verb.RESTORE, volume)
        volumes.set_(tx, volume["id"], status=VolumeStatus.RESTORING_BACKUP.value, previous_status=volume["status"])
    set_(tx, row["id"], status=RESTORING)
    params = {"volume_id": volume["id"], "previous": volume["status"]}
    _enqueue(tx, Verb.RESTORE.value, row, volume, asked, params)


def begin_deletion(tx: Tx, row: BackupRow, asked: Asked, *, force: bool = False) -> None:
    """Raises BadRequest."""
    if row["status"] not in DELETABLE and not force:
        raise BadRequest(
            f"Invalid backup: Backup status must be {' or '.join(DELETABLE)}; {row['id']} is {row['status']}."
        )
    if has_children(tx, row["id"]):
        raise BadRequest(f"Invalid backup: Incremental backups exist for this backup: {row['id']}; delete them first.")
    if sagas.waiting_or_active(tx, of_backup(row["id"]), SagaKind.DELETE_BACKUP) is not None:
        raise BadRequest(f"Invalid backup: {row['id']} is being deleted already.")
    set_(tx, row["id"], status=DELETING)
    _enqueue(tx, "delete_backup", row, None, asked, {"previous": row["status"]})


# -- what another cloud must know of one ------------------------------------------------------------------------------
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=36)]
Text = Annotated[str, msgspec.Meta(max_length=255)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Id
    name: Text | None
    description: Text | None
    volume_id: Id
    snapshot_id: Id | None
    parent_id: Id | None
    status: str
    size_gb: Annotated[int, msgspec.Meta(ge=1, le=(1 << 31) - 1)]
    container: Text | None
    object_count: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
    stored_bytes: Count
    metadata: dict[str, str]
    data_at_us: Count | None


def record_of(row: BackupRow) -> Record:
    return msgspec.convert({name: row[name] for name in Record.__struct_fields__}, Record)  # type: ignore[literal-required]


def take_in(tx: Tx, record: Record, project_id: str, user_id: str) -> BackupRow:
    """One that another cloud has made, of that project from now on."""
    row: BackupRow = {
        "id": record.id,
        "project_id": project_id,
        "user_id": user_id,
        "name": record.name,
        "description": record.description,
        "created_at_us": tx.now_us,
        "updated_at_us": None,
        "volume_id": record.volume_id,
        "snapshot_id": record.snapshot_id,
        "parent_id": record.parent_id,
        "status": AVAILABLE,
        "size_gb": record.size_gb,
        "host": None,
        "container": record.container,
        "object_count": record.object_count,
        "stored_bytes": record.stored_bytes,
        "zone": None,
        "metadata": record.metadata,
        "fault": "",
        "data_at_us": record.data_at_us,
        "fence": 0,
    }
    insert_row(tx, row)
    return row
