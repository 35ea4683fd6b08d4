"""The checks before a migration, and its dry run: each answer is named, and nothing is changed by asking."""

from __future__ import annotations

from typing import Any

import pytest

from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.model import SagaKind
from droveway.domain.move_checks import Check
from droveway.domain.move_plan import MovePlan, MoveVerdict
from droveway.domain.move_prediction import Mode, of_mode
from droveway.ports.control import MoveRequest
from droveway.store.compute import instances, migrations, predictions
from droveway.store.fleet import hosts
from droveway.store.work import sagas
from tests.control.test_apart import ApartWorld
from tests.control.volume_world import VOLUME_HOST, VolumeWorld
from tests.control.world import World, world

MIB = 1024**2


async def place(w: World, instance_id: str) -> tuple[str, str]:
    source = (await w.store.read(instances.get, instance_id))["host"] or ""
    return source, "h2" if source == "h1" else "h1"


async def plan(w: World, instance_id: str, **given: Any) -> MovePlan:
    """Without a second of waiting, and everything is as it was."""
    before = await w.store.read(instances.get, instance_id), await w.store.read(hosts.claims_of_all)
    asked = list(w.commands)
    found = await w.control.answers.plan_move(MoveRequest(instance_id, **{"measure": False, **given}))
    assert (await w.store.read(instances.get, instance_id), await w.store.read(hosts.claims_of_all)) == before
    assert w.commands == asked, "nothing that is fenced was asked"
    assert not any(store.probes or store.marks for store in w.fleet.stores.values())
    assert not any(one["holds_claim"] for one in await w.store.read(migrations.find))
    assert await w.store.read(sagas.count_open) == 0
    return found


async def migrate(w: World, instance_id: str, **params: Any) -> tuple[str, str]:
    saga_id = await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, params)
    await w.quiet()
    saga = await w.store.read(sagas.get, saga_id)
    return saga["status"], saga["error"]


async def test_a_guest_that_may_move_passes_every_check_of_the_migration_itself() -> None:
    async with world() as w:
        instance_id = await w.create()
        _, other = await place(w, instance_id)
        found = await plan(w, instance_id)
        (there,) = found.hosts
        assert (there.host, there.verdict, there.blockers, there.shares_store) == (other, MoveVerdict.MOVES, (), True)
        names = [one.name for one in (*found.checks, *there.checks)]
        assert all(one.passed for one in (*found.checks, *there.checks))
        assert {Check.ACTIVE, Check.SOURCE_UP, Check.BACKENDS, Check.GUEST, Check.DEVICES} <= set(names)
        assert {"up", "version", "ram", Check.NOT_THERE, Check.MACHINE, Check.CPU, Check.STORE} <= set(names)
        assert [one.mode for one in there.predictions] == list(Mode)
        assert found.way.learnt_from == 0 and found.load is not None and found.load.dirty_bytes_per_s is None
        assert await migrate(w, instance_id) == ("done", "")
        assert (await place(w, instance_id))[0] == other


@pytest.mark.parametrize(
    ("breaks", "blocker", "words"),
    [
        ("device", Check.DEVICES, "0000:03:00.0"),
        ("stalled", Check.IO_ERROR, "no space behind its disk vda"),
        ("cpu", Check.CPU, "lacks features"),
        ("disabled", "enabled", "it is disabled"),
        ("older", "version", "hypervisor"),
        ("full", "ram", "memory"),
    ],
)
async def test_what_the_dry_run_names_is_what_the_migration_is_refused_for(
    breaks: str, blocker: str, words: str
) -> None:
    async with world() as w:
        instance_id = await w.create()
        source, other = await place(w, instance_id)
        domain, there = w.fleet.hosts[source].domains[instance_id], w.fleet.hosts[other]
        if breaks == "device":
            domain.bound_devices = ("host device 0000:03:00.0",)
        elif breaks == "stalled":
            domain.stalled = "there is no space behind its disk vda"
        elif breaks == "cpu":
            there.cpu_level = 0
        else:
            await w.store.run(_make_unfit, other, breaks)
        found = await plan(w, instance_id)
        (host,) = found.hosts
        assert (host.verdict, host.blockers) == (MoveVerdict.BLOCKED, (blocker,))
        failed = next(one for one in (*found.checks, *host.checks) if one.passed is False)
        assert words in failed.reason
        status, error = await migrate(w, instance_id, destination=other)
        assert status == "undone" and words in error
        matrix = await w.control.answers.move_matrix(None)
        assert [(one.host, one.verdict, one.blocker) for one in matrix.pairs] == [(other, "blocked", blocker)]


def _make_unfit(tx: Any, host: str, how: str) -> None:
    from droveway.store.fleet import services

    service = next(one for one in services.list_all(tx, host=host, binary="nova-compute"))
    if how == "disabled":
        services.set_(tx, service["uuid"], disabled=True, disabled_reason="its fan is loud")
        return
    import msgspec
    from sqlalchemy import update

    from droveway.store.schema import hosts as table

    row = hosts.get(tx, host)
    resources = dict(row["resources"] or {})
    resources |= {"hypervisor_version": 1} if how == "older" else {"memory_mb": 1}
    tx.execute(update(table).where(table.c.name == host).values(resources=msgspec.to_builtins(resources)))
    hosts.touch(tx, host)


