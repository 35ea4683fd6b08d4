"""Rebuild: the server begins anew from an image, on its host, with its id, its ports and its claim.

Its new disk is made beside the old one while it runs on, so an image that cannot be had harms nothing. The pivot is a
write: with it the server is that of the new image, and only then does its host end it and put the new disk in its
place.

One that begins from a volume is ended first, and its host is not admitted while the backend fills that volume: it makes
the new content beside the old one, and refuses or replaces it as a whole (ports/storage.py). The write that is the
pivot is saved with that answer; where it never came, the undoing asks for it again.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from droveway.control.engine.saga import Context, Saga, Step, TooLate, require
from droveway.control.liveness.admission import DeclaredGone
from droveway.control.sagas import held_volumes, spare_disks
from droveway.control.sagas.deleted_next import is_deleted_next
from droveway.control.sagas.power import must_run, record_failure, record_running, record_stopped, set_idle
from droveway.control.sagas.spare_disks import SpareNotes
from droveway.control.sagas.volumes import filling
from droveway.domain.faults import StepFailed, Unreachable
from droveway.domain.guest_data import Document, GuestKey
from droveway.domain.model import GuestState, ImageRef, SagaKind, SpareDisk, TaskState, VmState
from droveway.ports.bus import ReplaceDisk, Start, Stop
from droveway.store.compute import guest_data, instances
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.volume import attachments, volumes
from droveway.store.volume.attachments import HeldVolume

COLUMNS = (
    *("name", "hostname", "description", "metadata", "image_id", "image_properties", "key_name"),
    *("access_ipv4", "access_ipv6", "auto_disk_config"),
)


class RebuildNotes(SpareNotes):
    """`root`: of one that begins from a volume, which is filled with `image`."""

    root: HeldVolume | None = None
    image: ImageRef | None = None


def find_guest(tx: Tx, ctx: Context) -> None:
    instance = instances.get(tx, ctx.instance_id)
    spec = instances.spec(tx, instance, ctx.settings.images_path, with_image=False)
    image = images.ref(tx, ctx.params["image_id"], ctx.settings.images_path)
    root = next((one for one in attachments.held_by(tx, ctx.instance_id) if one.is_root), None)
    if root is None:
        spec = msgspec.structs.replace(spec, image=image)
    else:
        held_volumes.must_be_usable(volumes.get(tx, root.volume.volume_id))
        require(not root.read_only, f"volume {root.volume.volume_id} is read-only: it is not filled anew")
        snapshots = attachments.has_snapshots(tx, root.volume.volume_id)
        require(not snapshots, f"volume {root.volume.volume_id} has snapshots: it is not filled anew under them")
    starts = instance["vm_state"] != VmState.STOPPED
    ctx.notes = RebuildNotes(instances.host_of(instance), spec, starts, root=root, image=image)


def has_volume(notes: RebuildNotes) -> bool:
    return notes.root is not None


def has_own_disk(notes: RebuildNotes) -> bool:
    return notes.root is None


def may_have_disk(notes: RebuildNotes) -> bool:
    return has_own_disk(notes) and spare_disks.may_have_disk(notes)


# -- of one that begins from a volume ---------------------------------------------------------------------------------
async def end_guest(ctx: Context) -> None:
    answer = await ctx.ask(ctx.notes.host, Stop(0.0))
    require(answer.guest.state is not GuestState.RUNNING, f"{ctx.notes.host}: the guest was stopped and still runs")


async def start_again(ctx: Context) -> None:
    """Where its host was declared gone it runs no more, or will be ended."""
    if ctx.notes.starts:
        with contextlib.suppress(DeclaredGone):
            await start_guest(ctx)


async def withdraw_root(ctx: Context) -> None:
    await held_volumes.withdraw_one(ctx, ctx.notes.root, ctx.notes.host)


async def admit_root(ctx: Context) -> None:
    """As the guest opens it from then on. Its backend is not waited for where the server is deleted next: its row says
    that the host may be admitted, and its guest is not started."""
    notes: RebuildNotes = ctx.notes
    assert notes.root is not None and notes.spec is not None, "it begins from a volume"
    try:
        await held_volumes.admit_one(ctx, notes.root, notes.host)
    except (StepFailed, Unreachable):
        if not await is_deleted_next(ctx):
            raise
        return
    disks = await ctx.store.read(attachments.disks, ctx.instance_id)
    notes.spec = msgspec.structs.replace(notes.spec, volumes=disks)


async def fill_root(ctx: Context) -> None:
    notes: RebuildNotes = ctx.notes
    assert notes.root is not None and notes.image is not None, "it begins from a volume"
    await filling.fill(ctx, notes.root.backend, notes.root.volume, notes.image)


async def fill_to_the_end(ctx: Context) -> None:
    """It was turned back while its backend may have filled the volume, or fills it still: where that is not refused the
    server is of that image after all. What is deleted next needs neither."""
    if await is_deleted_next(ctx):
        return
    try:
        await fill_root(ctx)
    except StepFailed:  # it holds what it held
        return
    raise TooLate


# -- its own disk -----------------------------------------------------------------------------------------------------
async def prepare_disk(ctx: Context) -> None:
    await spare_disks.prepare(ctx, SpareDisk.REBUILD)


async def drop_disk(ctx: Context) -> None:
    await spare_disks.drop(ctx, SpareDisk.REBUILD)


def become(tx: Tx, ctx: Context) -> None:
    """From here on it is a server of that image, whatever else was asked for with it among that."""
    given: dict[str, Any] = dict(ctx.params)
    notes: RebuildNotes = ctx.notes
    if notes.root is not None:  # it is the volume that was made of an image
        own = {"image_id": given.pop("image_id"), "image_metadata": given.get("image_metadata", {})}
        volumes.set_(tx, notes.root.volume.volume_id, **own)
    instances.set_(tx, ctx.instance_id, **{name: given[name] for name in COLUMNS if name in given})
    instances.show_task(tx, ctx.instance_id, TaskState.REBUILD_SPAWNING)
    if "user_data" in given or "key" in given:
        key = msgspec.convert(given["key"], GuestKey) if given.get("key") else None
        guest_data.change(tx, ctx.instance_id, given, key)
    spec = instances.spec(tx, instances.get(tx, ctx.instance_id), ctx.settings.images_path, with_image=False)
    ctx.notes.spec = msgspec.structs.replace(spec, rescue=False)


async def replace_disk(ctx: Context) -> None:
    spec = ctx.notes.spec
    documents = await ctx.store.read(_documents, ctx.instance_id) if spec.config_drive else ()
    verb = ReplaceDisk(spec, documents, ctx.params.get("preserve_ephemeral", False))
    await ctx.ask(ctx.notes.host, verb, ctx.settings.long_command_timeout_s)


def _documents(tx: Tx, instance_id: str) -> tuple[Document, ...]:
    return guest_data.for_drive(tx, instances.get(tx, instance_id))


def starts(notes: SpareNotes) -> bool:
    return notes.starts


async def start_guest(ctx: Context) -> None:
    if not await is_deleted_next(ctx):
        must_run(ctx, await ctx.ask(ctx.notes.host, Start(ctx.notes.spec), ctx.settings.long_command_timeout_s))


def record(tx: Tx, ctx: Context) -> None:
    """One that was off stays off."""
    if ctx.notes.starts:
        record_running(tx, ctx)
        instances.set_(tx, ctx.instance_id, launched_at_us=tx.now_us)
    else:
        record_stopped(tx, ctx)


REBUILD = Saga(
    SagaKind.REBUILD,
    RebuildNotes,
    (
        Step("find_guest", write=find_guest, harmless=True),
        Step(
            "prepare_disk",
            do=prepare_disk,
            needed=has_own_disk,
            undo=drop_disk,
            did=may_have_disk,
        ),
        Step("end_guest", do=end_guest, needed=has_volume, undo=start_again, did=has_volume),
        Step("withdraw_root", do=withdraw_root, needed=has_volume, undo=admit_root, did=has_volume),
        Step("fill_root", do=fill_root, needed=has_volume, undo=fill_to_the_end, did=has_volume),
        Step("become", write=become, pivot=True),
        Step("replace_disk", do=replace_disk),
        Step("admit_root", do=admit_root, needed=has_volume),
        Step("start_guest", do=start_guest, needed=starts),
        Step("record", write=record),
    ),
    failed=record_failure,
    undone=set_idle,
)
