"""A volume gets another type, or another backend. Where its backend does not have what the new type wants it is moved:
its bytes go as an image, which nobody owns and which ends with the move, from one backend's service to the other's.

One that is attached is not moved, and one with snapshots neither: they would stay behind.
"""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, Saga, Step, TicketNeeded, require
from droveway.control.sagas import tickets
from droveway.control.sagas.volumes import images as sending
from droveway.control.sagas.volumes.asking import ask, backend_of, fail, previous, rest, show_wait, spec_of
from droveway.control.scheduling import backends as choosing
from droveway.domain import service_kinds
from droveway.domain.faults import StepFailed
from droveway.domain.model import SagaKind
from droveway.domain.volume.messages import Action
from droveway.domain.volume.model import VolumeSpec
from droveway.ports.volume_verbs import CreateVolume, DeleteVolume, FillVolume
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.image.images import NewImage
from droveway.store.volume import attachments, backends, snapshots, volumes
from droveway.store.volume.rows import VolumeRow

NOBODY = "droveway"  # the project of images that carry volumes: no user's
FORMAT = "qcow2"


class MoveNotes(msgspec.Struct):
    source: str = ""
    destination: str = ""  # empty: it stays where it is
    volume: VolumeSpec | None = None
    image_id: str = ""


def choose_destination(tx: Tx, ctx: Context) -> None:
    """Claim room there, by the row's own word where it moves to; or nothing, where it may stay."""
    row, wanted = volumes.get(tx, ctx.subject.id), ctx.params.get("backend")
    source = backend_of(row)
    type_id = ctx.params.get("volume_type_id") or row["volume_type_id"]
    why_not = choosing.unmet(tx, source, type_id) if wanted is None else ""
    ctx.notes = MoveNotes(source, volume=spec_of(row))
    if wanted == source or (wanted is None and not why_not):
        return
    is_asked = wanted is not None or ctx.params.get("policy") == "on-demand"
    require(
        is_asked, f"{source} does not have what the type wants ({why_not}), and it may not be moved by this request"
    )
    _must_be_movable(tx, row)
    choice = choosing.choose(tx, choosing.to_move(tx, row, type_id, wanted))
    if choice.backend is None:
        raise StepFailed(choice.reason)
    choosing.record(tx, row["id"], ctx.project_id, choice, ctx.kind.value)
    volumes.set_(tx, row["id"], moving_to=choice.backend, migration_status="migrating")
    image_id = tx.names.uuid()
    name = f"volume {row['id']} on its way"
    images.create(tx, NewImage(image_id, NOBODY, name, "private", False, "bare", FORMAT, 0, 0, {}, []))
    ctx.notes.destination, ctx.notes.image_id = choice.backend, image_id


def _must_be_movable(tx: Tx, row: VolumeRow) -> None:
    require(
        attachments.of_volume(tx, row["id"]) is None,
        "it is attached, and would have to be moved to another backend: that is done to a volume that is not in use",
    )
    require(not snapshots.of_volume(tx, row["id"]), "it has snapshots, which would stay behind; delete them first")


def moves(notes: MoveNotes) -> bool:
    return bool(notes.destination)


def release_destination(tx: Tx, ctx: Context) -> None:
    volumes.set_(tx, ctx.subject.id, moving_to=None, migration_status="error")
    backends.touch(tx, ctx.notes.destination)
    sending.forget(tx, ctx.notes.image_id, also_whole=True)


async def send_bytes(ctx: Context) -> None:
    notes: MoveNotes = ctx.notes
    assert notes.volume is not None, "it was looked at"
    await sending.send(ctx, notes.source, notes.volume, notes.image_id, FORMAT)


async def make_there(ctx: Context) -> None:
    notes: MoveNotes = ctx.notes
    assert notes.volume is not None, "it was looked at"
    await ask(ctx, notes.destination, ctx.subject.id, CreateVolume(notes.volume))


async def remove_there(ctx: Context) -> None:
    await ask(ctx, ctx.notes.destination, ctx.subject.id, DeleteVolume())


async def fill_there(ctx: Context) -> None:
    notes: MoveNotes = ctx.notes
    assert notes.volume is not None, "it was looked at"
    image = await ctx.store.read(images.ref, notes.image_id, ctx.settings.images_path)
    verb = FillVolume(notes.volume, image)
    try:
        await ask(ctx, notes.destination, ctx.subject.id, verb)
    except TicketNeeded as needed:
        host, _ = service_kinds.address_of(notes.destination, service_kinds.VOLUME)
        ticket = await tickets.to_fetch(ctx, host, image, needed.challenge)
        await ask(ctx, notes.destination, ctx.subject.id, msgspec.structs.replace(verb, ticket=ticket))


def switch(tx: Tx, ctx: Context) -> None:
    new = {} if ctx.params.get("volume_type_id") is None else {"volume_type_id": ctx.params["volume_type_id"]}
    if moves(ctx.notes):
        new |= {"host": ctx.notes.destination, "moving_to": None, "migration_status": "success"}
        backends.touch(tx, ctx.notes.source)
        sending.forget(tx, ctx.notes.image_id, also_whole=True)
    volumes.set_(tx, ctx.subject.id, status=previous(tx, ctx), fault="", **new)


async def remove_at_source(ctx: Context) -> None:
    """What a backend that does not answer keeps is found by the audit."""
    await ask(ctx, ctx.notes.source, ctx.subject.id, DeleteVolume())


def record_failure(tx: Tx, ctx: Context) -> None:
    """It lies where it lay, and is of the type that it was."""
    fail(tx, ctx, Action.RETYPE, previous(tx, ctx))


RETYPE_VOLUME = Saga(
    SagaKind.RETYPE_VOLUME,
    MoveNotes,
    (
        Step("choose_destination", write=choose_destination, unwrite=release_destination, did=moves),
        Step("send_bytes", do=send_bytes, needed=moves, harmless=True),
        Step("make_there", do=make_there, undo=remove_there, did=moves, needed=moves, deferred_cleanup=True),
        Step("fill_there", do=fill_there, needed=moves, harmless=True),
        Step("switch", write=switch, pivot=True),
        Step("remove_at_source", do=remove_at_source, needed=moves, deferred_cleanup=True),
    ),
    failed=record_failure,
    undone=rest,
    blocked=show_wait,
)
