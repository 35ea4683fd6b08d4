"""Backups over every backend that needs no server, and over both kinds of store: whole, or not listed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from droveway.agents.backup_chunks import BackupChunks, BackupPlan
from droveway.domain.volume import manifest as form
from droveway.domain.volume.manifest import Damaged, Manifest, ManifestHead
from droveway.domain.volume.model import VolumeSpec
from droveway.drivers.backups.directory import DirectoryBackups
from droveway.drivers.clock import SystemClock
from droveway.ports.backups import BackupsDown, BackupsRefused
from droveway.ports.storage import StorageDown, StorageRefused
from tests.drivers.storage_server_worlds import RbdWorld
from tests.drivers.storage_world import GIB, S1, V1, V2, StorageWorld
from tests.drivers.storage_worlds import MARKS, play

pytestmark = pytest.mark.slow

MIB = 1 << 20
B1, B2, B3 = (f"{number:08x}-0000-4000-8000-00000000cccc" for number in (1, 2, 3))
ONE, OTHER = VolumeSpec(V1, 1), VolumeSpec(V2, 1)
KINDS = [pytest.param(kind, marks=MARKS.get(kind, ())) for kind in ("simulated", "dir", "rbd")]
EACH = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def _cluster(request: pytest.FixtureRequest) -> None:
    if "rbd" in getattr(request.node, "callspec", request.node).__dict__.get("params", {}).values():
        RbdWorld.cluster = request.getfixturevalue("ceph_cluster")


class CountedBackups(DirectoryBackups):
    """A directory of which one knows what was put, and that can be away."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        super().__init__(root)
        self.root = root
        self.put_bytes = 0
        self.puts_left = 1 << 30

    async def put(self, name: str, data: bytes) -> None:
        if name.startswith("chunks/"):
            self.puts_left -= 1
            if self.puts_left < 0:
                raise BackupsDown("The store of backups http://s3 does not answer (connection refused).")
            self.put_bytes += len(data)
        await super().put(name, data)

    def listed(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("backups/*/*"))


def store(tmp_path: Path) -> tuple[CountedBackups, BackupChunks]:
    objects = CountedBackups(tmp_path / "backups")
    return objects, BackupChunks(objects, SystemClock(), "h1")


def noise(seed: int, length: int) -> bytes:
    import random

    return random.Random(seed).randbytes(length)


