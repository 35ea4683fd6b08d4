"""A server is resized, or moves while it is off: what it is there, what it was, and how it goes back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from droveway.control.loops import reclaiming
from droveway.domain.faults import Conflict
from droveway.domain.model import Flavor, SagaKind, of_instance
from droveway.domain.resize import refusal, sizes_of
from droveway.store.compute import instances, migrations
from droveway.store.fleet import declared, services
from droveway.store.volume import attachments
from droveway.store.work import events, sagas
from tests.control.test_apart import ApartWorld
from tests.control.test_declared_gone import declare, is_up, off, until
from tests.control.volume_world import VolumeWorld
from tests.control.world import World, world

SMALL, LARGE = Flavor("1", "tiny", 1, 128, 1), Flavor("2", "larger", 2, 256, 3)


def becomes(flavor: Flavor = LARGE, *, begins_from_volume: bool = False) -> dict[str, Any]:
    sizes = sizes_of(flavor, begins_from_volume=begins_from_volume)
    of_row = {"vcpus": sizes.vcpus, "ram_mb": sizes.ram_mb, "disk_gb": sizes.disk_gb}
    return {"becomes": msgspec.to_builtins(sizes), "sizes": of_row}


async def row(w: World, instance_id: str) -> Any:
    return await w.store.read(instances.get, instance_id)


async def attempt(w: World, instance_id: str, kind: SagaKind, params: dict[str, Any] | None = None) -> tuple[str, str]:
    saga_id = await w.store.run(instances.intend, instance_id, kind, params or {})
    await w.quiet()
    saga = await w.store.read(sagas.get, saga_id)
    return saga["status"], saga["error"]


async def test_it_is_another_one_until_it_is_reverted_and_then_what_it_was() -> None:
    async with world() as w:
        instance_id = await w.create()
        before = await row(w, instance_id)
        source, store = before["host"], w.fleet.stores["shared"]
        assert await attempt(w, instance_id, SagaKind.RESIZE_SERVER, becomes()) == ("done", "")
        there = await row(w, instance_id)
        assert (there["vm_state"], there["flavor_id"], there["vcpus"], there["ram_mb"], there["disk_gb"]) == (
            *("resized", "2", 2, 256),
            3,
        )
        assert there["host"] != source and store.disks[instance_id] == 3
        assert w.fleet.hosts[there["host"]].domains[instance_id].ram_mb == 256
        facts = {one.name: one for one in await w.facts()}
        assert (facts[source].ram_mb_used, facts[there["host"]].ram_mb_used) == (0, 256)
        (moved,) = await w.store.read(migrations.find)
        assert (moved["migration_type"], moved["status"]) == ("resize", "finished")
        assert (moved["source"], moved["destination"], moved["ram_mb"]) == (source, there["host"], 256)
        await w.check(instance_id)
        assert await attempt(w, instance_id, SagaKind.REVERT_RESIZE) == ("done", "")
        after = await row(w, instance_id)
        for name in ("host", "flavor", "flavor_id", "vcpus", "ram_mb", "disk_gb", "vm_state", "power_state"):
            assert after[name] == before[name], name
        assert store.disks[instance_id] == 1 and w.fleet.hosts[source].domains[instance_id].ram_mb == 128
        assert (await w.store.read(migrations.find))[0]["status"] == "reverted"
        await w.check(instance_id)


async def test_confirmed_it_stays_as_it_is_and_off_what_was_off() -> None:
    async with world() as w:
        instance_id = await w.create()
        await w.do(instance_id, SagaKind.STOP)
        assert await attempt(w, instance_id, SagaKind.COLD_MIGRATION) == ("done", "")
        there = await row(w, instance_id)
        assert (there["vm_state"], there["power_state"], await w.runs_on(instance_id)) == ("resized", 4, [])
        assert await attempt(w, instance_id, SagaKind.CONFIRM_RESIZE) == ("done", "")
        assert (await row(w, instance_id))["vm_state"] == "stopped"
        await w.check(instance_id)
        assert await attempt(w, instance_id, SagaKind.START) == ("done", "")
        assert await w.runs_on(instance_id) == [there["host"]]
        assert await attempt(w, instance_id, SagaKind.RESIZE_SERVER, becomes()) == ("done", "")
        assert await attempt(w, instance_id, SagaKind.CONFIRM_RESIZE) == ("done", "")
        assert (await row(w, instance_id))["vm_state"] == "active"
        await w.check(instance_id)


async def test_one_at_a_time_and_nothing_else_until_it_is_confirmed() -> None:
    async with world() as w:
        instance_id = await w.create()
        await w.store.run(instances.intend, instance_id, SagaKind.COLD_MIGRATION, {})
        for kind in (SagaKind.COLD_MIGRATION, SagaKind.LIVE_MIGRATION, SagaKind.STOP):
            with pytest.raises(Conflict, match="resize_prep"):
                await w.store.run(instances.intend, instance_id, kind, {})
        await w.quiet()
        for kind in (SagaKind.COLD_MIGRATION, SagaKind.LIVE_MIGRATION, SagaKind.STOP, SagaKind.RESET_STATE):
            with pytest.raises(Conflict, match="vm_state resized"):
                await w.store.run(instances.intend, instance_id, kind, {"state": "active"})
        with pytest.raises(Conflict, match="vm_state resized"):
            await w.store.run(instances.intend, instance_id, SagaKind.SOFT_DELETE, {})
        await w.do(instance_id, SagaKind.DELETE)
        assert not w.fleet.stores["shared"].kept
        assert all(one.instances == 0 for one in await w.facts())


async def test_no_other_host_or_one_that_is_full_is_told_by_its_rule() -> None:
    async with world(hosts=("h1",)) as w:
        instance_id = await w.create()
        status, error = await attempt(w, instance_id, SagaKind.RESIZE_SERVER, becomes())
        assert status == "undone" and "No valid host" in error
        await w.check(instance_id)
    async with world() as w:
        instance_id = await w.create()
        source = (await row(w, instance_id))["host"]
        status, error = await attempt(w, instance_id, SagaKind.COLD_MIGRATION, {"destination": source})
        assert status == "undone" and "already runs" in error
        other = "h2" if source == "h1" else "h1"
        huge = becomes(Flavor("3", "huge", 1, 10**6, 1)) | {"destination": other}
        status, error = await attempt(w, instance_id, SagaKind.RESIZE_SERVER, huge)
        assert status == "undone" and f"{other} cannot take it: memory" in error
        assert (await row(w, instance_id))["vm_state"] == "active"
        await w.check(instance_id)


async def test_a_former_host_that_cannot_take_it_back_leaves_it_where_it_is() -> None:
    async with world() as w:
        instance_id = await w.create()
        source = (await row(w, instance_id))["host"]
        await w.do(instance_id, SagaKind.COLD_MIGRATION)

        def disable(tx: Any) -> None:
            (service,) = services.list_all(tx, host=source, binary="nova-compute")
            services.set_(tx, service["uuid"], disabled=True, disabled_reason="its fan is loud")

        await w.store.run(disable)
        status, error = await attempt(w, instance_id, SagaKind.REVERT_RESIZE)
        assert status == "undone" and f"{source}, where it was, cannot take it back" in error and "fan" in error
        there = await row(w, instance_id)
        assert there["vm_state"] == "resized" and await w.runs_on(instance_id) == [there["host"]]
        assert await attempt(w, instance_id, SagaKind.CONFIRM_RESIZE) == ("done", "")
        await w.check(instance_id)


async def test_disks_on_a_store_that_is_not_shared_do_not_move_while_it_is_off() -> None:
    w = ApartWorld()
    await w.open()
    try:
        instance_id = await w.create()
        status, error = await attempt(w, instance_id, SagaKind.COLD_MIGRATION)
        assert status == "undone" and "migrate it live" in error
        await w.check(instance_id)
        await w.check_disks(instance_id)
    finally:
        await w.close()


@pytest.mark.parametrize("is_apart", [False, True])
async def test_its_volumes_go_along_there_and_back(is_apart: bool) -> None:
    w = VolumeWorld()
    w.is_apart = is_apart
    await w.open()
    try:
        root = await w.volume()
        instance_id = await w.boot(await w.volume(), root=root)
        source = (await row(w, instance_id))["host"]
        params = becomes(begins_from_volume=True)
        assert await attempt(w, instance_id, SagaKind.RESIZE_SERVER, params) == ("done", "")
        there = (await row(w, instance_id))["host"]
        assert there != source
        held = await w.store.read(attachments.of_instance, instance_id)
        assert {(one["host"], one["to_host"]) for one in held} == {(there, None)}
        assert await attempt(w, instance_id, SagaKind.REVERT_RESIZE) == ("done", "")
        held = await w.store.read(attachments.of_instance, instance_id)
        assert {(one["host"], one["to_host"]) for one in held} == {(source, None)}
        assert await w.runs_on(instance_id) == [source]
        assert w.fleet.violations == []
        assert [name for name, store in w.fleet.stores.items() if instance_id in store.disks] == [
            source if is_apart else "shared"
        ]
    finally:
        await w.close()


async def test_it_is_confirmed_by_itself_after_a_time_and_by_nobody_where_that_is_0() -> None:
    async with world() as w:
        instance_id = await w.create()
        await w.do(instance_id, SagaKind.COLD_MIGRATION)
        assert await w.store.run(reclaiming.confirm, 0.0) == 0
        assert await w.store.run(reclaiming.confirm, 3600.0) == 0
        await w.store.run(instances.set_, instance_id, resized_at_us=1)
        assert await w.store.run(reclaiming.confirm, 3600.0) == 1
        await w.quiet()
        assert (await row(w, instance_id))["vm_state"] == "active"
        await w.check(instance_id)


async def test_one_whose_host_went_down_before_it_was_confirmed_starts_again_and_waits_on() -> None:
    async with world() as w:
        instance_id = await w.create()
        await w.do(instance_id, SagaKind.COLD_MIGRATION)
        there = (await row(w, instance_id))["host"]
        await w.store.run(instances.set_, instance_id, ran_boot_id="an earlier boot")
        w.fleet.crash_guest(there, instance_id)
        await w.report()
        assert await w.runs_on(instance_id) == [there]
        assert (await row(w, instance_id))["vm_state"] == "resized"
        kinds = [one["kind"] for one in await w.store.read(events.of_subject, of_instance(instance_id))]
        assert "instance" in kinds
        assert await attempt(w, instance_id, SagaKind.REVERT_RESIZE) == ("done", "")
        await w.check(instance_id)


async def test_a_confirmation_waits_for_a_host_that_was_declared_gone_and_leaves_no_copy() -> None:
    async with world() as w:
        instance_id = await w.create()
        await w.do(instance_id, SagaKind.COLD_MIGRATION)
        there = (await row(w, instance_id))["host"]
        back = off(w, there)
        await w.store.run(declare, there)
        saga_id = await w.store.run(instances.intend, instance_id, SagaKind.CONFIRM_RESIZE, {})

        async def waits() -> bool:
            return "declared gone" in ((await w.store.read(sagas.get, saga_id))["blocked"] or "")

        await until(waits)
        back()
        await w.store.run(declared.readmit, there)
        await until(lambda: is_up(w, there))
        await w.report()
        await w.quiet()
        assert (await row(w, instance_id))["vm_state"] == "active"
        await w.check(instance_id)


@pytest.mark.parametrize(
    ("after", "from_volume", "words"),
    [
        (LARGE, False, ""),
        (SMALL, False, "must change flavor"),
        (Flavor("3", "x", 1, 128, 0), False, "zero disk"),
        (Flavor("3", "x", 1, 128, 0), True, ""),
        (Flavor("3", "x", 4, 512, 1), False, ""),
        (Flavor("3", "x", 1, 128, 1, ephemeral_gb=1), False, "ephemeral disk"),
        (Flavor("3", "x", 1, 128, 1, swap_mb=1), False, "swap"),
    ],
)
def test_what_a_flavor_may_become(after: Flavor, from_volume: bool, words: str) -> None:
    found = refusal(SMALL, after, begins_from_volume=from_volume)
    assert words in found and bool(words) == bool(found)
    assert "disk down" in refusal(LARGE, Flavor("4", "y", 1, 128, 2), begins_from_volume=False)
