"""Volumes as raw, sparse files in a directory that every host of the backend has under its own path.

Where the directory's file system shares blocks between files (XFS, Btrfs, NFS 4.2 before such), clones and snapshots
are made at once and of one moment, in use too; elsewhere they are copies, for which the volume must be at rest, and the
driver declares just that. Who has a file open is asked of QEMU's own locks (image_locks.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.domain.volume.disks import DiskFormat, DiskSource, FileSource
from droveway.domain.volume.model import (
    Clone,
    FromSnapshot,
    StorageGuarantees,
    StoragePool,
    StoredVolume,
    VolumeOrigin,
    VolumeSpec,
)
from droveway.drivers.storage import image_data, image_locks
from droveway.drivers.storage.byte_files import FileReader, FileWriter
from droveway.drivers.storage.child import Programs
from droveway.drivers.storage.dir.files import VolumeFiles
from droveway.drivers.storage.dir.marker import Marker
from droveway.drivers.storage.image_data import GIB, ImageData, of_file
from droveway.ports.clock import Clock, Names
from droveway.ports.images import Images
from droveway.ports.storage import Extent, Reader, StorageDown, StorageRefused, Writer

T = TypeVar("T")
WORKERS = 4
LOOKS_WITHIN_S = 5.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_AWAY = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN)
EXCLUSIVE = "QEMU locks the file that it writes: a second one is refused, on every host whose mount carries locks."
FENCING = "none: a host cannot be cut off from a file; while its guest holds it, end the guest or the host."
ISOLATION = "every host that mounts the directory reaches every volume in it."


class DirStorage:
    """Answers droveway.ports.storage.Storage."""

    def __init__(
        self,
        backend: str,
        root: Path,
        state: Path,
        images: Images,
        clock: Clock,
        names: Names,
        *,
        is_mount: bool = False,
    ) -> None:
        self._backend, self._root, self._clock = backend, root, clock
        self._files = VolumeFiles(root)
        self._marker = Marker(backend, root, state, names.uuid(), is_mount=is_mount)
        self._programs = Programs()
        self._data = ImageData(images, root, self._programs, self._run)
        self._pool = ThreadPoolExecutor(WORKERS, f"storage-{backend}")
        self._looks = ThreadPoolExecutor(1, f"storage-{backend}-look")
        self._look_under_way: asyncio.Future[StoragePool] | None = None
        self._turns = WeakValueDictionary[str, asyncio.Lock]()
        self._can_clone = self._is_open = False

    @property
    def guarantees(self) -> StorageGuarantees:
        return StorageGuarantees(
            clone=Clone.INSTANT if self._can_clone else Clone.COPY,
            snapshots=True,
            independent_snapshots=True,
            grows_in_use=True,
            reverts=True,
            thin=True,
            changed_blocks=False,
            exclusive=EXCLUSIVE,
            fencing=FENCING,
            isolation=ISOLATION,
        )

    async def open(self) -> None:
        await self._programs.run(*image_data.QEMU_IMG, "--version")

        def work() -> bool:
            self._marker.look()
            image_data.sweep(self._root)
            return self._files.can_clone()

        self._can_clone = await self._run(work)
        self._is_open = True

    async def close(self) -> None:
        self._is_open = False
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._looks.shutdown(wait=False, cancel_futures=True)
        self._marker.close()

    async def pool(self) -> StoragePool:
        """One look at a time, in a thread of its own: a mount that hangs holds no other up."""
        if self._look_under_way is None or self._look_under_way.done():
            self._look_under_way = asyncio.get_running_loop().run_in_executor(self._looks, self._look)
        done, _ = await asyncio.wait({self._look_under_way}, timeout=LOOKS_WITHIN_S)
        if done:
            return self._look_under_way.result()
        trouble = f"{self._root} does not answer: a look at it has taken more than {LOOKS_WITHIN_S:.0f} s."
        return StoragePool(0.0, 0.0, self.guarantees, "dir", trouble)

    def _look(self) -> StoragePool:
        try:
            self._marker.look()
            found = os.statvfs(self._root)
            sizes = found.f_blocks * found.f_frsize / GIB, found.f_bavail * found.f_frsize / GIB
            trouble = "" if self._is_open else f"Backend {self._backend} is not open yet."
        except (StorageRefused, OSError) as error:
            sizes, trouble = (0.0, 0.0), _sentence(error, self._root)
        return StoragePool(*sizes, self.guarantees, "dir", trouble)

    # -- volumes --------------------------------------------------------------------------------------------------
    async def create(self, volume: VolumeSpec, origin: VolumeOrigin | None = None) -> None:
        _must_be_raw(volume)
        final, size_bytes = self._files.volume(volume.volume_id), volume.size_gb * GIB
        async with self._turn(volume.volume_id):
            if await self._run(final.exists):
                return
            unfinished = self._files.unfinished(volume.volume_id)
            if origin is None:
                await self._run(lambda: self._files.blank(unfinished, size_bytes))
            else:
                await self._copy(await self._source(origin), unfinished, size_bytes)
            await self._run(lambda: self._files.publish(unfinished, final))

    async def _source(self, origin: VolumeOrigin) -> Path:
        if isinstance(origin, FromSnapshot):
            return await self._snapshot_there(origin.volume_id, origin.snapshot_id)
        return await self._there(origin.volume_id)

    async def _copy(self, source: Path, unfinished: Path, size_bytes: int) -> None:
        """As it is at one moment. Raises StorageRefused."""
        try:
            if await self._run(lambda: self._files.size(source)) > size_bytes:
                raise StorageRefused(f"The volume is smaller than {source.name}, of which it is to be made.")
            if self._can_clone:
                await self._run(lambda: self._files.clone(source, unfinished, size_bytes))
                return
            await self._run(lambda: self._check_at_rest(source))
            await self._run(lambda: self._files.blank(unfinished, size_bytes))
            await self._data.convert(_raw(source), _raw(unfinished))
        except (StorageRefused, StorageDown):
            await self._run(lambda: self._files.remove(unfinished))
            raise

    def _check_at_rest(self, path: Path) -> None:
        try:
            with image_locks.unwritten(path):
                pass
        except image_locks.InUse:
            raise StorageRefused(
                f"{path.name} is open on a host, and the file system of {self._root} cannot clone files: a copy would "
                "be of no one moment. Detach it or stop its server, or use a directory on XFS or Btrfs."
            ) from None

    async def fill(self, volume: VolumeSpec, image: ImageRef, ticket: ImageTicket | None) -> None:
        final, unfinished = await self._there(volume.volume_id), self._files.unfinished(volume.volume_id)

        async def into(_: int) -> str:
            await self._run(lambda: self._files.blank(unfinished, volume.size_gb * GIB))
            return _raw(unfinished)

        async with self._turn(volume.volume_id):
            await self._check_free(volume.volume_id, "filled with an image")
            await self._data.fill(image, volume.volume_id, volume.size_gb, ticket, into)
            await self._run(lambda: self._files.publish(unfinished, final))

    async def send(self, volume: VolumeSpec, image_id: str, disk_format: str, ticket: ImageTicket | None) -> int:
        source = await self._there(volume.volume_id)
        async with self._turn(volume.volume_id):
            await self._run(lambda: self._check_at_rest(source))
            return await self._data.send(_raw(source), image_id, disk_format, ticket)

    async def delete(self, volume_id: str) -> None:
        async with self._turn(volume_id):
            if snapshots := await self._run(lambda: self._files.snapshots(volume_id)):
                raise StorageRefused(f"Volume {volume_id} has snapshots: {', '.join(snapshots)}; delete them first.")
            await self._check_free(volume_id, "deleted")
            await self._run(lambda: self._files.remove_volume(volume_id))

    async def extend(self, volume: VolumeSpec) -> None:
        path, size_bytes = await self._there(volume.volume_id), volume.size_gb * GIB
        async with self._turn(volume.volume_id):
            if await self._run(lambda: self._files.size(path)) > size_bytes:
                raise StorageRefused(f"Volume {volume.volume_id} is larger than {volume.size_gb} GiB already.")
            await self._run(lambda: self._files.extend(path, size_bytes))

    # -- snapshots ------------------------------------------------------------------------------------------------
    async def snapshot(self, volume_id: str, snapshot_id: str) -> None:
        source, final = await self._there(volume_id), self._files.snapshot(volume_id, snapshot_id)
        async with self._turn(volume_id):
            if await self._run(final.exists):
                return
            unfinished = self._files.unfinished(snapshot_id)
            await self._copy(source, unfinished, await self._run(lambda: self._files.size(source)))
            await self._run(lambda: self._files.publish(unfinished, final))

    async def delete_snapshot(self, volume_id: str, snapshot_id: str) -> None:
        async with self._turn(volume_id):
            await self._run(lambda: self._files.remove(self._files.snapshot(volume_id, snapshot_id)))

    async def revert(self, volume: VolumeSpec, snapshot_id: str) -> None:
        final, unfinished = await self._there(volume.volume_id), self._files.unfinished(volume.volume_id)
        async with self._turn(volume.volume_id):
            source = await self._snapshot_there(volume.volume_id, snapshot_id)
            await self._check_free(volume.volume_id, "reverted")
            await self._copy(source, unfinished, volume.size_gb * GIB)
            await self._run(lambda: self._files.publish(unfinished, final))

    # -- who may open it ------------------------------------------------------------------------------------------
    async def admit(self, volume: VolumeSpec, host: str, *, read_only: bool = False, identity: str = "") -> DiskSource:
        path = await self._there(volume.volume_id)
        async with self._turn(volume.volume_id):
            await self._run(lambda: self._files.admit(volume.volume_id, host))
        return FileSource(self._backend, path.name)

    async def withdraw(self, volume_id: str, host: str, *, force: bool = False) -> None:
        """A lock does not say whose it is: with one other host admitted it is taken for that one's, as after a
        migration; the lock keeps a second writer out all the same."""
        async with self._turn(volume_id):
            admitted = await self._run(lambda: self._files.admitted(volume_id))
            if host not in admitted:
                return
            if admitted == [host] and await self._run(lambda: self._is_in_use(volume_id)):
                way = FENCING if force else "detach it from its server first"
                raise StorageRefused(f"Volume {volume_id} is open on host {host}: {way}")
            await self._run(lambda: self._files.withdraw(volume_id, host))

    def _is_in_use(self, volume_id: str) -> bool:
        path = self._files.volume(volume_id)
        return path.exists() and image_locks.is_open(path)

    async def _check_free(self, volume_id: str, what: str) -> None:
        hosts = await self._run(lambda: self._files.admitted(volume_id))
        if not hosts and not await self._run(lambda: self._is_in_use(volume_id)):
            return
        where = f"host {', '.join(hosts)}" if hosts else "a host"
        raise StorageRefused(f"Volume {volume_id} may be open on {where}: it cannot be {what} until it is detached.")

    # -- its bytes ------------------------------------------------------------------------------------------------
    async def reader(self, volume: VolumeSpec, snapshot_id: str | None = None) -> Reader:
        if snapshot_id is not None:
            path = await self._snapshot_there(volume.volume_id, snapshot_id)
            return FileReader(await self._run(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC)), self._run)
        path = await self._there(volume.volume_id)
        return FileReader(await self._run(lambda: self._opened(path, image_locks.hold_unwritten)), self._run)

    async def writer(self, volume: VolumeSpec) -> Writer:
        path, size_bytes = await self._there(volume.volume_id), volume.size_gb * GIB
        descriptor = await self._run(lambda: self._opened(path, image_locks.hold_alone))
        return FileWriter(descriptor, self._run, size_bytes=size_bytes)

    def _opened(self, path: Path, hold: Callable[[int], None]) -> int:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            hold(descriptor)
        except image_locks.InUse:
            os.close(descriptor)
            raise StorageRefused(f"{path.name} is open on a host: detach it, or read a snapshot of it.") from None
        return descriptor

    async def changed(
        self, volume: VolumeSpec, snapshot_id: str, since_snapshot_id: str | None
    ) -> AsyncIterator[Extent]:
        """The whole, with what reads as zeros: the files do not tell what they have in common."""
        path = await self._snapshot_there(volume.volume_id, snapshot_id)
        at = 0
        while found := await self._run(lambda at=at: self._files.extents(path, at)):  # type: ignore[misc]
            for extent in found:
                yield extent
            at = found[-1].offset_bytes + found[-1].length_bytes

    async def inventory(self) -> tuple[StoredVolume, ...]:
        def work() -> tuple[StoredVolume, ...]:
            found = []
            for volume_id in self._files.volumes():
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    size = self._files.size(self._files.volume(volume_id))
                    snapshots, hosts = self._files.snapshots(volume_id), self._files.admitted(volume_id)
                    found.append(StoredVolume(volume_id, size, tuple(snapshots), tuple(hosts)))
            return tuple(found)

        return await self._run(work)

    # -- small parts ----------------------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def _turn(self, volume_id: str) -> AsyncIterator[None]:
        """One verb at a time of each volume, and none where the directory is not the one that it was."""
        async with self._turns.setdefault(volume_id, asyncio.Lock()):
            await self._run(self._marker.look)
            yield

    async def _there(self, volume_id: str) -> Path:
        path = self._files.volume(volume_id)
        if not await self._run(path.exists):
            raise StorageRefused(f"Volume {volume_id} is not in backend {self._backend} ({path}).")
        return path

    async def _snapshot_there(self, volume_id: str, snapshot_id: str) -> Path:
        path = self._files.snapshot(volume_id, snapshot_id)
        if not await self._run(path.exists):
            raise StorageRefused(f"Snapshot {snapshot_id} of volume {volume_id} is not in backend {self._backend}.")
        return path

    def _run(self, work: Callable[[], T]) -> Awaitable[T]:
        def refusing() -> T:
            try:
                return work()
            except OSError as error:
                raise _fault(error, self._root) from None

        return asyncio.get_running_loop().run_in_executor(self._pool, refusing)


def _raw(path: Path) -> str:
    return f"driver=raw,{of_file(path)}"


def _must_be_raw(volume: VolumeSpec) -> None:
    if volume.disk_format is not DiskFormat.RAW:
        raise StorageRefused(f"Volumes of this backend are raw, not {volume.disk_format}.")


def _sentence(error: StorageRefused | OSError, root: Path) -> str:
    return error.reason if isinstance(error, StorageRefused) else _fault(error, root).reason


def _fault(error: OSError, root: Path) -> StorageRefused | StorageDown:
    if error.errno in _FULL:
        return StorageRefused(f"There is no room left at {root}: {error.strerror}.")
    what = f"{error.filename or root}: {error.strerror}"
    if error.errno in _AWAY:
        return StorageDown(f"The file system of {root} does not answer ({what}).")
    return StorageRefused(f"The file system of {root} refused ({what}).")
