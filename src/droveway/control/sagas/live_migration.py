"""Live migration, told once, top to bottom.

Is the instance running; is its host up; which destination; do both see the same store, or do the disks go along; then
copy, switch, record, clean. The copy goes from hypervisor to hypervisor and needs none of us: only what both hosts say
decides where the guest is (domain/migration.py).

More than 400 lines because a story is told once, in one file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from droveway.control.engine.saga import Context, NotYet, NoValidHost, Saga, Step, TooLate, require
from droveway.control.liveness.admission import DeclaredGone
from droveway.control.sagas import copy_phase, foreseeing, held_volumes, local_files, ports
from droveway.control.sagas.deleted_next import is_deleted_next
from droveway.control.sagas.whereabouts import POLL_S, GuestOnBothHosts, MoveNotes, look
from droveway.control.scheduling import before_move, requests
from droveway.domain.faults import NotFound, StepFailed, Unreachable
from droveway.domain.migration import AFTER_SWITCH, CHECKS, Verdict
from droveway.domain.model import (
    START,
    GuestJob,
    GuestState,
    MigrationStatus,
    PostCopy,
    SagaKind,
    VmState,
)
from droveway.domain.move_checks import CheckAnswer, first_failed, of_guest, of_other_host, of_pool, of_store
from droveway.domain.peer_uri import endpoint_mismatch
from droveway.ports.bus import (
    AbortCopy,
    Admit,
    BeginCopy,
    CheckDestination,
    CheckSource,
    Dismiss,
    DropFiles,
    Inspect,
    Release,
    Remove,
    RemoveProbe,
    Start,
    Stop,
)
from droveway.scheduler.plan import first_failing
from droveway.store.compute import instances, migrations, predictions, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.work import sagas


# -- the checks, in the order of the articles -------------------------------------------------------------------------
def instance_runs(tx: Tx, ctx: Context) -> None:
    """Is the instance running, are its host and the backends of its volumes up?"""
    instance = instances.get(tx, ctx.instance_id)
    facts = before_move.read(tx, instance, ctx.settings.images_path)
    must_pass(facts.checks)
    ctx.notes = MoveNotes(
        source=facts.source.name,
        spec=facts.spec,
        probe=f"probe-{ctx.id}",
        may_copy=False,
        volumes=facts.volumes,
        began_us=tx.now_us,
        target=copy_phase.target_of(instance, ctx.settings.copy),
    )
    migrations.set_(tx, ctx.id, status=MigrationStatus.PREPARING.value, source=facts.source.name)


def must_pass(answers: Iterable[CheckAnswer]) -> None:
    failed = first_failed(answers)
    require(failed is None, failed.reason if failed is not None else "")


def choose_destination(tx: Tx, ctx: Context) -> None:
    """Check the host that was asked for, or find one; claim its room. The claim is the migration's own row."""
    move: MoveNotes = ctx.notes
    asked = ctx.params.get("destination")
    must_pass((of_other_host(move.source, asked),))
    instance = instances.get(tx, ctx.instance_id)
    try:
        source = hosts.source(tx, move.source)
        is_forced = ctx.params.get("force") is True
        decision = ctx.placer.choose(tx, requests.to_move(tx, instance, source, asked, is_forced=is_forced))
        there = None if asked is None or decision.host is not None else hosts.facts(tx, asked)
    except NotFound as fault:
        raise StepFailed(fault.reason) from None
    if decision.host is None:
        failing = None if there is None else first_failing(there, decision.ask, ctx.placer.settings)
        raise NoValidHost(decision, f"{asked} cannot take it: {failing.reason}" if failing else "", may_wait=False)
    ctx.decision = decision
    move.destination = decision.host
    move.source_cpu_xml = source.cpu_xml
    migrations.set_(tx, ctx.id, destination=decision.host, holds_claim=True)


def has_destination(move: MoveNotes) -> bool:
    return bool(move.destination)


def may_copy(move: MoveNotes) -> bool:
    """Before that the guest is as it was found, and nothing that is done to it is ours to undo."""
    return move.may_copy


