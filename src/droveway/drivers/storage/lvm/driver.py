"""Volumes as logical volumes, served to the hosts that are admitted over NBD with mutual TLS.

    volume-ID        linear, or thin where a thin pool is configured
    _snapshot-ID     thin: of one moment, at once, and on its own; LVM keeps names of `snapshot…` for itself
    new-ID, old-ID   what is not whole yet, and what is being replaced; cleared up when the service starts

Linear volumes have no snapshots and are copied at rest: LVM's snapshots of such cost every later write of their origin,
and overflow. What a linear volume is made of held another volume once, so it is zeroed before it has its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.domain.volume.disks import DiskFormat, DiskSource, NbdSource
from droveway.domain.volume.model import (
    Clone,
    FromSnapshot,
    FromVolume,
    StorageGuarantees,
    StoragePool,
    StoredVolume,
    VolumeOrigin,
    VolumeSpec,
)
from droveway.drivers.storage import image_data
from droveway.drivers.storage.byte_files import FileReader, FileWriter
from droveway.drivers.storage.child import Programs
from droveway.drivers.storage.exports.nbdkit import NbdExports
from droveway.drivers.storage.image_data import GIB, ImageData, checked
from droveway.drivers.storage.lvm import blocks
from droveway.drivers.storage.lvm.names import (
    REPLACED,
    UNFINISHED,
    VOLUME,
    is_snapshot_of,
    origin_name,
    snapshot_name,
    snapshots_of,
    volume_name,
)
from droveway.drivers.storage.lvm.volume_group import Part, VolumeGroup, has_mapper, lvm_environment
from droveway.ports.clock import Clock
from droveway.ports.images import Images
from droveway.ports.storage import Extent, Reader, StorageDown, StorageRefused, Writer

T = TypeVar("T")
WORKERS, LOOK_S, LOOKS_WITHIN_S = 4, 1.0, 20.0
EXCLUSIVE = "only admitted hosts reach the export; between two of them the table of attachments alone decides."
FENCING = "the export to that host ends: its connections break, and it opens none any more."
ISOLATION = "each host that is admitted to a volume has an export of its own, which trusts that host and no other."
_IDENTITY = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]{1,8192}-----END CERTIFICATE-----\s*")


class LvmStorage:
    """Answers droveway.ports.storage.Storage."""

    def __init__(
        self,
        backend: str,
        volume_group: str,
        thin_pool: str,
        state: Path,
        exports: NbdExports,
        images: Images,
        clock: Clock,
    ) -> None:
        self._backend, self._state, self._exports, self._clock = backend, state, exports, clock
        self._programs = Programs(environment=lvm_environment())
        self._group = VolumeGroup(volume_group, thin_pool, self._programs, has_mapper=has_mapper())
        self._pool = ThreadPoolExecutor(WORKERS, f"storage-{backend}")
        self._data = ImageData(images, state, self._programs, self._run)
        self._turns = WeakValueDictionary[str, asyncio.Lock]()
        self._watching: asyncio.Task[None] | None = None
        self._unserved: dict[str, str] = {}  # exports that cannot be served, with why

    @property
    def guarantees(self) -> StorageGuarantees:
        is_thin = bool(self._group.thin_pool)
        return StorageGuarantees(
            clone=Clone.INSTANT if is_thin else Clone.COPY,
            snapshots=is_thin,
            independent_snapshots=is_thin,
            grows_in_use=False,
            reverts=is_thin,
            thin=is_thin,
            changed_blocks=False,
            exclusive=EXCLUSIVE,
            fencing=FENCING,
            isolation=ISOLATION,
        )

    async def open(self) -> None:
        await self._group.check()
        await self._programs.run("nbdkit", "nbdkit", "--version")
        await self._programs.run(*image_data.QEMU_IMG, "--version")
        await self._run(lambda: self._state.mkdir(mode=0o700, parents=True, exist_ok=True))
        await self._run(lambda: image_data.sweep(self._state))
        await self._clear_up()
        await self._serve_all()
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name=f"exports of {self._backend}")

    async def _clear_up(self) -> None:
        """What an earlier process had under way."""
        names = {one.name for one in await self._group.volumes()}
        for name in sorted(names):
            if name.startswith(REPLACED):
                final = f"{VOLUME}{name.removeprefix(REPLACED)}"
                if final not in names:
                    await self._group.rename(name, final)
                else:
                    await self._group.remove(name)
            elif name.startswith(UNFINISHED):
                await self._group.remove(name)

    async def _watch(self) -> None:
        """Let no export stay ended."""
        while True:
            await self._clock.sleep(LOOK_S)
            await self._serve_all()

    async def _serve_all(self) -> None:
        for volume_id in await self._run(self._exports.known):
            async with self._turn(volume_id):
                try:
                    await self._run(lambda name=volume_id: self._exports.look(name))  # type: ignore[misc]
                    self._unserved.pop(volume_id, None)
                except StorageRefused as fault:
                    self._unserved[volume_id] = fault.reason

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
            self._watching = None
        # What its threads have begun with an export comes to its end, in time: the next process finds it whole.
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)

    async def pool(self) -> StoragePool:
        total, free, trouble = 0, 0, ""
        try:
            async with asyncio.timeout(LOOKS_WITHIN_S):
                total, free = await self._group.space()
            if self._watching is None:
                trouble = f"Backend {self._backend} is not open yet."
            elif self._unserved:
                trouble = next(iter(sorted(self._unserved.values())))
        except (StorageRefused, StorageDown) as fault:
            trouble = fault.reason
        except TimeoutError:
            trouble = f"LVM has not answered within {LOOKS_WITHIN_S:.0f} s."
        return StoragePool(total / GIB, free / GIB, self.guarantees, "lvm", trouble)

    # -- volumes --------------------------------------------------------------------------------------------------
    async def create(self, volume: VolumeSpec, origin: VolumeOrigin | None = None) -> None:
        if volume.disk_format is not DiskFormat.RAW:
            raise StorageRefused(f"Volumes of this backend are raw, not {volume.disk_format}.")
        async with self._turn(volume.volume_id):
            if await self._group.part(volume_name(volume.volume_id)) is None:
                unfinished = f"{UNFINISHED}{volume.volume_id}"
                await self._make(unfinished, volume, origin)
                await self._group.rename(unfinished, volume_name(volume.volume_id))

    async def _make(self, unfinished: str, volume: VolumeSpec, origin: VolumeOrigin | None) -> None:
        await self._group.remove(unfinished)
        if origin is None:
            await self._make_empty(unfinished, volume)
            return
        source = await self._source(origin)
        if source.length_bytes > volume.size_gb * GIB:
            raise StorageRefused("The volume is smaller than that of which it is to be made.")
        try:
            if self._group.thin_pool:
                await self._group.snapshot(origin_name(origin), unfinished)
                if source.length_bytes < volume.size_gb * GIB:
                    await self._group.extend(unfinished, volume.size_gb * GIB)
                return
            await self._check_at_rest(origin)
            await self._make_empty(unfinished, volume)
            target = await self._group.part(unfinished)
            assert target is not None, "it has just been made"
            await self._data.convert(source.disk, target.disk)
        except (StorageRefused, StorageDown):
            await self._group.remove(unfinished)
            raise

    async def _make_empty(self, name: str, volume: VolumeSpec) -> None:
        await self._group.create(name, volume.size_gb * GIB)
        if not self._group.thin_pool:  # thin blocks are zeroed when they are taken
            part = await self._group.part(name)
            assert part is not None, "it has just been made"
            await self._run(lambda: blocks.zero(part))

    async def _source(self, origin: VolumeOrigin) -> Part:
        if isinstance(origin, FromSnapshot):
            return await self._snapshot_there(origin.volume_id, origin.snapshot_id)
        return await self._there(origin.volume_id)

    async def _check_at_rest(self, origin: VolumeOrigin) -> None:
        assert isinstance(origin, FromVolume), "linear volumes have no snapshots"
        if hosts := await self._run(lambda: self._exports.hosts(origin.volume_id)):
            raise StorageRefused(
                f"Volume {origin.volume_id} may be open on host {', '.join(hosts)}, and linear volumes are copied at "
                "rest alone: a copy would be of no one moment. Detach it or stop its server, or use a thin pool."
            )

    async def fill(self, volume: VolumeSpec, image: ImageRef, ticket: ImageTicket | None) -> None:
        unfinished = f"{UNFINISHED}{volume.volume_id}"
        await self._there(volume.volume_id)

        async def into(_: int) -> str:
            await self._group.remove(unfinished)
            await self._make_empty(unfinished, volume)
            part = await self._group.part(unfinished)
            assert part is not None, "it has just been made"
            return part.disk

        async with self._turn(volume.volume_id):
            await self._check_free(volume.volume_id, "filled with an image")
            await self._data.fill(image, volume.volume_id, volume.size_gb, ticket, into)
            await self._replace(volume.volume_id, unfinished)

    async def _replace(self, volume_id: str, unfinished: str) -> None:
        """By steps of which the next start of the service knows the end."""
        await self._group.rename(volume_name(volume_id), f"{REPLACED}{volume_id}")
        await self._group.rename(unfinished, volume_name(volume_id))
        await self._group.remove(f"{REPLACED}{volume_id}")

    async def send(self, volume: VolumeSpec, image_id: str, disk_format: str, ticket: ImageTicket | None) -> int:
        source = await self._there(volume.volume_id)
        async with self._turn(volume.volume_id):
            if not self._group.thin_pool:
                await self._check_at_rest(FromVolume(volume.volume_id))
                return await self._data.send(source.disk, image_id, disk_format, ticket)
            passing = f"{UNFINISHED}{checked(image_id)}"
            await self._group.remove(passing)
            await self._group.snapshot(volume_name(volume.volume_id), passing)
            try:
                part = await self._group.part(passing)
                assert part is not None, "it has just been made"
                return await self._data.send(part.disk, image_id, disk_format, ticket)
            finally:
                await self._group.remove(passing)

    async def delete(self, volume_id: str) -> None:
        async with self._turn(volume_id):
            there = {one.name: one for one in await self._group.volumes()}
            if volume_name(volume_id) not in there:
                return
            if snapshots := snapshots_of(volume_id, there.values()):
                raise StorageRefused(f"Volume {volume_id} has snapshots: {', '.join(snapshots)}; delete them first.")
            await self._check_free(volume_id, "deleted")
            own = [name for name, one in there.items() if is_snapshot_of(one, volume_id)]
            for name in (*own, volume_name(volume_id)):
                await self._group.remove(name)

    async def extend(self, volume: VolumeSpec) -> None:
        async with self._turn(volume.volume_id):
            before, size_bytes = await self._there(volume.volume_id), volume.size_gb * GIB
            if before.length_bytes > size_bytes:
                raise StorageRefused(f"Volume {volume.volume_id} is larger than {volume.size_gb} GiB already.")
            if before.length_bytes == size_bytes:
                return
            await self._check_free(volume.volume_id, "extended")
            if not await self._group.extend(volume_name(volume.volume_id), size_bytes):
                await self._make(f"{UNFINISHED}{volume.volume_id}", volume, FromVolume(volume.volume_id))
                await self._replace(volume.volume_id, f"{UNFINISHED}{volume.volume_id}")
            elif not self._group.thin_pool:
                part = await self._there(volume.volume_id)
                await self._run(lambda: blocks.zero(part, before.length_bytes))

    # -- snapshots ------------------------------------------------------------------------------------------------
    async def snapshot(self, volume_id: str, snapshot_id: str) -> None:
        if not self._group.thin_pool:
            raise StorageRefused(f"Backend {self._backend} has linear volumes, which have no snapshots.")
        async with self._turn(volume_id):
            await self._there(volume_id)
            name = snapshot_name(snapshot_id)
            if await self._group.part(name) is None:
                await self._group.snapshot(volume_name(volume_id), name, volume_name(volume_id))

    async def delete_snapshot(self, volume_id: str, snapshot_id: str) -> None:
        async with self._turn(volume_id):
            await self._group.remove(snapshot_name(snapshot_id))

    async def revert(self, volume: VolumeSpec, snapshot_id: str) -> None:
        async with self._turn(volume.volume_id):
            await self._check_free(volume.volume_id, "reverted")
            unfinished = f"{UNFINISHED}{volume.volume_id}"
            await self._make(unfinished, volume, FromSnapshot(snapshot_id, volume.volume_id))
            await self._replace(volume.volume_id, unfinished)

    # -- who may open it ------------------------------------------------------------------------------------------
    async def admit(self, volume: VolumeSpec, host: str, *, read_only: bool = False, identity: str = "") -> DiskSource:
        if not _IDENTITY.fullmatch(identity):
            raise StorageRefused(
                f"Host {host} has not said by which certificate it opens disks: see that its nova-compute runs, and "
                "that it has tls_path."
            )
        async with self._turn(volume.volume_id):
            part, volume_id = await self._there(volume.volume_id), volume.volume_id
            export = await self._run(lambda: self._exports.admit(volume_id, part, host, identity, read_only=read_only))
        return NbdSource(self._exports.address, export.port, volume_name(volume.volume_id))

    async def withdraw(self, volume_id: str, host: str, *, force: bool = False) -> None:
        async with self._turn(volume_id):
            if host not in await self._run(lambda: self._exports.hosts(volume_id)):
                return
            if await self._run(lambda: self._exports.clients(volume_id, host)) and not force:
                raise StorageRefused(f"Volume {volume_id} is open on host {host}: detach it from its server first.")
            await self._run(lambda: self._exports.withdraw(volume_id, host))

    async def _check_free(self, volume_id: str, what: str) -> None:
        if hosts := await self._run(lambda: self._exports.hosts(volume_id)):
            raise StorageRefused(
                f"Volume {volume_id} may be open on host {', '.join(hosts)}: it cannot be {what} until it is detached."
            )

    # -- its bytes ------------------------------------------------------------------------------------------------
    async def reader(self, volume: VolumeSpec, snapshot_id: str | None = None) -> Reader:
        if snapshot_id is None:
            part = await self._there(volume.volume_id)
        else:
            part = await self._snapshot_there(volume.volume_id, snapshot_id)
        descriptor = await self._run(lambda: os.open(part.device, os.O_RDONLY | os.O_CLOEXEC))
        return FileReader(descriptor, self._run, part.offset_bytes, part.length_bytes)

    async def writer(self, volume: VolumeSpec) -> Writer:
        part = await self._there(volume.volume_id)
        await self._check_free(volume.volume_id, "written")
        descriptor = await self._run(lambda: os.open(part.device, os.O_RDWR | os.O_CLOEXEC))
        return FileWriter(descriptor, self._run, part.offset_bytes, part.length_bytes)

    async def changed(
        self, volume: VolumeSpec, snapshot_id: str, since_snapshot_id: str | None
    ) -> AsyncIterator[Extent]:
        yield Extent(0, (await self._snapshot_there(volume.volume_id, snapshot_id)).length_bytes)

    async def inventory(self) -> tuple[StoredVolume, ...]:
        there, found = await self._group.volumes(), []
        for one in there:
            if one.name.startswith(VOLUME):
                volume_id = one.name.removeprefix(VOLUME)
                hosts = await self._run(lambda name=volume_id: self._exports.hosts(name))  # type: ignore[misc]
                snapshots = snapshots_of(volume_id, there)
                found.append(StoredVolume(volume_id, one.size_bytes, tuple(snapshots), tuple(hosts)))
        return tuple(sorted(found, key=lambda one: one.volume_id))

    # -- small parts ----------------------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def _turn(self, volume_id: str) -> AsyncIterator[None]:
        async with self._turns.setdefault(volume_id, asyncio.Lock()):
            yield

    async def _there(self, volume_id: str) -> Part:
        found = await self._group.part(volume_name(volume_id))
        if found is None:
            raise StorageRefused(f"Volume {volume_id} is not in volume group {self._group.name}.")
        return found

    async def _snapshot_there(self, volume_id: str, snapshot_id: str) -> Part:
        found = await self._group.part(snapshot_name(snapshot_id))
        if found is None:
            raise StorageRefused(
                f"Snapshot {snapshot_id} of volume {volume_id} is not in volume group {self._group.name}."
            )
        return found

    def _run(self, work: Callable[[], T]) -> Awaitable[T]:
        def refusing() -> T:
            try:
                return work()
            except OSError as error:
                raise StorageRefused(f"{error.filename or self._group.name}: {error.strerror}.") from None

        return asyncio.get_running_loop().run_in_executor(self._pool, refusing)
