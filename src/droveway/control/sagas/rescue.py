"""Rescue: the server begins from a disk of an image, and finds its own disk behind it; and back again."""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, Saga, SpecNotes, Step, TooLate, require
from droveway.control.liveness.admission import DeclaredGone
from droveway.control.sagas import spare_disks
from droveway.control.sagas.power import FIND, must_run, record_failure, record_off, record_running, set_idle
from droveway.control.sagas.spare_disks import SpareNotes
from droveway.domain.faults import StepFailed
from droveway.domain.model import GuestState, SagaKind, SpareDisk, VmState
from droveway.ports.bus import DropDisk, PowerCycle, Stop
from droveway.store.compute import instances, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.image import images


def find_guest(tx: Tx, ctx: Context) -> None:
    instance = instances.get(tx, ctx.instance_id)
    spec = instances.spec(tx, instance, ctx.settings.images_path, with_image=False)
    image = images.ref(tx, ctx.params["image_id"], ctx.settings.images_path)
    ctx.notes = SpareNotes(instances.host_of(instance), msgspec.structs.replace(spec, image=image, rescue=True))


async def prepare_disk(ctx: Context) -> None:
    await spare_disks.prepare(ctx, SpareDisk.RESCUE)


async def drop_disk(ctx: Context) -> None:
    await spare_disks.drop(ctx, SpareDisk.RESCUE)


async def drop_unused(ctx: Context) -> None:
    """Where the host does not let it go, the guest has begun from it, whatever was said of that: then it is rescued."""
    try:
        await drop_disk(ctx)
    except StepFailed:
        raise TooLate from None


async def begin_from_it(ctx: Context) -> None:
    await _cycle(ctx)


def turn_to_own(tx: Tx, ctx: Context) -> None:
    ctx.notes.spec = msgspec.structs.replace(ctx.notes.spec, rescue=False)


def turned_to_own(notes: SpecNotes) -> bool:
    return notes.spec is not None and not notes.spec.rescue


async def stay_off(ctx: Context) -> None:
    """The host has refused, maybe after an answer that was lost: nobody knows from which disk the guest runs, if it
    does. It is off from here on, and rescued no more. On a host that was declared gone all stays as it was."""
    try:
        answer = await ctx.ask(ctx.notes.host, Stop(0.0), ctx.settings.command_timeout_s)
        require(answer.guest.state is not GuestState.RUNNING, f"{ctx.notes.host}: the guest was stopped and still runs")
        await ctx.ask(ctx.notes.host, DropDisk(SpareDisk.RESCUE), ctx.settings.long_command_timeout_s)
    except DeclaredGone:
        ctx.notes.spec = msgspec.structs.replace(ctx.notes.spec, rescue=True)


def rest_undone(tx: Tx, ctx: Context) -> None:
    if turned_to_own(ctx.notes):
        record_off(tx, ctx)
    else:
        set_idle(tx, ctx)


async def begin_from_own(ctx: Context) -> None:
    ctx.notes.spec = msgspec.structs.replace(ctx.notes.spec, rescue=False)  # an older row has not passed that
    await _cycle(ctx)


async def _cycle(ctx: Context) -> None:
    """Its power is cut: what is rescued answers no button."""
    verb = PowerCycle(ctx.notes.spec, 0.0)
    must_run(ctx, await ctx.ask(ctx.notes.host, verb, ctx.settings.long_command_timeout_s))


def record_rescued(tx: Tx, ctx: Context) -> None:
    instances.set_idle(
        tx,
        ctx.instance_id,
        vm_state=VmState.RESCUED.value,
        fault=None,
        launched_at_us=tx.now_us,
        power_state=instances.POWER_RUNNING,
        ran_boot_id=ctx.notes.boot_id,
    )
    server_ports.set_status(tx, ctx.instance_id, is_running=True)


RESCUE = Saga(
    SagaKind.RESCUE,
    SpareNotes,
    (
        Step("find_guest", write=find_guest, harmless=True),
        Step(
            "prepare_disk",
            do=prepare_disk,
            undo=drop_unused,
            did=spare_disks.may_have_disk,
        ),
        Step("begin_from_it", do=begin_from_it, pivot=True),
        Step("record_rescued", write=record_rescued),
    ),
    failed=record_failure,
    undone=set_idle,
)
UNRESCUE = Saga(
    SagaKind.UNRESCUE,
    SpecNotes,
    (
        FIND,
        Step("turn_to_own", write=turn_to_own, undo=stay_off, did=turned_to_own),
        Step("begin_from_own", do=begin_from_own, pivot=True),
        Step("record_running", write=record_running),
        # What a host that did not answer keeps is of no use to the next rescue, and is gone with the guest.
        Step("drop_disk", do=drop_disk, deferred_cleanup=True),
    ),
    failed=record_failure,
    undone=rest_undone,
)