@EACH
def test_a_backup_becomes_that_volume_again(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        objects, chunks = store(tmp_path)
        first = noise(1, 3 * MIB)
        await world.storage.create(ONE)
        await world.put(ONE, 5 * MIB + 100, first)
        made = await chunks.make(world.storage, BackupPlan(B1, ONE))
        assert made.object_count == 4 and made.stored_bytes <= 4.1 * MIB
        assert objects.listed() == [B1]
        await world.storage.create(OTHER)
        await world.put(OTHER, 500 * MIB, b"what lay there")
        await chunks.restore(world.storage, OTHER, B1)
        assert await world.bytes_of(OTHER, 5 * MIB + 100, len(first)) == first
        assert not any(await world.bytes_of(OTHER, 500 * MIB, 4096))
        assert await chunks.make(world.storage, BackupPlan(B1, ONE)) == (4, 0, 0), "done again, it is done"
        assert (await world.storage.inventory())[0].snapshots == ()
        await world.storage.delete(V1)

    play(kind, tmp_path, story)


@EACH
def test_an_incremental_one_stores_what_has_changed_alone(tmp_path: Path, kind: str) -> None:
    async def story(world: StorageWorld) -> None:
        objects, chunks = store(tmp_path)
        await world.storage.create(ONE)
        await world.put(ONE, 0, noise(1, 16 * MIB))
        await chunks.make(world.storage, BackupPlan(B1, ONE))
        before = objects.put_bytes
        await world.put(ONE, 4 * MIB, noise(2, 2 * MIB))
        await world.put(ONE, 12 * MIB, bytes(MIB))
        made = await chunks.make(world.storage, BackupPlan(B2, ONE, parent_id=B1, former=(B1,)))
        assert 2 * MIB <= objects.put_bytes - before == made.stored_bytes <= 2.4 * MIB
        if world.storage.guarantees.changed_blocks:
            assert made.read_bytes <= 12 * MIB  # of the objects of 4 MiB that Ceph tells of
        await world.storage.create(OTHER)
        await chunks.restore(world.storage, OTHER, B2, is_blank=True)
        held = await world.bytes_of(OTHER, 0, 16 * MIB)
        assert held[:MIB] == noise(1, 16 * MIB)[:MIB] and held[4 * MIB : 6 * MIB] == noise(2, 2 * MIB)
        assert not any(held[12 * MIB : 13 * MIB]) and held[13 * MIB :] == noise(1, 16 * MIB)[13 * MIB :]

    play(kind, tmp_path, story)


def test_each_hangs_on_its_own_record_and_chunks_go_with_the_last(tmp_path: Path) -> None:
    async def story(world: StorageWorld) -> None:
        objects, chunks = store(tmp_path)
        await world.storage.create(ONE)
        await world.put(ONE, 0, noise(1, 2 * MIB))
        await chunks.make(world.storage, BackupPlan(B1, ONE))
        await world.put(ONE, 0, noise(2, MIB))
        await chunks.make(world.storage, BackupPlan(B2, ONE, parent_id=B1))
        for _ in range(2):
            await chunks.delete(B1)
        assert await chunks.verify(B2) == (2, ())
        assert len(list(objects.root.glob("chunks/*/*"))) == 2
        with pytest.raises(BackupsRefused, match=f"Backup {B1} is not in the store"):
            await chunks.restore(world.storage, ONE, B1)
        with pytest.raises(BackupsRefused, match=f"Backup {B1}, which this one continues, is not in the store"):
            await chunks.make(world.storage, BackupPlan(B3, ONE, parent_id=B1))
        await chunks.forget(world.storage, V1, B3)
        await chunks.delete(B2)
        assert list(objects.root.glob("chunks/*/*")) == []

    play("dir", tmp_path, story)


def test_one_that_was_given_up_is_pending_no_longer_though_its_backend_is_away(tmp_path: Path) -> None:
    async def story(world: Any) -> None:
        objects, chunks = store(tmp_path)
        await objects.put(f"pending/{B1}", b"")
        world._pool.down = "no route to the pool"
        with pytest.raises(StorageDown, match="no route to the pool"):
            await chunks.forget(world.storage, V1, B1)
        assert await _all(objects.names("pending/")) == []

    play("simulated", tmp_path, story)


def test_a_flipped_bit_is_found_and_named(tmp_path: Path) -> None:
    async def story(world: StorageWorld) -> None:
        objects, chunks = store(tmp_path)
        await world.storage.create(ONE)
        await world.put(ONE, 7 * MIB, noise(1, 2 * MIB))
        await chunks.make(world.storage, BackupPlan(B1, ONE))
        digest = form.digest_of(noise(1, MIB))
        path = next(objects.root.glob(f"chunks/*/{digest.hex()}"))
        good = path.read_bytes()
        path.write_bytes(good[:1000] + bytes([good[1000] ^ 1]) + good[1001:])
        where = f"chunks/{digest.hex()} (bytes {7 * MIB} to {8 * MIB} of volume {V1}, backup {B1})"
        assert await chunks.verify(B1) == (2, (f"{where} is damaged: its bytes are others than were stored.",))
        await world.storage.create(OTHER)
        with pytest.raises(BackupsRefused, match="is damaged: its bytes are others"):
            await chunks.restore(world.storage, OTHER, B1, is_blank=True)
        path.unlink()
        assert (await chunks.verify(B1))[1] == (f"{where} is missing in the store of backups.",)
        record = next(objects.root.glob(f"backups/*/{B1}"))
        stored = record.read_bytes()
        record.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
        with pytest.raises(BackupsRefused, match=f"The record of backup {B1} is damaged"):
            await chunks.verify(B1)

    play("dir", tmp_path, story)


def test_a_store_that_goes_away_leaves_nothing_listed_and_the_next_try_goes_on(tmp_path: Path) -> None:
    async def story(world: StorageWorld) -> None:
        objects, chunks = store(tmp_path)
        await world.storage.create(ONE)
        await world.put(ONE, 0, noise(1, 20 * MIB))
        objects.puts_left = 9
        with pytest.raises(BackupsDown, match="does not answer"):
            await chunks.make(world.storage, BackupPlan(B1, ONE))
        assert objects.listed() == []
        with pytest.raises(BackupsRefused, match="is not in the store"):
            await chunks.verify(B1)
        stored, objects.puts_left = objects.put_bytes, 1 << 30
        made = await chunks.make(world.storage, BackupPlan(B1, ONE))
        assert made.object_count == 20 and made.stored_bytes == objects.put_bytes - stored <= 12 * 1.01 * MIB
        assert await chunks.verify(B1) == (20, ())

    play("dir", tmp_path, story)


def test_chunks_are_not_swept_under_a_backup_that_is_being_made(tmp_path: Path) -> None:
    async def story(world: StorageWorld) -> None:
        objects, chunks = store(tmp_path)
        await world.storage.create(ONE)
        await world.put(ONE, 0, noise(1, 2 * MIB))
        await chunks.make(world.storage, BackupPlan(B1, ONE))
        await objects.put(f"pending/{B2}", b"")
        await chunks.delete(B1)
        assert len(list(objects.root.glob("chunks/*/*"))) == 2, "the other one may have found them"
        await chunks.make(world.storage, BackupPlan(B2, ONE))
        assert await chunks.verify(B2) == (2, ())
        await objects.put("sweeping/h2", b"")
        making = asyncio.create_task(chunks.make(world.storage, BackupPlan(B3, ONE)))
        await asyncio.sleep(0.2)
        assert not making.done()
        await objects.delete("sweeping/h2")
        await making
        await chunks.begin()

    play("dir", tmp_path, story)


def test_a_volume_that_looks_like_a_qcow2_file_is_backed_up_as_it_is(tmp_path: Path) -> None:
    async def story(world: StorageWorld) -> None:
        _, chunks = store(tmp_path)
        header = world.content(world.hostile())
        await world.storage.create(ONE)
        await world.put(ONE, 0, header)
        await world.storage.snapshot(V1, S1)
        await world.put(ONE, 0, bytes(len(header)))
        await chunks.make(world.storage, BackupPlan(B1, ONE, snapshot_id=S1))
        await world.storage.create(OTHER)
        await chunks.restore(world.storage, OTHER, B1, is_blank=True)
        assert await world.bytes_of(OTHER, 0, len(header)) == header
        await world.storage.create(VolumeSpec(B3, 1))
        with pytest.raises(StorageRefused, match="smaller"):
            await chunks.restore(world.storage, VolumeSpec(B3, 0), B1)

    play("dir", tmp_path, story)


def test_manifests_and_chunks_are_read_back_or_refused() -> None:
    manifest = Manifest(ManifestHead(B1, V1, GIB, None, S1), {3: form.digest_of(b"x"), 1: form.digest_of(b"y")})
    assert form.decode(form.encode(manifest)) == manifest
    for wrong in (b"", b"other", form.encode(manifest)[:-1]):
        with pytest.raises(Damaged):
            form.decode(wrong)
    for data in (noise(1, MIB), b"a" * MIB):
        assert form.unpack(form.pack(data), form.digest_of(data), MIB) == data
    for stored in (b"", b"zzzz", b"p", form.pack(b"b" * 100)):
        with pytest.raises(Damaged):
            form.unpack(stored, form.digest_of(b"a"), MIB)


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.servers)])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "directory":
        (tmp_path / "backups").mkdir()
        yield lambda: DirectoryBackups(tmp_path / "backups")
        return
    from droveway.drivers.backups.s3 import S3Backups
    from lab import s3
    from lab.servers import obstacle

    if reason := obstacle("ceph") or obstacle("radosgw"):
        pytest.skip(reason)
    with s3.server(request.getfixturevalue("ceph_cluster"), tmp_path) as gateway:
        yield lambda: S3Backups(gateway.settings, SystemClock())


