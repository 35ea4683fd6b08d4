"""Every backend by its name, and what a test of it needs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from droveway.domain.model import ImageRef
from droveway.domain.volume.disks import DiskSource, FileSource, SimulatedSource
from droveway.domain.volume.model import VolumeSpec
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.drivers.images.simulated import SimulatedImages
from droveway.drivers.storage.dir.driver import DirStorage
from droveway.drivers.storage.lvm.volume_group import has_mapper
from droveway.drivers.storage.simulated import SimulatedPool, SimulatedStorage
from droveway.ports.storage import Storage
from lab.servers import obstacle
from tests.drivers.storage_server_worlds import LvmThinWorld, LvmWorld, RbdCommandWorld, RbdWorld
from tests.drivers.storage_world import (
    GIB,
    StorageWorld,
)


class DirWorld(StorageWorld):
    """On the file system of the test, which clones no files where it is ext4."""

    @property
    def root(self) -> Path:
        return self.directory / "volumes"

    def make(self, **given: Any) -> Storage:
        self.root.mkdir(exist_ok=True)
        return DirStorage(
            "fast", self.root, self.directory / "state", self.images, SystemClock(), SystemNames(), **given
        )

    def blockdev(self, source: DiskSource, host: str) -> str:
        assert isinstance(source, FileSource) and source.backend == "fast"
        return f"file.driver=file,file.filename={self.root / source.name}"


class XfsWorld(DirWorld):
    """On a file system that clones files, in a file of its own."""

    def make(self, **given: Any) -> Storage:
        if not self.root.exists():
            self.root.mkdir()
            disk = self.directory / "xfs"
            with disk.open("wb") as file:
                file.truncate(2 * GIB)
            subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(disk)], check=True)
            subprocess.run(["mount", "-o", "loop", str(disk), str(self.root)], check=True)
        return super().make(**given, is_mount=True)

    async def close(self) -> None:
        await super().close()
        await asyncio.to_thread(subprocess.run, ["umount", str(self.root)], check=True)


class SimulatedGuest:
    def __init__(self, pool: SimulatedPool, volume_id: str) -> None:
        self._storage, self._volume = SimulatedStorage(pool), VolumeSpec(volume_id, 1)

    async def write(self, offset_bytes: int, byte: int, length_bytes: int = 4096) -> None:
        await (await self._storage.writer(self._volume)).write(offset_bytes, bytes([byte]) * length_bytes)

    async def reads(self, offset_bytes: int, byte: int, length_bytes: int = 4096) -> bool:
        found = await (await self._storage.reader(self._volume)).read(offset_bytes, length_bytes)
        return found == bytes([byte]) * length_bytes


class SimulatedWorld(StorageWorld):
    """What is imagined has no formats: its images are raw."""

    converts = False

    def __init__(self, directory: Path) -> None:
        self._pool = SimulatedPool("imagined")
        super().__init__(directory)

    def make(self, **given: Any) -> Storage:
        images = SimulatedImages("h1", "a verifier", SystemClock(), SystemChance(), self)
        return SimulatedStorage(self._pool, images)

    @contextlib.asynccontextmanager
    async def guest(self, source: DiskSource, host: str = "h1") -> AsyncIterator[Any]:
        assert isinstance(source, SimulatedSource)
        self._pool.open_by(source.volume_id, host)
        yield SimulatedGuest(self._pool, source.volume_id)
        self._pool.closed_by(source.volume_id, host)

    def ref(self, path: Path, disk_format: str) -> ImageRef:
        return msgspec.structs.replace(super().ref(path, disk_format), path="")

    # -- as the APIs of its images --------------------------------------------------------------------------------
    async def give(self, image_id: str, headers: Mapping[str, str], take: Callable[[bytes], None]) -> tuple[int, str]:
        take((self.directory / f"{image_id}.raw").read_bytes())
        return 200, ""

    async def take(self, image_id: str, headers: Mapping[str, str], data: bytes) -> tuple[int, str]:
        (self.images.sent / image_id).write_bytes(data)
        return 204, ""


def can_mount_xfs() -> bool:
    return os.geteuid() == 0 and shutil.which("mkfs.xfs") is not None and Path("/dev/loop-control").exists()


WORLDS: dict[str, type[StorageWorld]] = {
    "simulated": SimulatedWorld,
    "dir": DirWorld,
    **({"dir-xfs": XfsWorld} if can_mount_xfs() else {}),
    "lvm": LvmWorld,
    "lvm-thin": LvmThinWorld,
    "rbd": RbdWorld,
    "rbd-command": RbdCommandWorld,
}
# What each needs: a server, minutes.
MARKS = {
    "rbd": [pytest.mark.servers, pytest.mark.skipif(bool(obstacle("ceph")), reason=str(obstacle("ceph")))],
}
NO_LVM = "" if os.geteuid() == 0 else "loop devices need root"
NO_LVM = NO_LVM or str(obstacle("lvm") or obstacle("nbdkit") or "")
MARKS["lvm"] = [pytest.mark.servers, pytest.mark.skipif(bool(NO_LVM), reason=NO_LVM)]
NO_THIN = NO_LVM or ("" if has_mapper() else "thin volumes need device-mapper: tests/drivers/test_storage_guest.py")
MARKS["lvm-thin"] = [pytest.mark.servers, pytest.mark.skipif(bool(NO_THIN), reason=NO_THIN)]
MARKS["rbd-command"] = [*MARKS["rbd"], pytest.mark.full]
EACH = [pytest.param(kind, marks=MARKS.get(kind, ())) for kind in WORLDS]
REAL = [pytest.param(kind, marks=MARKS.get(kind, ())) for kind, world in WORLDS.items() if world.converts]


def play(kind: str, directory: Path, story: Callable[[Any], Coroutine[Any, Any, None]], worlds: Any = None) -> None:
    async def run() -> None:
        world = (worlds or WORLDS)[kind](directory)
        try:
            async with asyncio.timeout(120):
                await world.open()
                await story(world)
        finally:
            await world.close()

    uvloop.run(run())
