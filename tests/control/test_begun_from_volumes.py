"""Servers with volumes that move, are shelved, rescued and imaged: a host is admitted where the guest is, and nowhere
else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from droveway.domain.model import SagaKind
from droveway.domain.volume.model import VolumeStatus, of_volume
from droveway.drivers.hypervisor.simulated.fleet import Faults, Store
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.volume import snapshots, volumes
from droveway.store.work import sagas
from tests.control.volume_world import with_volumes
from tests.control.world import Break

IMAGE: dict[str, Any] = {
    "project_id": "p",
    "name": "i",
    "visibility": "private",
    "protected": False,
    "container_format": "bare",
    "disk_format": "raw",
    "min_ram_mb": 0,
    "min_disk_gb": 0,
    "properties": {},
    "tags": [],
}


async def test_a_server_moves_with_its_volumes_and_its_old_host_is_admitted_no_longer() -> None:
    async with with_volumes() as world:
        root, more = await world.volume(), await world.volume()
        server = await world.boot(more, root=root)
        before = (await world.store.read(instances.get, server))["host"]
        for _ in range(2):
            assert await world.do(server, SagaKind.LIVE_MIGRATION) == "done"
            assert await world.has(server) == [root, more]
        assert (await world.store.read(instances.get, server))["host"] == before
        await world.check(server)


@pytest.mark.matrix
@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize("at", range(1, 13, 2))
async def test_whatever_breaks_at_a_move_its_volumes_are_open_where_it_is_and_nowhere_else(
    breaks: Break, at: int
) -> None:
    async with with_volumes() as world:
        root, more = await world.volume(), await world.volume()
        server = await world.boot(more, root=root)
        world.commands.clear()
        world.at, world.breaks = at, breaks
        await world.do(server, SagaKind.LIVE_MIGRATION)
        world.at = 0
        assert await world.has(server) == [root, more]
        await world.check(server)


async def test_a_server_without_files_moves_between_hosts_that_share_none() -> None:
    async with with_volumes() as world:
        stores = world.fleet.stores
        for name in ("h1", "h2"):
            world.fleet.hosts[name].store = stores[name] = Store()
        root = await world.volume()
        server = await world.boot(root=root)
        before = (await world.store.read(instances.get, server))["host"]
        assert await world.do(server, SagaKind.LIVE_MIGRATION) == "done"
        after = (await world.store.read(instances.get, server))["host"]
        assert after != before and server in stores[after].disks and server not in stores[before].disks
        assert await world.has(server) == [root]
        world.commands.clear()
        world.fleet.faults = Faults(copy_fails=1.0)
        assert await world.do(server, SagaKind.LIVE_MIGRATION) == "undone"
        assert server in stores[after].disks and server not in stores[before].disks
        assert await world.has(server) == [root]


async def test_what_was_left_at_the_source_of_a_move_goes_with_the_next() -> None:
    async with with_volumes() as world:
        one, server = await world.volume(), await world.boot()
        assert await world.attach(server, one) == ("done", "")
        saga = await world.store.run(lambda tx: instances.intend(tx, server, SagaKind.LIVE_MIGRATION, {}))
        async with asyncio.timeout(10):
            while ("h1", "Release") not in world.commands and ("h2", "Release") not in world.commands:
                await asyncio.sleep(0)
        world.pool.down = "nobody answers"
        assert await world.ended(saga) == ("done", "")
        row = await world.attachment(one)
        assert row is not None and row["to_host"] is not None
        world.pool.down = ""
        await world.look()
        assert await world.do(server, SagaKind.LIVE_MIGRATION) == "done"
        assert await world.has(server) == [one]


async def test_a_server_that_begins_from_a_volume_is_shelved_without_a_copy_and_comes_back() -> None:
    async with with_volumes() as world:
        root, more = await world.volume(), await world.volume()
        server = await world.boot(more, root=root)
        assert await world.do(server, SagaKind.SHELVE, {"image_id": ""}) == "done"
        row = await world.store.read(instances.get, server)
        assert (row["vm_state"], row["host"], row["shelved_image_id"]) == ("shelved_offloaded", None, None)
        assert world.opened(root) == ([], []) and world.opened(more) == ([], [])
        assert (await world.row(root))["status"] == VolumeStatus.IN_USE, "it is the server's still"
        third = await world.volume()
        assert await world.attach(server, third) == ("done", "")
        assert await world.detach(server, more) == ("done", "")
        assert await world.is_free(more)
        assert await world.do(server, SagaKind.UNSHELVE) == "done"
        assert await world.has(server) == [root, third]


async def test_a_server_that_begins_from_a_volume_is_rescued_and_goes_on() -> None:
    async with with_volumes() as world:
        root = await world.volume()
        server = await world.boot(root=root)
        image = await world.store.run(an_image)
        assert await world.do(server, SagaKind.RESCUE, {"image_id": image}) == "done"
        host = (await world.store.read(instances.get, server))["host"]
        assert world.opened(root) == ([host], [host])
        assert await world.do(server, SagaKind.UNRESCUE) == "done"
        assert await world.has(server) == [root]


def an_image(tx: Tx) -> str:
    image_id = an_image_to_be(tx)
    generation = images.claim_upload(tx, image_id, None)["generation"]
    images.finish_upload(tx, image_id, generation, {"size_bytes": 512, "sha512": "0" * 128})
    return image_id


@pytest.mark.parametrize("at", range(5))
async def test_an_image_of_it_is_of_snapshots_of_one_moment_or_nothing_is_left(at: int) -> None:
    async with with_volumes() as world:
        root, more = await world.volume(), await world.volume()
        server = await world.boot(more, root=root)
        image = await world.store.run(an_image_to_be)
        ids = {root: "11111111-0000-4000-8000-000000000001", more: "11111111-0000-4000-8000-000000000002"}
        await world.store.run(new_snapshots, ids)
        world.commands.clear()
        world.at, world.breaks = at, Break.REFUSED
        ended = await world.do(server, SagaKind.CREATE_IMAGE, {"image_id": image, "snapshots": ids})
        world.at = 0
        assert ended == ("undone" if at in (2, 3) else "done"), "a guest that cannot be held is no reason"
        verbs = [verb for _, verb in world.commands]
        assert verbs[:4] == ["Freeze", "SnapshotVolume", "SnapshotVolume", "Thaw"]
        made = [bool(world.pool.volumes[one].snapshots) for one in ids]
        if ended == "undone":
            assert made == [False, False]
            assert await world.store.read(snapshots.of_volume, root) == []
        else:
            assert made == [True, True]
            rows = [await world.store.read(snapshots.get, one) for one in ids.values()]
            assert {one["status"] for one in rows} == {"available"}
            assert (await world.store.read(images.get, image, None))["status"] == images.ACTIVE
        assert await world.has(server) == [root, more]


def an_image_to_be(tx: Tx) -> str:
    return images.create(tx, images.NewImage(**{**IMAGE, "id": tx.names.uuid()}))["id"]


def new_snapshots(tx: Tx, ids: dict[str, str]) -> None:
    for volume_id, snapshot_id in ids.items():
        row: Any = {"id": snapshot_id, "project_id": "p", "user_id": "u", "name": None, "description": None}
        row |= {"created_at_us": tx.now_us, "updated_at_us": None, "volume_id": volume_id, "size_gb": 1}
        snapshots.insert_row(tx, row | {"status": "creating", "metadata": {}, "fault": "", "fence": 0})


async def test_what_waited_for_the_end_of_its_server_leaves_the_volume_free() -> None:
    """It was asked for while the volume was in use."""
    async with with_volumes() as world:
        server, one = await world.boot(), await world.volume()
        assert await world.attach(server, one) == ("done", "")

        def both(tx: Tx) -> None:
            instances.intend(tx, server, SagaKind.DELETE, {})
            volumes.set_(tx, one, status="extending", growing_to_gb=2)
            params = {"size_gb": 2, "previous": "in-use"}
            sagas.enqueue(tx, SagaKind.EXTEND_VOLUME, of_volume(one), "p", params, request_id="")

        await world.store.run(both)
        await world.quiet()
        assert await world.is_free(one) and (await world.row(one))["size_gb"] == 2
