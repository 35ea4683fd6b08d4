"""An image is made of a volume."""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, Saga, Step
from droveway.control.sagas.volumes import images as sending
from droveway.control.sagas.volumes.asking import backend_of, fail, previous, spec_of
from droveway.domain.model import SagaKind
from droveway.domain.volume.messages import Action
from droveway.domain.volume.model import VolumeSpec
from droveway.store.engine.transaction import Tx
from droveway.store.volume import volumes


class UploadNotes(msgspec.Struct):
    backend: str = ""
    volume: VolumeSpec | None = None


def look(tx: Tx, ctx: Context) -> None:
    row = volumes.get(tx, ctx.subject.id)
    ctx.notes = UploadNotes(backend_of(row), spec_of(row))


async def send_volume(ctx: Context) -> None:
    notes: UploadNotes = ctx.notes
    assert notes.volume is not None, "it was looked at"
    await sending.send(ctx, notes.backend, notes.volume, ctx.params["image_id"], ctx.params["disk_format"])


def record(tx: Tx, ctx: Context) -> None:
    """The image is there, and is its owner's: from here on nothing takes it back."""
    volumes.set_(tx, ctx.subject.id, status=previous(tx, ctx), fault="")


def record_failure(tx: Tx, ctx: Context) -> None:
    """The volume is what it was; that the image is gone says what became of it, and the message why."""
    fail(tx, ctx, Action.UPLOAD, previous(tx, ctx))


def end(tx: Tx, ctx: Context) -> None:
    sending.forget(tx, ctx.params["image_id"])


UPLOAD_VOLUME = Saga(
    SagaKind.UPLOAD_VOLUME,
    UploadNotes,
    (
        Step("look", write=look, harmless=True),
        Step("send_volume", do=send_volume, harmless=True),
        Step("record", write=record, pivot=True),
    ),
    failed=record_failure,
    undone=end,
)
