"""How a volume becomes a backup, and a backup a volume: chunks that are named by their bytes, and a manifest that is
put last, so that what is listed is whole.

A backup that was cut off and is made again finds the chunks that it has stored already. While one is being made it says
so in the store (`pending/ID`), because a chunk that it finds there must not be swept before its manifest names it; who
sweeps says that too (`sweeping/HOST`). Each writes first and looks at the other's then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import quote

from droveway.domain.volume import manifest as form
from droveway.domain.volume.manifest import CHUNK_BYTES, Damaged, Manifest, ManifestHead
from droveway.domain.volume.model import VolumeSpec
from droveway.ports.backups import BackupObjects, BackupsDown, BackupsRefused
from droveway.ports.clock import Clock
from droveway.ports.storage import OWN_SNAPSHOT, Extent, Reader, Storage, StorageDown, StorageRefused

GIB = 1 << 30
AT_ONCE = 4  # chunks that are on their way
SWEPT_WITHIN_S, LOOK_S = 60.0, 1.0
DAMAGE_MAX = 100  # sentences
_ZEROS = bytes(CHUNK_BYTES)
PENDING, SWEEPING = "pending/", "sweeping/"


class BackupMade(NamedTuple):
    """`object_count`: chunks that it holds; `stored_bytes`: what was put for it; `read_bytes`: of the volume."""

    object_count: int
    stored_bytes: int
    read_bytes: int


class BackupPlan(NamedTuple):
    """`snapshot_id`: the user's, of which it is to be made; None: it makes one of its own. `former`: backups of the
    same volume, whose own snapshots nothing asks for any more."""

    backup_id: str
    volume: VolumeSpec
    parent_id: str | None = None
    snapshot_id: str | None = None
    former: tuple[str, ...] = ()


class BackupChunks:
    """`host`: whose sweeping is told from that of others."""

    def __init__(self, objects: BackupObjects, clock: Clock, host: str) -> None:
        self._objects, self._clock = objects, clock
        self._is_sweeping = False
        self._sweeping = f"{SWEEPING}{quote(host, safe='')}"

    # -- making one -----------------------------------------------------------------------------------------------
    async def make(self, storage: Storage, plan: BackupPlan) -> BackupMade:
        """Raises StorageRefused, StorageDown, BackupsRefused, BackupsDown."""
        if (made := await self._find(plan.backup_id)) is not None:  # a reply that was lost
            return BackupMade(len(made.chunks), 0, 0)
        await self._begin(plan.backup_id)
        parent = await self._parent(plan)
        snapshot = await self._snapshot(storage, plan)
        reader = await storage.reader(plan.volume, snapshot)
        try:
            work = _Work(self._objects, reader, plan.volume.size_gb * GIB, {} if parent is None else parent.chunks)
            await _take(work, storage, plan.volume, snapshot, parent)
        finally:
            await reader.close()
        head = ManifestHead(
            plan.backup_id, plan.volume.volume_id, plan.volume.size_gb * GIB, plan.parent_id, snapshot or ""
        )
        await self._objects.put(form.manifest_name(plan.backup_id), form.encode(Manifest(head, work.chunks)))
        await self._objects.delete(f"{PENDING}{plan.backup_id}")
        if storage.guarantees.snapshots:
            for former in plan.former:
                await storage.delete_snapshot(plan.volume.volume_id, f"{OWN_SNAPSHOT}{former}")
        return BackupMade(len(work.chunks), work.stored_bytes, work.read_bytes)

    async def _begin(self, backup_id: str) -> None:
        await self._objects.put(f"{PENDING}{backup_id}", b"")
        deadline_s = self._clock.monotonic_s() + SWEPT_WITHIN_S
        while await self._any(SWEEPING):
            if self._clock.monotonic_s() > deadline_s:
                raise BackupsDown("The store of backups is being swept; the backup begins when that has ended.")
            await self._clock.sleep(LOOK_S)

    async def _any(self, prefix: str) -> bool:
        async for _ in self._objects.names(prefix):
            return True
        return False

    async def _parent(self, plan: BackupPlan) -> Manifest | None:
        if plan.parent_id is None:
            return None
        found = await self._find(plan.parent_id)
        if found is None:
            raise BackupsRefused(
                f"Backup {plan.parent_id}, which this one continues, is not in the store of backups: make a full one."
            )
        return found

    async def _snapshot(self, storage: Storage, plan: BackupPlan) -> str | None:
        """None: the volume itself, which is at rest, where its backend has no snapshots."""
        if plan.snapshot_id is not None or not storage.guarantees.snapshots:
            return plan.snapshot_id
        own = f"{OWN_SNAPSHOT}{plan.backup_id}"
        await storage.snapshot(plan.volume.volume_id, own)
        return own

    async def forget(self, storage: Storage, volume_id: str, backup_id: str) -> None:
        """What a backup that was given up has left: in the store whether or not its backend answers now."""
        fault: StorageRefused | StorageDown | None = None
        if storage.guarantees.snapshots:
            try:
                await storage.delete_snapshot(volume_id, f"{OWN_SNAPSHOT}{backup_id}")
            except (StorageRefused, StorageDown) as caught:
                fault = caught
        await self._objects.delete(f"{PENDING}{backup_id}")
        if fault is not None:
            raise fault

    async def _find(self, backup_id: str) -> Manifest | None:
        stored = await self._objects.get(form.manifest_name(backup_id))
        try:
            return None if stored is None else form.decode(stored)
        except Damaged as fault:
            raise BackupsRefused(f"The record of backup {backup_id} is damaged: {fault.reason}.") from None

    # -- back into a volume ---------------------------------------------------------------------------------------
    async def restore(self, storage: Storage, volume: VolumeSpec, backup_id: str, *, is_blank: bool = False) -> int:
        """How many bytes were written. What the backup has no chunk for becomes zeros where it is none; `is_blank`: the
        volume was made for it, and holds nothing else."""
        found = await self._there(backup_id)
        if found.head.size_bytes > volume.size_gb * GIB:
            raise StorageRefused(f"Volume {volume.volume_id} is smaller than backup {backup_id}.")
        other = set[int]() if is_blank else await _not_zero(storage, volume, found)
        writer = await storage.writer(volume)
        written = 0
        try:
            for number in sorted({*found.chunks, *other}):
                at = number * found.head.chunk_bytes
                digest = found.chunks.get(number)
                if digest is None:
                    data = bytes(min(found.head.chunk_bytes, volume.size_gb * GIB - at))
                else:
                    data = await self._chunk(found, number)
                await writer.write(at, data)
                written += len(data)
        finally:
            await writer.close()
        return written

    async def _there(self, backup_id: str) -> Manifest:
        found = await self._find(backup_id)
        if found is None:
            raise BackupsRefused(f"Backup {backup_id} is not in the store of backups.")
        return found

    async def _chunk(self, of: Manifest, number: int) -> bytes:
        """Raises BackupsRefused, which names it and what it is of."""
        digest, length = of.chunks[number], of.head.chunk_bytes
        stored = await self._objects.get(form.chunk_name(digest))
        where = f"{form.chunk_name(digest)} (bytes {number * length} to {(number + 1) * length} of volume "
        where += f"{of.head.volume_id}, backup {of.head.backup_id})"
        if stored is None:
            raise BackupsRefused(f"{where} is missing in the store of backups.")
        try:
            return await asyncio.to_thread(form.unpack, stored, digest, length)
        except Damaged as fault:
            raise BackupsRefused(f"{where} is damaged: {fault.reason}.") from None

    async def verify(self, backup_id: str) -> tuple[int, tuple[str, ...]]:
        """How many chunks were looked at, and a sentence for each that is not what it was."""
        found, damage = await self._there(backup_id), list[str]()
        for number in sorted(found.chunks):
            try:
                await self._chunk(found, number)
            except BackupsRefused as fault:
                damage.append(fault.reason)
                if len(damage) >= DAMAGE_MAX:
                    break
        return len(found.chunks), tuple(damage)

    # -- the end of one -------------------------------------------------------------------------------------------
    async def delete(self, backup_id: str) -> None:
        """It is listed no longer; its chunks go when nothing else holds them and no backup is being made."""
        await self._objects.delete(form.manifest_name(backup_id))
        await self._objects.delete(f"{PENDING}{backup_id}")
        await self.sweep()

    async def begin(self) -> None:
        """An earlier process of this host may have ended while it swept. Raises BackupsDown, BackupsRefused."""
        if not self._is_sweeping:
            await self._objects.delete(self._sweeping)

    async def close(self) -> None:
        await self._objects.close()

    async def sweep(self) -> int:
        """How many chunks went. None while a backup is being made, which may hold any of them: the next one will."""
        self._is_sweeping = True
        try:
            await self._objects.put(self._sweeping, b"")
            if await self._any(PENDING):
                return 0
            held = set[str]()
            async for name in self._objects.names("backups/"):
                of_it = await self._find(name.removeprefix("backups/"))
                if of_it is not None:
                    held.update(form.chunk_name(digest) for digest in of_it.chunks.values())
            unheld = [name async for name in self._objects.names("chunks/") if name not in held]
            for name in unheld:
                await self._objects.delete(name)
            return len(unheld)
        finally:
            self._is_sweeping = False
            await self._objects.delete(self._sweeping)


class _Work:
    """One backup under way. `chunks`: those of its manifest; `known`: those of its parent, which are stored."""

    def __init__(self, objects: BackupObjects, reader: Reader, size_bytes: int, known: dict[int, bytes]) -> None:
        self._objects, self._reader, self._size_bytes, self._known = objects, reader, size_bytes, known
        self.chunks: dict[int, bytes] = {}
        self.stored_bytes = self.read_bytes = 0

    def begin_with_known(self) -> None:
        """What is not touched is as it was."""
        self.chunks = dict(self._known)

    def begin_empty(self) -> None:
        """What is not touched reads as zeros."""
        self.chunks = {}

    async def take(self, extents: AsyncIterator[Extent]) -> None:
        """Every chunk that these touch, once; several are on their way at a time."""
        under_way = set[asyncio.Task[None]]()
        try:
            async for number in self._touched(extents):
                if len(under_way) >= AT_ONCE:
                    done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for one in done:
                        one.result()
                under_way.add(asyncio.create_task(self._take(number)))
            for one in under_way:
                await one
        finally:
            for one in under_way:
                one.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _touched(self, extents: AsyncIterator[Extent]) -> AsyncIterator[int]:
        last = -1
        async for extent in extents:
            end = min(extent.offset_bytes + extent.length_bytes, self._size_bytes)
            first = extent.offset_bytes // CHUNK_BYTES
            for number in range(max(first, last + 1), -(-end // CHUNK_BYTES)):
                is_within = extent.offset_bytes <= number * CHUNK_BYTES and self._end(number) <= end
                last = number
                if extent.is_zero and is_within:
                    self.chunks.pop(number, None)
                else:
                    yield number

    def _end(self, number: int) -> int:
        return min((number + 1) * CHUNK_BYTES, self._size_bytes)

    async def _take(self, number: int) -> None:
        at = number * CHUNK_BYTES
        data = await self._reader.read(at, self._end(number) - at)
        self.read_bytes += len(data)
        digest = await asyncio.to_thread(_digest_or_nothing, data)
        if digest is None:
            self.chunks.pop(number, None)
            return
        if self._known.get(number) != digest and not await self._objects.exists(form.chunk_name(digest)):
            packed = await asyncio.to_thread(form.pack, data)
            await self._objects.put(form.chunk_name(digest), packed)
            self.stored_bytes += len(packed)
        self.chunks[number] = digest


def _digest_or_nothing(data: bytes) -> bytes | None:
    """None of zeros."""
    return None if _is_zero(data) else form.digest_of(data)


def _is_zero(data: bytes) -> bool:
    """By one comparison, which takes a hundredth of looking at each byte."""
    return data == (_ZEROS if len(data) == len(_ZEROS) else bytes(len(data)))


async def _take(
    work: _Work, storage: Storage, volume: VolumeSpec, snapshot: str | None, parent: Manifest | None
) -> None:
    """What has changed since the parent where the backend can tell; else all that is allocated."""
    if snapshot is None:
        await work.take(_whole(volume))
        return
    if parent is not None and parent.head.snapshot and storage.guarantees.changed_blocks:
        work.begin_with_known()
        try:
            await work.take(storage.changed(volume, snapshot, parent.head.snapshot))
            return
        except StorageRefused:  # that snapshot is gone
            if work.read_bytes:
                raise
        work.begin_empty()
    await work.take(storage.changed(volume, snapshot, None))


async def _whole(volume: VolumeSpec) -> AsyncIterator[Extent]:
    yield Extent(0, volume.size_gb * GIB)


async def _not_zero(storage: Storage, volume: VolumeSpec, found: Manifest) -> set[int]:
    """Chunks for which the backup has none and the volume does hold something."""
    size, length = volume.size_gb * GIB, found.head.chunk_bytes
    reader, numbers = await storage.reader(volume), set[int]()
    try:
        for number in range(-(-size // length)):
            if number not in found.chunks:
                data = await reader.read(number * length, min(length, size - number * length))
                if not _is_zero(data):
                    numbers.add(number)
    finally:
        await reader.close()
    return numbers
