"""What every driver of the port `storage` guarantees: the bytes that were written, and nobody else's."""

from __future__ import annotations

import asyncio
import itertools
import re
from pathlib import Path

import pytest

from droveway.domain.volume.disks import are_same_bytes
from droveway.domain.volume.model import Clone, FromSnapshot, FromVolume, StoredVolume, VolumeSpec
from droveway.ports.images import TicketWanted
from droveway.ports.storage import StorageRefused
from tests.drivers.storage_server_worlds import RbdWorld
from tests.drivers.storage_world import GIB, S1, S2, SECRET, TICKET, V1, V2, V3, StorageWorld, qemu_img
from tests.drivers.storage_worlds import EACH, REAL, play

OF_REAL = pytest.mark.parametrize("kind", REAL)
OF_EACH = pytest.mark.parametrize("kind", EACH)
MIB = 1024**2
ONE, OTHER, TWICE_AS_LARGE = VolumeSpec(V1, 1), VolumeSpec(V2, 1), VolumeSpec(V1, 2)


@pytest.fixture(autouse=True)
def _cluster(request: pytest.FixtureRequest) -> None:
    if "rbd" in request.node.callspec.params["kind"]:
        RbdWorld.cluster = request.getfixturevalue("ceph_cluster")


async def is_zero(world: StorageWorld, volume: VolumeSpec, *places: int) -> bool:
    return not any([any(await world.bytes_of(volume, at, 64 * 1024)) for at in places])


