"""A volume is made: choose a backend, make it there, fill it from its image.

A backend that refuses is not the end: once nothing of the volume is left there, the same request is tried on another
one, a few times. Where a backend that may have something of it does not answer, the row keeps that backend, so that its
deletion ends what is left there.
"""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, Saga, Step
from droveway.control.sagas.volumes import filling
from droveway.control.sagas.volumes.asking import ask, fail, message, show_wait, spec_of, stored
from droveway.control.scheduling import backends as choosing
from droveway.domain.faults import NotFound, StepFailed
from droveway.domain.model import ImageRef, SagaKind
from droveway.domain.volume.messages import Action
from droveway.domain.volume.model import FromSnapshot, FromVolume, VolumeOrigin, VolumeSpec, VolumeStatus
from droveway.ports.volume_verbs import CreateVolume, DeleteVolume
from droveway.scheduler.backends import to_tenants
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.volume import attachments, backends, snapshots, volumes
from droveway.store.work import sagas


class MakingNotes(msgspec.Struct):
    backend: str = ""  # HOST@BACKEND
    volume: VolumeSpec | None = None
    origin: VolumeOrigin | None = None
    image: ImageRef | None = None
    generation: int = 0  # in which the backend was chosen
    is_refused: bool = False  # the backend did not make it
    is_removed: bool = False  # nothing of it is there
    tries_again: bool = False  # on another backend


def choose_backend(tx: Tx, ctx: Context) -> None:
    """Claim room on the best one; the claim is the volume's own row."""
    row = volumes.get(tx, ctx.subject.id)
    refused = ctx.params.get("refused", {})
    choice = choosing.choose(tx, choosing.to_create(tx, row, ctx.params.get("requested_backend"), refused))
    if choice.backend is None:
        raise StepFailed(choice.reason)
    choosing.record(tx, row["id"], ctx.project_id, choice, ctx.kind.value, is_first=not refused)
    volumes.set_(tx, row["id"], host=choice.backend)
    origin: VolumeOrigin | None = None
    if row["snapshot_id"] is not None:
        origin = FromSnapshot(row["snapshot_id"], snapshots.get(tx, row["snapshot_id"])["volume_id"])
    elif row["source_volume_id"] is not None:
        origin = FromVolume(row["source_volume_id"])
    image_id = row["image_id"] if origin is None else None
    image = None if image_id is None else images.ref(tx, image_id, ctx.settings.images_path)
    ctx.notes = MakingNotes(choice.backend, spec_of(row), origin, image, ctx.generation)


def has_backend(notes: MakingNotes) -> bool:
    return bool(notes.backend)


def release_backend(tx: Tx, ctx: Context) -> None:
    """Where something of it may be left, the row says where."""
    if ctx.notes.is_removed:
        volumes.set_(tx, ctx.subject.id, host=None)
        backends.touch(tx, ctx.notes.backend)


async def make_volume(ctx: Context) -> None:
    notes: MakingNotes = ctx.notes
    assert notes.volume is not None, "a backend was chosen"
    is_first = not ctx.asked and ctx.generation == notes.generation + 1  # nothing of it can have been done before
    try:
        await ask(ctx, notes.backend, notes.volume.volume_id, CreateVolume(notes.volume, notes.origin))
    except StepFailed:
        notes.is_refused = is_first
        raise


async def remove_volume(ctx: Context) -> None:
    """Whatever of it there is. A backend that refused to make it at once has left nothing (ports/storage.py), and may
    refuse everything now; where something may be left, the row keeps it."""
    notes: MakingNotes = ctx.notes
    try:
        await ask(ctx, notes.backend, ctx.subject.id, DeleteVolume())
        notes.is_removed = True
    except StepFailed:
        is_known, there = await stored(ctx, notes.backend, ctx.subject.id)
        notes.is_removed = notes.is_refused or (is_known and there is None)


def show_download(tx: Tx, ctx: Context) -> None:
    if has_image(ctx.notes) and not _is_deleted_next(tx, ctx):
        volumes.set_(tx, ctx.subject.id, status=VolumeStatus.DOWNLOADING.value)