def release_destination(tx: Tx, ctx: Context) -> None:
    migrations.set_(tx, ctx.id, holds_claim=False)
    hosts.touch(tx, ctx.notes.destination or None)


async def check_destination(ctx: Context) -> None:
    """It compares the CPU and writes a test file on its instance store; and a test object in the pool of the root disk,
    unless these two were seen to work with one pool a short while ago."""
    move: MoveNotes = ctx.notes
    assert move.spec is not None
    pool = move.spec.root_pool
    is_known = ctx.pools is not None and ctx.pools.is_same(pool, move.source, move.destination)
    asks = move.asks_pool = bool(pool) and not is_known
    await ctx.ask(move.destination, CheckDestination(move.spec, move.source_cpu_xml, move.probe, asks))


async def remove_probe(ctx: Context) -> None:
    """The test file goes, whatever happens."""
    await ctx.ask(ctx.notes.destination, RemoveProbe(ctx.notes.probe, ctx.notes.asks_pool))


async def remove_probe_anywhere(ctx: Context) -> None:
    """From the source when the destination does not answer: on a shared store it is the same file."""
    try:
        await remove_probe(ctx)
    except Unreachable:
        await ctx.ask(ctx.notes.source, RemoveProbe(ctx.notes.probe, ctx.notes.asks_pool))


async def check_source(ctx: Context) -> None:
    """The guest runs there, and the test file tells whether the two share their store."""
    move: MoveNotes = ctx.notes
    answer = await ctx.ask(move.source, CheckSource(move.probe, move.asks_pool))
    must_pass(of_guest(answer.guest.state, "", ()))  # an agent of before does not look itself
    move.source_boot_id, move.load = answer.boot_id, answer.load
    assert move.spec is not None, "it was found"
    is_shared, needs_store, pool = answer.shared_store, move.spec.needs_store, move.spec.root_pool
    if move.asks_pool:
        must_pass((of_pool(move.source, move.destination, pool, is_shared=answer.shared_pool),))
        if pool and ctx.pools is not None:
            ctx.pools.note(pool, move.source, move.destination)
    move.apart = not is_shared and not needs_store
    move.copies_files = not is_shared and needs_store
    asked = ctx.params.get("block_migration")
    must_pass((of_store(move.source, move.destination, asked, is_shared=is_shared, needs_store=needs_store),))


async def let_guest_run_on(ctx: Context) -> None:
    """A cut switch can leave the guest paused at the source; the destination has been dismissed by now. One whose
    guest has run at the destination and ended there is ended too. One that was suspended stays as it is."""
    move: MoveNotes = ctx.notes
    if move.doomed:
        if move.doomed != move.source:
            with contextlib.suppress(DeclaredGone):  # a stranger there, which its return ends
                await _end_all(ctx, move.source)
        return
    try:
        guest = (await ctx.ask(move.source, Inspect())).guest
    except DeclaredGone:
        move.left = move.left or move.source
        return
    if guest.job is GuestJob.OUTGOING:
        raise NotYet(POLL_S, f"the copy away from {move.source} has not ended yet")
    if guest.state is GuestState.PAUSED and move.ended:
        await ctx.ask(move.source, Stop(0.0))
    elif guest.state is GuestState.PAUSED and not guest.suspended:
        assert move.spec is not None
        await ctx.ask(move.source, Start(move.spec))


async def _end_all(ctx: Context, host: str) -> None:
    """Of a guest that is deleted, on the host that does not delete its disk."""
    await ctx.ask(host, Stop(0.0))
    await ctx.ask(host, Release())


# -- the copy ---------------------------------------------------------------------------------------------------------
async def admit_guest(ctx: Context) -> None:
    """The destination expects it from now on, and only it."""
    host = ctx.notes.destination
    answer = await ctx.ask(host, Admit(ctx.notes.there))
    wrong = endpoint_mismatch(answer.endpoint, host, *await ctx.store.read(hosts.reached_at, host))
    require(wrong is None, wrong or "")
    ctx.notes.endpoint, ctx.notes.destination_boot_id = answer.endpoint, answer.boot_id


