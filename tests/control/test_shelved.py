"""Servers that leave their host and come back on another one; backups of which so many are kept; and reclaiming."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from droveway.control.loops.reclaiming import reclaim
from droveway.domain.model import SagaKind
from droveway.store.compute import instances
from droveway.store.image import backups, images
from droveway.store.work import sagas
from tests.control.test_sagas import make_image, params_of
from tests.control.world import SETTINGS, World, world


async def claims(w: World) -> int:
    return sum(host.instances for host in await w.facts())


async def shelved(w: World) -> str:
    instance_id = await w.create()
    assert await w.do(instance_id, SagaKind.SHELVE, await params_of(w, SagaKind.SHELVE)) == "done"
    return instance_id


async def test_what_is_shelved_holds_nothing_and_comes_back_where_it_fits() -> None:
    async with world() as w:
        instance_id = await shelved(w)
        row = await w.store.read(instances.get, instance_id)
        assert (row["vm_state"], row["host"], await claims(w)) == ("shelved_offloaded", None, 0)
        await w.check(instance_id)
        image_id = row["shelved_image_id"] or ""
        assert await w.do(instance_id, SagaKind.UNSHELVE, {"requested_host": "h2"}) == "done"
        row = await w.store.read(instances.get, instance_id)
        assert (row["vm_state"], row["host"], row["shelved_image_id"], await claims(w)) == ("active", "h2", None, 1)
        assert w.fleet.stores["shared"].images[instance_id] == image_id, "it began from what it was"
        assert await w.store.read(images.find, images.Filters("p")) == []
        await w.check(instance_id)


async def test_a_host_that_is_silent_keeps_a_shelved_server_until_it_is_back() -> None:
    async with world() as w:
        instance_id = await w.create()
        host = (await w.store.read(instances.get, instance_id))["host"] or ""
        w.commands.clear()
        w.gone_from = {host: 6}  # once the image is there, and its copy is to go
        params = await params_of(w, SagaKind.SHELVE)
        await w.store.run(instances.intend, instance_id, SagaKind.SHELVE, params)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await w.quiet()
        row = await w.store.read(instances.get, instance_id)
        assert (row["vm_state"], row["host"]) == ("shelved", host)
        w.gone_from = {}
        await w.quiet()
        assert (await w.store.read(instances.get, instance_id))["vm_state"] == "shelved_offloaded"
        assert await w.do(instance_id, SagaKind.DELETE) == "done"
        assert await w.store.read(images.find, images.Filters("p")) == [], "the image that it was is its own"


async def test_one_that_stays_on_its_host_is_started_there_from_its_own_disk() -> None:
    async with world(msgspec.structs.replace(SETTINGS, shelved_offload_s=-1.0)) as w:
        instance_id = await shelved(w)
        assert (await w.store.read(instances.get, instance_id))["vm_state"] == "shelved" and await claims(w) == 1
        assert await w.store.run(reclaim, 0.0, -1.0) == 0
        w.commands.clear()
        assert await w.do(instance_id, SagaKind.UNSHELVE) == "done"
        assert [verb for _, verb in w.commands] == ["Start"]
        await w.check(instance_id)


async def test_of_a_kind_of_backup_so_many_are_kept() -> None:
    async with world() as w:
        instance_id, made = await w.create(), []
        for _ in range(3):
            made.append(await make_image(w))
            own = {backups.SERVER: instance_id, backups.KIND: "daily"}
            await w.store.run(images.change, made[-1], None, {"properties": own})
            params = {"image_id": made[-1], "backup_type": "daily", "rotation": 2}
            assert await w.do(instance_id, SagaKind.CREATE_BACKUP, params) == "done"
        found = await w.store.read(images.find, images.Filters("p"))
        assert {row["id"] for row in found} == set(made[1:])
        w.commands.clear()
        await w.do(instance_id, SagaKind.CREATE_BACKUP, {"backup_type": "daily", "rotation": 0})
        assert w.commands == [] and await w.store.read(images.find, images.Filters("p")) == []
        await w.check(instance_id)


async def test_what_was_deleted_softly_is_reclaimed_in_its_time() -> None:
    async with world() as w:
        instance_id = await w.create()
        await w.do(instance_id, SagaKind.SOFT_DELETE)
        assert await claims(w) == 1, "it may be restored, so its room is its own"
        assert await w.store.run(reclaim, 3600.0, 0.0) == 0
        assert await w.store.run(reclaim, 0.0, 0.0) == 1
        await w.quiet()
        row = await w.store.read(instances.get, instance_id, None, deleted=True)
        assert row["deleted"] and (await w.store.read(sagas.listing, limit=1, only_open=False))[0]["kind"] == "delete"
        await w.check(instance_id)
