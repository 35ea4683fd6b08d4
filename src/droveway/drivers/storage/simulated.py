"""An imagined backend, in memory and honest: the same guarantees as those of real ones, and faults by order.

A `SimulatedPool` is what outlives the driver, as disks do; hosts that open its volumes meet it too. What it cannot do,
and why, is set from outside; so is a call that never ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.domain.volume.disks import DiskSource, SimulatedSource
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
from droveway.drivers.images.simulated import SimulatedImages
from droveway.ports.images import ImageRefused
from droveway.ports.storage import OWN_SNAPSHOT, Extent, StorageDown, StorageRefused

GIB = 1 << 30
BLOCK_BYTES = 64 << 10
GUARANTEES = StorageGuarantees(
    clone=Clone.INSTANT,
    snapshots=True,
    independent_snapshots=False,
    grows_in_use=True,
    reverts=True,
    thin=True,
    changed_blocks=True,
    exclusive="an imagined volume is opened by no host but those that were admitted to it",
    fencing="a host that is withdrawn by force writes no more",
    isolation="a host reaches the volumes that it was admitted to, and nothing else",
)


async def _at_once() -> None:
    """An imagined deed takes no time."""


Blocks = dict[int, bytes]  # by number; what is not there reads as zeros


@dataclass
class ImaginedSnapshot:
    size_bytes: int
    blocks: Blocks


@dataclass
class ImaginedVolume:
    size_bytes: int
    blocks: Blocks = field(default_factory=dict)
    snapshots: dict[str, ImaginedSnapshot] = field(default_factory=dict)
    made_of: str = ""  # the snapshot that it hangs on
    admitted: set[str] = field(default_factory=set)
    open_by: set[str] = field(default_factory=set)  # hosts whose guest has it open


class SimulatedPool:
    """`refuses`: why it does nothing at all; `down`: it does not answer; `trouble`: what it says of itself. `pause` is
    how long a deed takes, and comes before it. `changed` is called after each."""

    def __init__(self, name: str, total_gb: float = 1024.0) -> None:
        self.name, self.total_gb = name, total_gb
        self.volumes: dict[str, ImaginedVolume] = {}
        self.refuses = self.down = self.trouble = ""
        self.hangs = asyncio.Event()
        self.hangs.set()  # not
        self.pause: Callable[[], Awaitable[None]] = _at_once
        self.changed: Callable[[], None] = lambda: None
        self.cut: Callable[[str, str], None] = lambda _volume_id, _host: None  # a host that had a volume open
        self.violations: list[str] = []

    @property
    def used_bytes(self) -> int:
        """Of blocks that differ: a clone shares those of what it was made of."""
        found = {id(block) for one in self.volumes.values() for block in one.blocks.values()}
        found |= {
            id(block)
            for one in self.volumes.values()
            for made in one.snapshots.values()
            for block in made.blocks.values()
        }
        return len(found) * BLOCK_BYTES

    def must_have_room(self) -> None:
        """Raises StorageRefused."""
        if self.used_bytes >= self.total_gb * GIB:
            raise StorageRefused(f"pool {self.name} is full: 0 of {self.total_gb:g} GiB are free")

    def clones_of(self, snapshot_id: str) -> list[str]:
        return sorted(name for name, one in self.volumes.items() if one.made_of == snapshot_id)

    # -- what happens to volumes: each is one physical act, and holds the laws --------------------------------------
    def drop(self, volume_id: str) -> None:
        volume = self.volumes.pop(volume_id)
        if volume.open_by:
            self.violations.append(f"volume {volume_id} is deleted while {sorted(volume.open_by)} has it open")

    def drop_snapshot(self, volume_id: str, snapshot_id: str) -> None:
        if clones := self.clones_of(snapshot_id):
            self.violations.append(f"snapshot {snapshot_id} is deleted, and {clones} hang on it")
        del self.volumes[volume_id].snapshots[snapshot_id]

    # -- hosts, whose guests have volumes open ------------------------------------------------------------------------
    def open_by(self, volume_id: str, host: str) -> None:
        """A guest there begins to use it. Raises StorageRefused."""
        volume = self.volumes.get(volume_id)
        if volume is None or host not in volume.admitted:
            raise StorageRefused(f"host {host} was not admitted to volume {volume_id}")
        volume.open_by.add(host)

    def closed_by(self, volume_id: str, host: str) -> None:
        if volume_id in self.volumes:
            self.volumes[volume_id].open_by.discard(host)


class SimulatedReader:
    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        return _read(self._blocks, offset_bytes, length_bytes)

    async def close(self) -> None:
        pass


class SimulatedWriter:
    def __init__(self, pool: SimulatedPool, volume: ImaginedVolume) -> None:
        self._pool, self._volume = pool, volume

    async def write(self, offset_bytes: int, data: bytes) -> None:
        if offset_bytes + len(data) > self._volume.size_bytes:
            raise StorageRefused("that is behind the end of the volume")
        self._pool.must_have_room()
        _write(self._volume.blocks, offset_bytes, data)

    async def close(self) -> None:
        self._pool.changed()


class SimulatedStorage:
    """One service's end of a pool. `images`: where it fetches them from; without, it sees them all."""

    def __init__(self, pool: SimulatedPool, images: SimulatedImages | None = None) -> None:
        self._pool, self._images = pool, images

    @property
    def guarantees(self) -> StorageGuarantees:
        return GUARANTEES

    async def open(self) -> None:
        self._check()

    async def close(self) -> None:
        pass

    async def pool(self) -> StoragePool:
        pool = self._pool
        trouble = pool.trouble or pool.down or pool.refuses
        if not pool.hangs.is_set():
            trouble = f"pool {pool.name} does not answer"
        free_gb = max(0.0, pool.total_gb - pool.used_bytes / GIB)
        return StoragePool(pool.total_gb, free_gb, GUARANTEES, "simulated", trouble)

    # -- volumes --------------------------------------------------------------------------------------------------
    async def create(self, volume: VolumeSpec, origin: VolumeOrigin | None = None) -> None:
        await self._begin()
        if volume.volume_id in self._pool.volumes:
            return
        self._pool.must_have_room()
        made = ImaginedVolume(volume.size_gb * GIB)
        match origin:
            case FromVolume(volume_id):
                source = self._volume(volume_id)
                _must_fit(source.size_bytes, made)
                made.blocks = dict(source.blocks)
            case FromSnapshot(snapshot_id, volume_id):
                snapshot = self._volume(volume_id).snapshots.get(snapshot_id)
                if snapshot is None:
                    raise StorageRefused(f"snapshot {snapshot_id} is not in pool {self._pool.name}")
                _must_fit(snapshot.size_bytes, made)
                made.blocks, made.made_of = dict(snapshot.blocks), snapshot_id
        self._pool.volumes[volume.volume_id] = made
        self._pool.changed()

    async def fill(self, volume: VolumeSpec, image: ImageRef, ticket: ImageTicket | None) -> None:
        await self._begin()
        target = self._volume(volume.volume_id)
        self._must_be_closed(volume.volume_id, target)
        if image.size_bytes > target.size_bytes:
            raise StorageRefused(
                f"image {image.id} has {image.size_bytes} bytes, and volume {volume.volume_id} {target.size_bytes}"
            )
        self._pool.must_have_room()
        data = await self._fetched(volume, image, ticket)
        self._check()
        self._volume(volume.volume_id).blocks = blocks = Blocks()
        _write(blocks, 0, data)
        self._pool.changed()

    async def _fetched(self, volume: VolumeSpec, image: ImageRef, ticket: ImageTicket | None) -> bytes:
        if self._images is None or image.path:
            return f"the bytes of image {image.id}".encode()
        path = Path(f"/volumes/{volume.volume_id}")
        try:
            await self._images.fetch(image, path, ticket)
            return bytes(self._images.files.pop(path))
        except ImageRefused as fault:
            raise StorageRefused(fault.reason) from None

    async def send(self, volume: VolumeSpec, image_id: str, disk_format: str, ticket: ImageTicket | None) -> int:
        """What lies behind the last byte that was written is not sent."""
        await self._begin()
        blocks = self._volume(volume.volume_id).blocks
        if self._images is None:
            raise StorageRefused(f"image {image_id} cannot be sent from pool {self._pool.name}")
        data = _read(blocks, 0, (max(blocks, default=0) + 1) * BLOCK_BYTES).rstrip(b"\0").ljust(512, b"\0")
        path = Path(f"/uploads/{image_id}")
        self._images.files[path] = bytearray(data)
        try:
            await self._images.send(image_id, path, ticket)
        except ImageRefused as fault:
            raise StorageRefused(fault.reason) from None
        finally:
            self._images.files.pop(path, None)
        return len(data)

    async def delete(self, volume_id: str) -> None:
        await self._begin()
        volume = self._pool.volumes.get(volume_id)
        if volume is None:
            return
        self._must_be_closed(volume_id, volume)
        if snapshots := _of_users(volume):
            raise StorageRefused(f"volume {volume_id} has snapshots: {', '.join(snapshots)}")
        self._pool.drop(volume_id)
        self._pool.changed()

    async def extend(self, volume: VolumeSpec) -> None:
        await self._begin()
        found, wanted = self._volume(volume.volume_id), volume.size_gb * GIB
        if found.size_bytes > wanted:
            raise StorageRefused(f"volume {volume.volume_id} has {found.size_bytes} bytes, more than {wanted}")
        found.size_bytes = wanted
        self._pool.changed()

    # -- snapshots ------------------------------------------------------------------------------------------------
    async def snapshot(self, volume_id: str, snapshot_id: str) -> None:
        await self._begin()
        volume = self._volume(volume_id)
        volume.snapshots.setdefault(snapshot_id, ImaginedSnapshot(volume.size_bytes, dict(volume.blocks)))
        self._pool.changed()

    async def delete_snapshot(self, volume_id: str, snapshot_id: str) -> None:
        await self._begin()
        volume = self._pool.volumes.get(volume_id)
        if volume is None or snapshot_id not in volume.snapshots:
            return
        self._must_have_no_clones(snapshot_id)
        self._pool.drop_snapshot(volume_id, snapshot_id)
        self._pool.changed()

    def _must_have_no_clones(self, snapshot_id: str) -> None:
        if clones := self._pool.clones_of(snapshot_id):
            raise StorageRefused(f"snapshot {snapshot_id} is what these were made of: {', '.join(clones)}")

    async def revert(self, volume: VolumeSpec, snapshot_id: str) -> None:
        await self._begin()
        found = self._volume(volume.volume_id)
        snapshot = found.snapshots.get(snapshot_id)
        if snapshot is None:
            raise StorageRefused(f"volume {volume.volume_id} has no snapshot {snapshot_id}")
        self._must_be_closed(volume.volume_id, found)
        found.blocks = dict(snapshot.blocks)
        self._pool.changed()

    # -- who may open it ------------------------------------------------------------------------------------------
    async def admit(self, volume: VolumeSpec, host: str, *, read_only: bool = False, identity: str = "") -> DiskSource:
        await self._begin()
        self._volume(volume.volume_id).admitted.add(host)
        self._pool.changed()
        return SimulatedSource(self._pool.name.rpartition("@")[2], volume.volume_id, host)

    async def withdraw(self, volume_id: str, host: str, *, force: bool = False) -> None:
        await self._begin()
        volume = self._pool.volumes.get(volume_id)
        if volume is None:
            return
        if host in volume.open_by:
            if not force:
                raise StorageRefused(f"a guest on host {host} has volume {volume_id} open")
            self._pool.cut(volume_id, host)
        volume.open_by.discard(host)
        volume.admitted.discard(host)
        self._pool.changed()

    # -- its bytes ------------------------------------------------------------------------------------------------
    async def reader(self, volume: VolumeSpec, snapshot_id: str | None = None) -> SimulatedReader:
        await self._begin()
        found = self._volume(volume.volume_id)
        if snapshot_id is None:
            return SimulatedReader(found.blocks)
        if snapshot_id not in found.snapshots:
            raise StorageRefused(f"volume {volume.volume_id} has no snapshot {snapshot_id}")
        return SimulatedReader(found.snapshots[snapshot_id].blocks)

    async def writer(self, volume: VolumeSpec) -> SimulatedWriter:
        await self._begin()
        return SimulatedWriter(self._pool, self._volume(volume.volume_id))

    async def changed(
        self, volume: VolumeSpec, snapshot_id: str, since_snapshot_id: str | None
    ) -> AsyncIterator[Extent]:
        await self._begin()
        found = self._volume(volume.volume_id).snapshots
        if snapshot_id not in found or (since_snapshot_id is not None and since_snapshot_id not in found):
            raise StorageRefused(f"volume {volume.volume_id} has no snapshot {since_snapshot_id or snapshot_id}")
        new = found[snapshot_id].blocks
        old = Blocks() if since_snapshot_id is None else found[since_snapshot_id].blocks
        for number in sorted(new.keys() | old.keys()):
            if new.get(number) != old.get(number):
                yield Extent(number * BLOCK_BYTES, BLOCK_BYTES, is_zero=number not in new)

    async def inventory(self) -> tuple[StoredVolume, ...]:
        await self._begin()
        return tuple(
            StoredVolume(name, one.size_bytes, _of_users(one), tuple(sorted(one.admitted | one.open_by)))
            for name, one in sorted(self._pool.volumes.items())
        )

    # -- what every deed meets ------------------------------------------------------------------------------------
    async def _begin(self) -> None:
        await self._pool.hangs.wait()
        self._check()
        await self._pool.pause()
        self._check()

    def _check(self) -> None:
        if self._pool.down:
            raise StorageDown(self._pool.down)
        if self._pool.refuses:
            raise StorageRefused(self._pool.refuses)

    def _volume(self, volume_id: str) -> ImaginedVolume:
        found = self._pool.volumes.get(volume_id)
        if found is None:
            raise StorageRefused(f"volume {volume_id} is not in pool {self._pool.name}")
        return found

    def _must_be_closed(self, volume_id: str, volume: ImaginedVolume) -> None:
        if volume.open_by:
            raise StorageRefused(f"volume {volume_id} is open on {', '.join(sorted(volume.open_by))}")


