"""What becomes of a request: tried on another host, made to wait for room, kept with its reasons."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from droveway.domain.model import Flavor, SagaKind, of_instance
from droveway.domain.placement import PlacementSettings
from droveway.store.compute import instances, placements
from droveway.store.compute.instances import NewInstance
from droveway.store.work import sagas
from tests.control.world import SETTINGS, TINY, Break, World, world

WHOLE = Flavor("2", "whole", 1, 65536, 1)  # as much memory as a host has
WAITS = msgspec.structs.replace(SETTINGS, placement=PlacementSettings(wait_for_capacity_s=30.0), refresh_s=0.02)


async def ask(w: World, flavor: Flavor = TINY, host: str | None = None) -> str:
    new = NewInstance("p", "u", "g", "g", flavor, None, requested_host=host, request_id="req-1")
    return await w.store.run(instances.create, new)


async def row_of(w: World, instance_id: str) -> Any:
    return await w.store.read(instances.get, instance_id, None, deleted=True)


async def boots(w: World) -> list[Any]:
    """The boot sagas, oldest first."""
    rows = await w.store.read(sagas.listing, limit=100, only_open=False)
    return [row for row in reversed(rows) if row["kind"] == SagaKind.BOOT]


async def blocked(w: World, instance_id: str) -> str:
    """The sentence with which its request waits."""
    async with asyncio.timeout(30):
        while True:
            saga = await w.store.read(sagas.active_of, of_instance(instance_id))
            if saga is not None and saga["blocked"]:
                return str(saga["blocked"])
            await asyncio.sleep(0.002)


async def test_a_host_that_refuses_is_left_for_the_next() -> None:
    async with world() as w:
        w.at, w.breaks = 2, Break.REFUSED
        instance_id = await ask(w)
        await w.quiet()
        row = await row_of(w, instance_id)
        first, second = await boots(w)
        assert row["vm_state"] == "active" and row["fault"] is None
        assert first["status"] == "undone" and second["status"] == "done"
        assert second["params"]["failed"] == [first["notes"]["host"]] != [row["host"]]
        assert first["request_id"] == second["request_id"] == "req-1"
        newest, oldest = await w.store.read(placements.of_instance, instance_id)
        assert (oldest["host"], newest["host"]) == (first["notes"]["host"], row["host"])
        assert newest["body"]["ask"]["failed"] == [oldest["host"]]
        failed = w.control.placer.facts(oldest["host"])
        assert failed is not None and failed.failures == 1
        await w.check(instance_id)


async def test_no_fault_shows_while_another_host_is_tried() -> None:
    async with world() as w:
        w.at, w.breaks = 1, Break.REFUSED
        seen = set()
        instance_id = await ask(w)
        while await w.store.read(sagas.count_open):
            row = await row_of(w, instance_id)
            seen.add((row["vm_state"], row["fault"]))
            await asyncio.sleep(0)
        assert seen <= {("building", None), ("active", None)}


async def test_the_last_fault_names_what_the_hosts_said() -> None:
    async with world() as w:
        for agent in w.agents.values():
            agent._hypervisor.prepare = refuse  # type: ignore[method-assign]
        instance_id = await ask(w)
        await w.quiet()
        row = await row_of(w, instance_id)
        assert row["vm_state"] == "error" and row["host"] is None
        assert len(await boots(w)) == 3
        message = row["fault"]["message"]
        assert "No valid host was found" in message and "no disk today" in message


async def refuse(*_: Any, **__: Any) -> None:
    from droveway.domain.faults import StepFailed

    raise StepFailed("no disk today")


async def test_the_host_that_was_asked_for_is_the_only_one_that_is_tried() -> None:
    async with world() as w:
        w.at, w.breaks = 1, Break.REFUSED
        instance_id = await ask(w, host="h2")
        await w.quiet()
        row = await row_of(w, instance_id)
        assert row["vm_state"] == "error" and "broken on purpose" in row["fault"]["message"]
        assert len(await boots(w)) == 1


async def test_a_delete_ends_the_tries() -> None:
    async with world() as w:
        w.at, w.breaks = 1, Break.ANSWER_LOST
        instance_id = await ask(w)
        await asyncio.sleep(0.002)
        await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})
        await w.quiet()
        assert (await row_of(w, instance_id))["deleted"]
        await w.check(instance_id)


async def test_a_server_whose_host_is_gone_for_good_while_it_is_built_can_be_deleted() -> None:
    async with world(hosts=("h1",)) as w:
        w.gone_from["h1"] = 1
        instance_id = await ask(w)
        assert "it needs that host back" in await blocked(w, instance_id)
        await w.do(instance_id, SagaKind.DELETE)
        row = await row_of(w, instance_id)
        assert row["deleted"] and row["host"] == "h1"  # which owes the removal of what is there
        assert sum(one.instances for one in await w.facts()) == 0
        w.gone_from.clear()
        await w.report()
        async with asyncio.timeout(30):
            while (await row_of(w, instance_id))["host"] is not None:
                await asyncio.sleep(0.005)
        await w.check(instance_id)


async def test_a_failure_is_kept_with_its_reasons() -> None:
    async with world() as w:
        instance_id = await ask(w, msgspec.structs.replace(WHOLE, ram_mb=70000))
        await w.quiet()
        (kept,) = await w.store.read(placements.of_instance, instance_id)
        fault = (await row_of(w, instance_id))["fault"]["message"]
        assert kept["host"] is None and kept["body"]["kind"] == "boot"
        assert {fallen["rule"]: fallen["hosts"] for fallen in kept["body"]["plan"]["fallen"]} == {"ram": 2}
        assert fault.startswith("No valid host was found: h1: memory: 70000 MiB wanted, 65536 MiB free; h2: ")
        assert "it would fit with ram_mb <= 65536" in fault
        told = (await row_of(w, instance_id))["fault"]["to_tenants"]
        assert told == "No valid host was found: all hosts: memory: 70000 MiB wanted, at most 65536 MiB free on any"


async def test_decisions_are_bounded() -> None:
    async with world() as w:
        instance_id = await ask(w)
        await w.quiet()
        for number in range(30):
            await w.store.run(placements.record, instance_id, "s", "p", None, {"number": number})
        kept = await w.store.read(placements.of_instance, instance_id, 100)
        assert [row["body"]["number"] for row in kept] == list(range(29, 9, -1))


async def test_a_request_waits_for_room_and_is_woken_when_there_is_some() -> None:
    async with world(WAITS) as w:
        first, _ = await ask(w, WHOLE), await ask(w, WHOLE)
        await w.quiet()
        third = await ask(w, WHOLE)
        reason = await blocked(w, third)
        assert reason.startswith("choose_host waits for room: No valid host was found: h1: memory: ")
        assert (await row_of(w, third))["task_state"] == "scheduling"
        host = (await row_of(w, first))["host"]
        await w.do(first, SagaKind.DELETE)
        await w.quiet()
        row = await row_of(w, third)
        assert (row["vm_state"], row["host"]) == ("active", host)
        kept = await w.store.read(placements.of_instance, third)
        assert [one["host"] for one in kept] == [host, None]


async def test_as_many_are_woken_as_there_is_room_for() -> None:
    async with world(WAITS) as w:
        first, _ = await ask(w, WHOLE), await ask(w, WHOLE)
        await w.quiet()
        waiting = [await ask(w, WHOLE) for _ in range(5)]
        for one in waiting:
            await blocked(w, one)
        await w.store.run(instances.intend, first, SagaKind.DELETE, {})
        async with asyncio.timeout(30):
            while not [one for one in waiting if (await row_of(w, one))["vm_state"] == "active"]:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        states = [(await row_of(w, one))["vm_state"] for one in waiting]
        assert sorted(states) == ["active", *["building"] * 4]
        assert states[0] == "active"  # the oldest goes first


async def test_a_request_that_has_waited_long_enough_fails_and_says_so() -> None:
    placement = PlacementSettings(wait_for_capacity_s=0.1)
    async with world(msgspec.structs.replace(WAITS, placement=placement)) as w:
        instance_id = await ask(w, msgspec.structs.replace(WHOLE, ram_mb=70000))
        await w.quiet()
        row = await row_of(w, instance_id)
        assert row["vm_state"] == "error" and "(it waited 0 s for room)" in row["fault"]["message"]


async def test_a_request_that_waits_is_deleted_at_once() -> None:
    async with world(WAITS) as w:
        instance_id = await ask(w, msgspec.structs.replace(WHOLE, ram_mb=70000))
        await blocked(w, instance_id)
        async with asyncio.timeout(1):
            await w.do(instance_id, SagaKind.DELETE)
        assert (await row_of(w, instance_id))["deleted"]
        await w.check(instance_id)


async def test_waiting_survives_a_restart_of_control() -> None:
    async with world(WAITS) as w:
        first, _ = await ask(w, WHOLE), await ask(w, WHOLE)
        await w.quiet()
        third = await ask(w, WHOLE)
        await blocked(w, third)
        w.kill_control()
        await asyncio.sleep(0.05)
        await blocked(w, third)
        await w.do(first, SagaKind.DELETE)
        await w.quiet()
        assert (await row_of(w, third))["vm_state"] == "active"


async def test_a_live_migration_does_not_wait() -> None:
    async with world(WAITS, hosts=("h1",)) as w:
        instance_id = await ask(w)
        await w.quiet()
        assert await w.do(instance_id, SagaKind.LIVE_MIGRATION) == "undone"
        newest = (await w.store.read(placements.of_instance, instance_id))[0]
        assert newest["host"] is None and newest["body"]["kind"] == "live_migration"
        saga = await w.store.read(sagas.last_of, of_instance(instance_id), SagaKind.LIVE_MIGRATION)
        assert saga is not None and saga["error"] == "No valid host was found: h1: it runs there already"


async def test_a_guest_that_holds_cells_is_not_moved() -> None:
    async with world() as w:
        instance_id = await ask(w, msgspec.structs.replace(TINY, extra_specs={"hw:cpu_policy": "dedicated"}))
        await w.quiet()
        row = await row_of(w, instance_id)
        assert row["vm_state"] == "active" and instances.cells_of(row)[0].cpus
        assert await w.do(instance_id, SagaKind.LIVE_MIGRATION) == "undone"
        saga = await w.store.read(sagas.last_of, of_instance(instance_id), SagaKind.LIVE_MIGRATION)
        assert saga is not None and "holds NUMA cells of" in saga["error"]
        await w.do(instance_id, SagaKind.DELETE)
        assert not [one.held_cells for one in await w.facts() if one.held_cells]
