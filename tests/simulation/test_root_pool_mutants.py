"""Root disks in pools with one law taken out: the simulation must catch each."""

from __future__ import annotations

import contextlib
import dataclasses

import msgspec
import pytest

from droveway.agents.compute import ComputeAgent
from droveway.control.engine.saga import Context, Saga
from droveway.control.sagas.boot import BOOT
from droveway.control.sagas.delete import DELETE
from droveway.ports.bus import Command, DropFiles, Remove
from droveway.ports.hypervisor import HypervisorDown
from droveway.ports.replies import Answer
from droveway.simulation import root_pools
from droveway.simulation.together import TOGETHER
from droveway.simulation.world import Parts
from tests.simulation.caught import SEEDS_MAX, caught_by

PLAYED = [seed for seed in range(1, 2000) if root_pools.are_played(seed)][:SEEDS_MAX]


class RemovesWhateverThereIs(ComputeAgent):
    """A host that a guest has left deletes with its files what it sees in the pool, wherever the guest lives by now."""

    pool = ""

    async def handle(self, command: Command) -> Answer:
        if isinstance(command.verb, DropFiles):
            with contextlib.suppress(HypervisorDown):
                self.pool, _ = await self._hypervisor.root_disks()
            command = msgspec.structs.replace(command, verb=Remove(self.pool))
        return await super().handle(command)


async def removes_files_alone(ctx: Context) -> None:
    if ctx.notes.host:
        await ctx.ask(ctx.notes.host, Remove(), ctx.settings.long_command_timeout_s)


async def deletes_files_alone(ctx: Context) -> None:
    await removes_files_alone(ctx)
    ctx.notes.host = ""


def story(saga: Saga, name: str, **changed: object) -> Parts:
    """With one step of it changed."""
    steps = [dataclasses.replace(step, **changed) if step.name == name else step for step in saga.steps]  # type: ignore[arg-type]
    assert any(step.name == name for step in steps)
    return Parts(stories=TOGETHER | {saga.kind: dataclasses.replace(saga, steps=tuple(steps))})


MUTANTS = {
    "removed from wherever it lives": Parts(agent=RemovesWhateverThereIs),
    "left by an undone boot": story(BOOT, "prepare_guest", undo=removes_files_alone),
    "left by a deletion": story(DELETE, "remove_guest", do=deletes_files_alone),
}
SAID = {
    "removed from wherever it lives": ("is deleted while it lives", "is not in simulated", "lost root disk"),
    "left by an undone boot": ("a root disk of", "root disk left", "stray root disk"),
    "left by a deletion": ("a root disk of", "root disk left"),
}
CAUGHT_BY: dict[str, int] = {}


@pytest.mark.parametrize("name", MUTANTS)
def test_it_is_caught(name: str) -> None:
    seed, reason = caught_by(MUTANTS[name], CAUGHT_BY.get(name, PLAYED[0]), PLAYED)
    print(f"{name}: caught by seed {seed}: {reason}")
    assert any(words in reason for words in SAID[name]), reason
