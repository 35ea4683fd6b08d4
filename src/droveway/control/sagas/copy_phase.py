"""While a guest is copied: its turn among those that leave the same host, what is shown of it, and what is done so that
it ends. What is decided stands in domain/migration_ladder.py; here it is asked of the source, recorded, and shown."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import msgspec

from droveway.control.engine.saga import Context, NotYet
from droveway.control.liveness.admission import DeclaredGone
from droveway.control.sagas.whereabouts import POLL_S, GuestOnBothHosts, MoveNotes
from droveway.domain import migration_ladder
from droveway.domain.faults import Busy, StepFailed
from droveway.domain.migration import Verdict
from droveway.domain.migration_ladder import CopyTarget, LadderAction, LadderDecision, LadderState
from droveway.domain.model import (
    CopyChange,
    CopyProgress,
    Guest,
    GuestState,
    PostCopy,
    TaskState,
    of_saga,
)
from droveway.ports.bus import AdjustCopy, ResumePostCopy, Stop
from droveway.store.compute import instances, migrations
from droveway.store.compute.migrations import ShownProgress
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow
from droveway.store.work import events

SHOWN_EVERY_S = 3.0
QUEUE_LOOK_S = 5.0
CHANGES = {
    LadderAction.POST_COPY: CopyChange(post_copy=True),
    LadderAction.PAUSE: CopyChange(pause=True),
}
NOTED = "*"  # the mark of what a copy's ticks tell: nothing was done or undone by it
REFUSED_MAX = 3  # times that its host may say no to what the copy needs


@dataclass
class Watched:
    """One copy, as far as this process has seen it."""

    ladder: LadderState
    is_queued: bool = False
    shown: tuple[Any, ...] = ()  # when it was shown last: what is notable, and how many bytes
    shown_s: float = -1e9
    noted: str = ""  # last
    refusals: int = 0


def _watched(ctx: Context) -> Watched:
    if ctx.watched is None:
        ctx.watched = Watched(migration_ladder.begin(ctx.notes.target))
    watched: Watched = ctx.watched
    return watched


def target_of(instance: InstanceRow, default: CopyTarget) -> CopyTarget:
    """Raises StepFailed for a wish that is none."""
    specs: dict[str, Any] = instance["flavor"].get("extra_specs") or {}
    try:
        return migration_ladder.target_of(default, specs, instance["metadata"])
    except ValueError as wrong:
        raise StepFailed(f"instance {instance['name']}: {wrong}") from None


# -- its turn ---------------------------------------------------------------------------------------------------------
def topic(host: str) -> str:
    """What nudges those that wait to leave that host."""
    return f"copies:{host}"


async def await_turn(ctx: Context) -> None:
    """At most so many leave a host at once; the others wait in the order in which they were asked for. Rows alone tell
    whose turn it is: a control that has restarted finds the same order."""
    move: MoveNotes = ctx.notes
    place = await ctx.store.read(migrations.ahead, ctx.id) - ctx.settings.copies_at_once + 1
    watched = _watched(ctx)
    if watched.is_queued != (place > 0):
        await ctx.store.run(migrations.show_turn, ctx.id, is_queued=place > 0)
        watched.is_queued = place > 0
    if place <= 0:
        return
    waits = f"{ctx.settings.copies_at_once} copies are leaving {move.source} already, and it is number {place} in line"
    raise NotYet(QUEUE_LOOK_S, waits, topic(move.source))


# -- what is done about it --------------------------------------------------------------------------------------------
async def see_to_copy(ctx: Context, looked: GuestOnBothHosts) -> None:
    """Show how far it is, and do what it needs to end. Raises StepFailed when it is given up; NotYet where something
    was done about it."""
    move: MoveNotes = ctx.notes
    source = looked.source
    if source is None or source.progress is None:
        return
    decision = await _decide(ctx, source)
    await _show(ctx, source, source.progress)
    if decision is None:
        return
    if decision.action is LadderAction.STOP:
        raise StepFailed(f"the copy from {move.source} to {move.destination} was given up: {decision.reason}")
    change = CHANGES.get(decision.action) or CopyChange(downtime_max_ms=decision.downtime_ms)
    try:
        await ctx.ask(move.source, AdjustCopy(change))
    except StepFailed as refused:
        watched = _watched(ctx)
        watched.refusals += 1
        if watched.refusals >= REFUSED_MAX:
            raise StepFailed(f"{decision.reason}; {decision.action} was refused: {refused.reason}") from None
        raise NotYet(POLL_S, f"{decision.action} was refused: {refused.reason}") from None
    if change.post_copy:  # it may be lost before it is looked at again
        split = msgspec.structs.replace(_shown(ctx, source, source.progress), post_copy=PostCopy.ACTIVE.value)
        await ctx.store.run(migrations.set_progress, ctx.id, source.progress, split)
    await _note(ctx, _sentence(decision))
    raise NotYet(POLL_S, f"the copy from {move.source} to {move.destination} goes on: {_sentence(decision)}")


def _sentence(decision: LadderDecision) -> str:
    what = f"{decision.action} to {decision.downtime_ms} ms" if decision.downtime_ms else decision.action.value
    return f"{what}: {decision.reason}"


async def _decide(ctx: Context, source: Guest) -> LadderDecision | None:
    """None where all that could be done is done: a guest that stands still, or is at its destination, is not slower.
    And where it is forced before its memory is copied: what its host would refuse then is done as soon as it may be."""
    move: MoveNotes = ctx.notes
    if source.progress is None or source.state is GuestState.PAUSED or source.post_copy is not PostCopy.NONE:
        return None
    watched = _watched(ctx)
    watched.ladder, decision = migration_ladder.next_action(move.target, watched.ladder, source.progress)
    if not await ctx.store.read(migrations.is_forced, ctx.id):
        return decision
    forced = migration_ladder.forced(move.target)
    is_too_early = forced.action is LadderAction.POST_COPY and source.progress.iteration == 0
    return decision if is_too_early else forced


async def ended_in_post_copy(ctx: Context, looked: GuestOnBothHosts) -> bool:
    """Neither host has it any more, and it had begun to run at the destination: that defines a guest before it starts
    it. Post-copy is asked for, and begins a moment later: a source that is off by then takes a guest with it that has
    run nowhere else."""
    there = looked.destination
    if looked.verdict is not Verdict.ENDED or there is None or there.state is not GuestState.SHUTOFF:
        return False
    return await ctx.store.read(migrations.was_split, ctx.id)


async def reconnect(ctx: Context) -> None:
    """A guest whose memory lies on two hosts stands still until they are connected again; nothing else saves it. One
    that is to be deleted is not saved."""
    move: MoveNotes = ctx.notes
    if (await ctx.store.read(instances.get, ctx.instance_id))["task_state"] == TaskState.DELETING:
        await end_halves(ctx)
        raise NotYet(0.0, "its halves were ended: it is to be deleted")
    assert move.spec is not None and move.endpoint is not None, "it was copied"
    await _note_once(ctx, f"post-copy was cut: {move.source} and {move.destination} are connected again")
    refusal = ""
    try:
        await ctx.ask(move.source, ResumePostCopy(move.spec, move.endpoint, move.files))
    except StepFailed as refused:
        refusal = f": {refused.reason}"
    raise NotYet(
        2 * POLL_S,
        f"its memory lies on {move.source} and {move.destination}, and the connection between them was cut; it is "
        f"made again{refusal}",
    )


async def end_halves(ctx: Context) -> None:
    """Of a guest that was lost in post-copy. Its destination goes last, whose row it is in: there it is stopped."""
    move: MoveNotes = ctx.notes
    move.lost = move.lost or (
        f"the guest was lost in post-copy: its memory lay on {move.source} and {move.destination}, and one of the two "
        "lost its half; its disk is whole, as after a loss of power: start the server again"
    )
    for host in (move.source, move.destination):
        with contextlib.suppress(DeclaredGone):
            await ctx.ask(host, Stop(0.0))


# -- what is shown of it ----------------------------------------------------------------------------------------------
def _shown(ctx: Context, guest: Guest, seen: CopyProgress) -> ShownProgress:
    move: MoveNotes = ctx.notes
    is_split = guest.post_copy is not PostCopy.NONE
    left_s = migration_ladder.time_left_s(seen)
    return ShownProgress(
        policy=move.target.policy.value,
        iteration=seen.iteration,
        elapsed_ms=seen.elapsed_ms,
        rate_bytes_s=seen.rate_bytes_s,
        dirty_bytes_s=0 if is_split else seen.dirty_bytes_s,
        throttle_percent=seen.throttle_percent,
        downtime_ms=seen.downtime_ms,
        downtime_max_ms=_watched(ctx).ladder.downtime_ms,
        time_left_s=None if left_s is None else round(left_s, 1),
        post_copy=guest.post_copy.value,
        paused=guest.state is GuestState.PAUSED and not is_split,
    )


async def _show(ctx: Context, guest: Guest, seen: CopyProgress) -> None:
    """For people, not for the saga: what has changed, and seldom, but at once where the guest is slowed down or
    split."""
    watched, now_s = _watched(ctx), asyncio.get_running_loop().time()
    notable = (seen.throttle_percent, guest.post_copy, guest.state)
    shown = (*notable, seen.memory_remaining_bytes, seen.disk_remaining_bytes, seen.iteration)
    is_new = bool(watched.shown) and watched.shown[: len(notable)] != notable
    if shown == watched.shown or (not is_new and now_s - watched.shown_s < SHOWN_EVERY_S):
        return
    watched.shown, watched.shown_s = shown, now_s
    with contextlib.suppress(Busy):
        await ctx.store.run(_save, ctx.id, ctx.instance_id, seen, _shown(ctx, guest, seen))
    if is_new and seen.throttle_percent:
        await _note_once(ctx, f"the guest is slowed down by {seen.throttle_percent} %")


def _save(tx: Tx, saga_id: str, instance_id: str, seen: CopyProgress, shown: ShownProgress) -> None:
    migrations.set_progress(tx, saga_id, seen, shown)
    total = seen.memory_total_bytes + seen.disk_total_bytes
    rest = seen.memory_remaining_bytes + seen.disk_remaining_bytes
    percent = 0 if total == 0 else int(100 * (total - rest) / total)
    instances.set_(tx, instance_id, progress=max(0, min(100, percent)))


async def _note(ctx: Context, text: str) -> None:
    """Into the history of the saga."""
    with contextlib.suppress(Busy):
        await ctx.store.run(_record, ctx.id, ctx.generation, ctx.project_id, text)


async def _note_once(ctx: Context, text: str) -> None:
    if _watched(ctx).noted != text:
        _watched(ctx).noted = text
        await _note(ctx, text)


def _record(tx: Tx, saga_id: str, generation: int, project_id: str, text: str) -> None:
    tick = {"step": "await_switch", "mark": NOTED, "ms": 0.0, "text": text}
    events.record(tx, "saga", of_saga(saga_id), {"generation": generation, "ticks": [tick]}, project_id)