async def dismiss_guest(ctx: Context) -> None:
    """The destination ends what has half arrived; a guest that has arrived is never ended, but to be deleted."""
    move: MoveNotes = ctx.notes
    if move.doomed:
        await _end_all(ctx, move.destination)
        return
    guest = (await ctx.ask(move.destination, Dismiss())).guest
    if guest.state is GuestState.RUNNING:
        raise TooLate
    if guest.kept and (await look(ctx)).verdict in {Verdict.SWITCHED, Verdict.COPYING}:
        raise TooLate
    if move.apart:  # its directory there is its own, and a root disk in a pool is not
        is_in_pool = move.spec is not None and move.spec.root_pool
        await ctx.ask(move.destination, DropFiles() if is_in_pool else Remove())
        move.files_deleted = True


def bind_ports(tx: Tx, ctx: Context) -> None:
    """At the destination too: what it lets through is in force before the guest is there."""
    move: MoveNotes = ctx.notes
    if move.spec is not None and move.spec.nics:
        move.network_revision = server_ports.move(tx, ctx.instance_id, move.source, move.destination)


def is_bound(move: MoveNotes) -> bool:
    return move.network_revision > 0


def unbind_ports(tx: Tx, ctx: Context) -> None:
    """They are where the guest is: at the source, unless that is the host which is known not to have it."""
    move: MoveNotes = ctx.notes
    if move.destination in (move.left, move.doomed):
        server_ports.arrived(tx, ctx.instance_id, move.destination)
    else:
        server_ports.stayed(tx, ctx.instance_id, move.source)


async def await_ports(ctx: Context) -> None:
    move: MoveNotes = ctx.notes
    assert move.spec is not None
    await ports.until_in_force(ctx, move.destination, move.network_revision, move.spec.nics)


async def begin_copy(ctx: Context) -> None:
    move: MoveNotes = ctx.notes
    assert move.spec is not None and move.endpoint is not None, "it was admitted"
    begin = BeginCopy(move.there, move.endpoint, move.files, move.target)
    await ctx.ask(move.source, begin, ctx.settings.long_command_timeout_s)


async def abort_copy(ctx: Context) -> None:
    """Stop the copy; the guest may have crossed over meanwhile, and then it stays there."""
    move: MoveNotes = ctx.notes
    with contextlib.suppress(DeclaredGone):  # what it may still send is ended where it arrives
        await ctx.ask(move.source, AbortCopy(), ctx.settings.long_command_timeout_s)
    looked = await look(ctx)
    if looked.verdict is Verdict.UNDECIDED:
        if not await is_deleted_next(ctx):
            raise looked.undecided(move)
        move.doomed = move.destination if looked.gone == (False, True) else move.source
    elif looked.verdict is Verdict.SWITCHED or looked.ended_there(move) or looked.post_copy is not PostCopy.NONE:
        raise TooLate
    if looked.verdict is Verdict.LEFT:
        move.left = move.source if looked.gone[0] else move.destination
    looked.must_be_decided(move)


async def await_switch(ctx: Context) -> None:
    """The point of no return is the guest being at the destination, whatever is reported of the copy."""
    move: MoveNotes = ctx.notes
    looked = await look(ctx)
    if looked.verdict is Verdict.UNDECIDED:
        require(
            not await is_deleted_next(ctx),
            "the server is deleted, and the host that may run its guest was declared gone",
        )
        raise looked.undecided(move)
    if looked.verdict is Verdict.COPYING:
        await copy_phase.see_to_copy(ctx, looked)
    if looked.verdict is Verdict.TORN:
        await copy_phase.reconnect(ctx)
    if looked.verdict is Verdict.LOST or await copy_phase.ended_in_post_copy(ctx, looked):
        await copy_phase.end_halves(ctx)
        move.power_state = instances.POWER_SHUTDOWN
        return
    looked.must_be_decided(move)
    if looked.verdict is Verdict.SWITCHED:
        await _resume_once(ctx, looked)
        move.power_state = looked.power_state
        return
    if looked.ended_there(move):
        move.power_state = looked.power_state
        return
    if looked.verdict is Verdict.LEFT:
        gone, other = (move.source, move.destination)[:: 1 if looked.gone[0] else -1]
        raise StepFailed(f"{gone} was declared gone, and {other} has not got the guest")
    at_source = (await ctx.ask(move.source, Inspect())).guest
    why = "the guest ended together with its host" if move.died else (at_source.copy_error if at_source else "")
    raise StepFailed(f"the copy from {move.source} to {move.destination} ended: {why or 'the guest stayed'}")


