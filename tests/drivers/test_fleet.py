"""The simulated world's own laws: a breach of any is on record; and its faults do what they are named for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from droveway.agents.move_trials import must_pass
from droveway.domain.model import Guest, GuestJob, GuestSpec, GuestState
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.drivers.hypervisor.simulated.driver import (
    Durations,
    Faults,
    Fleet,
    InvariantViolated,
    SimulatedHypervisor,
)
from droveway.ports.hypervisor import HypervisorDown, HypervisorRefused

Story = Callable[[Fleet, SimulatedHypervisor, SimulatedHypervisor], Awaitable[None]]


def told(story: Story, violations: int = 0) -> Fleet:
    async def run() -> Fleet:
        fleet = Fleet(SystemClock(), SystemChance())
        drivers = []
        for name in ("a", "b"):
            fleet.add_host(name)
            drivers.append(await client(fleet, name))
        await story(fleet, *drivers)
        return fleet

    fleet = asyncio.run(run())
    assert len(fleet.violations) == violations
    return fleet


async def client(fleet: Fleet, name: str) -> SimulatedHypervisor:
    driver = SimulatedHypervisor(fleet, name)
    await driver.open(lambda _id: None, lambda _up, _why: None)
    return driver


def spec() -> GuestSpec:
    return GuestSpec(SystemNames().uuid(), "g", 1, 128, 1)


async def boot(driver: SimulatedHypervisor) -> GuestSpec:
    guest = spec()
    await driver.prepare(guest)
    await driver.start(guest)
    return guest


async def begin(a: SimulatedHypervisor, b: SimulatedHypervisor, guest: GuestSpec) -> None:
    await b.admit(guest)
    await a.begin_migration(guest, b.endpoint())


async def ended(driver: SimulatedHypervisor, guest: GuestSpec) -> Guest:
    while True:
        found = await driver.guest(guest.instance_id)
        if found.job is not GuestJob.OUTGOING:
            return found
        await asyncio.sleep(0.001)


def test_a_guest_never_runs_on_two_hosts() -> None:
    async def story(_: Fleet, a: SimulatedHypervisor, b: SimulatedHypervisor) -> None:
        guest = await boot(a)
        with pytest.raises(InvariantViolated, match="lives on a"):
            await b.start(guest)

    told(story, violations=1)


def test_a_disk_is_never_deleted_under_its_guest() -> None:
    async def story(_: Fleet, a: SimulatedHypervisor, b: SimulatedHypervisor) -> None:
        guest = await boot(a)
        with pytest.raises(InvariantViolated, match="deleted"):
            await b.remove(guest.instance_id)

    told(story, violations=1)


def test_a_husk_never_runs_again_not_even_when_its_guest_is_dead() -> None:
    async def story(fleet: Fleet, a: SimulatedHypervisor, b: SimulatedHypervisor) -> None:
        fleet.faults = Faults(half_switched=1.0)
        guest = await boot(a)
        await begin(a, b, guest)
        assert (await ended(a, guest)).state is GuestState.PAUSED
        await b.stop(guest.instance_id, 0.0)
        # What tells a stale husk from a switch that was cut: the destination has a definition only if it ran there.
        assert (await b.guest(guest.instance_id)).state is GuestState.SHUTOFF
        with pytest.raises(InvariantViolated, match="husk"):
            await a.start(guest)

    told(story, violations=1)


def test_a_living_guest_is_not_lost_by_letting_go_of_it() -> None:
    async def story(fleet: Fleet, a: SimulatedHypervisor, b: SimulatedHypervisor) -> None:
        fleet.durations = Durations(switch=(0.05, 0.05))
        guest = await boot(a)
        await begin(a, b, guest)
        await asyncio.sleep(0.01)
        assert (await a.guest(guest.instance_id)).state is GuestState.PAUSED
        await a.release(guest.instance_id)  # paused for the switch: its copy is still at work
        assert (await ended(a, guest)).state is GuestState.ABSENT
        assert (await b.guest(guest.instance_id)).state is GuestState.RUNNING

    told(story)


@pytest.mark.parametrize("dies", ["a", "b"])
@pytest.mark.parametrize("when_s", [0.005, 0.03, 0.055, 0.08])
def test_a_host_s_death_takes_only_what_ran_there(dies: str, when_s: float) -> None:
    async def story(fleet: Fleet, a: SimulatedHypervisor, b: SimulatedHypervisor) -> None:
        step = (0.02, 0.02)
        fleet.durations = Durations(arrive=step, copy=step, switch=step, tail=step)
        guest, other = await boot(a), await boot(b)
        await begin(a, b, guest)
        await asyncio.sleep(when_s)
        lived_on = fleet.lives_on[guest.instance_id]
        fleet.crash_host(dies)
        with pytest.raises(HypervisorDown):
            await (a if dies == "a" else b).guest(guest.instance_id)
        assert (guest.instance_id in fleet.lives_on) == (lived_on != dies)
        assert (other.instance_id in fleet.lives_on) == (dies != "b")
        assert fleet.copies == {}
        assert guest.instance_id in fleet.stores["shared"].disks
        fleet.boot_host(dies)
        again = await client(fleet, dies)
        assert (await again.guest(guest.instance_id)).state in (GuestState.SHUTOFF, GuestState.ABSENT)
        survivor = b if dies == "a" else a
        state = (await survivor.guest(guest.instance_id)).state
        expected = GuestState.RUNNING if lived_on != dies else None
        assert expected is None or state is expected

    told(story)


def test_the_client_of_an_earlier_boot_can_do_nothing() -> None:
    async def story(fleet: Fleet, a: SimulatedHypervisor, _: SimulatedHypervisor) -> None:
        guest = await boot(a)
        fleet.crash_host("a")
        fleet.boot_host("a")
        with pytest.raises(HypervisorDown):
            await a.start(guest)
        await (await client(fleet, "a")).start(guest)

    told(story)


def test_what_a_dead_client_asked_for_is_done_and_the_next_verb_waits_for_it() -> None:
    async def story(fleet: Fleet, a: SimulatedHypervisor, _: SimulatedHypervisor) -> None:
        guest = spec()
        await a.prepare(guest)
        fleet.durations = Durations(start=(0.05, 0.05))
        start = asyncio.create_task(a.start(guest))
        await asyncio.sleep(0)
        start.cancel()
        a.abandon()
        again = await client(fleet, "a")
        await again.remove(guest.instance_id)
        await asyncio.sleep(0.1)
        assert (await again.guest(guest.instance_id)).state is GuestState.ABSENT
        assert fleet.lives_on == {}

    told(story)


def test_a_command_may_fail_after_it_has_acted() -> None:
    async def story(fleet: Fleet, a: SimulatedHypervisor, b: SimulatedHypervisor) -> None:
        guest = spec()
        await a.prepare(guest)
        fleet.faults = Faults(refused_after_acting=1.0)
        with pytest.raises(HypervisorRefused):
            await a.start(guest)
        assert (await a.guest(guest.instance_id)).state is GuestState.RUNNING
        with pytest.raises(HypervisorRefused):
            await b.admit(guest)
        with pytest.raises(HypervisorRefused):
            await a.begin_migration(guest, b.endpoint())
        assert (await ended(a, guest)).state is GuestState.ABSENT
        assert (await b.guest(guest.instance_id)).state is GuestState.RUNNING

    told(story)


def test_a_copy_may_fail_and_its_guest_runs_on() -> None:
    async def story(fleet: Fleet, a: SimulatedHypervisor, b: SimulatedHypervisor) -> None:
        fleet.faults = Faults(copy_fails=1.0)
        guest = await boot(a)
        await begin(a, b, guest)
        after = await ended(a, guest)
        assert after.state is GuestState.RUNNING
        assert after.copy_error
        assert (await b.guest(guest.instance_id)).state is GuestState.ABSENT
        fleet.faults = Faults()
        await begin(a, b, guest)
        assert await ended(a, guest) == Guest(guest.instance_id, GuestState.ABSENT)

    told(story)


def test_a_guest_s_own_crash_is_said() -> None:
    async def story(fleet: Fleet, a: SimulatedHypervisor, _: SimulatedHypervisor) -> None:
        guest = await boot(a)
        fleet.crash_guest("a", guest.instance_id)
        assert await a.guest(guest.instance_id) == Guest(guest.instance_id, GuestState.SHUTOFF, crashed=True)
        await a.start(guest)
        assert await a.guest(guest.instance_id) == Guest(guest.instance_id, GuestState.RUNNING)

    told(story)


def test_hosts_of_another_store_or_an_older_cpu_are_refused_in_time() -> None:
    async def story(fleet: Fleet, a: SimulatedHypervisor, _: SimulatedHypervisor) -> None:
        fleet.add_host("far", store="elsewhere", cpu_level=0)
        far = await client(fleet, "far")
        guest = await boot(a)
        await far.write_probe("p")
        assert not await a.sees_probe("p")
        with pytest.raises(HypervisorRefused, match="CPU"):
            must_pass(await far.check_incoming(guest, (await a.resources()).cpu_xml))
        await begin(a, far, guest)
        after = await ended(a, guest)
        assert after.state is GuestState.RUNNING
        assert "does not see the disk" in after.copy_error

    told(story)


def test_room_is_counted() -> None:
    async def story(_: Fleet, a: SimulatedHypervisor, b: SimulatedHypervisor) -> None:
        empty = await a.resources()
        guest = await boot(a)
        full = await a.resources()
        assert empty.memory_free_mb - full.memory_free_mb == guest.ram_mb
        assert empty.disk_free_gb - full.disk_free_gb == guest.disk_gb
        await begin(a, b, guest)
        await ended(a, guest)
        assert (await a.resources()).memory_free_mb == empty.memory_free_mb
        await b.remove(guest.instance_id)
        assert await b.resources() == (await b.resources())
        assert (await b.resources()).memory_free_mb == empty.memory_free_mb
        assert (await b.resources()).disk_free_gb == empty.disk_free_gb

    told(story)
