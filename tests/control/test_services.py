"""What `service list` shows of the controls themselves, and what a control asks a host for the API."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from droveway.control.engine.runner import Runner
from droveway.control.engine.saga import ControlSettings
from droveway.control.liveness.duty import LEASE_TTL_S
from droveway.control.loops.upkeep import PREFIX, RENEW_S, SHOW_S, Upkeep
from droveway.domain.faults import Conflict
from droveway.domain.liveness import State
from droveway.drivers.clock import SystemNames
from droveway.ports.hypervisor import HypervisorRefused
from droveway.store.engine.transaction import MemoryStore, Tx
from droveway.store.fleet import services
from droveway.store.image import image_tickets
from droveway.store.schema import ticket_keys
from droveway.store.work import leases
from tests.control.hall import DetectorHarness, HandClock
from tests.control.world import world
from tests.store import databases

TICKET_KEY_S = ControlSettings("").ticket_key_s


class Two:
    """Control `one`, whose upkeep is run by the test; `other`, which only has a lease; and a host named `other`."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.store = databases.with_schema(MemoryStore(self.clock, SystemNames()))
        self.epoch = 0
        self.runner = SimpleNamespace(dead_owners=())

    async def open(self) -> Upkeep:
        def write(tx: Tx) -> None:
            for name in ("one", "other"):
                self.epoch = leases.regain(tx, PREFIX + name, name)
                for binary in services.CONTROL:
                    services.register(tx, name, binary, "internal")
                services.record_control_state(tx, name, State.ALIVE, "it answers")
            services.register(tx, "other", "nova-compute", "nova")
            services.record_verdicts(
                tx, [services.Verdict("other", "nova-compute", State.ALIVE, "heartbeats arrive", 0)]
            )

        await self.store.run(write)
        duty = DetectorHarness(self.clock, self.store, "one").duty
        return Upkeep(self.store, self.clock, cast("Runner", self.runner), "one", self.epoch, duty, ControlSettings(""))

    async def rows(self, name: str) -> list[Any]:
        return [row for row in await self.store.read(services.list_all, name) if row["binary"] in services.CONTROL]


async def test_the_key_of_tickets_is_replaced_by_a_control_that_has_seen_it_long_enough() -> None:
    """By each control's own clock; one that another has replaced meanwhile is seen anew."""
    two = Two()
    upkeep, other = await two.open(), await two.open()

    async def pass_s(seconds: float, *controls: Upkeep) -> int:
        for _ in range(int(seconds / RENEW_S)):
            two.clock.at_s += RENEW_S
            for control in controls:
                await control._replace_ticket_key(two.clock.monotonic_s())
        return await two.store.read(image_tickets.newest)

    assert await pass_s(1000, upkeep, other) == 0  # nobody has asked for a ticket yet
    await two.store.run(image_tickets.replace, 0)
    assert await pass_s(TICKET_KEY_S - RENEW_S, upkeep, other) == 1
    assert await pass_s(2 * RENEW_S, upkeep, other) == 2  # by one of them
    assert await pass_s(TICKET_KEY_S - 2 * RENEW_S, upkeep, other) == 2
    assert await pass_s(10 * TICKET_KEY_S, upkeep) >= 11
    assert len(await two.store.read(lambda tx: tx.execute(ticket_keys.select()).all())) == image_tickets.KEYS_KEPT


async def test_a_control_is_heard_about_once_a_minute() -> None:
    two = Two()
    upkeep = await two.open()
    heard = []
    for _ in range(40):
        await upkeep._once()
        heard.append({row["updated_at_us"] for row in await two.rows("one")})
        two.clock.at_s += 5.0
    assert all(len(both) == 1 for both in heard)
    times_s = sorted({min(both) / 1e6 for both in heard})
    assert times_s == [1000.0 + n * SHOW_S for n in range(4)]
    await two.store.close()


async def test_a_lease_that_stands_still_takes_its_services_down_and_no_host_of_that_name() -> None:
    two = Two()
    upkeep = await two.open()
    for _ in range(5):
        await upkeep._once()
        two.clock.at_s += LEASE_TTL_S / 4
    assert all(row["is_up"] for row in await two.rows("other"))
    two.clock.at_s += 1.0
    await upkeep._once()
    for row in await two.rows("other"):
        assert (row["is_up"], row["reason"]) == (False, "its lease has not been renewed for 15 s")
    (host,) = await two.store.read(services.list_all, "other", "nova-compute")
    assert (host["is_up"], host["reason"]) == (True, "heartbeats arrive")
    assert all(row["is_up"] for row in await two.rows("one"))
    await two.store.close()


async def test_a_control_that_was_declared_dead_shows_up_again() -> None:
    two = Two()
    upkeep = await two.open()
    await upkeep._once()
    await two.store.run(services.record_control_state, "one", State.DEAD, "its lease has not been renewed for 15 s")
    await upkeep._once()
    assert [(row["is_up"], row["reason"]) for row in await two.rows("one")] == [(True, "its lease is renewed")] * 3
    await two.store.close()


async def test_a_beat_of_a_host_is_not_one_of_the_control_of_that_name() -> None:
    two = Two()
    await two.open()
    await two.store.run(services.snapshot, [("other", "nova-compute", 77, 1)])
    rows = await two.store.read(services.list_all, "other")
    assert {row["binary"]: row["report_count"] for row in rows} == {
        "nova-scheduler": 0,
        "nova-conductor": 0,
        "cinder-scheduler": 0,
        "nova-compute": 77,
    }
    await two.store.close()


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_control_that_is_stopped_in_order_says_so_unless_another_has_its_name(is_replaced: bool) -> None:
    async with world() as w:
        assert w._task is not None and w._control is not None
        w._task.cancel()
        await asyncio.gather(w._task, return_exceptions=True)
        if is_replaced:
            await w.store.run(leases.regain, PREFIX + "control", "control")
        await w._control.leave()
        rows = await w.store.read(services.list_all, "control")
        expected = (True, "it answers") if is_replaced else (False, "it was stopped")
        assert [(row["is_up"], row["reason"]) for row in rows] == [expected] * 3


async def test_a_console_that_the_host_refuses_is_a_conflict_with_its_reason() -> None:
    async with world() as w:
        assert w._control is not None
        instance_id = await w.create()
        assert await w._control.answers.read_console("h1", instance_id, None) is not None

        class Unreadable:
            async def console(self, *_: object) -> str:
                raise HypervisorRefused("The instance store refused: Input/output error.")

        w.agents["h1"]._hypervisor = cast("Any", Unreadable())
        with pytest.raises(Conflict, match=r"^h1: The instance store refused: Input/output error\.$"):
            await w._control.answers.read_console("h1", instance_id, None)
