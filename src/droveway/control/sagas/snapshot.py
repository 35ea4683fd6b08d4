"""An image of a server that goes on meanwhile, or snapshots of its volumes where it begins from one; as a backup,
beside those of the same kind of which the oldest go."""

from __future__ import annotations

from droveway.control.engine.saga import Context, Saga, Step
from droveway.control.sagas import disk_images, server_snapshots
from droveway.control.sagas.disk_images import CopyNotes
from droveway.domain.model import SagaKind, TaskState
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.image import backups


def find_guest(tx: Tx, ctx: Context) -> None:
    instance = instances.get(tx, ctx.instance_id)
    copied = "" if ctx.params.get("snapshots") else ctx.params.get("image_id", "")
    ctx.notes = CopyNotes(instances.host_of(instance), copied)
    server_snapshots.find(tx, ctx)


def wants_image(notes: CopyNotes) -> bool:
    """A backup of which none is to be kept only lets the others go."""
    return bool(notes.image_id)


def show_upload(tx: Tx, ctx: Context) -> None:
    if wants_image(ctx.notes):
        disk_images.set_format(tx, ctx)
        instances.show_task(tx, ctx.instance_id, TaskState.IMAGE_UPLOADING)


def record(tx: Tx, ctx: Context) -> None:
    if ctx.kind is SagaKind.CREATE_BACKUP:
        backups.rotate(tx, ctx.project_id, ctx.instance_id, ctx.params["backup_type"], ctx.params["rotation"])
    instances.set_idle(tx, ctx.instance_id)


def record_failure(tx: Tx, ctx: Context) -> None:
    """The server is what it was; that the image is gone says what became of it, and the action's message why."""


def end(tx: Tx, ctx: Context) -> None:
    disk_images.forget_image(tx, ctx)
    server_snapshots.forget(tx, ctx)
    instances.set_idle(tx, ctx.instance_id)


def _story(kind: SagaKind) -> Saga:
    return Saga(
        kind,
        CopyNotes,
        (
            Step("find_guest", write=find_guest, harmless=True),
            Step(
                "copy_disk",
                do=disk_images.copy_disk,
                undo=disk_images.drop_copy,
                did=disk_images.may_have_copy,
                needed=wants_image,
                deferred_cleanup=True,
            ),
            Step("show_upload", write=show_upload, harmless=True),
            Step("send_copy", do=disk_images.send_copy, needed=wants_image, harmless=True),
            Step(
                "snapshot_volumes",
                do=server_snapshots.make,
                needed=server_snapshots.are_wanted,
                undo=server_snapshots.delete,
                did=server_snapshots.are_wanted,
            ),
            Step("confirm", write=confirm, pivot=True),
            Step("drop_copy", do=disk_images.drop_copy, needed=wants_image, deferred_cleanup=True),
            Step("record", write=record),
        ),
        failed=record_failure,
        undone=end,
    )


def confirm(tx: Tx, ctx: Context) -> None:
    """The image is there, and is its owner's: from here on nothing takes it back."""
    server_snapshots.record(tx, ctx)


CREATE_IMAGE, CREATE_BACKUP = _story(SagaKind.CREATE_IMAGE), _story(SagaKind.CREATE_BACKUP)