async def test_the_host_where_it_is_and_one_that_is_not_there() -> None:
    async with world() as w:
        instance_id = await w.create()
        source, _ = await place(w, instance_id)
        found = await plan(w, instance_id, host=source)
        assert found.hosts[0].blockers == (Check.OTHER_HOST,)
        with pytest.raises(NotFound):
            await plan(w, instance_id, host="h9")
        with pytest.raises(NotFound):
            await w.control.answers.move_matrix("h9")
        await w.do(instance_id, SagaKind.STOP)
        found = await plan(w, instance_id)
        assert found.hosts[0].blockers == (Check.ACTIVE,) and found.load is None
        await w.do(instance_id, SagaKind.DELETE)
        with pytest.raises((NotFound, BadRequest)):
            await w.control.answers.plan_move(MoveRequest(instance_id))


async def test_a_host_that_does_not_answer_leaves_its_checks_open() -> None:
    async with world() as w:
        instance_id = await w.create()
        _, other = await place(w, instance_id)
        w.fleet.hosts[other].hypervisor_is_up, w.fleet.hosts[other].why = False, "it hangs"
        found = await plan(w, instance_id)
        (host,) = found.hosts
        assert host.verdict == MoveVerdict.UNKNOWN and host.shares_store is None
        assert next(one.reason for one in host.checks if one.passed is None).endswith("it hangs")
        matrix = await w.control.answers.move_matrix(None)
        assert [one.verdict for one in matrix.pairs] == ["unknown"]


async def test_disks_that_go_along_are_counted_and_find_room_or_not() -> None:
    w = ApartWorld()
    await w.open()
    try:
        instance_id = await w.create()
        _, other = await place(w, instance_id)
        (host,) = (await plan(w, instance_id)).hosts
        assert (host.verdict, host.shares_store) == (MoveVerdict.MOVES, False) and host.copy_bytes > 0
        (host,) = (await plan(w, instance_id, block_migration=False)).hosts
        assert host.blockers == (Check.STORE,)
        w.fleet.stores[other].used_gb = w.fleet.hosts[other].resources.disk_gb
        (host,) = (await plan(w, instance_id)).hosts
        assert host.blockers == (Check.ROOM,)
        status, error = await migrate(w, instance_id)
        assert status == "undone" and "MiB free" in error
        w.fleet.stores[other].used_gb = 0
        assert await migrate(w, instance_id) == ("done", "")
        await w.check_disks(instance_id)
    finally:
        await w.close()


async def test_a_volume_whose_backend_is_down_is_told_before_anything_is_begun() -> None:
    w = VolumeWorld()
    await w.open()
    try:
        instance_id = await w.boot(await w.volume())
        assert (await w.store.read(instances.get, instance_id))["vm_state"] == "active"
        w.commands.clear()
        await w.store.run(_force_down, VOLUME_HOST)
        found = await plan(w, instance_id)
        assert found.hosts[0].blockers == (Check.BACKENDS,)
        status, error = await migrate(w, instance_id)
        assert status == "undone" and VOLUME_HOST in error and "forced it down" in error and w.commands == []
    finally:
        await w.close()


def _force_down(tx: Any, host: str) -> None:
    from droveway.store.fleet import services

    (service,) = services.list_all(tx, host=host)
    services.force_down(tx, service["uuid"], forced_down=True)


async def test_what_is_measured_is_foreseen_and_what_was_is_recorded_beside_it() -> None:
    async with world() as w:
        instance_id = await w.create()
        source, other = await place(w, instance_id)
        domain = w.fleet.hosts[source].domains[instance_id]
        domain.dirty_bytes_per_s, domain.ram_mb = 10**12, 8192
        found = await plan(w, instance_id, measure=True)
        assert found.load is not None and found.load.dirty_bytes_per_s == 10**12
        assert found.hosts[0].verdict == MoveVerdict.ENDLESS
        assert of_mode(found.hosts[0].predictions, Mode.NEVER_SLOW).duration_s is None
        assert await migrate(w, instance_id) == ("done", "")
        (row,) = await w.store.read(predictions.newest, 10)
        assert (row["source"], row["destination"], row["outcome"]) == (source, other, "completed")
        assert row["predicted_ms"] is None and row["duration_ms"] is not None and row["dirty_bytes_per_s"] == 10**12
        for _ in range(4):
            await migrate(w, instance_id)
        assert (await w.store.read(predictions.newest, 1))[0]["learnt_from"] == 4
        assert (await plan(w, instance_id)).way.learnt_from == 4, "the busy one tells less than the others"
        w.fleet.faults = type(w.fleet.faults)(copy_fails=1.0)
        await migrate(w, instance_id)
        assert (await w.store.read(predictions.newest, 1))[0]["outcome"] == "failed"


async def test_a_forced_destination_leaves_out_wishes_and_no_check() -> None:
    async with world() as w:
        instance_id = await w.create()
        _, other = await place(w, instance_id)
        await w.store.run(instances.set_, instance_id, zone="elsewhere")
        status, error = await migrate(w, instance_id, destination=other)
        assert status == "undone" and "zone" in error
        w.fleet.hosts[other].cpu_level = 0
        status, error = await migrate(w, instance_id, destination=other, force=True)
        assert status == "undone" and "CPU" in error
        w.fleet.hosts[other].cpu_level = 1
        assert await migrate(w, instance_id, destination=other, force=True) == ("done", "")
