"""How a resize, or a move while it was off, ends: confirmed, and the copy of the disk as it was goes; or reverted, and
the server goes back to the host, the flavor and the disk that it had.

Nothing is held for it on its former host meanwhile: a revert finds room there, or is refused and says so.
"""

from __future__ import annotations

import msgspec

from droveway.control.engine.saga import Context, NoValidHost, Saga, Step, require
from droveway.control.liveness.admission import DeclaredGone
from droveway.control.sagas import cold_migration as cold
from droveway.control.sagas import held_volumes, local_files
from droveway.control.sagas.cold_migration import ColdNotes
from droveway.control.sagas.deleted_next import is_deleted_next
from droveway.control.sagas.live_migration import must_pass
from droveway.control.scheduling import before_move, requests
from droveway.domain import move_checks
from droveway.domain.faults import NotFound, StepFailed
from droveway.domain.model import MigrationStatus, SagaKind, TaskState, VmState
from droveway.domain.placement import PlacementRequest
from droveway.domain.resize import FormerPlace
from droveway.ports.bus import (
    Prepare,
    Start,
)
from droveway.ports.kept_disk_verbs import ForgetKept, RestoreDisk
from droveway.scheduler.plan import first_failing
from droveway.store.compute import instances, migrations, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.rows import InstanceRow


def former_of(instance: InstanceRow) -> FormerPlace:
    require(instance["former"] is not None, f"instance {instance['name']} has no former place to go back to")
    return msgspec.convert(instance["former"], FormerPlace)


# -- confirmed --------------------------------------------------------------------------------------------------------
class ConfirmNotes(msgspec.Struct):
    host: str = ""
    mark: str = ""


def record_confirmed(tx: Tx, ctx: Context) -> None:
    """Before the copy goes: a host that may have deleted it leaves nothing to go back to."""
    instance = instances.get(tx, ctx.instance_id)
    ctx.notes = ConfirmNotes(instances.host_of(instance), former_of(instance).mark)
    is_on = instance["power_state"] != instances.POWER_SHUTDOWN
    _end(tx, ctx, instance, MigrationStatus.CONFIRMED, VmState.ACTIVE if is_on else VmState.STOPPED)


def _end(tx: Tx, ctx: Context, instance: InstanceRow, status: MigrationStatus, vm_state: VmState) -> None:
    migrations.set_(tx, former_of(instance).mark, status=status.value)
    instances.set_idle(tx, ctx.instance_id, vm_state=vm_state.value, former=None, resized_at_us=None, fault=None)


async def forget_kept(ctx: Context) -> None:
    """Waited for where its host was declared gone, too: once that is back nobody else would find the copy. With a
    server that is deleted next all of it goes."""
    try:
        await ctx.ask(ctx.notes.host, ForgetKept(ctx.notes.mark), ctx.settings.long_command_timeout_s)
    except DeclaredGone:
        if not await is_deleted_next(ctx):
            raise


def record_refusal(tx: Tx, ctx: Context) -> None:
    """It waits on."""
    instances.set_(tx, ctx.instance_id, fault={"code": 500, "message": ctx.error, "created_us": tx.now_us})


def set_idle(tx: Tx, ctx: Context) -> None:
    instances.set_idle(tx, ctx.instance_id)


CONFIRM_RESIZE = Saga(
    SagaKind.CONFIRM_RESIZE,
    ConfirmNotes,
    (
        Step("record_confirmed", write=record_confirmed, pivot=True),
        Step("forget_kept", do=forget_kept),
        Step("record_done", write=set_idle),
    ),
    failed=record_refusal,
    undone=set_idle,
)


# -- reverted ---------------------------------------------------------------------------------------------------------
def find(tx: Tx, ctx: Context) -> None:
    """Its former host is up and has room for what it was; both are asked before its guest is stopped."""
    instance = instances.get(tx, ctx.instance_id)
    former = former_of(instance)
    facts = before_move.read(tx, instance, ctx.settings.images_path)
    must_pass(one for one in facts.checks if one.name in (move_checks.Check.SOURCE_UP, move_checks.Check.BACKENDS))
    try:
        there = hosts.facts(tx, former.host)
    except NotFound as fault:
        raise StepFailed(f"{fault.reason} Confirm the resize: its former host is gone.") from None
    failing = first_failing(there, _ask(tx, instance, former), ctx.placer.settings)
    require(
        failing is None,
        f"{former.host}, where it was, cannot take it back: {failing.reason if failing else ''}; confirm the resize, "
        "or make room there",
    )
    ctx.notes = ColdNotes(
        source=facts.source.name,
        destination=former.host,
        spec=facts.spec,
        may_copy=False,
        volumes=facts.volumes,
        ran=instance["power_state"] != instances.POWER_SHUTDOWN,
        mark=former.mark,
        sizes=former.sizes,
        after=cold.spec_with(tx, ctx, instance, former.sizes, ()),
    )
    ctx.notes.apart = former.is_apart


