"""A server moves to another host while it is off, and may be of another flavor there; told once, top to bottom.

Which destination; do both see the same store; then its guest is stopped, a copy of its disk is kept as it was, the disk
is grown, and the guest starts at the destination. It waits there until that is confirmed or reverted
(resize_ends.py). A guest that was off stays off.

The guest is never started before its other host has said that it does not run there.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from droveway.control.engine.saga import Context, NoValidHost, Saga, Step, require
from droveway.control.liveness.admission import DeclaredGone
from droveway.control.sagas import held_volumes, local_files, ports
from droveway.control.sagas.deleted_next import is_deleted_next
from droveway.control.sagas.live_migration import (
    arrive,
    has_destination,
    is_bound,
    must_pass,
    release_destination,
    release_source,
    remove_probe,
    remove_probe_anywhere,
    unbind_ports,
)
from droveway.control.sagas.whereabouts import MoveNotes
from droveway.control.scheduling import before_move, requests
from droveway.domain import move_checks
from droveway.domain.faults import NotFound, StepFailed
from droveway.domain.model import GuestSpec, GuestState, MigrationStatus, SagaKind, TaskState, VmState, of_host
from droveway.domain.placement import HeldCell
from droveway.domain.resize import FormerPlace, Sizes
from droveway.ports.bus import (
    CheckDestination,
    Prepare,
    Release,
    Remove,
    Start,
    Stop,
)
from droveway.ports.kept_disk_verbs import ForgetKept, GrowRoot, KeepDisk, RestoreDisk
from droveway.ports.move_verbs import LookForProbes
from droveway.ports.replies import GuestStatus
from droveway.scheduler.plan import first_failing
from droveway.store.compute import instances, migrations, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.rows import InstanceRow


class ColdNotes(MoveNotes):
    ran: bool = False  # it was not off
    stops: bool = False  # its guest at the source may have been stopped, and all that comes after
    mark: str = ""  # of the copy of its disk
    after: GuestSpec | None = None  # as it is at the destination
    cells: tuple[HeldCell, ...] = ()  # of the destination
    grows: bool = False  # its root disk
    sizes: Sizes | None = None  # at the destination

    @property
    def started(self) -> GuestSpec:
        """As it is there, with its volumes as that host opens them: each host may have an export of its own."""
        assert self.after is not None, "a destination was chosen"
        return msgspec.structs.replace(self.after, volumes=self.there.volumes)


# -- where it goes ----------------------------------------------------------------------------------------------------
def find(tx: Tx, ctx: Context) -> None:
    """Is it there, are its host and the backends of its volumes up?"""
    instance = instances.get(tx, ctx.instance_id)
    facts = before_move.read(tx, instance, ctx.settings.images_path)
    must_pass(one for one in facts.checks if one.name not in (move_checks.Check.ACTIVE, move_checks.Check.NUMA))
    require(
        not facts.spec.root_pool,
        f"the root disk of instance {instance['name']} lies in the pool {facts.spec.root_pool}, where no copy of it is "
        "kept: it is neither resized nor moved while it is off; migrate it live",
    )
    sizes = msgspec.convert(ctx.params["becomes"], Sizes) if "becomes" in ctx.params else sizes_now(instance)
    ctx.notes = ColdNotes(
        source=facts.source.name,
        spec=facts.spec,
        probe=f"probe-{ctx.id}",
        asks_pool=False,
        may_copy=False,
        volumes=facts.volumes,
        ran=instance["vm_state"] == VmState.ACTIVE,
        mark=ctx.id,
        sizes=sizes,
        grows=sizes.flavor["disk_gb"] > facts.spec.disk_gb,
    )
    migrations.set_(tx, ctx.id, status=MigrationStatus.MIGRATING.value, source=facts.source.name)


def sizes_now(instance: InstanceRow) -> Sizes:
    return Sizes(instance["flavor"], instance["flavor_id"], instance["vcpus"], instance["ram_mb"], instance["disk_gb"])


def choose_destination(tx: Tx, ctx: Context) -> None:
    """The host that was asked for, or the best; its claim is the migration's own row, of the new size."""
    move: ColdNotes = ctx.notes
    assert move.sizes is not None, "it was found"
    asked = ctx.params.get("destination")
    must_pass((move_checks.of_other_host(move.source, asked),))
    instance, wanted = instances.get(tx, ctx.instance_id), msgspec.structs.asdict(move.sizes)
    try:
        ask = requests.to_resize(tx, instance, hosts.source(tx, move.source), asked, wanted)
        decision = ctx.placer.choose(tx, ask)
        there = None if asked is None or decision.host is not None else hosts.facts(tx, asked)
    except NotFound as fault:
        raise StepFailed(fault.reason) from None
    if decision.host is None:
        failing = None if there is None else first_failing(there, decision.ask, ctx.placer.settings)
        raise NoValidHost(decision, f"{asked} cannot take it: {failing.reason}" if failing else "", may_wait=False)
    ctx.decision = decision
    move.destination, move.cells = decision.host, decision.cells
    move.after = spec_with(tx, ctx, instance, move.sizes, decision.cells)
    held = msgspec.to_builtins(decision.cells) if decision.cells else None
    migrations.set_(tx, ctx.id, destination=decision.host, holds_claim=True, held_cells=held)


