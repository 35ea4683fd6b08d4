"""Live migration on a shared store, told once, top to bottom.

Is the instance running; is its host up; which destination; do both see the same store; then copy, switch, record,
clean. The copy goes from hypervisor to hypervisor and needs none of us: only what both hosts say decides where the
guest is (domain/migration.py).
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from droveway.control import asks
from droveway.control.saga import Context, NoRoom, NotYet, Saga, Step, TooLate, guest_of, must
from droveway.domain.faults import Busy, NotFound, StepFailed, Unreachable
from droveway.domain.migration import CHECKED, Verdict, verdict
from droveway.domain.model import (
    CopyProgress,
    Guest,
    GuestJob,
    GuestSpec,
    GuestState,
    MigrationEndpoint,
    MigrationStatus,
    SagaKind,
    VmState,
)  # fmt: skip
from droveway.placement.plan import first_failing
from droveway.ports.bus import (
    AbortCopy,
    Admit,
    BeginCopy,
    CheckDestination,
    CheckSource,
    Dismiss,
    Inspect,
    Release,
    RemoveProbe,
    Start,
    Stop,
)  # fmt: skip
from droveway.store import hosts, instances, migrations, sagas
from droveway.store.transaction import Tx

POLL_S = 0.5
PROGRESS_S = 1.0


class Move(msgspec.Struct):
    """What the saga has learnt so far."""

    source: str = ""
    destination: str = ""
    spec: GuestSpec | None = None
    source_cpu_xml: str = ""
    probe: str = ""
    endpoint: MigrationEndpoint | None = None
    boot_id: str = ""  # of the destination, when the guest was seen to run there
    source_boot_id: str = ""  # before the copy
    destination_boot_id: str = ""  # when it admitted the guest
    may_copy: bool = True  # the source may have been told to begin; a saga of an older release does not say
    ended: bool = False  # it was found to run on neither host: what is paused at the source is a husk
    died: bool = False  # and one of the two had booted since: the guest ended with its host, not by itself


# -- the checks, in the order of the articles -------------------------------------------------------------------------
def instance_runs(tx: Tx, ctx: Context) -> None:
    """Is the instance running, and is its host up?"""
    instance = instances.get(tx, ctx.instance_id)
    must(instance["vm_state"] == VmState.ACTIVE, f"instance {instance['name']} is {instance['vm_state']}, not active")
    must(not instances.cells_of(instance), f"instance {instance['name']} holds NUMA cells of {instance['host']} and is "
         "bound to them; it cannot be moved while it runs")  # fmt: skip
    source = hosts.source(tx, instance["host"])
    must(source.is_up, f"its host {source.name} is down: {source.sentence}")
    must(source.hypervisor_up, f"the hypervisor of its host {source.name} does not answer")
    ctx.notes = Move(source=source.name, spec=instances.spec(tx, instance, ctx.settings.images_path, with_image=False),
                     probe=f"probe-{ctx.id}", may_copy=False)  # fmt: skip
    migrations.set_(tx, ctx.id, status=MigrationStatus.PREPARING.value, source=source.name)


def choose_destination(tx: Tx, ctx: Context) -> None:
    """Check the host that was asked for, or find one; claim its room. The claim is the migration's own row."""
    move: Move = ctx.notes
    asked = ctx.params.get("destination")
    must(asked != move.source, f"{move.source} is where the instance already runs; name another host, or none")
    instance = instances.get(tx, ctx.instance_id)
    try:
        source = hosts.source(tx, move.source)
        decision = ctx.placer.choose(tx, asks.to_move(tx, instance, source, asked))
        there = None if asked is None or decision.host is not None else hosts.facts(tx, asked)
    except NotFound as fault:
        raise StepFailed(fault.sentence) from None
    if decision.host is None:
        failing = None if there is None else first_failing(there, decision.ask, ctx.placer.settings)
        raise NoRoom(decision, f"{asked} cannot take it: {failing.sentence}" if failing else "", may_wait=False)
    ctx.decision = decision
    move.destination = decision.host
    move.source_cpu_xml = source.cpu_xml
    migrations.set_(tx, ctx.id, destination=decision.host, holds_claim=True)


def has_destination(move: Move) -> bool:
    return bool(move.destination)


def may_copy(move: Move) -> bool:
    """Before that the guest is as it was found, and nothing that is done to it is ours to undo."""
    return move.may_copy


def release_destination(tx: Tx, ctx: Context) -> None:
    migrations.set_(tx, ctx.id, holds_claim=False)
    hosts.touch(tx, ctx.notes.destination or None)


