"""A volume is made larger, also while a guest has it: first on its backend, then the guest is told."""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, Saga, Step, require
from droveway.control.liveness.admission import DeclaredGone
from droveway.control.sagas.volumes import in_use
from droveway.control.sagas.volumes.asking import ask, backend_of, fail, previous, rest, show_wait, spec_of, stored
from droveway.control.sagas.volumes.in_use import Holder
from droveway.control.scheduling import backends as choosing
from droveway.domain.faults import StepFailed
from droveway.domain.model import SagaKind, of_instance
from droveway.domain.volume.messages import Action
from droveway.domain.volume.model import VolumeSpec, VolumeStatus
from droveway.ports.bus import GrowDisk
from droveway.ports.volume_verbs import ExtendVolume
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments, backends, volumes


class GrowingNotes(msgspec.Struct):
    backend: str = ""
    volume: VolumeSpec | None = None  # as it is to be
    holder: Holder | None = None
    guest_refused: str = ""
    is_known: bool = True  # of what size it is


def claim_room(tx: Tx, ctx: Context) -> None:
    """The claim is the size in its row to which it grows."""
    row, size_gb = volumes.get(tx, ctx.subject.id), int(ctx.params["size_gb"])
    backend = backend_of(row)
    is_attached = attachments.of_volume(tx, row["id"]) is not None
    grows = backends.guarantees_of(tx, backend).grows_in_use or not is_attached
    require(grows, f"{backend} makes no volume larger while it is in use; detach it first")
    more_gb = size_gb - row["size_gb"]
    require(more_gb >= 0, f"it has {row['size_gb']} GiB, and cannot be made smaller")
    refusal = choosing.claim_more(tx, backend, more_gb, (row["growing_to_gb"] or row["size_gb"]) - row["size_gb"])
    require(not refusal, refusal)
    volumes.set_(tx, row["id"], growing_to_gb=size_gb)
    ctx.notes = GrowingNotes(backend, spec_of(row, size_gb), in_use.hold(tx, ctx, row["id"]))


def has_claim(notes: GrowingNotes) -> bool:
    return bool(notes.backend)


def release_room(tx: Tx, ctx: Context) -> None:
    volumes.set_(tx, ctx.subject.id, growing_to_gb=None)
    backends.touch(tx, ctx.notes.backend)


async def extend_volume(ctx: Context) -> None:
    """Where it is refused, its size is looked at: it may have been made larger before. Of a host that was declared gone
    nobody can say it."""
    notes: GrowingNotes = ctx.notes
    assert notes.volume is not None, "room was claimed"
    try:
        await ask(ctx, notes.backend, ctx.subject.id, ExtendVolume(notes.volume))
    except DeclaredGone as fault:
        notes.is_known = False
        raise StepFailed(fault.reason) from None
    except StepFailed:
        notes.is_known, there = await stored(ctx, notes.backend, ctx.subject.id)
        if there is None or there.size_bytes < notes.volume.size_gb << 30:
            raise


def record_size(tx: Tx, ctx: Context) -> None:
    volumes.set_(tx, ctx.subject.id, size_gb=ctx.notes.volume.size_gb, growing_to_gb=None)


def is_held(notes: GrowingNotes) -> bool:
    return notes.holder is not None


async def grow_disk(ctx: Context) -> None:
    """The volume is larger, whatever the guest says: one that does not take it sees it when it starts anew."""
    holder, size_gb = ctx.notes.holder, ctx.notes.volume.size_gb
    try:
        await ctx.ask(holder.host, GrowDisk(ctx.subject.id, size_gb), about=of_instance(holder.instance_id))
    except StepFailed as fault:
        ctx.notes.guest_refused = f"the volume is larger, and its server sees that when it starts again: {fault.reason}"


def record(tx: Tx, ctx: Context) -> None:
    volumes.set_(tx, ctx.subject.id, status=previous(tx, ctx), fault=ctx.notes.guest_refused)


def record_failure(tx: Tx, ctx: Context) -> None:
    """It has the size that it had, as far as its backend says; where that says nothing, nobody is told a size."""
    volumes.set_(tx, ctx.subject.id, growing_to_gb=None)
    rests_as = previous(tx, ctx)
    fail(tx, ctx, Action.EXTEND, rests_as if ctx.notes.is_known else VolumeStatus.ERROR_EXTENDING)


EXTEND_VOLUME = Saga(
    SagaKind.EXTEND_VOLUME,
    GrowingNotes,
    (
        Step("claim_room", write=claim_room, unwrite=release_room, did=has_claim),
        Step("extend_volume", do=extend_volume, pivot=True),
        Step("record_size", write=record_size),
        Step("grow_disk", do=grow_disk, needed=is_held, deferred_cleanup=True),
        Step("record", write=record),
    ),
    failed=record_failure,
    undone=rest,
    blocked=show_wait,
)
