"""A volume is backed up, by the service of its backend, which has its bytes; a backup becomes a volume again; or goes.

A backup is listed as available when all of it is in the store, and not before. What a saga that was given up has stored
already stays until the store is swept: the next try finds it there.
"""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, Saga, Step, require
from droveway.control.sagas.volumes.asking import ask, backend_of, message, spec_of, status_now
from droveway.domain.faults import NotFound
from droveway.domain.model import SagaKind
from droveway.domain.service_kinds import BACKUP
from droveway.domain.volume.messages import Action
from droveway.domain.volume.model import VolumeSpec, VolumeStatus, of_volume
from droveway.ports.volume_verbs import BackupVolume, DeleteBackup, ForgetBackup, RestoreBackup
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.volume import attachments, backends, backups, snapshots, volumes

FORMER_MAX = 64


class BackupNotes(msgspec.Struct):
    """`service_host`: of the backup service that is asked. `object_count`, `stored_bytes`: of what was made."""

    backend: str = ""
    volume: VolumeSpec | None = None
    service_host: str = ""
    former: tuple[str, ...] = ()
    parent_id: str | None = None
    snapshot_id: str | None = None
    object_count: int = 0
    stored_bytes: int = 0
    is_blank: bool = False


def has_backend(notes: BackupNotes) -> bool:
    return bool(notes.backend)


def _service(tx: Tx) -> str:
    """The host of a backup service that is up. Raises StepFailed."""
    up = [row for row in services.list_all(tx, None, BACKUP) if row["is_up"] and not row["forced_down"]]
    require(bool(up), f"no {BACKUP} is up")
    return min(up, key=lambda row: (row["disabled"], row["host"]))["host"]


# -- made -------------------------------------------------------------------------------------------------------------
def look(tx: Tx, ctx: Context) -> None:
    row = backups.get(tx, ctx.subject.id)
    volume = volumes.get(tx, row["volume_id"])
    backend, is_attached = backend_of(volume), attachments.of_volume(tx, volume["id"]) is not None
    has_snapshots = backends.guarantees_of(tx, backend).snapshots
    require(has_snapshots or not is_attached, f"{backend} makes no snapshots: its volumes are backed up while detached")
    former = tuple(one for one in backups.of_volume(tx, volume["id"]) if one != row["id"])[:FORMER_MAX]
    size_gb = volume["size_gb"] if row["snapshot_id"] is None else snapshots.get(tx, row["snapshot_id"])["size_gb"]
    ctx.notes = BackupNotes(
        backend,
        spec_of(volume, size_gb),
        _service(tx),
        former,
        row["parent_id"],
        row["snapshot_id"],
    )


async def back_up(ctx: Context) -> None:
    notes: BackupNotes = ctx.notes
    assert notes.volume is not None, "it was looked at"
    verb = BackupVolume(notes.volume, ctx.subject.id, notes.parent_id, notes.snapshot_id, notes.former)
    made = await ask(ctx, notes.backend, notes.volume.volume_id, verb)
    notes.object_count, notes.stored_bytes = made.object_count, made.stored_bytes


async def forget(ctx: Context) -> None:
    notes: BackupNotes = ctx.notes
    assert notes.volume is not None, "it was looked at"
    await ask(ctx, notes.backend, notes.volume.volume_id, ForgetBackup(ctx.subject.id))


def record(tx: Tx, ctx: Context) -> None:
    notes: BackupNotes = ctx.notes
    assert notes.volume is not None, "it was looked at"
    backups.set_(
        tx,
        ctx.subject.id,
        status=backups.AVAILABLE,
        host=notes.service_host,
        object_count=notes.object_count,
        stored_bytes=notes.stored_bytes,
        size_gb=notes.volume.size_gb,
        data_at_us=tx.now_us,
        fault="",
    )
    _free_volume(tx, ctx, notes.volume.volume_id, VolumeStatus.BACKING_UP)


def record_failure(tx: Tx, ctx: Context) -> None:
    """The volume is what it was."""
    backups.set_(tx, ctx.subject.id, status=backups.ERROR, fault=ctx.error)
    message(tx, ctx, Action.BACKUP_CREATE, ctx.error)
    _free_volume(tx, ctx, backups.get(tx, ctx.subject.id)["volume_id"], VolumeStatus.BACKING_UP)


def _free_volume(tx: Tx, ctx: Context, volume_id: str, shown: VolumeStatus, status: str = "") -> None:
    """Unless it shows something else by now: an administrator has set it."""
    if volumes.get(tx, volume_id)["status"] == shown:
        now = status_now(tx, volume_id, ctx.params.get("previous"))
        volumes.set_(tx, volume_id, status=status or now, previous_status=None)


