"""The files of a guest that moves between hosts which do not see one store: places for them are made at the
destination, the hypervisors copy what they hold, and afterwards one of the two hosts deletes its own.

Which one is decided as everything else about the move is: by where the guest is. What the destination was to take bears
the mark of the saga until then, so no other files are deleted in their stead.
"""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, TicketNeeded, require
from droveway.control.liveness.admission import DeclaredGone
from droveway.control.sagas import tickets
from droveway.control.sagas.whereabouts import MoveNotes
from droveway.domain.faults import NotFound, StepFailed, Unreachable
from droveway.domain.model import GuestSpec, LocalDisk, LocalFiles
from droveway.ports.bus import DropFiles, KeepArrival, PrepareArrival, ReadLocalFiles
from droveway.store.compute import file_cleanups, instances
from droveway.store.engine.transaction import Tx


def are_copied(move: MoveNotes) -> bool:
    return move.copies_files


def lie_apart(move: MoveNotes) -> bool:
    """Each host has files of its own, if only those that every guest has."""
    return move.copies_files or move.apart


async def prepare_files(ctx: Context) -> None:
    """Empty ones at the destination, on the same image where the image is still there: then only what differs from it
    is copied. May take as long as that image is large."""
    move: MoveNotes = ctx.notes
    await delete_what_is_left(ctx, move)
    if not move.copies_files:
        return
    assert move.spec is not None, "it was found"
    found = (await ctx.ask(move.source, ReadLocalFiles())).files
    has_some = bool(found.disks) or not move.spec.has_root_file
    require(has_some, f"{move.source}: the guest has no disk there that could be copied")
    spec = await ctx.store.read(_spec_with_image, ctx.instance_id, ctx.settings.images_path, move.spec)
    files = msgspec.structs.replace(found, disks=tuple(_on_image(disk, spec) for disk in found.disks))
    move.files = LocalFiles(files.disks)
    over_commits = ctx.params.get("disk_over_commit") is not False
    room_bytes = sum(disk.allocated_bytes if over_commits else disk.size_bytes for disk in files.disks)
    timeout_s = ctx.settings.long_command_timeout_s
    asked = PrepareArrival(spec, files, ctx.id, room_bytes, over_commits=over_commits)
    try:
        await ctx.ask(move.destination, asked, timeout_s)
    except TicketNeeded as needed:
        assert spec.image is not None, "nothing else is fetched"
        ticket = await tickets.to_fetch(ctx, move.destination, spec.image, needed.challenge)
        await ctx.ask(move.destination, msgspec.structs.replace(asked, ticket=ticket), timeout_s)


async def delete_what_is_left(ctx: Context, move: MoveNotes) -> None:
    """By earlier stays, on any host: it may share the store to which the files come now, where a deletion that is done
    later would take them. Of a host that was declared gone nothing is waited for, and nothing done later."""
    for row in await ctx.store.read(file_cleanups.of_instance, ctx.instance_id):
        if row["host"] == move.source:
            continue
        try:
            await ctx.ask(row["host"], DropFiles(row["mark"]), ctx.settings.long_command_timeout_s)
        except DeclaredGone:
            continue
        except Unreachable as fault:
            left = f"{row['host']} has not deleted yet what an earlier stay of the guest has left there"
            raise StepFailed(f"{left}: {fault.reason}") from None
        await ctx.store.run(file_cleanups.forget, row["host"], ctx.instance_id, row["mark"])


def _spec_with_image(tx: Tx, instance_id: str, images_path: str, spec: GuestSpec) -> GuestSpec:
    try:
        return instances.spec(tx, instances.get(tx, instance_id), images_path, with_image=True)
    except NotFound:
        return spec


def _on_image(disk: LocalDisk, spec: GuestSpec) -> LocalDisk:
    """One whose image is gone, or was another one, is copied whole."""
    is_there = spec.image is not None and spec.image.file_name == disk.base
    return disk if is_there else msgspec.structs.replace(disk, base="")


async def drop_prepared(ctx: Context) -> None:
    """The guest is not there."""
    move: MoveNotes = ctx.notes
    if not _keeps_all(move):
        await ctx.ask(move.destination, DropFiles(ctx.id), ctx.settings.long_command_timeout_s)
        move.files_deleted = True


def _keeps_all(move: MoveNotes) -> bool:
    """That host may have the guest, or deletes everything of it when it is back."""
    return move.destination in (move.left, move.doomed)


async def keep_arrived(ctx: Context) -> None:
    await ctx.ask(ctx.notes.destination, KeepArrival())


async def drop_left(ctx: Context) -> None:
    """The source's, which are of the past."""
    await ctx.ask(ctx.notes.source, DropFiles(), ctx.settings.long_command_timeout_s)
    ctx.notes.files_deleted = True


def record_arrival(tx: Tx, ctx: Context) -> None:
    """What earlier stays had left was deleted before it came."""
    if lie_apart(ctx.notes):
        file_cleanups.forget_all(tx, ctx.instance_id)


def record_left(tx: Tx, ctx: Context) -> None:
    """Of a host that did not answer, for when it does."""
    move: MoveNotes = ctx.notes
    if lie_apart(move) and not move.files_deleted:
        file_cleanups.defer(tx, move.source, ctx.instance_id, "")


def record_not_arrived(tx: Tx, ctx: Context) -> None:
    move: MoveNotes = ctx.notes
    if lie_apart(move) and _keeps_all(move):  # that host may have the guest, and the source's files are the others
        file_cleanups.defer(tx, move.source, ctx.instance_id, "", when_deleted=True)
    elif lie_apart(move) and not move.files_deleted and not _has_some_of_before(tx, ctx):
        file_cleanups.defer(tx, move.destination, ctx.instance_id, ctx.id if move.copies_files else "")


def _has_some_of_before(tx: Tx, ctx: Context) -> bool:
    """Then nothing was made there now, and it is the mark of those that tells what is to be deleted."""
    left = file_cleanups.of_instance(tx, ctx.instance_id)
    return ctx.notes.destination in {row["host"] for row in left}
