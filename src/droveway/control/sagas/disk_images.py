"""The disk of a guest becomes an image: its host copies it while the guest runs on, and sends the copy to an API, with
a ticket (decision 022). Steps for the stories in which that happens.

Whether it has arrived is in the image's row, whatever the host says. Nothing of a copy stays: what a host that did not
answer has kept goes with the next copy of that guest, or with the guest.
"""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, NotYet, TicketNeeded
from droveway.control.sagas import tickets
from droveway.domain.faults import NotFound, StepFailed
from droveway.domain.model import GuestSpec
from droveway.ports.bus import CopyDisk, DropCopy, SendCopy
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.rows import ImageRow
from droveway.store.volume.attachments import HeldVolume

DISK_FORMATS = ("qcow2", "raw")
ROOM_BYTES = 1 << 40  # no disk is larger


class CopyNotes(msgspec.Struct):
    host: str = ""
    image_id: str = ""
    size_bytes: int = 0
    disk_format: str = ""
    spec: GuestSpec | None = None
    ran: bool = False  # before it was stopped for this
    boot_id: str = ""
    volumes: tuple[HeldVolume, ...] = ()  # of which snapshots are made instead


def may_have_copy(notes: CopyNotes) -> bool:
    return bool(notes.host and notes.image_id)


async def copy_disk(ctx: Context) -> None:
    notes: CopyNotes = ctx.notes
    if not ctx.settings.api_urls:
        raise StepFailed("no API is named to which hosts could send an image: see agents.api_urls")
    answer = await ctx.ask(notes.host, CopyDisk(notes.image_id), ctx.settings.long_command_timeout_s)
    if answer.disk_format not in DISK_FORMATS or not 0 < answer.size_bytes < ROOM_BYTES:
        raise StepFailed(f"{notes.host}: what it has made of the disk is no image")
    notes.size_bytes, notes.disk_format = answer.size_bytes, answer.disk_format


async def drop_copy(ctx: Context) -> None:
    await ctx.ask(ctx.notes.host, DropCopy(ctx.notes.image_id), ctx.settings.long_command_timeout_s)


def set_format(tx: Tx, ctx: Context) -> None:
    """Raises NotFound when its owner has deleted the image meanwhile."""
    images.change(tx, ctx.notes.image_id, None, {"disk_format": ctx.notes.disk_format})


async def send_copy(ctx: Context) -> None:
    """Until the row says that it is there. A host that was stopped in the middle asks for another ticket, and begins
    anew."""
    notes: CopyNotes = ctx.notes
    if await _has_arrived(ctx):
        return
    verb, timeout_s = SendCopy(notes.image_id), ctx.settings.long_command_timeout_s
    try:
        try:
            await ctx.ask(notes.host, verb, timeout_s)
        except TicketNeeded as needed:
            await ctx.store.run(_begin_anew, notes.image_id)
            ticket = await tickets.to_send(ctx, notes.host, notes.image_id, notes.size_bytes, needed.challenge)
            await ctx.ask(notes.host, msgspec.structs.replace(verb, ticket=ticket), timeout_s)
    except StepFailed:
        if not await _has_arrived(ctx):
            raise
        return
    if not await _has_arrived(ctx):
        raise NotYet(ctx.settings.retry_s, f"image {notes.image_id} is to arrive")


def _begin_anew(tx: Tx, image_id: str) -> None:
    """The host sends nothing now, so no upload of it is under way; one that an API still holds does not end well."""
    row = images.get(tx, image_id, None)
    if row["status"] == images.SAVING:
        images.give_up_upload(tx, image_id, row["generation"])


async def _has_arrived(ctx: Context) -> bool:
    """Raises StepFailed when its owner has deleted it."""
    try:
        row: ImageRow = await ctx.store.read(images.get, ctx.notes.image_id, None)
    except NotFound:
        raise StepFailed(f"image {ctx.notes.image_id} was deleted while it was made") from None
    return row["status"] in images.WITH_DATA


def forget_image(tx: Tx, ctx: Context) -> None:
    """One that never came to be. One that has arrived after all stays: it is whole."""
    image_id = ctx.notes.image_id or ctx.params.get("image_id", "")
    try:
        row = images.get(tx, image_id, None)
    except NotFound:
        return
    if row["status"] not in images.WITH_DATA:
        images.remove(tx, image_id, None)