def spec_with(tx: Tx, ctx: Context, instance: InstanceRow, sizes: Sizes, cells: tuple[HeldCell, ...]) -> GuestSpec:
    """The same server with these sizes."""
    row: Any = {**instance, "flavor": sizes.flavor, "vcpus": sizes.vcpus, "ram_mb": sizes.ram_mb, "held_cells": None}
    spec = instances.spec(tx, row, ctx.settings.images_path, with_image=False)
    return msgspec.structs.replace(spec, cells=cells)


async def check_destination(ctx: Context) -> None:
    """Its processor is not compared: the guest begins anew there. And the test file is written."""
    move: ColdNotes = ctx.notes
    assert move.after is not None, "a destination was chosen"
    spec = msgspec.structs.replace(move.after, cells=())
    await ctx.ask(move.destination, CheckDestination(spec, "", move.probe, asks_pool=False))


async def look_for_probe(ctx: Context) -> None:
    move: ColdNotes = ctx.notes
    seen = await ctx.ask(move.source, LookForProbes((move.probe,)), about=of_host(move.source))
    move.apart = move.probe not in seen.names
    assert move.spec is not None, "it was found"
    require(
        not move.apart or not move.spec.needs_store,
        f"{move.source} and {move.destination} do not share their instance store, and the server's disks lie there: "
        "while it is off it moves within one store only; migrate it live, when its disks go along",
    )


def show_stop(tx: Tx, ctx: Context) -> None:
    ctx.notes.stops = True
    instances.show_task(tx, ctx.instance_id, TaskState.RESIZE_MIGRATING)


# -- at its source ----------------------------------------------------------------------------------------------------
def stops(move: ColdNotes) -> bool:
    return move.stops


async def stop_guest(ctx: Context) -> None:
    move: ColdNotes = ctx.notes
    assert move.spec is not None
    own_s = move.spec.hardware.power_off_s
    grace_s = (ctx.settings.stop_grace_s if own_s is None else own_s) if move.ran else 0.0
    answer = await ctx.ask(move.source, Stop(grace_s), grace_s + ctx.settings.command_timeout_s)
    require(answer.guest.state is not GuestState.RUNNING, f"{move.source}: the guest was stopped and still runs")


async def start_again(ctx: Context) -> None:
    move: ColdNotes = ctx.notes
    async with unless_deleted(ctx):
        if move.doomed:  # which deletes its disk when it is back
            await ctx.ask(move.source, Release())
        elif move.ran:
            assert move.spec is not None
            answer = await ctx.ask(move.source, Start(move.spec), ctx.settings.long_command_timeout_s)
            must_run(ctx, answer, move.source)


@contextlib.asynccontextmanager
async def unless_deleted(ctx: Context, doomed: str = "") -> AsyncIterator[None]:
    """What a host that was declared gone would have to do is waited for, but for a server that is deleted next.
    `doomed`: that host may have its guest, and deletes all of it when it is back."""
    try:
        yield
    except DeclaredGone:
        if not await is_deleted_next(ctx):
            raise
        ctx.notes.doomed = ctx.notes.doomed or doomed


