"""A story about two instances, which is there in simulation alone: both are rebooted, and no other saga touches either
meanwhile. No story of this release holds a second subject yet; what the store and the runner do with one is played
here. It is the reboot of the program with one step more, in which the other instance is taken; a reboot of one
instance is what it always was.
"""

from __future__ import annotations

import dataclasses

from droveway.control.engine.saga import Context, Saga, SpecNotes, Step, require
from droveway.control.sagas import STORIES
from droveway.control.sagas.power import HARD_REBOOT, cycle_guest, find_guest, record_running
from droveway.domain.faults import Conflict
from droveway.domain.lifecycle import refusal
from droveway.domain.model import GuestState, SagaKind, TaskState, VmState, of_instance
from droveway.ports.bus import PowerCycle
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.work import sagas

OTHER = "together_with"  # of the params: the other instance


class RebootNotes(SpecNotes):
    """Notes of a reboot; `other`: the same of the other instance, if there is one."""

    other: SpecNotes | None = None


def begin(tx: Tx, instance_id: str, other: str, *, at_once: bool) -> None:
    """Reboot both. The other one is taken `at_once`, with all that must be waited for, or by a step on the way. Raises
    Conflict, NotFound."""
    instance = instances.get(tx, instance_id)
    reason = refusal(
        SagaKind.HARD_REBOOT, instance["name"], instance["vm_state"], instance["task_state"], instance["host"]
    )
    if reason is not None or sagas.active_of(tx, of_instance(instance_id)) is not None:
        raise Conflict(reason or f"instance {instance['name']} is in use")
    holds = (of_instance(other),) if at_once else ()
    own, params = of_instance(instance_id), {OTHER: other}
    sagas.enqueue(tx, SagaKind.HARD_REBOOT, own, instance["project_id"], params, request_id="", holds=holds)
    instances.set_(tx, instance_id, task_state=TaskState.REBOOTING_HARD.value)


def find_both(tx: Tx, ctx: Context) -> None:
    find_guest(tx, ctx)
    ctx.notes = RebootNotes(ctx.notes.host, ctx.notes.spec)
    other = ctx.params.get(OTHER)
    if other is not None:
        ctx.hold(tx, of_instance(other))
        row = instances.get(tx, other)
        require(row["vm_state"] == VmState.ACTIVE.value, f"instance {row['name']} does not run")
        spec = instances.spec(tx, row, ctx.settings.images_path, with_image=False)
        ctx.notes.other = SpecNotes(instances.host_of(row), spec)


async def cycle_both(ctx: Context) -> None:
    await cycle_guest(ctx)
    other: SpecNotes | None = ctx.notes.other
    if other is not None and other.spec is not None:
        about = of_instance(other.spec.instance_id)
        answer = await ctx.ask(other.host, PowerCycle(other.spec, 0.0), ctx.settings.long_command_timeout_s, about)
        require(answer.guest.state is GuestState.RUNNING, f"{other.host}: the other guest does not run")
        other.boot_id = answer.boot_id


def record_both(tx: Tx, ctx: Context) -> None:
    record_running(tx, ctx)
    other = ctx.notes.other
    if other is not None:
        instances.set_idle(
            tx, other.spec.instance_id, power_state=instances.POWER_RUNNING, ran_boot_id=other.boot_id, fault=None
        )


_CHANGED = {
    "find_guest": Step("find_guest", write=find_both, harmless=True),
    "cycle_guest": Step("cycle_guest", do=cycle_both, pivot=True),
    "record_running": Step("record_running", write=record_both),
}
TOGETHER: dict[SagaKind, Saga] = STORIES | {
    SagaKind.HARD_REBOOT: dataclasses.replace(
        HARD_REBOOT, notes=RebootNotes, steps=tuple(_CHANGED[step.name] for step in HARD_REBOOT.steps)
    )
}
