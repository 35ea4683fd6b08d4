"""A volume is deleted for good, with its snapshots where that was asked for. One that a server holds is not: its export
never ends here (CVE-2023-2088)."""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, Saga, Step, require
from droveway.control.sagas.volumes.asking import ask, fail, rest, show_wait, stored
from droveway.domain.faults import StepFailed
from droveway.domain.model import SagaKind
from droveway.domain.volume.messages import Action
from droveway.domain.volume.model import SnapshotStatus, VolumeStatus
from droveway.ports.volume_verbs import DeleteSnapshot, DeleteVolume
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments, backends, snapshots, volumes


class DeletionNotes(msgspec.Struct):
    backend: str = ""  # empty: it never got one
    snapshots: dict[str, str] = {}  # that go with it, each with the status that it had
    deleted: tuple[str, ...] = ()  # those of them that are gone
    there: tuple[str, ...] = ()  # those that the backend has, as it says once it has refused something


def look(tx: Tx, ctx: Context) -> None:
    row = volumes.get(tx, ctx.subject.id)
    held = attachments.of_volume(tx, row["id"])
    by = "" if held is None else f"server {held['instance_id']}" if held["instance_id"] else f"attachment {held['id']}"
    require(held is None, f"it is attached: {by} holds it; detach it first")
    found = snapshots.of_volume(tx, row["id"])
    require(not found or ctx.params.get("cascade", False), f"it has {len(found)} snapshots; delete them first")
    volumes.set_(tx, row["id"], status=VolumeStatus.DELETING.value)  # also where it was to be before it was made
    ctx.notes = DeletionNotes(row["host"] or "", {one: snapshots.get(tx, one)["status"] for one in found})
    for snapshot_id in found:
        snapshots.set_(tx, snapshot_id, status=SnapshotStatus.DELETING.value)


def has_snapshots(notes: DeletionNotes) -> bool:
    return bool(notes.snapshots)


def show_the_left(tx: Tx, ctx: Context) -> None:
    """Those that are known to be there still are what they were."""
    for snapshot_id, status in ctx.notes.snapshots.items():
        if snapshot_id in ctx.notes.deleted:
            snapshots.remove(tx, snapshot_id)
        else:
            is_there = snapshot_id in ctx.notes.there
            snapshots.set_(tx, snapshot_id, status=status if is_there else SnapshotStatus.ERROR_DELETING.value)


async def delete_volume(ctx: Context) -> None:
    """Its snapshots first: where one of them is refused, the volume stays with the others."""
    notes: DeletionNotes = ctx.notes
    try:
        await _delete_each(ctx, notes)
    except StepFailed:
        _, there = await stored(ctx, notes.backend, ctx.subject.id)
        notes.there = () if there is None else there.snapshots
        raise


async def _delete_each(ctx: Context, notes: DeletionNotes) -> None:
    for snapshot_id in notes.snapshots if notes.backend else ():
        if snapshot_id not in notes.deleted:
            await ask(ctx, notes.backend, ctx.subject.id, DeleteSnapshot(snapshot_id))
            notes.deleted = (*notes.deleted, snapshot_id)
    if notes.backend:
        await ask(ctx, notes.backend, ctx.subject.id, DeleteVolume())


def record_deleted(tx: Tx, ctx: Context) -> None:
    for snapshot_id in ctx.notes.snapshots:
        snapshots.remove(tx, snapshot_id)
    volumes.remove(tx, ctx.subject.id)
    backends.touch(tx, ctx.notes.backend or None)


def record_failure(tx: Tx, ctx: Context) -> None:
    fail(tx, ctx, Action.DELETE, VolumeStatus.ERROR_DELETING)


DELETE_VOLUME = Saga(
    SagaKind.DELETE_VOLUME,
    DeletionNotes,
    (
        Step("look", write=look, unwrite=show_the_left, did=has_snapshots),
        Step("delete_volume", do=delete_volume, pivot=True),
        Step("record_deleted", write=record_deleted),
    ),
    failed=record_failure,
    undone=rest,
    blocked=show_wait,
)