def must_run(ctx: Context, answer: GuestStatus, host: str) -> None:
    require(answer.guest.state is GuestState.RUNNING, f"{host}: the guest was started and does not run")
    ctx.notes.boot_id = answer.boot_id


def has_root_file(move: ColdNotes) -> bool:
    return move.spec is not None and not move.spec.begins_from_volume


def may_have_kept(move: ColdNotes) -> bool:
    return move.stops and has_root_file(move)


async def keep_disk(ctx: Context) -> None:
    await ctx.ask(ctx.notes.source, KeepDisk(ctx.notes.mark), ctx.settings.long_command_timeout_s)


async def restore_disk(ctx: Context) -> None:
    """As it was: the guest at the destination has ended, whatever it has written; where it may run on, and is deleted,
    its disk is left to it."""
    move: ColdNotes = ctx.notes
    verb = ForgetKept(move.mark) if move.doomed else RestoreDisk(move.mark)
    async with unless_deleted(ctx):
        await ctx.ask(move.source, verb, ctx.settings.long_command_timeout_s)


def grows(move: ColdNotes) -> bool:
    return move.grows and has_root_file(move)


async def grow_disk(ctx: Context) -> None:
    """What undoes that is the copy that was kept."""
    move: ColdNotes = ctx.notes
    assert move.sizes is not None
    verb = GrowRoot(move.sizes.flavor["disk_gb"])
    await ctx.ask(move.source, verb, ctx.settings.long_command_timeout_s)


# -- at its destination -----------------------------------------------------------------------------------------------
def bind_ports(tx: Tx, ctx: Context) -> None:
    move: ColdNotes = ctx.notes
    if move.spec is not None and move.spec.nics:
        move.network_revision = server_ports.move(tx, ctx.instance_id, move.source, move.destination)


async def await_ports(ctx: Context) -> None:
    move: ColdNotes = ctx.notes
    assert move.spec is not None
    await ports.until_in_force(ctx, move.destination, move.network_revision, move.spec.nics)


def is_apart(move: ColdNotes) -> bool:
    return move.apart


def may_have_directory(move: ColdNotes) -> bool:
    return move.stops and move.apart


async def prepare_there(ctx: Context) -> None:
    """A directory of its own: all its disks are volumes."""
    await local_files.delete_what_is_left(ctx, ctx.notes)
    await ctx.ask(ctx.notes.destination, Prepare(ctx.notes.started), ctx.settings.long_command_timeout_s)


async def remove_there(ctx: Context) -> None:
    move: ColdNotes = ctx.notes
    async with unless_deleted(ctx, move.destination):
        await ctx.ask(move.destination, Remove(), ctx.settings.long_command_timeout_s)


def starts(move: ColdNotes) -> bool:
    return move.ran


def may_have_started(move: ColdNotes) -> bool:
    return move.stops and move.ran


async def start_there(ctx: Context) -> None:
    move: ColdNotes = ctx.notes
    answer = await ctx.ask(move.destination, Start(move.started), ctx.settings.long_command_timeout_s)
    must_run(ctx, answer, move.destination)


async def stop_there(ctx: Context) -> None:
    """It must have said so before anything of it starts elsewhere."""
    move: ColdNotes = ctx.notes
    async with unless_deleted(ctx, move.destination):
        answer = await ctx.ask(move.destination, Stop(0.0))
        require(answer.guest.state is not GuestState.RUNNING, f"{move.destination}: the guest was ended and still runs")
        await ctx.ask(move.destination, Release())


def record_moved(tx: Tx, ctx: Context) -> None:
    """From here on it is there, of that size, and its former place is what it may go back to."""
    move: ColdNotes = ctx.notes
    instance = instances.get(tx, ctx.instance_id)
    former = FormerPlace(move.source, sizes_now(instance), move.ran, move.mark, move.apart)
    migrations.set_(tx, ctx.id, holds_claim=False, held_cells=None, status=MigrationStatus.FINISHED.value)
    settle(tx, ctx, VmState.RESIZED, former=msgspec.to_builtins(former), resized_at_us=tx.now_us)