async def check_destination(ctx: Context) -> None:
    """It compares the CPU and writes a test file on its instance store."""
    move: Move = ctx.notes
    assert move.spec is not None
    await ctx.ask(move.destination, CheckDestination(move.spec, move.source_cpu_xml, move.probe))


async def remove_probe(ctx: Context) -> None:
    """The test file goes, whatever happens."""
    await ctx.ask(ctx.notes.destination, RemoveProbe(ctx.notes.probe))


async def remove_probe_anywhere(ctx: Context) -> None:
    """From the source when the destination does not answer: on a shared store it is the same file."""
    try:
        await remove_probe(ctx)
    except Unreachable:
        await ctx.ask(ctx.notes.source, RemoveProbe(ctx.notes.probe))


async def check_source(ctx: Context) -> None:
    """The guest runs there, and the test file tells whether the two share their store."""
    move: Move = ctx.notes
    answer = await ctx.ask(move.source, CheckSource(move.probe))
    must(guest_of(answer).state is GuestState.RUNNING, f"{move.source}: the guest does not run there now")
    move.source_boot_id = answer.boot_id
    shared = bool(answer.shared_store)
    must(shared, f"{move.source} and {move.destination} do not share their instance store, and only a shared one can "
                 "be migrated on; give both the same instances_path on shared storage")  # fmt: skip
    must(ctx.params.get("block_migration") is not True, f"block migration is refused: {move.source} and "
         f"{move.destination} share their instance store; ask without block migration")  # fmt: skip


async def let_guest_run_on(ctx: Context) -> None:
    """A cut switch can leave the guest paused at the source; the destination has been dismissed by now. A husk, whose
    guest has run at the destination and ended there, is ended too. One that somebody suspended stays as it is."""
    move: Move = ctx.notes
    guest = guest_of(await ctx.ask(move.source, Inspect()))
    if guest.job is GuestJob.OUTGOING:
        raise NotYet(POLL_S)
    if guest.state is GuestState.PAUSED and move.ended:
        await ctx.ask(move.source, Stop(0.0))
    elif guest.state is GuestState.PAUSED and not guest.suspended:
        assert move.spec is not None
        await ctx.ask(move.source, Start(move.spec))


# -- the copy ---------------------------------------------------------------------------------------------------------
async def admit_guest(ctx: Context) -> None:
    """The destination expects it from now on, and only it."""
    answer = await ctx.ask(ctx.notes.destination, Admit(ctx.notes.spec))
    ctx.notes.endpoint, ctx.notes.destination_boot_id = answer.endpoint, answer.boot_id


async def dismiss_guest(ctx: Context) -> None:
    """The destination ends what has half arrived; a guest that runs there is never ended."""
    guest = guest_of(await ctx.ask(ctx.notes.destination, Dismiss()))
    if guest.state is GuestState.RUNNING:
        raise TooLate


async def begin_copy(ctx: Context) -> None:
    await ctx.ask(ctx.notes.source, BeginCopy(ctx.notes.spec, ctx.notes.endpoint), ctx.settings.long_command_timeout_s)


async def abort_copy(ctx: Context) -> None:
    """Stop the copy; the guest may have crossed over meanwhile, and then it stays there."""
    await ctx.ask(ctx.notes.source, AbortCopy(), ctx.settings.long_command_timeout_s)
    found = await _verdict(ctx)
    if found is Verdict.SWITCHED:
        raise TooLate
    if found is Verdict.COPYING:
        raise NotYet(POLL_S)
    if found is Verdict.WAIT:
        raise _must_answer(ctx.notes)


async def await_switch(ctx: Context) -> None:
    """The point of no return is the guest running at the destination, whoever says what about the copy."""
    move: Move = ctx.notes
    found = await _verdict(ctx)
    if found is Verdict.COPYING:
        raise NotYet(POLL_S)
    if found is Verdict.WAIT:
        raise _must_answer(move)
    if found is not Verdict.SWITCHED:
        said = (await ctx.ask(move.source, Inspect())).guest
        why = "the guest ended together with its host" if move.died else (said.copy_error if said else "")
        raise StepFailed(f"the copy from {move.source} to {move.destination} ended: {why or 'the guest stayed'}")


def _must_answer(move: Move) -> Unreachable:
    return Unreachable(f"{move.source} or {move.destination} must answer before anybody may say where the guest is")