async def _resume_once(ctx: Context, looked: GuestOnBothHosts) -> None:
    """One that has arrived and was left paused, by a fault of its disk perhaps. Its source has said that it does not
    run there; a source that is silent or was declared gone has not."""
    move: MoveNotes = ctx.notes
    there = looked.destination
    if there is None or there.state is not GuestState.PAUSED or there.suspended or move.resumed:
        return
    assert looked.source is not None and move.spec is not None, "only two that answer leave it paused and decided"
    move.resumed = True
    with contextlib.suppress(StepFailed, Unreachable):
        await ctx.ask(move.destination, Start(move.there))
    raise NotYet(0.0, f"the guest was paused at {move.destination} and is resumed")


def show_running(tx: Tx, ctx: Context) -> None:
    ctx.notes.may_copy = True
    foreseeing.record(tx, ctx)
    migrations.set_(tx, ctx.id, status=MigrationStatus.RUNNING.value)


def has_connections(move: MoveNotes) -> bool:
    return is_bound(move) and not move.lost


# -- after the switch -------------------------------------------------------------------------------------------------
async def carry_connections(ctx: Context) -> None:
    """While the source still has its port."""
    move: MoveNotes = ctx.notes
    assert move.spec is not None
    await ports.carry_connections(ctx, move.source, move.destination, move.spec.nics)


def record_switch(tx: Tx, ctx: Context) -> None:
    """The instance is where it runs; its claim moves from the migration's row to its own."""
    move: MoveNotes = ctx.notes
    migrations.set_(tx, ctx.id, holds_claim=False)
    instances.set_(
        tx,
        ctx.instance_id,
        host=move.destination,
        power_state=move.power_state,
        progress=0,
        ran_boot_id=None if move.died or move.lost else move.boot_id or None,
    )
    arrive(tx, ctx)


def arrive(tx: Tx, ctx: Context) -> None:
    """With its files, its ports and its volumes, also where it was moved cold."""
    move: MoveNotes = ctx.notes
    local_files.record_arrival(tx, ctx)
    if is_bound(move):
        server_ports.arrived(tx, ctx.instance_id, move.destination)
    held_volumes.arrive(tx, move)
    hosts.touch(tx, move.source, move.destination)


async def release_source(ctx: Context) -> None:
    """The source forgets what is left of it there."""
    await ctx.ask(ctx.notes.source, Release())


def record_done(tx: Tx, ctx: Context) -> None:
    move: MoveNotes = ctx.notes
    local_files.record_left(tx, ctx)
    foreseeing.record_end(tx, ctx, predictions.FAILED if move.lost else predictions.COMPLETED)
    became: dict[str, Any] = {}
    if move.lost:
        became = {
            "vm_state": VmState.ERROR.value,
            "fault": {"code": 500, "message": move.lost, "created_us": tx.now_us},
        }
        migrations.set_(tx, ctx.id, status=MigrationStatus.ERROR.value, error=move.lost)
    else:
        migrations.set_(tx, ctx.id, status=MigrationStatus.COMPLETED.value)
    instances.set_idle(tx, ctx.instance_id, progress=0, **became)
    tx.nudges.append(copy_phase.topic(move.source))


def record_failure(tx: Tx, ctx: Context) -> None:
    migrations.set_(tx, ctx.id, error=ctx.error)


