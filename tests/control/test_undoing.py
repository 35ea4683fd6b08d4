"""What a saga did not do it does not undo: an undo reads what its step recorded."""

from __future__ import annotations

import dataclasses

import pytest

from droveway.control.engine.saga import Saga, Step
from droveway.control.sagas import STORIES
from droveway.control.sagas.live_migration import LIVE_MIGRATION
from droveway.domain.model import GuestState, SagaKind
from droveway.drivers.hypervisor.simulated.fleet import Domain
from droveway.ports.bus import Admit, Command
from droveway.ports.replies import Answer
from droveway.store.compute import instances
from tests.control.world import World, world


async def pause(w: World, *, suspended: bool) -> tuple[str, Domain]:
    """A guest that is paused on its host, by somebody or by a fault of its disk."""
    instance_id = await w.create()
    place = (await w.store.read(instances.get, instance_id))["host"]
    domain = w.fleet.hosts[place].domains[instance_id]
    domain.state, domain.suspended = GuestState.PAUSED, suspended
    return instance_id, domain


@pytest.mark.parametrize("suspended", [True, False])
async def test_a_migration_that_is_refused_leaves_a_paused_guest_paused(suspended: bool) -> None:
    async with world() as w:
        instance_id, domain = await pause(w, suspended=suspended)
        assert await w.do(instance_id, SagaKind.LIVE_MIGRATION) == "undone"
        assert domain.state is GuestState.PAUSED
        assert [verb for _, verb in w.commands] == [
            "Prepare",
            "Start",
            "CheckDestination",
            "CheckSource",
            "RemoveProbe",
        ]
        assert w.fleet.stores["shared"].probes == {}


async def test_one_suspended_once_the_checks_have_passed_stays_so_too() -> None:
    async with world() as w:
        instance_id = await w.create()
        place = (await w.store.read(instances.get, instance_id))["host"]
        domain = w.fleet.hosts[place].domains[instance_id]
        for agent in w.agents.values():
            handle = agent.handle

            async def suspend_then_obey(command: Command, handle=handle) -> Answer:  # type: ignore[no-untyped-def]
                if isinstance(command.verb, Admit):
                    domain.state, domain.suspended = GuestState.PAUSED, True
                return await handle(command)  # type: ignore[no-any-return]

            agent.handle = suspend_then_obey  # type: ignore[method-assign]
        assert await w.do(instance_id, SagaKind.LIVE_MIGRATION) == "undone"
        assert (domain.state, domain.suspended) == (GuestState.PAUSED, True)


@pytest.mark.parametrize("kind", SagaKind)
def test_every_undo_says_what_it_looks_at(kind: SagaKind) -> None:
    for step in STORIES[kind].steps:
        assert (step.undo is not None or step.unwrite is not None) == (step.did is not None), step.name


def test_a_story_whose_undo_looks_at_nothing_is_none() -> None:
    steps = tuple(dataclasses.replace(step, did=None) for step in LIVE_MIGRATION.steps)
    with pytest.raises(AssertionError, match="an undo reads what its step recorded"):
        Saga(SagaKind.LIVE_MIGRATION, LIVE_MIGRATION.notes, steps, LIVE_MIGRATION.failed, LIVE_MIGRATION.undone)


async def test_a_mutant_that_undoes_what_was_not_done_wakes_the_guest() -> None:
    """The same story with one line changed: so that the tests above are known to look."""
    steps: tuple[Step, ...] = tuple(
        dataclasses.replace(step, did=lambda _: True) if step.name == "check_source" else step
        for step in LIVE_MIGRATION.steps
    )
    async with world() as w:
        instance_id, domain = await pause(w, suspended=False)
        mutant = dataclasses.replace(LIVE_MIGRATION, steps=steps)
        w.control.runner._stories = STORIES | {SagaKind.LIVE_MIGRATION: mutant}  # type: ignore[union-attr]
        assert await w.do(instance_id, SagaKind.LIVE_MIGRATION) == "undone"
        assert domain.state is GuestState.RUNNING
