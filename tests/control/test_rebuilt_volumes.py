"""A server that begins from a volume is rebuilt: its backend fills that anew, while no host is admitted to it."""

from __future__ import annotations

import asyncio

import pytest

from droveway.domain.model import SagaKind, SagaStatus
from droveway.drivers.storage.simulated import SimulatedPool
from droveway.store.compute import instances
from droveway.store.volume import volumes
from droveway.store.work import sagas
from tests.control.test_begun_from_volumes import an_image, new_snapshots
from tests.control.volume_world import VolumeWorld, with_volumes
from tests.control.world import Break

COMMANDS = ("Stop", "WithdrawVolume", "FillVolume", "ReplaceDisk", "AdmitVolume", "Start")
BEFORE_PIVOT = COMMANDS.index("FillVolume") + 1


def bytes_of(pool: SimulatedPool, volume_id: str) -> bytes:
    return pool.volumes[volume_id].blocks.get(0, b"").rstrip(b"\0")


async def rebuilt(world: VolumeWorld, server: str) -> tuple[str, str]:
    """How it ended, and of which image it is to be."""
    image = await world.store.run(an_image)
    params = {"image_id": image, "image_metadata": {"image_id": image}, "name": "anew"}
    return await world.do(server, SagaKind.REBUILD, params), image


async def test_its_root_volume_is_filled_and_the_others_stay() -> None:
    async with with_volumes() as world:
        root, more = await world.volume(), await world.volume()
        server = await world.boot(more, root=root)
        world.commands.clear()
        ended, image = await rebuilt(world, server)
        assert ended == "done"
        assert tuple(verb for _, verb in world.commands) == COMMANDS
        assert bytes_of(world.pool, root) != b"" and bytes_of(world.pool, more) == b""
        assert await world.has(server) == [root, more]
        row, volume = await world.store.read(instances.get, server), await world.row(root)
        assert (row["name"], row["image_id"], row["vm_state"]) == ("anew", None, "active")
        assert (volume["image_id"], volume["image_metadata"]) == (image, {"image_id": image})
        await world.check(server)


async def test_one_that_is_off_stays_off() -> None:
    async with with_volumes() as world:
        root = await world.volume()
        server = await world.boot(root=root)
        assert await world.do(server, SagaKind.STOP) == "done"
        ended, _ = await rebuilt(world, server)
        assert ended == "done" and bytes_of(world.pool, root) != b""
        assert (await world.store.read(instances.get, server))["vm_state"] == "stopped"
        assert await world.has(server) == [root]


@pytest.mark.matrix
@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize("at", range(1, len(COMMANDS) + 1))
async def test_whatever_breaks_it_is_of_one_image_or_of_the_other(at: int, breaks: Break) -> None:
    async with with_volumes() as world:
        root, more = await world.volume(), await world.volume()
        server = await world.boot(more, root=root)
        world.commands.clear()
        world.at, world.breaks = at, breaks
        ended, image = await rebuilt(world, server)
        world.at = 0
        volume = await world.row(root)
        assert ended in ("done", "undone")
        if ended == "done":
            assert volume["image_id"] == image and bytes_of(world.pool, root) != b""
        else:
            assert volume["image_id"] is None and at <= BEFORE_PIVOT and bytes_of(world.pool, root) == b""
        assert await world.has(server) == [root, more]
        await world.check(server)


async def test_under_snapshots_nothing_is_written_over() -> None:
    async with with_volumes() as world:
        root = await world.volume()
        server = await world.boot(root=root)
        await world.store.run(new_snapshots, {root: "11111111-0000-4000-8000-000000000001"})
        ended, _ = await rebuilt(world, server)
        assert ended == "undone" and bytes_of(world.pool, root) == b""
        row = await world.store.read(instances.get, server)
        assert "has snapshots" in row["fault"]["message"]
        assert await world.has(server) == [root]


@pytest.mark.parametrize("silent_at", ["WithdrawVolume", "AdmitVolume"])
async def test_one_that_is_deleted_meanwhile_does_not_wait_for_its_backend(silent_at: str) -> None:
    """Before the point of no return, and behind it."""
    async with with_volumes() as world:
        root = await world.volume()
        server = await world.boot(root=root)
        world.commands.clear()
        image = await world.store.run(an_image)
        params = {"image_id": image, "image_metadata": {"image_id": image}}
        await world.store.run(instances.intend, server, SagaKind.REBUILD, params)
        async with asyncio.timeout(10):
            while not world.commands or world.commands[-1][1] != COMMANDS[COMMANDS.index(silent_at) - 1]:
                await asyncio.sleep(0)
        world.pool.down = "nobody answers"
        async with asyncio.timeout(10):
            while world.commands[-1][1] != silent_at:
                await asyncio.sleep(0.002)
        deletion = await world.store.run(instances.intend, server, SagaKind.DELETE, {})
        assert (await world.ended(deletion))[0] == "done"
        world.pool.down = ""
        await world.quiet()
        assert (await world.row(root))["status"] == "available"
        assert world.opened(root) == ([], [])


async def test_what_is_read_only_is_not_written_over() -> None:
    async with with_volumes() as world:
        root = await world.volume()
        await world.store.run(volumes.set_, root, read_only=True)
        server = await world.boot(root=root)
        ended, _ = await rebuilt(world, server)
        assert ended == "undone" and bytes_of(world.pool, root) == b""
        assert "is read-only" in (await world.store.read(instances.get, server))["fault"]["message"]
        assert await world.has(server) == [root]


async def test_one_that_is_cancelled_while_its_volume_is_filled_is_of_the_new_image() -> None:
    async with with_volumes() as world:
        root, gate = await world.volume(), asyncio.Event()
        server = await world.boot(root=root)
        world.commands.clear()

        async def pause() -> None:
            if world.commands and world.commands[-1][1] == "FillVolume":
                await gate.wait()

        world.pool.pause = pause
        image = await world.store.run(an_image)
        params = {"image_id": image, "image_metadata": {}}
        rebuild = await world.store.run(instances.intend, server, SagaKind.REBUILD, params)
        async with asyncio.timeout(10):
            while not world.commands or world.commands[-1][1] != "FillVolume":
                await asyncio.sleep(0.002)
            await world.store.run(sagas.cancel, rebuild, "by hand")
            while (await world.store.read(sagas.get, rebuild))["status"] != SagaStatus.BACKWARD:
                await asyncio.sleep(0.002)
        gate.set()
        assert (await world.ended(rebuild))[0] == "done"
        assert (await world.row(root))["image_id"] == image and bytes_of(world.pool, root) != b""
        assert await world.has(server) == [root]