def record_undone(tx: Tx, ctx: Context) -> None:
    """The instance is where it was. A guest that ended with its host is started there again, by the loop that finds it
    not running in any boot in which it is known to have run. One whose host was declared gone is not started."""
    move: MoveNotes = ctx.notes
    cancelled = sagas.cancel_asked(tx, ctx.id) is not None
    status = MigrationStatus.CANCELLED if cancelled else MigrationStatus.ERROR
    migrations.set_(tx, ctx.id, status=status.value)
    tx.nudges.append(copy_phase.topic(move.source))
    local_files.record_not_arrived(tx, ctx)
    foreseeing.record_end(tx, ctx, predictions.FAILED)
    became: dict[str, Any] = {"ran_boot_id": None} if move.died else {}
    if move.left:
        reason = (
            f"{move.left} was declared gone while the guest was being moved, and no other host has it: it is "
            "started nowhere else; delete the server, or readmit the host"
        )
        became |= {
            "vm_state": VmState.ERROR.value,
            "power_state": instances.POWER_NONE,
            "host": move.left,
            "fault": {"code": 500, "message": reason, "created_us": tx.now_us},
        }
        hosts.touch(tx, move.source, move.left)
    if move.doomed not in {"", move.source}:  # a deferred cleanup there
        became |= {"host": move.doomed, "power_state": instances.POWER_NONE}
        hosts.touch(tx, move.source, move.doomed)
    instances.set_idle(tx, ctx.instance_id, progress=0, **became)


LIVE_MIGRATION = Saga(
    SagaKind.LIVE_MIGRATION,
    MoveNotes,
    (
        Step("instance_runs", write=instance_runs, harmless=True),
        Step("withdraw_stale", do=held_volumes.withdraw_stale, needed=held_volumes.has_left, harmless=True),
        Step("choose_destination", write=choose_destination, unwrite=release_destination, did=has_destination),
        Step(
            "check_destination",
            do=check_destination,
            undo=remove_probe_anywhere,
            did=has_destination,
            deferred_cleanup=True,
        ),
        Step("check_source", do=check_source, undo=let_guest_run_on, did=may_copy),
        Step("remove_probe", do=remove_probe, harmless=True),
        Step("await_turn", do=copy_phase.await_turn, harmless=True),
        Step(
            "admit_destination",
            do=held_volumes.admit_destination,
            needed=held_volumes.has_volumes,
            undo=held_volumes.withdraw_destination,
            did=held_volumes.moves_with_volumes,
            deferred_cleanup=True,
        ),
        Step(
            "prepare_files",
            do=local_files.prepare_files,
            undo=local_files.drop_prepared,
            needed=local_files.lie_apart,
            did=local_files.are_copied,
            deferred_cleanup=True,
        ),
        Step("admit_guest", do=admit_guest, undo=dismiss_guest, did=has_destination, deferred_cleanup=True),
        Step("bind_ports", write=bind_ports, unwrite=unbind_ports, did=is_bound),
        Step("await_ports", do=await_ports, needed=is_bound, harmless=True),
        Step("show_running", write=show_running, harmless=True),
        Step("begin_copy", do=begin_copy, undo=abort_copy, did=may_copy),
        Step("await_switch", do=await_switch, pivot=True),
        Step("carry_connections", do=carry_connections, needed=has_connections),
        Step("record_switch", write=record_switch),
        Step("keep_files", do=local_files.keep_arrived, needed=local_files.are_copied, deferred_cleanup=True),
        Step("release_source", do=release_source, deferred_cleanup=True),
        Step(
            "withdraw_source",
            do=held_volumes.withdraw_source,
            needed=held_volumes.has_volumes,
            deferred_cleanup=True,
        ),
        Step("drop_files", do=local_files.drop_left, needed=local_files.lie_apart, deferred_cleanup=True),
        Step("record_done", write=record_done),
    ),
    failed=record_failure,
    undone=record_undone,
)

assert {step.name for step in LIVE_MIGRATION.steps[: LIVE_MIGRATION.position_of("admit_guest")]} == CHECKS - {START}
assert {step.name for step in LIVE_MIGRATION.steps[LIVE_MIGRATION.pivot + 1 :]} == AFTER_SWITCH
