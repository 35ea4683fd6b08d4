"""Programs in which what is done to servers breaks a law: rebuilds and rescues, in the worlds that have them."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from droveway.control.engine.saga import Context, Saga
from droveway.control.sagas import STORIES, spare_disks
from droveway.control.sagas.power import must_run
from droveway.control.sagas.rebuild import REBUILD
from droveway.control.sagas.rescue import UNRESCUE
from droveway.domain.model import SagaKind, SpareDisk
from droveway.ports.bus import PowerCycle
from droveway.simulation import workloads
from droveway.simulation.world import Parts
from tests.simulation.caught import caught_by

PLAYED = range(workloads.RENEWED_AT, 600, workloads.RENEWED_EVERY)


def changed(story: Saga, kind: SagaKind, **steps: dict[str, Any]) -> Parts:
    """The program with some steps of that story changed."""
    new = tuple(dataclasses.replace(step, **steps.get(step.name, {})) for step in story.steps)
    return Parts(stories=STORIES | {kind: dataclasses.replace(story, steps=new)})


async def begin_from_the_same(ctx: Context) -> None:
    """From the disk that it was rescued with."""
    spec = msgspec.structs.replace(ctx.notes.spec, rescue=True)
    must_run(ctx, await ctx.ask(ctx.notes.host, PowerCycle(spec, 0.0), ctx.settings.long_command_timeout_s))


async def leave_it(ctx: Context) -> None:
    del ctx


async def never_replace(ctx: Context) -> None:
    await spare_disks.drop(ctx, SpareDisk.RESCUE)


MUTANTS = {
    "an unrescue that changes nothing": changed(
        UNRESCUE, SagaKind.UNRESCUE, begin_from_own={"do": begin_from_the_same}, drop_disk={"do": leave_it}
    ),
    "a rebuild that does not replace its disk": changed(REBUILD, SagaKind.REBUILD, replace_disk={"do": never_replace}),
}
CAUGHT_BY = {
    "an unrescue that changes nothing": 69,
    "a rebuild that does not replace its disk": 55,
}


@pytest.mark.matrix
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str) -> None:
    seed, reason = caught_by(MUTANTS[name], CAUGHT_BY.get(name, PLAYED[0]), PLAYED)
    print(f"{name}: caught by seed {seed}: {reason}")