@OF_EACH
def test_a_volume_has_its_size_and_holds_zeros(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        assert await world.storage.inventory() == ()
        for _ in range(2):
            await world.storage.create(ONE)
            assert await world.storage.inventory() == (StoredVolume(V1, GIB),)
        assert await is_zero(world, ONE, 0, 512 * MIB, GIB - 64 * 1024)

    play(kind, tmp_path, story)


@OF_EACH
def test_its_pool_says_what_there_is(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        pool = await world.storage.pool()
        assert pool.trouble == "" and pool.total_gb >= pool.free_gb > 0
        assert pool.guarantees == world.storage.guarantees

    play(kind, tmp_path, story)


@OF_EACH
@pytest.mark.parametrize("disk_format", ["raw", "qcow2"])
def test_it_begins_with_an_image_and_zeros_behind_it(tmp_path: Path, kind: str, disk_format: str) -> None:
    async def story(world: StorageWorld) -> None:
        await world.storage.create(ONE)
        if not world.converts and disk_format != "raw":
            return
        await world.put(ONE, 5 * MIB, b"what lay there before")
        image = world.image("image", b"\x41" * MIB + b"\x42" * MIB, disk_format)
        for _ in range(2):
            await world.storage.fill(ONE, image, TICKET)
            assert await world.bytes_of(ONE, MIB - 2, 4) == b"AABB"
            assert await is_zero(world, ONE, 2 * MIB, 5 * MIB, GIB - 64 * 1024)
            await world.put(ONE, MIB, b"changed")
        assert await world.storage.inventory() == (StoredVolume(V1, GIB),)

    play(kind, tmp_path, story)


@OF_REAL
def test_an_image_that_is_larger_or_names_other_files_is_refused(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        await world.storage.create(ONE)
        await world.put(ONE, 0, b"mine")
        large = tmp_path / "large.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", str(large), "2G")
        with pytest.raises(StorageRefused, match=r"describes a disk of 2.00 GiB, more than the volume's 1 GiB"):
            await world.storage.fill(ONE, world.ref(large, "qcow2"), TICKET)
        with pytest.raises(StorageRefused, match="carries a backing file"):
            await world.storage.fill(ONE, world.hostile(), TICKET)
        assert await world.bytes_of(ONE, 0, 4) == b"mine"

    play(kind, tmp_path, story)


@OF_REAL
def test_what_a_guest_wrote_is_never_taken_for_a_header(tmp_path: Path, kind: str) -> None:
    """Its raw volume begins like a qcow2 file that names one of the host's."""

    async def story(world: StorageWorld) -> None:
        header = world.content(world.hostile())
        await world.storage.create(ONE)
        await world.put(ONE, 0, header)
        await world.storage.create(OTHER, FromVolume(V1))
        if world.storage.guarantees.snapshots:
            await world.storage.snapshot(V1, S1)
            await world.storage.create(VolumeSpec(V3, 1), FromSnapshot(S1, V1))
            assert await world.bytes_of(VolumeSpec(V3, 1), 0, len(header)) == header
        assert await world.bytes_of(OTHER, 0, len(header)) == header
        for disk_format in ("raw", "qcow2"):
            await world.storage.send(ONE, f"image-{disk_format}", disk_format, TICKET)
            sent = world.images.sent / f"image-{disk_format}"
            back = tmp_path / "back"
            qemu_img("convert", "-f", disk_format, "-O", "raw", str(sent), str(back))
            with back.open("rb") as file:
                assert file.read(len(header)) == header
                assert SECRET[:32] not in file.read(4 * MIB)
            back.unlink()

    play(kind, tmp_path, story)


@OF_EACH
def test_it_is_sent_with_a_ticket_and_says_how_much(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        await world.storage.create(ONE)
        await world.put(ONE, 0, b"mine")
        with pytest.raises(TicketWanted):
            await world.storage.send(ONE, "image", "qcow2", None)
        count = await world.storage.send(ONE, "image", "qcow2", TICKET)
        assert count == (world.images.sent / "image").stat().st_size
        if world.converts:
            with pytest.raises(StorageRefused, match="not as 'vmdk'"):
                await world.storage.send(ONE, "image", "vmdk", TICKET)

    play(kind, tmp_path, story)


@OF_EACH
def test_a_clone_is_another_volume(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        await world.storage.create(ONE)
        await world.put(ONE, MIB, b"first")
        larger = VolumeSpec(V2, 2)
        for _ in range(2):
            await world.storage.create(larger, FromVolume(V1))
        await world.put(ONE, MIB, b"other")
        await world.put(larger, 2 * MIB, b"its own")
        assert await world.bytes_of(larger, MIB, 5) == b"first"
        assert await is_zero(world, ONE, 2 * MIB)
        assert await is_zero(world, larger, GIB, 2 * GIB - 64 * 1024)
        with pytest.raises(StorageRefused, match=r"smaller|it would have"):
            await world.storage.create(VolumeSpec(V3, 1), FromVolume(V2))
        assert {one.volume_id for one in await world.storage.inventory()} == {V1, V2}

    play(kind, tmp_path, story)


@OF_EACH
def test_a_snapshot_never_changes_and_volumes_are_made_of_it(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        await world.storage.create(ONE)
        await world.put(ONE, 0, b"first")
        if not world.storage.guarantees.snapshots:
            with pytest.raises(StorageRefused, match="snapshots"):
                await world.storage.snapshot(V1, S1)
            return
        for _ in range(2):
            await world.storage.snapshot(V1, S1)
            await world.put(ONE, 0, b"other")
        assert await world.bytes_of(ONE, 0, 5, S1) == b"first"
        await world.storage.create(OTHER, FromSnapshot(S1, V1))
        assert await world.bytes_of(OTHER, 0, 5) == b"first"
        assert (await world.storage.inventory())[0].snapshots == (S1,)
        with pytest.raises(StorageRefused, match=S1):
            await world.storage.delete(V1)
        if not world.storage.guarantees.independent_snapshots:
            with pytest.raises(StorageRefused, match=V2):
                await world.storage.delete_snapshot(V1, S1)
            await world.storage.delete(V2)
        for _ in range(2):
            await world.storage.delete_snapshot(V1, S1)
        if world.storage.guarantees.independent_snapshots:
            assert await world.bytes_of(OTHER, 0, 5) == b"first"
        await world.storage.delete(V1)

    play(kind, tmp_path, story)


@OF_EACH
def test_a_volume_goes_back_to_its_snapshot(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        if not world.storage.guarantees.reverts:
            return
        await world.storage.create(ONE)
        await world.put(ONE, 0, b"first")
        await world.storage.snapshot(V1, S1)
        await world.put(ONE, 0, b"other")
        await world.put(ONE, 7 * MIB, b"more")
        async with world.guest(await world.admit(ONE, "h1")):
            with pytest.raises(StorageRefused, match="h1"):
                await world.storage.revert(ONE, S1)
        await world.storage.withdraw(V1, "h1")
        for _ in range(2):
            await world.storage.revert(ONE, S1)
            assert await world.bytes_of(ONE, 0, 5) == b"first"
            assert await is_zero(world, ONE, 7 * MIB)
        with pytest.raises(StorageRefused, match=S2):
            await world.storage.revert(ONE, S2)

    play(kind, tmp_path, story)


@OF_EACH
def test_it_grows_and_does_not_shrink(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        await world.storage.create(ONE)
        await world.put(ONE, 0, b"mine")
        for _ in range(2):
            await world.storage.extend(TWICE_AS_LARGE)
        assert (await world.storage.inventory())[0].size_bytes == 2 * GIB
        assert await world.bytes_of(ONE, 0, 4) == b"mine"
        assert await is_zero(world, TWICE_AS_LARGE, GIB, 2 * GIB - 64 * 1024)
        with pytest.raises(StorageRefused, match=r"larger|more than"):
            await world.storage.extend(ONE)

    play(kind, tmp_path, story)


@OF_EACH
def test_what_was_deleted_is_gone_and_shows_in_no_other(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        await world.storage.create(ONE)
        for at in range(0, GIB, 128 * MIB):
            await world.put(ONE, at, SECRET)
        for _ in range(2):
            await world.storage.delete(V1)
        assert await world.storage.inventory() == ()
        with pytest.raises(StorageRefused, match=V1):
            await world.storage.reader(ONE)
        await world.storage.create(OTHER)
        assert await is_zero(world, OTHER, *range(0, GIB, 128 * MIB))

    play(kind, tmp_path, story)


@OF_EACH
def test_hosts_are_admitted_and_withdrawn(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        await world.storage.create(ONE)
        source = await world.admit(ONE, "h1")
        assert await world.admit(ONE, "h1") == source
        assert are_same_bytes(await world.admit(ONE, "h2"), source), "a guest takes its disks along"
        assert (await world.storage.inventory())[0].holders == ("h1", "h2")
        await world.restart()
        assert (await world.storage.inventory())[0].holders == ("h1", "h2")
        for host in ("h1", "h2", "h2", "h3"):
            await world.storage.withdraw(V1, host)
        assert (await world.storage.inventory())[0].holders == ()
        await world.storage.withdraw(V2, "h1")
        await world.storage.delete(V1)

    play(kind, tmp_path, story)


@OF_EACH
def test_what_is_made_of_a_volume_in_use_is_in_use_by_nobody(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        await world.storage.create(ONE)
        await world.admit(ONE, "h1")
        if world.storage.guarantees.clone is not Clone.INSTANT:
            return  # it is copied at rest alone
        await world.storage.create(VolumeSpec(V2, 1), FromVolume(V1))
        await world.storage.snapshot(V1, S1)
        await world.storage.create(VolumeSpec(V3, 1), FromSnapshot(S1, V1))
        assert [one.holders for one in await world.storage.inventory()] == [("h1",), (), ()]
        for volume_id in (V2, V3):
            await world.storage.delete(volume_id)
        assert [one.volume_id for one in await world.storage.inventory()] == [V1]
        await world.storage.delete_snapshot(V1, S1)
        await world.storage.withdraw(V1, "h1")
        await world.storage.delete(V1)

    play(kind, tmp_path, story)


@OF_EACH
def test_a_guest_writes_it_while_its_service_restarts(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        await world.storage.create(ONE)
        async with world.guest(await world.admit(ONE, "h1")) as guest:
            await guest.write(MIB, 0x41)
            await world.restart()
            await guest.write(2 * MIB, 0x42)
            assert await guest.reads(MIB, 0x41)
            with pytest.raises(StorageRefused, match="h1"):
                await world.storage.withdraw(V1, "h1")
            with pytest.raises(StorageRefused, match=re.compile("open|h1")):
                await world.storage.delete(V1)
        await world.storage.withdraw(V1, "h1")
        assert await world.bytes_of(ONE, 2 * MIB, 2) == b"BB"

    play(kind, tmp_path, story)


@OF_EACH
def test_it_grows_under_a_guest(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        if not world.storage.guarantees.grows_in_use:
            return
        await world.storage.create(ONE)
        source = await world.admit(ONE, "h1")
        async with world.guest(source) as guest:
            await guest.write(0, 0x41)
            await world.storage.extend(TWICE_AS_LARGE)
        async with world.guest(source) as guest:
            assert await guest.reads(0, 0x41) and await guest.reads(2 * GIB - 4096, 0)

    play(kind, tmp_path, story)


@OF_REAL
def test_a_copy_of_a_volume_in_use_is_of_one_moment_or_refused(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        if not world.storage.guarantees.snapshots:
            return
        await world.storage.create(ONE)
        async with world.guest(await world.admit(ONE, "h1")) as guest:
            await guest.write(0, 0x41)
            if world.storage.guarantees.clone is Clone.COPY:
                with pytest.raises(StorageRefused, match="open on a host"):
                    await world.storage.snapshot(V1, S1)
                with pytest.raises(StorageRefused, match="open on a host"):
                    await world.storage.create(OTHER, FromVolume(V1))
                return
            await world.storage.snapshot(V1, S1)
            await world.storage.create(OTHER, FromVolume(V1))
            await guest.write(0, 0x42)
            assert await world.bytes_of(ONE, 0, 2, S1) == b"AA" == await world.bytes_of(OTHER, 0, 2)

    play(kind, tmp_path, story)


@OF_EACH
def test_what_has_changed_is_named(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        if not world.storage.guarantees.snapshots:
            return
        await world.storage.create(ONE)
        await world.put(ONE, 8 * MIB, b"a" * MIB)
        await world.storage.snapshot(V1, S1)
        await world.put(ONE, 16 * MIB, b"b" * MIB)
        await world.storage.snapshot(V1, S2)
        first = [one async for one in world.storage.changed(ONE, S1, None)]
        second = [one async for one in world.storage.changed(ONE, S2, S1)]
        for extents, at in ((first, 8 * MIB), (second, 16 * MIB)):
            data = [one for one in extents if not one.is_zero]
            assert any(one.offset_bytes <= at < one.offset_bytes + one.length_bytes for one in data)
            assert all(
                one.offset_bytes + one.length_bytes <= two.offset_bytes for one, two in itertools.pairwise(extents)
            )
        if world.storage.guarantees.changed_blocks:
            assert sum(one.length_bytes for one in second if not one.is_zero) <= 5 * MIB

    play(kind, tmp_path, story)


@OF_EACH
def test_at_once_or_one_after_the_other_is_the_same(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        await asyncio.gather(*(world.storage.create(VolumeSpec(one, 1)) for one in (V1, V1, V2, V3)))
        await asyncio.gather(*(world.storage.extend(TWICE_AS_LARGE) for _ in range(3)))
        await asyncio.gather(*(world.storage.delete(one) for one in (V1, V1, V2)))
        assert await world.storage.inventory() == (StoredVolume(V3, GIB),)

    play(kind, tmp_path, story)
