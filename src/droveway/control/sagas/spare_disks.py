"""A disk of an image beside a guest's own: made by its host, which fetches the image where it has not got it."""

from __future__ import annotations

import contextlib

import msgspec

from droveway.control.engine.saga import Context, TicketNeeded
from droveway.control.liveness.admission import DeclaredGone
from droveway.control.sagas import tickets
from droveway.domain.model import GuestSpec, SpareDisk
from droveway.ports.bus import DropDisk, PrepareDisk


class SpareNotes(msgspec.Struct):
    host: str = ""
    spec: GuestSpec | None = None  # with the image of the disk
    starts: bool = True  # the guest, once it is done
    boot_id: str = ""


def may_have_disk(notes: SpareNotes) -> bool:
    return bool(notes.host)


async def prepare(ctx: Context, disk: SpareDisk) -> None:
    """May take as long as the image is large: see boot.prepare_guest."""
    notes: SpareNotes = ctx.notes
    assert notes.spec is not None and notes.spec.image is not None, "a disk is made of an image"
    timeout_s = ctx.settings.long_command_timeout_s
    try:
        await ctx.ask(notes.host, PrepareDisk(notes.spec, disk), timeout_s)
    except TicketNeeded as needed:
        ticket = await tickets.to_fetch(ctx, notes.host, notes.spec.image, needed.challenge)
        await ctx.ask(notes.host, PrepareDisk(notes.spec, disk, ticket), timeout_s)


async def drop(ctx: Context, disk: SpareDisk) -> None:
    """A host that was declared gone is not waited for: there it goes with the guest, or with the next one."""
    with contextlib.suppress(DeclaredGone):
        await ctx.ask(ctx.notes.host, DropDisk(disk), ctx.settings.long_command_timeout_s)
