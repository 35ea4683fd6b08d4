"""Boot: choose a host, make the guest's files there, start it. An instance is never half there."""

from __future__ import annotations

import msgspec

from droveway.control.saga import Context, Saga, SpecNotes, Step, guest_of, must
from droveway.domain import scheduling
from droveway.domain.faults import StepFailed
from droveway.domain.model import GuestState, SagaKind, TaskState, VmState
from droveway.ports.bus import Prepare, Remove, Start
from droveway.store import events, hosts, instances
from droveway.store.transaction import Tx


def choose_host(tx: Tx, ctx: Context) -> None:
    """Rank the hosts and claim room on the best; the claim is the instance's own row."""
    instance = instances.get(tx, ctx.instance_id)
    spec = instances.spec(tx, instance, ctx.settings.images_path, with_image=True)
    ask = scheduling.Ask(spec.vcpus, spec.ram_mb, spec.disk_gb, only=ctx.params.get("requested_host"),
                         zone=instance["zone"])  # fmt: skip
    views = {view.name: view for view in map(hosts.view, hosts.list_all(tx))}
    plan = scheduling.place(ask, views.values(), ctx.settings.ratios)
    decision = {"ask": msgspec.to_builtins(ask), "plan": msgspec.to_builtins(plan)}
    events.record(tx, "placement", ctx.instance_id, decision, ctx.project_id)
    if not plan.ranked:
        raise StepFailed(scheduling.sentence(plan))
    chosen = plan.ranked[0]
    hosts.claim(tx, ask, views[chosen], ctx.settings.ratios)
    shown = {} if instance["task_state"] == TaskState.DELETING else {"task_state": TaskState.SPAWNING.value}
    instances.set_(tx, ctx.instance_id, host=chosen, **shown)
    ctx.notes = SpecNotes(chosen, spec)


def release_host(tx: Tx, ctx: Context) -> None:
    instances.set_(tx, ctx.instance_id, host=None)


async def prepare_guest(ctx: Context) -> None:
    """Its directory and its disk, made from the image. May take as long as the image is large: the host says that it
    is at work, and is asked again."""
    await ctx.ask(ctx.notes.host, Prepare(ctx.notes.spec), ctx.settings.long_command_timeout_s)


async def remove_guest(ctx: Context) -> None:
    """Whatever of it there is: running, half made or nothing."""
    await ctx.ask(ctx.notes.host, Remove(), ctx.settings.long_command_timeout_s)


async def start_guest(ctx: Context) -> None:
    answer = await ctx.ask(ctx.notes.host, Start(ctx.notes.spec), ctx.settings.long_command_timeout_s)
    must(guest_of(answer).state is GuestState.RUNNING, f"{ctx.notes.host}: the guest was started and does not run")
    ctx.notes.boot_id = answer.boot_id


def record_running(tx: Tx, ctx: Context) -> None:
    instances.rest(tx, ctx.instance_id, vm_state=VmState.ACTIVE.value, fault=None, launched_at_us=tx.now_us,
                   power_state=instances.POWER_RUNNING, ran_boot_id=ctx.notes.boot_id)  # fmt: skip


def record_failure(tx: Tx, ctx: Context) -> None:
    """Said at once: the undoing may still take a while."""
    fault = {"code": 500, "message": ctx.error, "created_us": tx.now_us}
    instances.set_(tx, ctx.instance_id, vm_state=VmState.ERROR.value, fault=fault)


def rest(tx: Tx, ctx: Context) -> None:
    instances.rest(tx, ctx.instance_id)


BOOT = Saga(SagaKind.BOOT, SpecNotes, (
    Step("choose_host", write=choose_host, unwrite=release_host),
    Step("prepare_guest", do=prepare_guest, undo=remove_guest),
    Step("start_guest", do=start_guest, pivot=True),
    Step("record_running", write=record_running),
), failed=record_failure, undone=rest)  # fmt: skip
