"""The database was restored from a backup: hosts have obeyed generations that its rows have not reached."""

from __future__ import annotations

import asyncio

import pytest

from droveway.agents.fences import Fence
from droveway.domain.faults import Stale
from droveway.domain.model import GuestState, SagaKind, of_instance, of_saga
from droveway.drivers.hypervisor.simulated.fleet import Domain
from droveway.ports.bus import Command, Stop
from droveway.ports.replies import Answer, Refused, StaleFence
from droveway.store.compute import instances
from droveway.store.work import events, sagas
from tests.control.world import World, world

AHEAD = 150


def lift(w: World, host: str, instance_id: str) -> int:
    """What that host did after the backup was taken; the generation up to which it did."""
    fences = w.agents[host]._fences
    seen = fences.read(of_instance(instance_id)).generation + AHEAD
    fences.write(of_instance(instance_id), Fence(seen, "Start", "ok"))
    return seen


@pytest.mark.parametrize("kind", [SagaKind.STOP, SagaKind.DELETE, SagaKind.LIVE_MIGRATION])
async def test_one_step_and_one_reason(kind: SagaKind) -> None:
    async with world() as w:
        instance_id = await w.create()
        seen = {host: lift(w, host, instance_id) for host in w.agents}
        saga_id = await w.store.run(instances.intend, instance_id, kind, {})
        async with asyncio.timeout(2):  # a runner that drops the saga takes it up again after five seconds
            await w.quiet()
        await w.check(instance_id)
        assert (await w.store.read(sagas.get, saga_id))["status"] == "done"
        said = [
            tick["text"]
            for one in await w.store.read(events.of_subject, of_saga(saga_id))
            for tick in one["body"]["ticks"]
            if tick["mark"] == "?"
        ]
        assert len(said) == len({one.split()[0] for one in said}) > 0, "each host once at most"
        assert all("restored from a backup" in one for one in said)
        assert (await w.store.read(instances.get, instance_id, None, deleted=True))["fence"] > max(seen.values()) - 5


async def test_a_leftover_is_ended_by_the_next_report() -> None:
    async with world() as w:
        instance_id = await w.create()
        place = (await w.store.read(instances.get, instance_id))["host"]
        other = "h2" if place == "h1" else "h1"
        w.fleet.hosts[other].domains[instance_id] = Domain(GuestState.SHUTOFF, 128, is_defined=True)
        lift(w, other, instance_id)
        await w.report()
        await w.report()
        assert instance_id not in w.fleet.hosts[other].domains


async def test_a_higher_generation_counts_once_for_each_host() -> None:
    async with world() as w:
        instance_id = await w.create()
        place = (await w.store.read(instances.get, instance_id))["host"]
        asked: list[int] = []

        async def handle(command: Command) -> Answer:
            if isinstance(command.verb, Stop):
                asked.append(command.generation)
                return StaleFence("newer", command.generation + 1000)
            return Refused("no")

        w.agents[place].handle = handle  # type: ignore[method-assign]
        await w.store.run(instances.intend, instance_id, SagaKind.STOP, {})
        async with asyncio.timeout(2):
            while len(asked) < 2:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        assert len(asked) == 2


def test_a_stale_saga_stays_stale_where_the_host_knows_no_more_than_the_row() -> None:
    assert Stale("somebody newer").generation == 0
