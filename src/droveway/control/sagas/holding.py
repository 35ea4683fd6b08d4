"""Pause and suspend, each with what ends it, and the interrupt that makes a guest dump its memory: one command to the
host where the instance is, then the record."""

from __future__ import annotations

from droveway.control.engine.saga import Context, Saga, SpecNotes, Step, require
from droveway.control.sagas.power import FIND, must_run, record_failure, record_running, set_idle
from droveway.domain.model import GuestState, SagaKind, VmState
from droveway.ports.bus import InjectNmi, Pause, Start, Suspend, Unpause
from droveway.store.compute import instances, server_ports
from droveway.store.engine.transaction import Tx


async def pause_guest(ctx: Context) -> None:
    answer = await ctx.ask(ctx.notes.host, Pause())
    require(answer.guest.state is GuestState.PAUSED, f"{ctx.notes.host}: the guest was paused and is not")


async def unpause_guest(ctx: Context) -> None:
    """Only let it go on: one that has ended meanwhile is not started again by that."""
    must_run(ctx, await ctx.ask(ctx.notes.host, Unpause()))


async def suspend_guest(ctx: Context) -> None:
    """As long as its memory takes to be written."""
    answer = await ctx.ask(ctx.notes.host, Suspend(), ctx.settings.long_command_timeout_s)
    require(answer.guest.saved, f"{ctx.notes.host}: the guest was suspended, and its memory is not there")


async def resume_guest(ctx: Context) -> None:
    """From its memory. Where that is not there any more it boots, which beats a server that nobody can start."""
    must_run(ctx, await ctx.ask(ctx.notes.host, Start(ctx.notes.spec), ctx.settings.long_command_timeout_s))


async def interrupt_guest(ctx: Context) -> None:
    await ctx.ask(ctx.notes.host, InjectNmi())


def record_paused(tx: Tx, ctx: Context) -> None:
    instances.set_idle(
        tx, ctx.instance_id, vm_state=VmState.PAUSED.value, fault=None, power_state=instances.POWER_PAUSED
    )


def record_suspended(tx: Tx, ctx: Context) -> None:
    instances.set_idle(
        tx, ctx.instance_id, vm_state=VmState.SUSPENDED.value, fault=None, power_state=instances.POWER_SHUTDOWN
    )
    server_ports.set_status(tx, ctx.instance_id, is_running=False)


def _story(kind: SagaKind, act: Step, record: Step) -> Saga:
    return Saga(kind, SpecNotes, (FIND, act, record), failed=record_failure, undone=set_idle)


_RUNS = Step("record_running", write=record_running)
PAUSE = _story(
    SagaKind.PAUSE, Step("pause_guest", do=pause_guest, pivot=True), Step("record_paused", write=record_paused)
)
UNPAUSE = _story(SagaKind.UNPAUSE, Step("unpause_guest", do=unpause_guest, pivot=True), _RUNS)
SUSPEND = _story(
    SagaKind.SUSPEND,
    Step("suspend_guest", do=suspend_guest, pivot=True),
    Step("record_suspended", write=record_suspended),
)
RESUME = _story(SagaKind.RESUME, Step("resume_guest", do=resume_guest, pivot=True), _RUNS)
TRIGGER_CRASH_DUMP = _story(
    SagaKind.TRIGGER_CRASH_DUMP,
    Step("interrupt_guest", do=interrupt_guest, pivot=True),
    Step("set_idle", write=set_idle),
)