def _of_users(volume: ImaginedVolume) -> tuple[str, ...]:
    """Snapshots of backups go with the volume."""
    return tuple(sorted(name for name in volume.snapshots if not name.startswith(OWN_SNAPSHOT)))


def _must_fit(size_bytes: int, made: ImaginedVolume) -> None:
    if size_bytes > made.size_bytes:
        raise StorageRefused(f"what it is made of has {size_bytes} bytes, and it would have {made.size_bytes}")


def _read(blocks: Blocks, offset_bytes: int, length_bytes: int) -> bytes:
    first, last = offset_bytes // BLOCK_BYTES, (offset_bytes + length_bytes - 1) // BLOCK_BYTES
    whole = b"".join(blocks.get(number, bytes(BLOCK_BYTES)) for number in range(first, last + 1))
    start = offset_bytes - first * BLOCK_BYTES
    return whole[start : start + length_bytes]


def _write(blocks: Blocks, offset_bytes: int, data: bytes) -> None:
    at = offset_bytes
    while data:
        number, start = divmod(at, BLOCK_BYTES)
        piece, data = data[: BLOCK_BYTES - start], data[BLOCK_BYTES - start :]
        old = blocks.get(number, bytes(BLOCK_BYTES))
        blocks[number] = old[:start] + piece + old[start + len(piece) :]
        at += len(piece)