def rest(tx: Tx, ctx: Context) -> None:
    """It failed, which has been recorded."""


def show_wait(tx: Tx, ctx: Context) -> None:
    backups.set_(tx, ctx.subject.id, fault=f"it waits: {ctx.waits_for}")


# -- restored ---------------------------------------------------------------------------------------------------------
def find_volume(tx: Tx, ctx: Context) -> None:
    volume = volumes.get(tx, ctx.params["volume_id"])
    require(volume["status"] != VolumeStatus.ERROR, f"volume {volume['id']}, into which it goes, could not be made")
    require(attachments.of_volume(tx, volume["id"]) is None, f"volume {volume['id']} is attached; detach it first")
    is_new = ctx.params.get("previous") == VolumeStatus.CREATING
    ctx.notes = BackupNotes(backend_of(volume), spec_of(volume), is_blank=is_new)
    if is_new:
        volumes.set_(tx, volume["id"], status=VolumeStatus.RESTORING_BACKUP.value)


async def restore(ctx: Context) -> None:
    notes: BackupNotes = ctx.notes
    assert notes.volume is not None, "it was looked at"
    verb = RestoreBackup(notes.volume, ctx.subject.id, notes.is_blank)
    await ask(ctx, notes.backend, notes.volume.volume_id, verb)


def record_restored(tx: Tx, ctx: Context) -> None:
    backups.set_(tx, ctx.subject.id, status=backups.AVAILABLE, fault="")
    _free_volume(tx, ctx, ctx.params["volume_id"], VolumeStatus.RESTORING_BACKUP, VolumeStatus.AVAILABLE.value)


def record_restore_failure(tx: Tx, ctx: Context) -> None:
    """The backup is as good as before; what the volume holds is half the one and half the other."""
    backups.set_(tx, ctx.subject.id, status=backups.AVAILABLE, fault=ctx.error)
    message(tx, ctx, Action.BACKUP_RESTORE, ctx.error)
    _free_volume(tx, ctx, ctx.params["volume_id"], VolumeStatus.RESTORING_BACKUP, VolumeStatus.ERROR_RESTORING.value)


# -- deleted ----------------------------------------------------------------------------------------------------------
def find(tx: Tx, ctx: Context) -> None:
    """Its volume may be gone, and with it the snapshot that the backup kept there."""
    row = backups.get(tx, ctx.subject.id)
    try:
        volume = volumes.get(tx, row["volume_id"])
    except NotFound:
        ctx.notes = BackupNotes(service_host=_service(tx))
        return
    ctx.hold(tx, of_volume(volume["id"]))
    ctx.notes = BackupNotes(volume["host"] or "", spec_of(volume), _service(tx))


async def delete(ctx: Context) -> None:
    notes: BackupNotes = ctx.notes
    await ctx.ask(notes.service_host, DeleteBackup(), ctx.settings.long_command_timeout_s, service=BACKUP)


def record_deleted(tx: Tx, ctx: Context) -> None:
    backups.remove(tx, ctx.subject.id)


def record_deletion_failure(tx: Tx, ctx: Context) -> None:
    backups.set_(tx, ctx.subject.id, status=backups.ERROR_DELETING, fault=ctx.error)
    message(tx, ctx, Action.BACKUP_DELETE, ctx.error)


BACKUP_VOLUME = Saga(
    SagaKind.BACKUP_VOLUME,
    BackupNotes,
    (
        Step("look", write=look, harmless=True),
        Step("back_up", do=back_up, undo=forget, did=has_backend, deferred_cleanup=True),
        Step("record", write=record, pivot=True),
    ),
    failed=record_failure,
    undone=rest,
    blocked=show_wait,
)
RESTORE_BACKUP = Saga(
    SagaKind.RESTORE_BACKUP,
    BackupNotes,
    (
        Step("find_volume", write=find_volume, harmless=True),
        Step("restore", do=restore, harmless=True),
        Step("record_restored", write=record_restored, pivot=True),
    ),
    failed=record_restore_failure,
    undone=rest,
    blocked=show_wait,
)
DELETE_BACKUP = Saga(
    SagaKind.DELETE_BACKUP,
    BackupNotes,
    (
        Step("find", write=find, harmless=True),
        Step("delete", do=delete, pivot=True),
        Step("forget", do=forget, needed=has_backend),
        Step("record_deleted", write=record_deleted),
    ),
    failed=record_deletion_failure,
    undone=rest,
    blocked=show_wait,
)
