"""A snapshot is made of a volume, whose guest holds its file systems for that moment where it can; or deleted.

Whatever happens to it, the guest goes on: its hypervisor thaws it by itself after a while, too.
"""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, NotYet, Saga, Step, require
from droveway.control.sagas.volumes import in_use
from droveway.control.sagas.volumes.asking import ask, backend_of, fail, rest, show_wait, stored
from droveway.control.sagas.volumes.in_use import Holder
from droveway.domain.faults import Stale, StepFailed, Unreachable
from droveway.domain.model import SagaKind, of_instance
from droveway.domain.volume.messages import Action
from droveway.domain.volume.model import SnapshotStatus, of_volume
from droveway.ports.bus import Freeze, Thaw
from droveway.ports.volume_verbs import DeleteSnapshot, SnapshotVolume
from droveway.store.engine.transaction import Tx
from droveway.store.volume import backends, snapshots, volumes


class SnapshotNotes(msgspec.Struct):
    backend: str = ""
    volume_id: str = ""
    holder: Holder | None = None
    is_there: bool = False  # its deletion was refused, and its backend has it


def look(tx: Tx, ctx: Context) -> None:
    row = volumes.get(tx, snapshots.get(tx, ctx.subject.id)["volume_id"])
    backend = backend_of(row)
    require(backends.guarantees_of(tx, backend).snapshots, f"{backend} makes no snapshots; copy the volume instead")
    ctx.hold(tx, of_volume(row["id"]))
    ctx.notes = SnapshotNotes(backend, row["id"], in_use.hold(tx, ctx, row["id"]))


def has_backend(notes: SnapshotNotes) -> bool:
    return bool(notes.backend)


async def make_snapshot(ctx: Context) -> None:
    """One step, so that a guest is held no longer than its snapshot takes to be made."""
    notes: SnapshotNotes = ctx.notes
    await _freeze(ctx, notes.holder)
    try:
        await ask(ctx, notes.backend, notes.volume_id, SnapshotVolume(ctx.subject.id))
    except (StepFailed, Unreachable, Stale, NotYet):  # a control that ends here leaves it to the guest's host
        await _thaw(ctx, notes.holder)
        raise
    await _thaw(ctx, notes.holder)


async def _freeze(ctx: Context, holder: Holder | None) -> None:
    """A guest that cannot be asked is snapshotted as it is, as after a loss of power."""
    if holder is not None:
        try:
            await ctx.ask(holder.host, Freeze(), about=of_instance(holder.instance_id))
        except (StepFailed, Unreachable):
            return


async def _thaw(ctx: Context, holder: Holder | None) -> None:
    if holder is not None:
        try:
            await ctx.ask(holder.host, Thaw(), about=of_instance(holder.instance_id))
        except (StepFailed, Unreachable):
            return


async def delete_snapshot(ctx: Context) -> None:
    notes: SnapshotNotes = ctx.notes
    await ask(ctx, notes.backend, notes.volume_id, DeleteSnapshot(ctx.subject.id))


def record_available(tx: Tx, ctx: Context) -> None:
    snapshots.set_(tx, ctx.subject.id, status=SnapshotStatus.AVAILABLE.value, fault="")


def record_creation_failed(tx: Tx, ctx: Context) -> None:
    fail(tx, ctx, Action.SNAPSHOT_CREATE, SnapshotStatus.ERROR)


def find(tx: Tx, ctx: Context) -> None:
    row = volumes.get(tx, snapshots.get(tx, ctx.subject.id)["volume_id"])
    ctx.hold(tx, of_volume(row["id"]))
    ctx.notes = SnapshotNotes(row["host"] or "", row["id"])


async def delete_if_made(ctx: Context) -> None:
    """Where it is refused, whether the snapshot is still there is looked at: it may have been deleted before."""
    notes: SnapshotNotes = ctx.notes
    if not notes.backend:
        return
    try:
        await delete_snapshot(ctx)
    except StepFailed:
        is_known, there = await stored(ctx, notes.backend, notes.volume_id)
        notes.is_there = there is not None and ctx.subject.id in there.snapshots
        if not is_known or notes.is_there:
            raise


def record_deleted(tx: Tx, ctx: Context) -> None:
    snapshots.remove(tx, ctx.subject.id)


def record_deletion_failed(tx: Tx, ctx: Context) -> None:
    """It is what it was, if it is known to be there."""
    before = ctx.params.get("previous") or SnapshotStatus.AVAILABLE.value
    fail(tx, ctx, Action.SNAPSHOT_DELETE, before if ctx.notes.is_there else SnapshotStatus.ERROR_DELETING)


CREATE_SNAPSHOT = Saga(
    SagaKind.CREATE_SNAPSHOT,
    SnapshotNotes,
    (
        Step("look", write=look, harmless=True),
        Step("make_snapshot", do=make_snapshot, undo=delete_snapshot, did=has_backend, deferred_cleanup=True),
        Step("record_available", write=record_available, pivot=True),
    ),
    failed=record_creation_failed,
    undone=rest,
    blocked=show_wait,
)
DELETE_SNAPSHOT = Saga(
    SagaKind.DELETE_SNAPSHOT,
    SnapshotNotes,
    (
        Step("find", write=find, harmless=True),
        Step("delete_snapshot", do=delete_if_made, pivot=True),
        Step("record_deleted", write=record_deleted),
    ),
    failed=record_deletion_failed,
    undone=rest,
    blocked=show_wait,
)
