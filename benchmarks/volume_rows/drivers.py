"""What the driver for Ceph costs over the bare library, in the same process and run, in turn; and how much an
incremental backup reads and stores of what has changed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.claims import Claim, median, progress
from droveway.agents.backup_chunks import BackupChunks, BackupPlan
from droveway.domain.volume.model import FromSnapshot, VolumeSpec
from droveway.drivers.backups.directory import DirectoryBackups
from droveway.drivers.clock import SystemClock
from droveway.drivers.images.shared_path import SharedPathImages
from droveway.drivers.storage.rbd.binding import load
from droveway.drivers.storage.rbd.cluster import RbdSettings
from droveway.drivers.storage.rbd.driver import RbdStorage
from droveway.drivers.storage.rbd.librbd import LibrbdCluster
from droveway.ports.storage import Storage
from lab import ceph

MIB = 1 << 20
PAIRS, OVER_BARE_MS = 30, 25.0
CHANGED_BYTES, BACKUP_RATIO = 64 * MIB, 1.2
VERBS = ("create", "snapshot", "clone", "delete")
CINDER_MS = {"create": 419, "clone": 514, "snapshot": 203, "delete": 250}


def measure() -> Iterator[Claim]:
    with tempfile.TemporaryDirectory() as directory, ceph.ceph(Path(directory), ("volumes",), has_manager=True) as one:
        yield from asyncio.run(_all(one, Path(directory)))


async def _all(cluster: ceph.Ceph, directory: Path) -> list[Claim]:
    binding = load()
    assert binding is not None, "python3-rbd is needed"
    state = directory / "state"
    settings = RbdSettings(str(state / "ceph.conf"), "volumes", "volumes")
    files = (str(cluster.conf), str(cluster.keyring("volumes")), state)
    images = SharedPathImages("h1")
    storage = RbdStorage("ceph", settings, *files, LibrbdCluster(settings, binding), images, SystemClock())
    await storage.open()
    try:
        return [*await _verbs(storage, _Bare(cluster, binding)), *await _backup(storage, directory / "backups")]
    finally:
        await storage.close()
        images.close()


class _Bare:
    """The same by the library alone."""

    def __init__(self, cluster: ceph.Ceph, binding: Any) -> None:
        self._rbd = binding.rbd
        options = {"rbd_default_clone_format": "2"}
        found = binding.rados.Rados(conffile=str(cluster.conf), name="client.admin", conf=options)
        found.connect()
        self._io = found.open_ioctx("volumes")

    def create(self, number: int) -> None:
        self._rbd.RBD().create(self._io, f"bare-{number}", 1 << 30, old_format=False)

    def snapshot(self, number: int) -> None:
        with self._rbd.Image(self._io, f"bare-{number}") as image:
            image.create_snap("one")

    def clone(self, number: int) -> None:
        self._rbd.RBD().clone(self._io, f"bare-{number}", "one", self._io, f"clone-{number}")

    def delete(self, number: int) -> None:
        self._rbd.RBD().remove(self._io, f"clone-{number}")


async def _verbs(storage: Storage, bare: _Bare) -> list[Claim]:
    progress(f"{PAIRS} pairs of each verb, by the driver and by the library")
    took: dict[str, tuple[list[float], list[float]]] = {verb: ([], []) for verb in VERBS}
    for number in range(PAIRS):
        volume, copy = VolumeSpec(_id(number, "a"), 1), VolumeSpec(_id(number, "b"), 1)
        ours: dict[str, Callable[[], Awaitable[None]]] = {
            "create": lambda volume=volume: storage.create(volume),
            "snapshot": lambda volume=volume, number=number: storage.snapshot(volume.volume_id, _id(number, "c")),
            "clone": lambda copy=copy, volume=volume, number=number: storage.create(
                copy, FromSnapshot(_id(number, "c"), volume.volume_id)
            ),
            "delete": lambda copy=copy: storage.delete(copy.volume_id),
        }
        for verb in VERBS:
            began_s = time.monotonic()
            await ours[verb]()
            middle_s = time.monotonic()
            await asyncio.to_thread(getattr(bare, verb), number)
            took[verb][0].append((middle_s - began_s) * 1000)
            took[verb][1].append((time.monotonic() - middle_s) * 1000)
    claims = []
    for verb, (own, theirs) in took.items():
        note = f"{median(own):.1f} over {median(theirs):.1f} ms by librbd, p50 of {PAIRS}; Cinder: {CINDER_MS[verb]} ms"
        claims.append(Claim(f"RBD {verb}: driver over librbd", median(own) - median(theirs), OVER_BARE_MS, "ms", note))
    return claims


async def _backup(storage: Storage, directory: Path) -> list[Claim]:
    progress("an incremental backup of 64 MiB in 10 GiB")
    await asyncio.to_thread(directory.mkdir)
    objects, volume = DirectoryBackups(directory), VolumeSpec(_id(0, "d"), 10)
    chunks = BackupChunks(objects, SystemClock(), "h1")
    await storage.create(volume)
    await _write(storage, volume, 0, 256 * MIB, 1)
    await chunks.make(storage, BackupPlan(_id(1, "e"), volume))
    await _write(storage, volume, 100 * MIB, CHANGED_BYTES, 2)
    made = await chunks.make(storage, BackupPlan(_id(2, "e"), volume, parent_id=_id(1, "e")))
    await objects.close()
    note = f"of {CHANGED_BYTES // MIB} MiB that changed in 10 GiB"
    return [
        Claim("incremental backup: bytes read", made.read_bytes / CHANGED_BYTES, BACKUP_RATIO, "x", note),
        Claim("incremental backup: bytes stored", made.stored_bytes / CHANGED_BYTES, BACKUP_RATIO, "x", note),
    ]


async def _write(storage: Storage, volume: VolumeSpec, at: int, length: int, seed: int) -> None:
    noise = random.Random(seed)
    writer = await storage.writer(volume)
    async with contextlib.aclosing(_Closing(writer)):
        for offset in range(at, at + length, 4 * MIB):
            await writer.write(offset, noise.randbytes(4 * MIB))


class _Closing:
    def __init__(self, writer: Any) -> None:
        self.aclose = writer.close


def _id(number: int, kind: str) -> str:
    return f"{number:08x}-0000-4000-8000-0000000000{kind * 2}"
