"""While a guest is copied: the ladder climbs, a copy is forced, cut or lost in post-copy; hosts are left in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from droveway.domain.migration_ladder import POLICY_KEY, CopyTarget, Policy
from droveway.domain.model import GuestState, MigrationStatus, PostCopy, SagaKind, SagaStatus, of_saga
from droveway.drivers.hypervisor.simulated.fleet import Durations
from droveway.drivers.hypervisor.simulated.passes import MIB, Writing
from droveway.ports.bus import AdjustCopy, Command, Inspect
from droveway.ports.replies import Answer
from droveway.store import schema
from droveway.store.compute import instances, migrations, server_attributes
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow, MigrationWithName
from droveway.store.work import events, sagas
from tests.control.test_declared_gone import declare
from tests.control.world import SETTINGS, Break, World, world

LINK = 512 * MIB
TOO_FAST = Writing(3000 * MIB, 128 * MIB)  # a pass of 128 MiB takes a quarter of a second, and 20 ms are allowed
MUCH_TOO_FAST = Writing(60 * 1024 * MIB, 128 * MIB)
QUICK = msgspec.structs.replace(SETTINGS, copy=CopyTarget(downtime_ms=10, downtime_max_ms=20), patience_s=5.0)
SOON_S = 20.0


async def writing(w: World, policy: Policy | None, how: Writing = TOO_FAST) -> str:
    """A guest that writes, and what may be done to it."""
    w.fleet.link_bytes_s = LINK
    instance_id = await w.create()
    w.fleet.writing[instance_id] = how
    if policy is not None:
        await w.store.run(server_attributes.set_metadata, instance_id, {POLICY_KEY: policy.value})
    w.commands.clear()
    return instance_id


async def begin(w: World, instance_id: str) -> str:
    return await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})


async def until(found: Callable[[], Any]) -> Any:
    async with asyncio.timeout(SOON_S):
        while not (value := found()):
            await asyncio.sleep(0.005)
    return value


async def rows(w: World, instance_id: str) -> tuple[InstanceRow, MigrationWithName]:
    (migration,) = await w.store.read(lambda tx: migrations.find(tx, instance_id=instance_id))
    return await w.store.read(instances.get, instance_id), migration


async def noted(w: World, saga_id: str) -> list[str]:
    ticks = [t for e in await w.store.read(events.of_subject, of_saga(saga_id)) for t in e["body"]["ticks"]]
    return [tick["text"] for tick in ticks if tick["mark"] == "*"]


@pytest.mark.parametrize(
    ("policy", "how", "status", "says"),
    [
        (Policy.POST_COPY, TOO_FAST, "done", "post-copy: "),
        (Policy.PAUSE, TOO_FAST, "done", "pause: "),
        (Policy.NEVER_SLOW, TOO_FAST, "undone", ""),
        (None, MUCH_TOO_FAST, "undone", ""),
    ],
)
async def test_a_guest_that_writes_too_fast_is_treated_by_its_policy(
    policy: Policy | None, how: Writing, status: str, says: str
) -> None:
    async with world(QUICK) as w:
        instance_id = await writing(w, policy, how)
        source = (await w.store.read(instances.get, instance_id))["host"]
        saga_id = await begin(w, instance_id)
        await w.quiet()
        saga = await w.store.read(sagas.get, saga_id)
        assert saga["status"] == status
        if says:
            assert any(one.startswith(says) for one in await noted(w, saga_id))
        else:
            assert "was given up" in saga["error"] and f"policy {policy or Policy.AUTO_CONVERGE}" in saga["error"]
        await w.check(instance_id)
        row, migration = await rows(w, instance_id)
        assert (row["host"] == source) is (status == "undone")
        assert migration["status"] == ("completed" if status == "done" else "error")
        assert migration["memory_total_bytes"] == 128 * MIB and migration["progress"]["iteration"] > 0
        domain = w.fleet.hosts[str(row["host"])].domains[instance_id]
        assert (domain.state, domain.post_copy) == (GuestState.RUNNING, PostCopy.NONE)


async def test_forced_it_completes_once_however_often_it_is_asked_for() -> None:
    async with world(QUICK) as w:
        instance_id = await writing(w, Policy.NEVER_SLOW)
        saga_id = await begin(w, instance_id)
        await until(lambda: (copy := w.fleet.copies.get(instance_id)) and copy.passes)
        for _ in range(2):
            await w.store.run(migrations.force, saga_id)
        await w.quiet()
        assert (await w.store.read(sagas.get, saga_id))["status"] == "done"
        assert [verb for _, verb in w.commands].count("AdjustCopy") == 1
        assert (await rows(w, instance_id))[1]["forced"]
        await w.check(instance_id)


async def test_one_that_is_forced_before_its_memory_is_copied_goes_on_and_is_forced_then() -> None:
    """Its host refuses post-copy until then."""
    async with world(QUICK) as w:
        instance_id = await writing(w, Policy.POST_COPY)
        w.fleet.durations = Durations(arrive=(2.5, 2.5))  # longer than its refusals would be borne
        saga_id = await begin(w, instance_id)
        await until(lambda: w.fleet.copies.get(instance_id))
        await w.store.run(migrations.force, saga_id)
        await w.quiet()
        assert (await w.store.read(sagas.get, saga_id))["status"] == "done"
        assert await noted(w, saga_id) == ["post-copy: it was forced to complete"]
        await w.check(instance_id)


async def test_a_copy_that_is_forced_can_still_be_aborted_and_the_guest_goes_on() -> None:
    async with world(QUICK) as w:
        instance_id = await writing(w, Policy.NEVER_SLOW)
        w.fleet.link_bytes_s = 16 * MIB
        saga_id = await begin(w, instance_id)
        copy = await until(lambda: (copy := w.fleet.copies.get(instance_id)) and copy.passes and copy)
        await w.store.run(migrations.force, saga_id)
        domain = copy.source.domains[instance_id]
        await until(lambda: domain.state is GuestState.PAUSED)
        await w.store.run(sagas.cancel, saga_id, "it stands still for too long")
        await w.quiet()
        assert domain.state is GuestState.RUNNING
        assert (await rows(w, instance_id))[1]["status"] == "cancelled"
        await w.check(instance_id)


async def split(w: World, instance_id: str) -> Any:
    """Until it is in post-copy, over a link that takes its time; its copy."""
    w.fleet.link_bytes_s = 64 * MIB
    copy = await until(lambda: (copy := w.fleet.copies.get(instance_id)) and copy.passes and copy)
    await until(lambda: copy.is_split)
    return copy


EARLY = msgspec.structs.replace(QUICK, copy=CopyTarget(downtime_ms=10, downtime_max_ms=20, post_copy_after_s=0.01))


async def test_a_post_copy_that_was_cut_is_connected_again() -> None:
    async with world(EARLY) as w:
        instance_id = await writing(w, Policy.POST_COPY)
        w.fleet.link_bytes_s = 64 * MIB
        saga_id = await begin(w, instance_id)
        copy = await split(w, instance_id)
        w.fleet.fail_copy(copy, "the cable was pulled")
        await w.quiet()
        assert (await w.store.read(sagas.get, saga_id))["status"] == "done"
        assert [verb for _, verb in w.commands].count("ResumePostCopy") == 1
        assert any("was cut" in one for one in await noted(w, saga_id))
        await w.check(instance_id)


async def test_an_abort_in_post_copy_is_too_late_and_does_no_harm() -> None:
    async with world(EARLY) as w:
        instance_id = await writing(w, Policy.POST_COPY)
        w.fleet.link_bytes_s = 64 * MIB
        saga_id = await begin(w, instance_id)
        await split(w, instance_id)
        await w.store.run(sagas.cancel, saga_id, "too late")
        await w.quiet()
        assert (await w.store.read(sagas.get, saga_id))["status"] == "done"
        row, migration = await rows(w, instance_id)
        assert migration["status"] == "completed" and row["host"] == migration["destination"]
        await w.check(instance_id)


@pytest.mark.parametrize("end", ["source", "destination"])
async def test_a_guest_that_is_lost_in_post_copy_is_said_to_be_lost_and_can_be_started(end: str) -> None:
    async with world(EARLY) as w:
        instance_id = await writing(w, Policy.POST_COPY)
        w.fleet.link_bytes_s = 64 * MIB
        await begin(w, instance_id)
        copy = await split(w, instance_id)
        w.fleet.crash_guest((copy.source if end == "source" else copy.destination).name, instance_id)
        await w.quiet()
        row, migration = await rows(w, instance_id)
        assert row["vm_state"] == "error" and row["host"] == migration["destination"] == copy.destination.name
        assert "lost in post-copy" in row["fault"]["message"] == migration["error"]
        assert migration["status"] == "error"
        assert await w.runs_on(instance_id) == []
        await w.do(instance_id, SagaKind.HARD_REBOOT)
        assert await w.runs_on(instance_id) == [copy.destination.name]
        await w.check(instance_id)


async def test_a_guest_that_ended_before_post_copy_began_has_run_nowhere_else() -> None:
    """Post-copy begins a moment after it was asked for (seed 768823897)."""
    async with world(EARLY) as w:
        instance_id = await writing(w, Policy.POST_COPY)
        w.fleet.link_bytes_s = 64 * MIB
        source = (await w.store.read(instances.get, instance_id))["host"]
        assert source is not None, "it runs"
        handle = w.agents[source].handle

        async def accept_and_crash(command: Command) -> Answer:
            if not isinstance(command.verb, AdjustCopy):
                return await handle(command)
            w.fleet.crash_guest(source, instance_id)
            return await handle(msgspec.structs.replace(command, verb=Inspect()))

        w.agents[source].handle = accept_and_crash  # type: ignore[method-assign]
        await begin(w, instance_id)
        await w.quiet()
        row, migration = await rows(w, instance_id)
        assert (row["host"], migration["status"]) == (source, "error")
        assert "lost in post-copy" not in (migration["error"] or "")


async def test_a_server_is_deleted_whose_other_half_is_on_a_host_that_was_declared_gone() -> None:
    """It was too late to stop the copy when the deletion was asked for."""
    async with world(EARLY) as w:
        instance_id = await writing(w, Policy.POST_COPY)
        w.fleet.link_bytes_s = 64 * MIB
        await begin(w, instance_id)
        copy = await split(w, instance_id)
        w.gone_from[copy.destination.name] = 0
        deletion = await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})
        await w.store.run(declare, copy.destination.name)
        w.fleet.fail_copy(copy, "the cable was pulled")
        await w.quiet()
        assert (await w.store.read(sagas.get, deletion))["status"] == "done"
        assert instance_id not in copy.source.domains


@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize("verb", ["AdjustCopy", "ResumePostCopy"])
async def test_broken_at_every_command_of_the_copy(verb: str, breaks: Break) -> None:
    async with world(EARLY) as w:
        instance_id = await writing(w, Policy.POST_COPY)
        w.fleet.link_bytes_s = 64 * MIB
        w.at, w.breaks = 6 if verb == "AdjustCopy" else 7, breaks
        await begin(w, instance_id)
        copy = await split(w, instance_id)
        w.fleet.fail_copy(copy, "the cable was pulled")
        await w.quiet()
        assert verb in {one for _, one in w.commands[w.at - 1 : w.at]}
        row, migration = await rows(w, instance_id)
        assert migration["status"] == "completed" and row["host"] == migration["destination"]
        await w.check(instance_id)


# -- in turn ----------------------------------------------------------------------------------------------------------
SLOW = Durations(copy=(0.15, 0.15))


async def test_one_that_has_ended_is_shown_in_no_line_by_a_control_that_is_late() -> None:
    """Another control had taken it over and ended it (seed 768824647)."""
    async with world() as w:
        instance_id = await w.create()
        saga_id = await begin(w, instance_id)
        await w.quiet()
        for is_queued in (True, False):
            await w.store.run(lambda tx, to=is_queued: migrations.show_turn(tx, saga_id, is_queued=to))
        assert (await rows(w, instance_id))[1]["status"] == "completed"


async def test_one_after_the_other_leaves_a_host_and_each_place_is_visible() -> None:
    one_by_one = msgspec.structs.replace(QUICK, copies_at_once=1)
    async with world(one_by_one) as w:
        ids = [await w.create() for _ in range(6)]
        w.fleet.durations = SLOW
        source = {i: str((await w.store.read(instances.get, i))["host"]) for i in ids}
        host = max(source.values(), key=list(source.values()).count)
        leaving = [i for i in ids if source[i] == host]
        assert len(leaving) >= 3
        for instance_id in leaving:
            await begin(w, instance_id)
        most, places = 0, set[tuple[int, ...]]()
        while await w.store.read(sagas.count_open):
            most = max(most, len(w.fleet.copies))
            found = await w.store.read(
                lambda tx: [migrations.queue_place(tx, m) for m in reversed(migrations.find(tx, status="queued"))]
            )
            places.add(tuple(found))
            await asyncio.sleep(0.01)
        assert most == 1
        assert tuple(range(1, len(leaving))) in places and (1,) in places and () in places
        done = [m["updated_at_us"] for m in await w.store.read(lambda tx: migrations.find(tx, source=host))]
        assert done == sorted(done, reverse=True), "in the order in which they were asked for"
        assert w.fleet.violations == []


async def test_one_that_waits_for_its_turn_can_be_aborted() -> None:
    async with world(msgspec.structs.replace(QUICK, copies_at_once=1)) as w:
        ids = [await w.create() for _ in range(4)]
        w.fleet.durations = SLOW
        source = {i: str((await w.store.read(instances.get, i))["host"]) for i in ids}
        host = max(source.values(), key=list(source.values()).count)
        first, second, *_ = (i for i in ids if source[i] == host)
        await begin(w, first)
        saga_id = await begin(w, second)
        async with asyncio.timeout(SOON_S):
            while (await rows(w, second))[1]["status"] != "queued":
                await asyncio.sleep(0.002)
        await w.store.run(sagas.cancel, saga_id, "its migration was aborted")
        await w.quiet()
        assert (await rows(w, second))[1]["status"] == "cancelled"
        assert (await rows(w, first))[1]["status"] == "completed"
        assert await w.runs_on(second) == [host]


async def moved(w: World, number: int) -> list[tuple[str, str]]:
    """Migrations of so many guests away from one host, in a row: of which guest, and the saga. Each waits for the one
    before, and the first one is copied."""
    ids = [await w.create() for _ in range(2 * number)]
    source = {i: str((await w.store.read(instances.get, i))["host"]) for i in ids}
    host = max(source.values(), key=list(source.values()).count)
    w.fleet.durations = Durations(copy=(1e6, 1e6))
    begun = [(i, await begin(w, i)) for i in ids if source[i] == host][:number]
    await until(lambda: begun[0][0] in w.fleet.copies)
    return begun


async def test_one_that_was_asked_for_earlier_and_begins_late_waits_for_those_that_are_copied() -> None:
    """It has waited for another saga that held its volumes, say."""
    async with world(msgspec.structs.replace(QUICK, copies_at_once=1)) as w:
        (__, late), (__, other) = await moved(w, 2)
        assert await w.store.read(migrations.ahead, other) == 1
        for saga_id, status in ((other, MigrationStatus.RUNNING), (late, MigrationStatus.PREPARING)):
            await w.store.run(_show, saga_id, status)
        assert await w.store.read(migrations.ahead, late) == 1
        assert await w.store.read(migrations.ahead, other) == 1
        for saga_id, status in ((other, MigrationStatus.QUEUED), (late, MigrationStatus.RUNNING)):
            await w.store.run(_show, saga_id, status)
        assert await w.store.read(migrations.ahead, late) == 0, "what has its turn still to come is behind it"


def _show(tx: Tx, saga_id: str, status: MigrationStatus) -> None:
    migrations.set_(tx, saga_id, status=status.value)


async def test_nobody_waits_for_one_that_is_undone_or_broken() -> None:
    """Which may wait for an operator for days."""
    async with world(msgspec.structs.replace(QUICK, copies_at_once=1)) as w:
        (__, stuck), (__, other) = await moved(w, 2)
        for status, ahead in ((SagaStatus.FORWARD, 1), (SagaStatus.BACKWARD, 0), (SagaStatus.BROKEN, 0)):
            await w.store.run(_become, stuck, status)
            assert await w.store.read(migrations.ahead, other) == ahead, status


def _become(tx: Tx, saga_id: str, status: SagaStatus) -> None:
    tx.execute(update(schema.sagas).where(schema.sagas.c.id == saga_id).values(status=status.value))


async def test_a_wish_that_is_none_fails_the_migration_and_leaves_the_guest() -> None:
    async with world(QUICK) as w:
        instance_id = await writing(w, None)
        await w.store.run(server_attributes.set_metadata, instance_id, {POLICY_KEY: "fast"})
        assert await w.do(instance_id, SagaKind.LIVE_MIGRATION) == "undone"
        assert "is none of auto-converge" in (await rows(w, instance_id))[1]["error"]
        assert w.commands == []
