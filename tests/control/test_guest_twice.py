"""Two hosts that say they run the same guest: said aloud, at both of them, and nothing is ended."""

from __future__ import annotations

import asyncio

from droveway.domain.model import GuestState
from droveway.drivers.hypervisor.fleet import Domain
from droveway.store import events, instances
from tests.control.world import World, world


async def alarms(w: World, subject: str) -> list[str]:
    return [one["body"]["sentence"] for one in await w.store.read(events.of_subject, subject) if one["kind"] == "alarm"]


def test_two_hosts_that_claim_one_guest_raise_an_alarm_at_both_and_nothing_is_ended() -> None:
    async def play() -> None:
        async with world() as w:
            instance_id = await w.create()
            place = (await w.store.read(instances.get, instance_id))["host"]
            other = "h2" if place == "h1" else "h1"
            w.fleet.hosts[other].domains[instance_id] = Domain(GuestState.RUNNING, 128, is_defined=True)
            for _ in range(3):  # said once, however often they report it
                await w.report()
            twice = f"it runs on {other} and on {place} at once, and both write to its disk; nothing was ended"
            (said,) = await alarms(w, instance_id)
            assert said.startswith(twice)
            for host in (place, other):
                (said,) = await alarms(w, host)
                assert said.startswith(f"guest {instance_id}: {twice}")
            assert sorted(await w.runs_on(instance_id)) == ["h1", "h2"]

    asyncio.run(play())


def test_a_guest_under_a_new_name_of_its_host_is_told_from_one_that_runs_twice() -> None:
    async def play() -> None:
        async with world() as w:
            instance_id = await w.create()
            place = (await w.store.read(instances.get, instance_id))["host"]
            other = "h2" if place == "h1" else "h1"
            w.fleet.hosts[other].domains[instance_id] = w.fleet.hosts[place].domains.pop(instance_id)
            w.gone_from[place] = 0
            report = await w.agents[other].reports.full()
            assert w.on_notice is not None
            w.on_notice(report)
            await asyncio.sleep(0.05)
            assert await alarms(w, instance_id) == [
                f"it runs on {other} although its place is {place}; nothing was ended"
            ]
            assert await w.runs_on(instance_id) == [other]

    asyncio.run(play())
