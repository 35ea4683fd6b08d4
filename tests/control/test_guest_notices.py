"""What hosts say of guests while reports wait for their turn: nothing that was said is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from droveway.control.engine.nudges import Nudges
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.control.loops import guests
from droveway.control.loops.guests import GuestsLoop
from droveway.domain.faults import Busy, Unreachable
from droveway.domain.model import Guest, GuestState, SagaKind, of_instance
from droveway.domain.resources import LastReport
from droveway.ports.bus import Command, GuestChanged
from droveway.ports.replies import Answer
from droveway.store import schema
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.work import sagas
from tests.control.world import DirectBus, World, world

Story = Callable[[World, GuestsLoop, str, str, str], Awaitable[None]]


@contextlib.asynccontextmanager
async def told() -> AsyncIterator[Any]:
    """A guest on `place`, and a loop that has heard both hosts."""
    async with world() as w:
        instance_id = await w.create()
        place = (await w.store.read(instances.get, instance_id))["host"]
        observer = Observer(w.clock, Nudges(), LivenessSettings())
        loop = GuestsLoop(w.store, DirectBus(w), observer, Nudges(), w.settings)
        observer.learn(await w.store.read(services.on_hosts))
        for agent in w.agents.values():
            observer.inbox.accept(await agent.reports.full(), LastReport(0, 0))
        await loop._once()
        yield (w, loop, instance_id, place, "h2" if place == "h1" else "h1")


async def state_of(w: World, instance_id: str) -> str:
    await w.quiet()
    return str((await w.store.read(instances.get, instance_id))["vm_state"])


def changed(loop: GuestsLoop, host: str, instance_id: str, state: GuestState) -> None:
    loop._observer.inbox.put_changed(GuestChanged(host, "boot", Guest(instance_id, state)))


@pytest.mark.parametrize("is_due", [False, True])
async def test_a_change_is_looked_at_beside_an_older_report_that_waits(is_due: bool) -> None:
    async with told() as (w, loop, instance_id, place, __other):
        loop._observer.inbox.accept(await w.agents[place].reports.full(), LastReport(0, 0))
        w.fleet.hosts[place].domains[instance_id].state = GuestState.SHUTOFF
        changed(loop, place, instance_id, GuestState.SHUTOFF)
        loop._next_look_s = 0.0 if is_due else loop._observer.age_s() + 60
        await loop._once()
        assert await state_of(w, instance_id) == "stopped"


async def test_a_guest_of_which_a_waiting_report_tells_is_not_started_a_second_time() -> None:
    async with told() as (w, loop, instance_id, place, other):
        w.fleet.hosts[other].domains[instance_id] = w.fleet.hosts[place].domains.pop(instance_id)
        w.agents[place]._boot_id = "a later boot"
        loop._observer.inbox.accept(await w.agents[other].reports.full(), LastReport(0, 0))
        changed(loop, place, instance_id, GuestState.ABSENT)
        loop._next_look_s = loop._observer.age_s() + 60
        await loop._once()
        await w.quiet()
        assert await w.runs_on(instance_id) == [other]


async def test_a_report_of_one_guest_is_no_report_of_all() -> None:
    async with told() as (w, _loop, instance_id, place, other):
        w.fleet.hosts[other].domains[instance_id] = w.fleet.hosts[place].domains.pop(instance_id)
        w.agents[place]._boot_id = "a later boot"
        observer = Observer(w.clock, Nudges(), LivenessSettings())
        fresh = GuestsLoop(w.store, DirectBus(w), observer, Nudges(), w.settings)
        observer.learn(await w.store.read(services.on_hosts))
        changed(fresh, other, "another guest", GuestState.RUNNING)
        observer.inbox.accept(await w.agents[place].reports.full(), LastReport(0, 0))
        await fresh._once()
        await w.quiet()
        assert await w.runs_on(instance_id) == [other]


async def test_what_a_busy_store_did_not_take_is_looked_at_again() -> None:
    async with told() as (w, loop, instance_id, place, __other):
        w.fleet.hosts[place].domains[instance_id].state = GuestState.SHUTOFF
        loop._observer.inbox.accept(await w.agents[place].reports.full(), LastReport(0, 0))
        changed(loop, place, instance_id, GuestState.SHUTOFF)
        read, loop._store.read = loop._store.read, busy  # type: ignore[method-assign]
        with pytest.raises(Busy):
            await loop._once()
        loop._store.read = read  # type: ignore[method-assign]
        loop._next_look_s = 0.0
        assert loop._observer.inbox.has_complete and loop._observer.inbox.has_changed
        await loop._once()
        assert await state_of(w, instance_id) == "stopped"


@pytest.mark.parametrize("by_report", [False, True])
async def test_what_a_saga_hid_is_looked_at_once_it_has_ended(by_report: bool) -> None:
    async with told() as (w, loop, instance_id, place, __other):

        def hold(tx: Tx) -> str:
            saga_id = sagas.enqueue(tx, SagaKind.STOP, of_instance(instance_id), "p", {}, request_id="")
            tx.execute(update(schema.sagas).values(status="broken").where(schema.sagas.c.id == saga_id))
            return saga_id

        def let_go(tx: Tx) -> None:
            tx.execute(update(schema.sagas).values(status="undone", ended=True).where(schema.sagas.c.id == saga_id))

        saga_id = await w.store.run(hold)
        w.fleet.hosts[place].domains[instance_id].state = GuestState.SHUTOFF
        w.agents[place]._boot_id = "a later boot"
        if by_report:
            loop._observer.inbox.accept(await w.agents[place].reports.full(), LastReport(0, 0))
        else:
            changed(loop, place, instance_id, GuestState.SHUTOFF)
        loop._next_look_s = 0.0
        await loop._once()
        await loop._once()
        assert await w.runs_on(instance_id) == []
        await w.store.run(let_go)
        await loop._once()  # as the end of a saga nudges it to; the host says nothing more
        await w.quiet()
        assert await w.runs_on(instance_id) == [place]
        assert loop._hidden == {}


class Silent(DirectBus):
    """Hosts that do not answer: at once, or for long."""

    asked = 0
    waits_s = 0.0

    async def command(self, host: str, command: Command, timeout_s: float, service: str = "nova-compute") -> Answer:
        self.asked += 1
        await asyncio.sleep(min(self.waits_s, timeout_s))
        raise Unreachable(f"{host} is gone")


async def test_a_host_that_falls_silent_is_asked_once_whatever_it_said_of_its_guests() -> None:
    async with told() as (w, loop, __instance_id, __place, __other):
        loop._bus = bus = Silent(w)
        ids = [await w.create() for _ in range(4)]
        places = {one: (await w.store.read(instances.get, one))["host"] for one in ids}
        for one, place in places.items():
            changed(loop, place, one, GuestState.SHUTOFF)
        await loop._once()
        assert bus.asked == len(set(places.values()))


async def test_a_host_whose_disk_hangs_holds_the_others_for_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with told() as (w, loop, instance_id, place, __other):
        loop._bus = bus = Silent(w)
        bus.waits_s = 60.0
        await w.store.run(instances.set_, instance_id, deleted=True, vm_state="deleted")
        loop._observer.inbox.accept(await w.agents[place].reports.full(), LastReport(0, 0))
        loop._settings = msgspec.structs.replace(w.settings, long_command_timeout_s=60.0)
        loop._next_look_s = 0.0
        monkeypatch.setattr(guests, "TURN_S", 0.05)
        async with asyncio.timeout(30):  # half of what the host is waited for
            await loop._once()
        assert bus.asked == 1


async def busy(*_: Any) -> Any:
    raise Busy("the database did not take it; try again in a second")
