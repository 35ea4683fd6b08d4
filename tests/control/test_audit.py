"""The audit against real agents on simulated hosts: what it finds, what it leaves alone, what it repairs and how."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import update

from droveway.control.audit import Audit
from droveway.domain.faults import Busy
from droveway.domain.model import SagaKind
from droveway.domain.placement import PlacementSettings
from droveway.ports.bus import Command, Report
from droveway.ports.control import RepairResult
from droveway.ports.kept_disk_verbs import ListRootDisks
from droveway.ports.replies import Answer, ConsoleText, HostInventory, RootDisks
from droveway.store.compute import file_cleanups, instances, migrations
from droveway.store.fleet import hosts
from droveway.store.schema import instances as i
from droveway.store.schema import migrations as m
from droveway.store.work import audited, sagas
from tests.control.world import DirectBus, World, world

STRANGER = "00000000-0000-4000-8000-000000000001"


@contextlib.asynccontextmanager
async def told() -> AsyncIterator[World]:
    async with world() as w:
        yield w


def auditor(w: World) -> Audit:
    assert w._control is not None
    return w._control.audit


async def kinds(w: World) -> list[str]:
    return sorted(finding.kind for finding in (await auditor(w)()).findings)


async def compares_nothing(report: Report) -> None:
    pass


async def repaired(w: World) -> RepairResult:
    found = (await auditor(w)()).findings
    return await auditor(w).repair([finding.key for finding in found])


async def put(w: World, instance_id: str, **values: Any) -> None:
    """Write a row as no saga would."""
    await w.store.run(lambda tx: tx.execute(update(i).where(i.c.id == instance_id).values(**values)))


async def row(w: World, instance_id: str) -> Any:
    return await w.store.read(instances.get, instance_id, None, deleted=True)


async def test_a_cloud_at_rest_after_all_kinds_of_work_is_in_order() -> None:
    async with told() as w:
        moved, stopped, deleted = [await w.create() for _ in range(3)]
        assert await w.do(moved, SagaKind.LIVE_MIGRATION) == "done"
        assert await w.do(stopped, SagaKind.STOP) == "done"
        assert await w.do(deleted, SagaKind.DELETE) == "done"
        found = await auditor(w)()
        assert found.findings == [] and found.not_looked_at == []
        assert (found.hosts, found.hosts_answered, found.instances) == (2, 2, 2)


async def test_nothing_is_said_of_an_instance_that_a_saga_works_on() -> None:
    async with told() as w:
        instance_id = await w.create()
        await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})
        looks = 0
        while await w.store.read(sagas.count_open):
            assert await kinds(w) == []
            looks += 1
        assert looks
        assert await kinds(w) == []


async def test_a_stray_claim_is_released_and_the_freed_capacity_is_nudged() -> None:
    async with told() as w:
        instance_id = await w.create()
        await w.do(instance_id, SagaKind.LIVE_MIGRATION)
        where = (await row(w, instance_id))["host"]
        other = "h2" if where == "h1" else "h1"
        await w.store.run(lambda tx: tx.execute(update(m).values(holds_claim=True, destination=other)))
        before = await w.store.read(hosts.facts, other)
        assert before.vcpus_used == 1
        assert await kinds(w) == ["stray claim"]
        done = await repaired(w)
        assert [finding.kind for finding in done.done] == ["stray claim"] and not done.left
        after = await w.store.read(hosts.facts, other)
        assert after.vcpus_used == 0 and after.claims > before.claims
        assert [one["status"] for one in await w.store.read(migrations.find)] == ["completed"]


async def test_what_was_forgotten_ends_in_the_way_it_ends_anyway() -> None:
    async with told() as w:
        moving, deleting, building = [await w.create() for _ in range(3)]
        await put(w, moving, task_state="migrating")
        await put(w, deleting, task_state="deleting")
        await put(w, building, vm_state="building", task_state="spawning", ran_boot_id=None)
        assert await kinds(w) == ["forgotten build", "forgotten delete", "forgotten task"]
        done = await repaired(w)
        assert len(done.done) == 3 and not done.left and not done.gone
        await w.quiet()
        assert (await row(w, moving))["task_state"] is None
        assert (await row(w, deleting))["deleted"]
        assert (await row(w, building))["vm_state"] == "error"
        assert "an audit found" in (await row(w, building))["fault"]["message"]
        assert await kinds(w) == []


async def test_files_that_a_host_is_about_to_delete_are_held_against_nobody() -> None:
    """It may do so between its answer and the second look at the rows (seed 759130412)."""
    async with told() as w:
        instance_id = await w.create()
        await w.do(instance_id, SagaKind.DELETE)
        assert instance_id in (await w.store.read(audited.before))[0]
        await w.store.run(file_cleanups.defer, "h1", instance_id, "", when_deleted=True)
        assert instance_id not in (await w.store.read(audited.before))[0]


async def test_files_of_a_deleted_server_go_and_unknown_ones_stay() -> None:
    async with told() as w:
        instance_id = await w.create()
        await w.do(instance_id, SagaKind.DELETE)
        disks = w.fleet.stores["shared"].disks
        disks |= {instance_id: 1, STRANGER: 1}
        assert await kinds(w) == ["files left", "orphaned files"]
        done = await repaired(w)
        assert [finding.kind for finding in done.done] == ["files left"]
        assert [one.finding.kind for one in done.left] == ["orphaned files"]
        assert "delete them" in done.left[0].because
        assert instance_id not in disks and STRANGER in disks
        assert (await row(w, instance_id))["host"] is None


async def test_a_running_guest_out_of_place_is_left_to_a_human() -> None:
    async with told() as w:
        instance_id = await w.create()
        where = (await row(w, instance_id))["host"]
        await put(w, instance_id, host="h2" if where == "h1" else "h1", ran_boot_id="boot", vm_state="stopped")
        assert await kinds(w) == ["out of place"]
        done = await repaired(w)
        assert not done.done and "by hand" in done.left[0].because
        assert await w.runs_on(instance_id) == [where]
        await put(w, instance_id, host=None, vm_state="active")
        assert await kinds(w) == ["no place", "out of place"]
        await repaired(w)
        await w.report()
        assert await w.runs_on(instance_id) == [where], "it may be the only place where its data is"


async def test_a_guest_that_ended_is_seen_to_by_the_guests_loop() -> None:
    async with told() as w:
        instance_id = await w.create()
        where = (await row(w, instance_id))["host"]
        await put(w, instance_id, vm_state="stopped")
        found = (await auditor(w)()).findings
        assert [(one.kind, one.repair) for one in found] == [("differs", "compare")]
        assert where in found[0].plan
        assert len((await repaired(w)).done) == 1
        assert (await row(w, instance_id))["vm_state"] == "active"


async def test_a_host_that_is_away_is_not_looked_at_and_accused_of_nothing() -> None:
    async with told() as w:
        instance_id = await w.create()
        where = (await row(w, instance_id))["host"]
        w.fleet.hosts[where].hypervisor_is_up = False
        found = await auditor(w)()
        assert found.findings == [] and found.hosts_answered == 1
        assert [one.host for one in found.not_looked_at] == [where]
        assert found.not_looked_at[0].because


async def test_a_finding_that_has_ended_meanwhile_is_reported_as_gone() -> None:
    async with told() as w:
        instance_id = await w.create()
        await put(w, instance_id, task_state="rebooting_hard")
        keys = [finding.key for finding in (await auditor(w)()).findings]
        await put(w, instance_id, task_state=None)
        assert await auditor(w).repair(keys) == RepairResult([], [], keys)


async def test_what_changes_between_the_look_and_the_write_is_not_written() -> None:
    async with told() as w:
        instance_id = await w.create()
        await put(w, instance_id, task_state="rebooting_hard")
        audit = auditor(w)
        seen = await audit.look()
        await w.store.run(lambda tx: tx.execute(update(i).values(fence=i.c.fence + 1)))
        refused = await audit._repair(seen.findings, seen)
        assert list(refused.values()) == ["it has changed since it was looked at; nothing was done"]
        assert (await row(w, instance_id))["task_state"] == "rebooting_hard"


async def test_one_audit_at_a_time() -> None:
    async with told() as w:
        first = asyncio.create_task(auditor(w)())
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="under way"):
            await auditor(w)()
        assert (await first).findings == []
        await auditor(w)()


class OddAgent(DirectBus):
    """What h1 answers to whatever it is asked."""

    answer: Answer = ConsoleText("")

    async def command(self, host: str, command: Command, timeout_s: float, service: str = "nova-compute") -> Answer:
        return self.answer if host == "h1" else await super().command(host, command, timeout_s, service)


@pytest.mark.parametrize(
    ("answer", "because"),
    [
        (ConsoleText("[]"), "answered ListGuests with ConsoleText; upgrade droveway on that host"),
        (HostInventory(admitted=("\0",)), "what is no name of any"),
    ],
)
async def test_an_agent_that_answers_nonsense_is_named(answer: Answer, because: str) -> None:
    async with told() as w:
        bus = OddAgent(w)
        bus.answer = answer
        found = await Audit(w.store, bus, w.clock, compares_nothing, PlacementSettings())()
        assert [one.host for one in found.not_looked_at] == ["h1"]
        assert because in found.not_looked_at[0].because


class PoolWorld(World):
    root_pool = "sim/vms"


class OddPool(DirectBus):
    """What h1 answers where it is asked for its pool."""

    async def command(self, host: str, command: Command, timeout_s: float, service: str = "nova-compute") -> Answer:
        if host == "h1" and isinstance(command.verb, ListRootDisks):
            return RootDisks(PoolWorld.root_pool, ("\0",))
        return await super().command(host, command, timeout_s, service)


async def test_a_pool_is_asked_for_at_the_next_host_where_one_names_what_is_no_name() -> None:
    """No database can be asked for it."""
    w = PoolWorld()
    await w.open()
    try:
        found = await Audit(w.store, OddPool(w), w.clock, compares_nothing, PlacementSettings())()
        assert (found.findings, found.not_looked_at) == ([], [])
    finally:
        await w.close()


async def test_over_claims_are_reported_with_their_numbers() -> None:
    async with told() as w:
        instance_id = await w.create()
        where = (await row(w, instance_id))["host"]
        await put(w, instance_id, ram_mb=10**9)
        found = (await auditor(w)()).findings
        assert [(one.kind, one.where) for one in found] == [("over-claimed", where)]
        assert found[0].reason.startswith("1000000000 MiB are claimed, ")