async def test_every_store_keeps_objects(any_store: Any) -> None:
    objects = any_store()
    assert await objects.get("chunks/aa11") is None and not await objects.exists("chunks/aa11")
    await objects.delete("chunks/aa11")
    for data in (b"", b"first", noise(1, MIB)):
        await objects.put("chunks/aa11", data)
        assert await objects.get("chunks/aa11") == data and await objects.exists("chunks/aa11")
    await objects.put("backups/bb22", b"record")
    await objects.put("pending/cc33", b"")
    assert await _all(objects.names("chunks/")) == ["chunks/aa11"]
    assert await _all(objects.names("pending/")) == ["pending/cc33"]
    assert await _all(objects.names("sweeping/")) == []
    again = any_store()
    assert await again.get("backups/bb22") == b"record"
    await objects.delete("chunks/aa11")
    assert not await again.exists("chunks/aa11")
    await objects.close()
    await again.close()


async def _all(names: AsyncIterator[str]) -> list[str]:
    return sorted([name async for name in names])


async def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    objects = DirectoryBackups(tmp_path / "none")
    with pytest.raises(BackupsDown, match="see that it is mounted"):
        await objects.put("chunks/aa11", b"")
    await objects.close()


@pytest.mark.servers
def test_a_bucket_that_goes_away_and_a_wrong_key_have_their_sentences(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    from droveway.drivers.backups.s3 import S3Backups
    from lab import s3
    from lab.servers import obstacle

    if reason := obstacle("ceph") or obstacle("radosgw"):
        pytest.skip(reason)
    with s3.server(request.getfixturevalue("ceph_cluster"), tmp_path) as gateway:

        async def story() -> None:
            objects = S3Backups(gateway.settings, SystemClock())
            await objects.put("chunks/aa11", b"first")
            wrong = S3Backups(msgspec.structs.replace(gateway.settings, secret_key="another"), SystemClock())
            with pytest.raises(BackupsRefused, match=r"backups refused \("):
                await wrong.get("chunks/aa11")
            other = S3Backups(msgspec.structs.replace(gateway.settings, bucket="no-such-bucket"), SystemClock())
            with pytest.raises(BackupsRefused, match=r"no-such-bucket refused \("):
                await other.put("chunks/aa11", b"")
            gateway.stop()
            with pytest.raises(BackupsDown, match="does not answer"):
                await objects.get("chunks/aa11")
            gateway.start()
            assert await objects.get("chunks/aa11") == b"first"
            for one in (objects, wrong, other):
                await one.close()

        asyncio.run(story())