def _is_deleted_next(tx: Tx, ctx: Context) -> bool:
    """With the server for which it is made: nobody else may be given it meanwhile."""
    return volumes.get(tx, ctx.subject.id)["status"] == VolumeStatus.DELETING


def has_image(notes: MakingNotes) -> bool:
    return notes.image is not None


async def fill_volume(ctx: Context) -> None:
    notes: MakingNotes = ctx.notes
    assert notes.volume is not None and notes.image is not None, "it is filled from an image"
    await filling.fill(ctx, notes.backend, notes.volume, notes.image)


def record_available(tx: Tx, ctx: Context) -> None:
    """Or reserved, where a server waits for it; or as it was, where it is to be deleted by now."""
    is_free = attachments.of_volume(tx, ctx.subject.id) is None
    status = VolumeStatus.AVAILABLE if is_free else VolumeStatus.RESERVED
    if _is_deleted_next(tx, ctx):
        status = VolumeStatus.DELETING
    volumes.set_(tx, ctx.subject.id, status=status.value, fault="", launched_at_us=tx.now_us)


def record_failure(tx: Tx, ctx: Context) -> None:
    """Said at once, unless another backend will be tried: the undoing may still take a while."""
    ctx.notes.tries_again = ctx.host_failed and _may_try_again(tx, ctx)
    if ctx.notes.tries_again:
        return
    if ctx.notes.backend:
        fail(tx, ctx, Action.FILL_FROM_IMAGE if has_image(ctx.notes) else Action.CREATE, VolumeStatus.ERROR)
        return
    volumes.set_(tx, ctx.subject.id, status=VolumeStatus.ERROR, fault=ctx.error)
    message(tx, ctx, Action.SCHEDULE, _record_why_none(tx, ctx) or ctx.error)


def _record_why_none(tx: Tx, ctx: Context) -> str:
    """The reasons of every backend, and those of them that are its user's business."""
    refused = ctx.params.get("refused", {})
    try:
        row = volumes.get(tx, ctx.subject.id)
        choice = choosing.plan(tx, choosing.to_create(tx, row, ctx.params.get("requested_backend"), refused))
    except NotFound:  # what it was to be made of is gone
        return ""
    choosing.record(tx, row["id"], ctx.project_id, choice, ctx.kind.value, is_first=not refused)
    return "" if choice.plan.ranked else to_tenants(choice.plan)


def _may_try_again(tx: Tx, ctx: Context) -> bool:
    """Not where one backend alone was asked for, nor when it is cancelled."""
    tried = len(ctx.params.get("refused", {})) + 1
    is_free = ctx.params.get("requested_backend") is None and ctx.notes.origin is None
    return is_free and tried < ctx.settings.boot_tries and sagas.cancel_asked(tx, ctx.id) is None


def end(tx: Tx, ctx: Context) -> None:
    """Nothing of it is left there. Where another backend is to be tried, that saga is the next."""
    if not ctx.notes.tries_again:
        return
    if not ctx.notes.is_removed or sagas.cancel_asked(tx, ctx.id) is not None:
        fail(tx, ctx, Action.CREATE, VolumeStatus.ERROR)
        return
    old = sagas.get(tx, ctx.id)
    params = ctx.params | {"refused": {**ctx.params.get("refused", {}), ctx.notes.backend: f"it refused: {ctx.error}"}}
    volumes.set_(tx, ctx.subject.id, status=VolumeStatus.CREATING.value, fault="")
    sagas.enqueue(
        tx, ctx.kind, ctx.subject, ctx.project_id, params, request_id=old["request_id"], user_id=old["user_id"]
    )


CREATE_VOLUME = Saga(
    SagaKind.CREATE_VOLUME,
    MakingNotes,
    (
        Step("choose_backend", write=choose_backend, unwrite=release_backend, did=has_backend),
        Step("make_volume", do=make_volume, undo=remove_volume, did=has_backend, deferred_cleanup=True),
        Step("show_download", write=show_download, harmless=True),
        Step("fill_volume", do=fill_volume, needed=has_image, harmless=True),
        Step("record_available", write=record_available, pivot=True),
    ),
    failed=record_failure,
    undone=end,
    blocked=show_wait,
)