def _ask(tx: Tx, instance: InstanceRow, former: FormerPlace) -> PlacementRequest:
    source, wanted = hosts.source(tx, instances.host_of(instance)), msgspec.structs.asdict(former.sizes)
    return requests.to_resize(tx, instance, source, former.host, wanted)


def record_reverted(tx: Tx, ctx: Context) -> None:
    """The claim is its own row again; from here on it goes back, however long its former host takes."""
    move: ColdNotes = ctx.notes
    instance = instances.get(tx, ctx.instance_id)
    former = former_of(instance)
    decision = ctx.placer.choose(tx, _ask(tx, instance, former))
    if decision.host is None:
        raise NoValidHost(decision, may_wait=False)
    ctx.decision = decision
    move.ran, move.cells = former.ran, decision.cells
    move.after = cold.spec_with(tx, ctx, instance, former.sizes, decision.cells)
    cold.settle(tx, ctx, VmState.RESIZED)
    instances.show_task(tx, ctx.instance_id, TaskState.RESIZE_REVERTING)


async def restore_disk(ctx: Context) -> None:
    move: ColdNotes = ctx.notes
    async with cold.unless_deleted(ctx):
        await ctx.ask(move.destination, RestoreDisk(move.mark), ctx.settings.long_command_timeout_s)


async def prepare_there(ctx: Context) -> None:
    async with cold.unless_deleted(ctx):
        await ctx.ask(ctx.notes.destination, Prepare(ctx.notes.started), ctx.settings.long_command_timeout_s)


async def start_there(ctx: Context) -> None:
    move: ColdNotes = ctx.notes
    async with cold.unless_deleted(ctx):
        answer = await ctx.ask(move.destination, Start(move.started), ctx.settings.long_command_timeout_s)
        cold.must_run(ctx, answer, move.destination)


def record_back(tx: Tx, ctx: Context) -> None:
    move: ColdNotes = ctx.notes
    instance = instances.get(tx, ctx.instance_id)
    local_files.record_left(tx, ctx)
    if move.ran:
        instances.set_(tx, ctx.instance_id, ran_boot_id=move.boot_id, power_state=instances.POWER_RUNNING)
    server_ports.set_status(tx, ctx.instance_id, is_running=move.ran)
    _end(tx, ctx, instance, MigrationStatus.REVERTED, VmState.ACTIVE if move.ran else VmState.STOPPED)


def end_refused(tx: Tx, ctx: Context) -> None:
    """It waits on where it is."""
    move = ctx.notes
    instances.set_idle(tx, ctx.instance_id)
    if move.stops and move.ran and move.boot_id:
        instances.set_(tx, ctx.instance_id, ran_boot_id=move.boot_id)


def show_stop(tx: Tx, ctx: Context) -> None:
    ctx.notes.stops = True


REVERT_RESIZE = Saga(
    SagaKind.REVERT_RESIZE,
    ColdNotes,
    (
        Step("find", write=find, harmless=True),
        Step("withdraw_stale", do=held_volumes.withdraw_stale, needed=held_volumes.has_left, harmless=True),
        cold.ADMIT,
        cold.BIND,
        cold.AWAIT,
        Step("show_stop", write=show_stop, harmless=True),
        Step("stop_guest", do=cold.stop_guest, undo=cold.start_again, did=cold.stops),
        Step("record_reverted", write=record_reverted, pivot=True),
        Step("restore_disk", do=restore_disk, needed=cold.has_root_file),
        Step("prepare_there", do=prepare_there, needed=cold.is_apart),
        Step("start_there", do=start_there, needed=cold.starts),
        cold.RELEASE,
        cold.WITHDRAW,
        cold.DROP,
        Step("record_back", write=record_back),
    ),
    failed=record_refusal,
    undone=end_refused,
)