async def _verdict(ctx: Context) -> Verdict:
    move: Move = ctx.notes
    source, source_boot_id = await _look(ctx, move.source)
    if source is not None and source.job is GuestJob.OUTGOING:
        await _show_progress(ctx, source)
        return Verdict.COPYING
    destination, boot_id = await _look(ctx, move.destination)
    if source is not None and source.state is GuestState.RUNNING and destination is not None \
            and destination.state is GuestState.RUNNING:  # fmt: skip
        # Asked one after the other, the two answers may lie on either side of a switch: ask the first again.
        source, source_boot_id = await _look(ctx, move.source)
    move.boot_id = boot_id
    rebooted = boot_id != move.destination_boot_id
    found = verdict(source, destination, destination_rebooted=rebooted)
    if found is Verdict.ENDED:
        move.ended = True
        move.died = rebooted or source_boot_id != move.source_boot_id
    return found


async def _look(ctx: Context, host: str) -> tuple[Guest | None, str]:
    """The guest as that host sees it; None when the host does not answer."""
    try:
        answer = await ctx.ask(host, Inspect())
    except Unreachable:
        return None, ""
    return guest_of(answer), answer.boot_id


async def _show_progress(ctx: Context, guest: Guest) -> None:
    """At most once a second: for people, not for the saga."""
    now_s = asyncio.get_running_loop().time()
    if guest.progress is None or now_s - ctx.progress_saved_s < PROGRESS_S:
        return
    ctx.progress_saved_s = now_s
    with contextlib.suppress(Busy):
        await ctx.store.run(_save_progress, ctx.id, ctx.instance_id, guest.progress)


def _save_progress(tx: Tx, saga_id: str, instance_id: str, progress: CopyProgress) -> None:
    migrations.set_(tx, saga_id, progress=progress)
    total = progress.memory_total_bytes
    percent = 0 if total == 0 else int(100 * (total - progress.memory_remaining_bytes) / total)
    instances.set_(tx, instance_id, progress=max(0, min(100, percent)))


def show_running(tx: Tx, ctx: Context) -> None:
    ctx.notes.may_copy = True
    migrations.set_(tx, ctx.id, status=MigrationStatus.RUNNING.value)


# -- after the switch -------------------------------------------------------------------------------------------------
def record_switch(tx: Tx, ctx: Context) -> None:
    """The instance is where it runs; its claim moves from the migration's row to its own."""
    move: Move = ctx.notes
    migrations.set_(tx, ctx.id, holds_claim=False)
    instances.set_(tx, ctx.instance_id, host=move.destination, power_state=instances.POWER_RUNNING, progress=0,
                   ran_boot_id=move.boot_id)  # fmt: skip
    hosts.touch(tx, move.source, move.destination)


async def release_source(ctx: Context) -> None:
    """The source forgets what is left of it there."""
    await ctx.ask(ctx.notes.source, Release())


def record_done(tx: Tx, ctx: Context) -> None:
    migrations.set_(tx, ctx.id, status=MigrationStatus.COMPLETED.value)
    instances.rest(tx, ctx.instance_id, progress=0)


def record_failure(tx: Tx, ctx: Context) -> None:
    migrations.set_(tx, ctx.id, error=ctx.error)


def record_undone(tx: Tx, ctx: Context) -> None:
    """The instance is where it was. A guest that ended with its host is started there again, by the loop that finds it
    not running in any boot in which it is known to have run."""
    cancelled = sagas.cancel_asked(tx, ctx.id) is not None
    status = MigrationStatus.CANCELLED if cancelled else MigrationStatus.ERROR
    migrations.set_(tx, ctx.id, status=status.value)
    died: dict[str, None] = {"ran_boot_id": None} if ctx.notes.died else {}
    instances.rest(tx, ctx.instance_id, progress=0, **died)


LIVE_MIGRATION = Saga(SagaKind.LIVE_MIGRATION, Move, (
    Step("instance_runs", write=instance_runs, harmless=True),
    Step("choose_destination", write=choose_destination, unwrite=release_destination, did=has_destination),
    Step("check_destination", do=check_destination, undo=remove_probe_anywhere, did=has_destination,
         owed=True),
    Step("check_source", do=check_source, undo=let_guest_run_on, did=may_copy),
    Step("remove_probe", do=remove_probe, harmless=True),
    Step("admit_guest", do=admit_guest, undo=dismiss_guest, did=has_destination, owed=True),
    Step("show_running", write=show_running, harmless=True),
    Step("begin_copy", do=begin_copy, undo=abort_copy, did=may_copy),
    Step("await_switch", do=await_switch, pivot=True),
    Step("record_switch", write=record_switch),
    Step("release_source", do=release_source, owed=True),
    Step("record_done", write=record_done),
), failed=record_failure, undone=record_undone)  # fmt: skip

assert LIVE_MIGRATION.position_of("admit_guest") == CHECKED, "every check stands before it"
