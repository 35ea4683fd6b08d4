"""Stop, start and the two reboots: one command to the host where the instance is, then the record."""

from __future__ import annotations

from typing import Any

from droveway.control.engine.saga import Context, Saga, SpecNotes, Step, require
from droveway.domain.model import GuestState, SagaKind, VmState
from droveway.ports.bus import PowerCycle, Start, Stop
from droveway.ports.replies import GuestStatus
from droveway.store.compute import instances, server_ports
from droveway.store.engine.transaction import Tx


def find_guest(tx: Tx, ctx: Context) -> None:
    instance = instances.get(tx, ctx.instance_id)
    spec = instances.spec(tx, instance, ctx.settings.images_path, with_image=False)
    ctx.notes = SpecNotes(instances.host_of(instance), spec)


async def stop_guest(ctx: Context) -> None:
    """Ask it to power off, wait for the grace, end it."""
    grace_s = _grace_s(ctx)
    answer = await ctx.ask(ctx.notes.host, Stop(grace_s), grace_s + ctx.settings.command_timeout_s)
    require(answer.guest.state is not GuestState.RUNNING, f"{ctx.notes.host}: the guest was stopped and still runs")


def _grace_s(ctx: Context) -> float:
    """The word of its image, or the configuration's."""
    own_s: float | None = ctx.notes.spec.hardware.power_off_s
    return ctx.settings.stop_grace_s if own_s is None else own_s


async def start_guest(ctx: Context) -> None:
    answer = await ctx.ask(ctx.notes.host, Start(ctx.notes.spec), ctx.settings.long_command_timeout_s)
    must_run(ctx, answer)


async def cycle_guest(ctx: Context) -> None:
    """Off and on again; a soft reboot asks the guest to power off first."""
    is_graceful = ctx.kind is SagaKind.SOFT_REBOOT or ctx.params.get("graceful")  # a row of an older release says so
    grace_s = _grace_s(ctx) if is_graceful else 0.0
    timeout_s = grace_s + ctx.settings.long_command_timeout_s
    answer = await ctx.ask(ctx.notes.host, PowerCycle(ctx.notes.spec, grace_s), timeout_s)
    must_run(ctx, answer)


def must_run(ctx: Context, answer: GuestStatus) -> None:
    require(answer.guest.state is GuestState.RUNNING, f"{ctx.notes.host}: the guest was started and does not run")
    ctx.notes.boot_id = answer.boot_id


def record_stopped(tx: Tx, ctx: Context) -> None:
    record_off(tx, ctx, fault=None)


def record_off(tx: Tx, ctx: Context, **values: Any) -> None:
    """It is off. A fault stays where `values` do not say otherwise."""
    off = {"vm_state": VmState.STOPPED.value, "power_state": instances.POWER_SHUTDOWN}
    instances.set_idle(tx, ctx.instance_id, **off, **values)
    server_ports.set_status(tx, ctx.instance_id, is_running=False)


def record_running(tx: Tx, ctx: Context) -> None:
    """One that is rescued, or whose resize is to be confirmed, stays so: its host had gone down under it, and it is
    started again."""
    is_rescued = ctx.kind is SagaKind.START and ctx.notes.spec is not None and ctx.notes.spec.rescue
    is_resized = instances.get(tx, ctx.instance_id)["vm_state"] == VmState.RESIZED
    became = VmState.RESCUED if is_rescued else VmState.RESIZED if is_resized else VmState.ACTIVE
    instances.set_idle(
        tx,
        ctx.instance_id,
        vm_state=became.value,
        fault=None,
        power_state=instances.POWER_RUNNING,
        ran_boot_id=ctx.notes.boot_id,
    )
    server_ports.set_status(tx, ctx.instance_id, is_running=True)


def record_failure(tx: Tx, ctx: Context) -> None:
    """The host refused: the instance stays what it was, and says why; the power loop reads what it really is."""
    instances.set_(tx, ctx.instance_id, fault={"code": 500, "message": ctx.error, "created_us": tx.now_us})


def set_idle(tx: Tx, ctx: Context) -> None:
    instances.set_idle(tx, ctx.instance_id)


FIND = Step("find_guest", write=find_guest, harmless=True)
STOP = Saga(
    SagaKind.STOP,
    SpecNotes,
    (
        FIND,
        Step("stop_guest", do=stop_guest, pivot=True),
        Step("record_stopped", write=record_stopped),
    ),
    failed=record_failure,
    undone=set_idle,
)
START = Saga(
    SagaKind.START,
    SpecNotes,
    (
        FIND,
        Step("start_guest", do=start_guest, pivot=True),
        Step("record_running", write=record_running),
    ),
    failed=record_failure,
    undone=set_idle,
)


def _reboot(kind: SagaKind) -> Saga:
    return Saga(
        kind,
        SpecNotes,
        (
            FIND,
            Step("cycle_guest", do=cycle_guest, pivot=True),
            Step("record_running", write=record_running),
        ),
        failed=record_failure,
        undone=set_idle,
    )


HARD_REBOOT, SOFT_REBOOT = _reboot(SagaKind.HARD_REBOOT), _reboot(SagaKind.SOFT_REBOOT)
