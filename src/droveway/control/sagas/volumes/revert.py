"""A volume holds again what a snapshot of it holds."""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, Saga, Step, require
from droveway.control.sagas.volumes.asking import ask, backend_of, fail, previous, rest, show_wait, spec_of
from droveway.domain.model import SagaKind
from droveway.domain.volume.messages import Action
from droveway.domain.volume.model import SnapshotStatus, VolumeSpec
from droveway.ports.volume_verbs import RevertVolume
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments, backends, snapshots, volumes


class RevertNotes(msgspec.Struct):
    backend: str = ""
    volume: VolumeSpec | None = None


def look(tx: Tx, ctx: Context) -> None:
    row, snapshot = volumes.get(tx, ctx.subject.id), snapshots.get(tx, ctx.params["snapshot_id"])
    backend = backend_of(row)
    require(snapshot["volume_id"] == row["id"], f"snapshot {snapshot['id']} is one of another volume")
    require(snapshot["status"] in (SnapshotStatus.AVAILABLE, SnapshotStatus.RESTORING), "the snapshot is not available")
    require(attachments.of_volume(tx, row["id"]) is None, "it is attached; detach it first")
    require(backends.guarantees_of(tx, backend).reverts, f"{backend} does not revert volumes; make one of the snapshot")
    snapshots.set_(tx, snapshot["id"], status=SnapshotStatus.RESTORING.value)
    ctx.notes = RevertNotes(backend, spec_of(row))


async def revert_volume(ctx: Context) -> None:
    notes: RevertNotes = ctx.notes
    assert notes.volume is not None, "it was looked at"
    await ask(ctx, notes.backend, ctx.subject.id, RevertVolume(notes.volume, ctx.params["snapshot_id"]))


def has_begun(notes: RevertNotes) -> bool:
    return bool(notes.backend)


def free_snapshot(tx: Tx, ctx: Context) -> None:
    snapshots.set_(tx, ctx.params["snapshot_id"], status=SnapshotStatus.AVAILABLE.value)


def record(tx: Tx, ctx: Context) -> None:
    free_snapshot(tx, ctx)
    volumes.set_(tx, ctx.subject.id, status=previous(tx, ctx), fault="")


def record_failure(tx: Tx, ctx: Context) -> None:
    """It holds what it held: a backend that refuses has left nothing half."""
    fail(tx, ctx, Action.REVERT, previous(tx, ctx))


REVERT_VOLUME = Saga(
    SagaKind.REVERT_VOLUME,
    RevertNotes,
    (
        Step("look", write=look, unwrite=free_snapshot, did=has_begun),
        Step("revert_volume", do=revert_volume, pivot=True),
        Step("record", write=record),
    ),
    failed=record_failure,
    undone=rest,
    blocked=show_wait,
)
