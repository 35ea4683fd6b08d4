"""Of Ceph alone: who is cut off, what a wrong key or another cluster is, and what hides in the trash."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from droveway.domain.volume.disks import RbdSource
from droveway.domain.volume.model import FromSnapshot, FromVolume, VolumeSpec
from droveway.drivers.storage.rbd import driver, image_cache, librbd
from droveway.drivers.storage.rbd.binding import load
from droveway.drivers.storage.rbd.driver import RbdStorage
from droveway.ports.storage import StorageDown, StorageRefused
from lab.ceph import Ceph
from lab.servers import obstacle
from tests.drivers.storage_server_worlds import RbdWorld
from tests.drivers.storage_world import S1, TICKET, V1, V2, V3
from tests.drivers.storage_worlds import play

pytestmark = [pytest.mark.servers, pytest.mark.skipif(bool(obstacle("ceph")), reason=str(obstacle("ceph")))]
MIB = 1024**2
ONE, OTHER = VolumeSpec(V1, 1), VolumeSpec(V2, 1)


@pytest.fixture(autouse=True)
def _cluster(ceph_cluster: Ceph) -> None:
    RbdWorld.cluster = ceph_cluster


def test_a_host_that_is_cut_off_writes_no_more(tmp_path: Path) -> None:
    async def story(world: RbdWorld) -> None:
        await world.storage.create(ONE)
        async with world.guest(await world.storage.admit(ONE, "h1")) as guest:
            await guest.write(0, 0x41)
            began_s = time.monotonic()
            await world.storage.withdraw(V1, "h1", force=True)
            source = await world.storage.admit(ONE, "h2")
            async with world.guest(source, "h2") as next_guest:
                assert await next_guest.reads(0, 0x41)
                await next_guest.write(0, 0x42)
                assert time.monotonic() - began_s < 20, "the lock of the first was broken, not waited for"
                assert "wrote" not in await guest.ask("write -f -P 67 0 4096")
                assert await next_guest.reads(0, 0x42)
            assert (await world.storage.inventory())[0].holders == ("h2",)

    play("rbd", tmp_path, story)


def test_a_host_that_hangs_is_cut_off_and_the_other_one_is_not(tmp_path: Path) -> None:
    """As after a migration that was given up: two hosts are admitted, and one is declared gone."""

    async def story(world: RbdWorld) -> None:
        await world.storage.create(ONE)
        async with world.guest(await world.storage.admit(ONE, "h1")) as guest:
            await guest.write(0, 0x41)
            source = await world.storage.admit(ONE, "h2")
            async with world.guest(source, "h2") as next_guest:
                with pytest.raises(StorageRefused, match="open on host h1 "):
                    await world.storage.withdraw(V1, "h1")
                await world.storage.withdraw(V1, "h1", force=True)
                await next_guest.write(0, 0x42)
                assert "wrote" not in await guest.ask("write -f -P 67 0 4096")
                assert await next_guest.reads(0, 0x42)

    play("rbd", tmp_path, story)


def test_a_deleted_volume_hides_until_its_clones_are_gone(tmp_path: Path) -> None:
    async def story(world: RbdWorld) -> None:
        await world.storage.create(ONE)
        await world.put(ONE, 0, b"first")
        await world.storage.snapshot(V1, S1)
        await world.storage.create(OTHER, FromSnapshot(S1, V1))
        await world.storage.create(VolumeSpec(V3, 1), FromVolume(V2))
        await world.storage.delete_snapshot(V1, S1)
        for volume_id in (V1, V2):
            await world.storage.delete(volume_id)
        assert [one.volume_id for one in await world.storage.inventory()] == [V3]
        assert await world.bytes_of(VolumeSpec(V3, 1), 0, 5) == b"first"
        assert len(hidden(world)) == 2
        await world.storage.create(ONE)  # the name is free
        assert await world.bytes_of(ONE, 0, 5) == bytes(5)
        await world.storage.delete(V3)
        assert hidden(world) == []

    play("rbd", tmp_path, story)


def hidden(world: RbdWorld) -> list[str]:
    return world.cluster.ask("rbd", "trash", "ls", "volumes").splitlines()


def test_an_image_is_fetched_once_for_a_pool(tmp_path: Path) -> None:
    async def story(world: RbdWorld) -> None:
        image = world.image("image", b"\x41" * MIB, "qcow2")
        await world.storage.create(ONE)
        await world.storage.fill(ONE, image, TICKET)
        await asyncio.to_thread(Path(image.path).unlink)
        await world.storage.create(OTHER)
        await world.storage.fill(OTHER, image, None)
        assert await world.bytes_of(OTHER, MIB - 1, 2) == b"\x41\x00"
        parent = world.cluster.ask("rbd", "info", f"volumes/volume-{V2}")
        assert f"parent: volumes/image-{image.sha512[:32]}-qcow2@base" in parent
        await world.restart()  # nothing of it is in use by a clone that is gone
        await world.storage.delete(V1)
        await world.storage.delete(V2)
        assert [one.volume_id for one in await world.storage.inventory()] == []

    play("rbd", tmp_path, story)


def test_old_images_that_no_volume_shares_data_with_are_swept(tmp_path: Path) -> None:
    async def story(world: RbdWorld) -> None:
        image, later = world.image("image", b"\x41" * MIB), world.image("later", b"\x42" * MIB)
        await world.storage.create(ONE)
        await world.storage.fill(ONE, image, TICKET)
        await world.storage.create(OTHER)
        await world.storage.fill(OTHER, later, TICKET)
        cluster = world.speaker(world.settings())
        await cluster.connect()
        cache = image_cache.ImageCache(cluster, world.settings(), world.storage._data, _Later())  # type: ignore[attr-defined]
        await world.storage.delete(V1)
        await cache.sweep()
        left = [one for one in await cluster.images() if one.startswith("image-")]
        assert left == [f"image-{later.sha512[:32]}-raw"]
        cluster.close()

    play("rbd", tmp_path, story)


class _Later:
    """In two days."""

    def now_us(self) -> int:
        return (int(time.time()) + 48 * 3600) * 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def test_a_wrong_key_another_pool_and_another_cluster_have_their_sentences(tmp_path: Path) -> None:
    async def story(world: RbdWorld) -> None:
        async def opened(
            directory: Path, user: str = "volumes", pool: str = "volumes", keyring: str = "volumes"
        ) -> None:
            settings = world.settings(user, pool)
            cluster = world.speaker(settings)
            files = (str(world.cluster.conf), str(world.cluster.keyring(keyring)), directory)
            storage = RbdStorage("ceph", settings, *files, cluster, world.images, _Later())
            try:
                await storage.open()
            finally:
                await storage.close()

        state = tmp_path / "state"
        with pytest.raises(StorageRefused, match=r"client.volumes.*see its key|refused.*keyring|find"):
            await opened(state, keyring="h1")
        with pytest.raises(StorageRefused, match=r"cannot read .*nobody.keyring \(No such file"):
            await opened(state, keyring="nobody")
        with pytest.raises(StorageRefused, match="other"):
            await opened(state, pool="other")
        (state / "backend-ceph").write_text("0000/volumes")
        with pytest.raises(StorageRefused, match=r"had pool 0000/volumes, and .*: see that it is the right cluster"):
            await opened(state)

    play("rbd", tmp_path, story)


def test_a_cluster_that_does_not_answer_is_trouble_in_time(tmp_path: Path, monkeypatch: Any) -> None:
    for key in ("rados_mon_op_timeout", "rados_osd_op_timeout", "client_mount_timeout"):
        monkeypatch.setitem(librbd.OPTIONS, key, "2")
    monkeypatch.setattr(driver, "LOOKS_WITHIN_S", 5.0)

    async def story(world: RbdWorld) -> None:
        await world.storage.create(ONE)
        nodes = (world.cluster.mon, world.cluster.osd)
        for node in nodes:
            node.send(19)
        try:
            began_s = time.monotonic()
            assert "not" in (await world.storage.pool()).trouble
            with pytest.raises(StorageDown, match="does not answer"):
                await world.storage.create(OTHER)
            assert time.monotonic() - began_s < 15
        finally:
            for node in nodes:
                node.send(18)
        for _ in range(100):
            if (await world.storage.pool()).trouble == "":
                break
            await asyncio.sleep(0.1)
        await world.storage.create(OTHER)
        assert len(await world.storage.inventory()) == 2

    play("rbd", tmp_path, story)


def test_the_command_does_the_same(tmp_path: Path) -> None:
    async def story(world: RbdWorld) -> None:
        image = world.image("image", b"\x41" * MIB, "qcow2")
        await world.storage.create(ONE)
        await world.storage.fill(ONE, image, TICKET)
        await world.storage.snapshot(V1, S1)
        await world.put(ONE, 8 * MIB + 3, b"changed")
        await world.storage.create(OTHER, FromSnapshot(S1, V1))
        assert await world.bytes_of(ONE, 8 * MIB + 3, 7) == b"changed"
        assert await world.bytes_of(OTHER, MIB - 1, 2) == b"A\0"
        source = await world.storage.admit(ONE, "h1")
        assert isinstance(source, RbdSource)
        async with world.guest(source) as guest:
            await guest.write(0, 0x42)
            with pytest.raises(StorageRefused, match="h1"):
                await world.storage.withdraw(V1, "h1")
            await world.storage.withdraw(V1, "h1", force=True)
            assert "wrote" not in await guest.ask("write -f -P 67 0 4096")
        extents = [one async for one in world.storage.changed(ONE, S1, None)]
        assert sum(one.length_bytes for one in extents if not one.is_zero) <= 4 * MIB
        with pytest.raises(StorageRefused, match=S1):
            await world.storage.delete(V1)
        await world.storage.delete_snapshot(V1, S1)
        await world.storage.delete(V2)

    play("rbd-command", tmp_path, story)


def test_the_binding_is_found_where_the_system_has_it() -> None:
    binding = load()
    assert binding is not None and load() == binding
    assert binding.rbd.RBD is not None