def settle(tx: Tx, ctx: Context, vm_state: VmState, **more: Any) -> None:
    """It is at the destination."""
    move: ColdNotes = ctx.notes
    assert move.sizes is not None
    instances.set_(
        tx,
        ctx.instance_id,
        **msgspec.structs.asdict(move.sizes),
        host=move.destination,
        held_cells=msgspec.to_builtins(move.cells) if move.cells else None,
        vm_state=vm_state.value,
        fault=None,
        power_state=instances.POWER_RUNNING if move.ran else instances.POWER_SHUTDOWN,
        ran_boot_id=move.boot_id or None if move.ran else None,
        **more,
    )
    instances.show_task(tx, ctx.instance_id, TaskState.RESIZE_FINISH)
    arrive(tx, ctx)


def record_done(tx: Tx, ctx: Context) -> None:
    local_files.record_left(tx, ctx)
    instances.set_idle(tx, ctx.instance_id)


def record_failure(tx: Tx, ctx: Context) -> None:
    migrations.set_(tx, ctx.id, error=ctx.error)
    instances.set_(tx, ctx.instance_id, fault={"code": 500, "message": ctx.error, "created_us": tx.now_us})


def record_undone(tx: Tx, ctx: Context) -> None:
    """It is where it was, and as it was."""
    move: ColdNotes = ctx.notes
    migrations.set_(tx, ctx.id, status=MigrationStatus.ERROR.value)
    if move.doomed:  # a deferred cleanup there
        instances.set_(tx, ctx.instance_id, host=move.doomed, power_state=instances.POWER_NONE)
        hosts.touch(tx, move.source, move.doomed)
    instances.set_idle(tx, ctx.instance_id)
    if move.stops and move.ran and move.boot_id:
        instances.set_(tx, ctx.instance_id, ran_boot_id=move.boot_id)


RELEASE, WITHDRAW, DROP = (
    Step("release_source", do=release_source, deferred_cleanup=True),
    Step("withdraw_source", do=held_volumes.withdraw_source, needed=held_volumes.has_volumes, deferred_cleanup=True),
    Step("drop_files", do=local_files.drop_left, needed=is_apart, deferred_cleanup=True),
)
ADMIT, BIND, AWAIT = (
    Step(
        "admit_destination",
        do=held_volumes.admit_destination,
        needed=held_volumes.has_volumes,
        undo=held_volumes.withdraw_destination,
        did=held_volumes.moves_with_volumes,
        deferred_cleanup=True,
    ),
    Step("bind_ports", write=bind_ports, unwrite=unbind_ports, did=is_bound),
    Step("await_ports", do=await_ports, needed=is_bound, harmless=True),
)


def _story(kind: SagaKind) -> Saga:
    return Saga(
        kind,
        ColdNotes,
        (
            Step("find", write=find, harmless=True),
            Step("withdraw_stale", do=held_volumes.withdraw_stale, needed=held_volumes.has_left, harmless=True),
            Step("choose_destination", write=choose_destination, unwrite=release_destination, did=has_destination),
            Step(
                "check_destination",
                do=check_destination,
                undo=remove_probe_anywhere,
                did=has_destination,
                deferred_cleanup=True,
            ),
            Step("look_for_probe", do=look_for_probe, harmless=True),
            Step("remove_probe", do=remove_probe, harmless=True),
            ADMIT,
            BIND,
            AWAIT,
            Step("show_stop", write=show_stop, harmless=True),
            Step("stop_guest", do=stop_guest, undo=start_again, did=stops),
            Step("keep_disk", do=keep_disk, needed=has_root_file, undo=restore_disk, did=may_have_kept),
            Step("grow_disk", do=grow_disk, needed=grows, harmless=True),
            Step("prepare_there", do=prepare_there, needed=is_apart, undo=remove_there, did=may_have_directory),
            Step("start_there", do=start_there, needed=starts, undo=stop_there, did=may_have_started),
            Step("record_moved", write=record_moved, pivot=True),
            RELEASE,
            WITHDRAW,
            DROP,
            Step("record_done", write=record_done),
        ),
        failed=record_failure,
        undone=record_undone,
    )


COLD_MIGRATION, RESIZE_SERVER = _story(SagaKind.COLD_MIGRATION), _story(SagaKind.RESIZE_SERVER)
