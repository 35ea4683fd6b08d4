"""Images of the image service as images of the pool, each made once: volumes are clones of its snapshot."""

from __future__ import annotations

import asyncio
import contextlib
import re
from weakref import WeakValueDictionary

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.domain.volume.model import VolumeSpec
from droveway.drivers.storage.image_data import ImageData
from droveway.drivers.storage.rbd.cluster import Cluster, RbdSettings
from droveway.ports.clock import Clock
from droveway.ports.storage import StorageDown, StorageRefused

IMAGE, BASE, UNFINISHED, USED = "image-", "base", "new-", "droveway.used_s"
NAME_HEX = 32
KEPT_S = 24 * 3600  # since a volume was last made of it, when none shares data with it
MARKED_S = 3600  # how late that is noted
_SECTOR = 512


def image_name(image: ImageRef) -> str:
    return f"{IMAGE}{image.sha512[:NAME_HEX]}-{image.disk_format}"


class ImageCache:
    """Of one pool. `maker`: whose the unfinished ones are, where several make images in one pool."""

    def __init__(self, cluster: Cluster, settings: RbdSettings, data: ImageData, clock: Clock, maker: str = "") -> None:
        self._cluster, self._settings, self._data, self._clock = cluster, settings, data, clock
        self._unfinished = f"{UNFINISHED}{maker}+" if maker else UNFINISHED
        self._turns = WeakValueDictionary[str, asyncio.Lock]()

    async def make(
        self, image: ImageRef, volume: VolumeSpec, ticket: ImageTicket | None
    ) -> tuple[tuple[str, str], int]:
        """The image with its snapshot, and how large its disk is. Raises StorageRefused, TicketWanted."""
        if not re.fullmatch("[0-9a-f]{128}", image.sha512):
            raise StorageRefused(f"Image {image.id} carries no sha512 to check it by.")
        name = image_name(image)
        async with self._turns.setdefault(name, asyncio.Lock()):
            found = await self._cluster.look(name)
            if found is None:
                await self._convert(image, name, volume, ticket)
                await self.sweep()
                found = await self._cluster.look(name)
            assert found is not None, "it has just been made"
            if BASE not in found.snapshots:
                await self._cluster.snapshot(name, BASE)
            now_s = self._clock.now_us() // 1_000_000
            if now_s - int(found.marks.get(USED, 0)) > MARKED_S:  # a write to the cluster, which the volume waits for
                await self._cluster.mark(name, USED, str(now_s))
        return (name, BASE), found.size_bytes

    async def _convert(self, image: ImageRef, name: str, volume: VolumeSpec, ticket: ImageTicket | None) -> None:
        unfinished = f"{self._unfinished}{name}"

        async def into(virtual_bytes: int) -> str:
            await self._cluster.remove(unfinished)
            await self._cluster.create(unfinished, -(-virtual_bytes // _SECTOR) * _SECTOR)
            return self._settings.disk(unfinished)

        await self._data.fill(image, name, volume.size_gb, ticket, into)
        try:
            await self._cluster.rename(unfinished, name)
        except StorageRefused:  # another one was quicker
            if await self._cluster.look(name) is None:
                raise
            await self._cluster.remove(unfinished)

    async def sweep_halves(self) -> None:
        """What this maker has left half made."""
        for name in await self._cluster.images():
            if name.startswith(self._unfinished):
                await self._cluster.remove(name)

    async def sweep(self) -> None:
        """Those of which no volume was made for long, and that share data with none."""
        old_s = self._clock.now_us() // 1_000_000 - KEPT_S
        for name in await self._cluster.images():
            if name.startswith(IMAGE):
                with contextlib.suppress(StorageRefused, StorageDown):  # the next one will look again
                    await self._sweep(name, old_s)

    async def _sweep(self, name: str, old_s: int) -> None:
        found = await self._cluster.look(name)
        if found is None or int(found.marks.get(USED, old_s)) >= old_s:
            return
        if BASE in found.snapshots:
            if await self._cluster.has_clones(name, BASE):
                return
            await self._cluster.remove_snapshot(name, BASE)
        await self._cluster.remove(name)
