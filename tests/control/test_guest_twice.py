"""Two hosts that say they run the same guest: said aloud, at both of them, and nothing is ended."""

from __future__ import annotations

import asyncio

from droveway.control.engine.nudges import Nudges
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.control.loops.guests import GuestsLoop
from droveway.domain.model import GuestState, of_host, of_instance
from droveway.domain.resources import LastReport
from droveway.drivers.hypervisor.simulated.fleet import Domain
from droveway.store.compute import instances
from droveway.store.fleet import services
from droveway.store.work import events
from tests.control.world import DirectBus, World, world


async def alarms(w: World, name: str) -> list[str]:
    subject = of_host(name) if name in w.agents else of_instance(name)
    return [one["body"]["reason"] for one in await w.store.read(events.of_subject, subject) if one["kind"] == "alarm"]


async def test_two_hosts_that_claim_one_guest_raise_an_alarm_at_both_and_nothing_is_ended() -> None:
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


async def test_a_guest_under_a_new_name_of_its_host_is_distinguished_from_one_that_runs_twice() -> None:
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
        assert await alarms(w, instance_id) == [f"it runs on {other} although its place is {place}; nothing was ended"]
        assert await w.runs_on(instance_id) == [other]


async def test_a_guest_that_its_host_misses_and_another_has_is_not_started_a_second_time() -> None:
    async with world() as w:
        instance_id = await w.create()
        place = (await w.store.read(instances.get, instance_id))["host"]
        other = "h2" if place == "h1" else "h1"
        w.fleet.hosts[other].domains[instance_id] = w.fleet.hosts[place].domains.pop(instance_id)
        w.agents[place]._boot_id = "a later boot"  # as if it had gone down under its guests
        for _ in range(3):
            await w.report()
        await w.quiet()
        assert await w.runs_on(instance_id) == [other]
        row = await w.store.read(instances.get, instance_id)
        assert (row["vm_state"], row["task_state"], row["host"]) == ("active", None, place)
        (said,) = await alarms(w, instance_id)
        assert said == f"it runs on {other} although its place is {place}; nothing was ended"


async def test_a_guest_that_another_host_had_and_has_no_more_is_started_again_at_its_own() -> None:
    async with world() as w:
        instance_id = await w.create()
        place = (await w.store.read(instances.get, instance_id))["host"]
        other = "h2" if place == "h1" else "h1"
        guest = w.fleet.hosts[place].domains.pop(instance_id)
        w.agents[place]._boot_id = "a later boot"
        w.fleet.hosts[other].domains[instance_id] = guest
        await w.report()
        assert await w.runs_on(instance_id) == [other]
        del w.fleet.hosts[other].domains[instance_id]
        await w.report()
        await w.quiet()
        assert await w.runs_on(instance_id) == [place]


async def test_a_control_that_has_just_begun_waits_for_all_reports_before_it_starts_a_missed_guest() -> None:
    async with world() as w:
        instance_id = await w.create()
        place = (await w.store.read(instances.get, instance_id))["host"]
        other = "h2" if place == "h1" else "h1"
        w.fleet.hosts[other].domains[instance_id] = w.fleet.hosts[place].domains.pop(instance_id)
        w.agents[place]._boot_id = "a later boot"
        observer = Observer(w.clock, Nudges(), LivenessSettings())
        loop = GuestsLoop(w.store, DirectBus(w), observer, Nudges(), w.settings)
        observer.learn(await w.store.read(services.on_hosts))
        for host in (place, other):  # the one that misses it is the first to say so
            observer.inbox.accept(await w.agents[host].reports.full(), LastReport(0, 0))
            await loop._once()
            await w.quiet()
            assert await w.runs_on(instance_id) == [other]
        assert len(await alarms(w, instance_id)) == 1
        await w.report()  # the other control sees it as well, and knows that it was said
        assert len(await alarms(w, instance_id)) == 1
