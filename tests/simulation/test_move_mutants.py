"""Moves with one law taken out, in post-copy and while a server is off: the simulation must catch each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from droveway.control.engine.saga import Context, NotYet, Saga
from droveway.control.sagas import STORIES, copy_phase
from droveway.control.sagas.cold_migration import COLD_MIGRATION, RESIZE_SERVER
from droveway.control.sagas.live_migration import LIVE_MIGRATION, await_switch
from droveway.control.sagas.resize_ends import CONFIRM_RESIZE, REVERT_RESIZE
from droveway.control.sagas.whereabouts import POLL_S, look
from droveway.domain.migration import Verdict
from droveway.domain.model import PostCopy, SagaKind
from droveway.ports.bus import AbortCopy
from droveway.simulation import guest_memory, resize_users
from droveway.simulation.world import Parts
from tests.simulation.caught import caught_by

NUMBERS = range(1, 4000)
SEEDS = 60
WRITERS = [seed for seed in NUMBERS if seed % guest_memory.EVERY == guest_memory.WHICH][:SEEDS]
COLD = [seed for seed in NUMBERS if resize_users.are_played(seed)][:SEEDS]


class Mutant(NamedTuple):
    """`first`: the seed that caught it when last looked."""

    parts: Parts
    played: Sequence[int]
    first: int


def changed(*stories: Saga, **steps: dict[str, Any]) -> Parts:
    """The program with those steps of these stories changed, where they have them."""
    new: dict[SagaKind, Saga] = {}
    for story in stories:
        made = tuple(dataclasses.replace(step, **steps.get(step.name, {})) for step in story.steps)
        new[story.kind] = dataclasses.replace(story, steps=made)
    assert all(any(step.name == name for story in stories for step in story.steps) for name in steps)
    return Parts(stories=STORIES | new)


async def nothing(ctx: Context) -> None:
    """It is said to have been done."""
    del ctx


# -- in post-copy -----------------------------------------------------------------------------------------------------
async def aborted_although_split(ctx: Context) -> None:
    """A guest that runs at its destination already is taken for one that stayed."""
    await ctx.ask(ctx.notes.source, AbortCopy(), ctx.settings.long_command_timeout_s)
    looked = await look(ctx)
    if looked.post_copy is PostCopy.NONE:
        looked.must_be_decided(ctx.notes)


async def never_reconnected(ctx: Context) -> None:
    """Whoever cut it may mend it."""
    looked = await look(ctx)
    if looked.verdict is Verdict.TORN:
        raise NotYet(POLL_S, "it was cut")
    await await_switch(ctx)


async def given_up_when_cut(ctx: Context) -> None:
    """Two halves that could be joined again are ended."""
    looked = await look(ctx)
    if looked.verdict is Verdict.TORN:
        await copy_phase.end_halves(ctx)
        return
    await await_switch(ctx)


async def a_half_left(ctx: Context) -> None:
    """One that was lost is recorded, and what stands still of it is left where it is."""
    looked = await look(ctx)
    if looked.verdict is Verdict.LOST or await copy_phase.ended_in_post_copy(ctx, looked):
        ctx.notes.lost = "it was lost"
        return
    await await_switch(ctx)


COLD_STORIES = (COLD_MIGRATION, RESIZE_SERVER)
MUTANTS = {
    "an abort in post-copy": Mutant(changed(LIVE_MIGRATION, begin_copy={"undo": aborted_although_split}), WRITERS, 61),
    "a cut that is left": Mutant(changed(LIVE_MIGRATION, await_switch={"do": never_reconnected}), WRITERS, 82),
    "a cut taken for a loss": Mutant(changed(LIVE_MIGRATION, await_switch={"do": given_up_when_cut}), WRITERS, 73),
    "a half that is left": Mutant(changed(LIVE_MIGRATION, await_switch={"do": a_half_left}), WRITERS, 85),
    "started there and never stopped here": Mutant(changed(*COLD_STORIES, stop_guest={"do": nothing}), COLD, 7),
    "undone and not started again": Mutant(changed(*COLD_STORIES, stop_guest={"undo": nothing}), COLD, 48),
    "undone while it runs there": Mutant(changed(*COLD_STORIES, start_there={"undo": nothing}), COLD, 56),
    "undone with the grown disk": Mutant(changed(*COLD_STORIES, keep_disk={"undo": nothing}), COLD, 39),
    "reverted while it runs there": Mutant(changed(REVERT_RESIZE, stop_guest={"do": nothing}), COLD, 95),
    "reverted with the grown disk": Mutant(changed(REVERT_RESIZE, restore_disk={"do": nothing}), COLD, 95),
    "confirmed and the copy kept": Mutant(changed(CONFIRM_RESIZE, forget_kept={"do": nothing}), COLD, 18),
}


@pytest.mark.matrix
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str) -> None:
    mutant = MUTANTS[name]
    seed, reason = caught_by(mutant.parts, mutant.first, mutant.played)
    print(f"{name}: caught by seed {seed}: {reason}")
