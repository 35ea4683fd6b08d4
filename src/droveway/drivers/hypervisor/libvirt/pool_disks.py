"""Root disks of guests as images of a pool of Ceph, each a clone of the image that it was made of: nothing is copied
when a guest is made, and every host that works with the pool opens the same disk.

    INSTANCE_disk, INSTANCE_disk.rescue …   root disks, and those that lie beside one
    image-SHA512@base                       an image of the image service, made once for all hosts (rbd/image_cache.py)
    probe-SAGA                              a test object: a host that sees it works with this very pool

Raises HypervisorRefused with the pool's no, and HypervisorDown when the cluster does not answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import GuestSpec
from droveway.domain.volume.model import VolumeSpec
from droveway.drivers.hypervisor.store_watch import GIB, StoreCapacity
from droveway.drivers.storage import image_data, state_file
from droveway.drivers.storage.child import COPY_S, Programs
from droveway.drivers.storage.image_data import ImageData
from droveway.drivers.storage.rbd.cluster import Cluster, RbdSettings
from droveway.drivers.storage.rbd.image_cache import UNFINISHED, ImageCache, image_name
from droveway.ports.clock import Clock
from droveway.ports.hypervisor import HypervisorDown, HypervisorRefused
from droveway.ports.images import Images
from droveway.ports.storage import StorageDown, StorageRefused

PROBE, PROBE_BYTES, PROBE_KEPT_S, WRITTEN = "probe-", 1 << 20, 600, "droveway.written_s"
_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OF_INSTANCE = re.compile(rf"(?:{UNFINISHED}.*\+)?({_ID})_disk(?:\.[a-z]+)?")
ANY_GB = 1 << 20  # a disk that may be as large as its image
CLOSES_WITHIN_S, LOOK_S = 40.0, 0.5  # a client whose host has lost its power is seen for half a minute
SPACE_WITHIN_S = 5.0


class PoolSettings(NamedTuple):
    """`reached.conf` is made of `conf` and `keyring` in `state`, which is this host's own."""

    host: str
    reached: RbdSettings
    conf: str
    keyring: str
    state: Path


class PoolDisks:
    def __init__(self, settings: PoolSettings, cluster: Cluster, images: Images, clock: Clock) -> None:
        self._settings, self._cluster, self._clock = settings, cluster, clock
        self._programs = Programs()
        data = ImageData(images, settings.state, self._programs, asyncio.to_thread)
        self._cache = ImageCache(cluster, settings.reached, data, clock, settings.host)
        self._fsid, self._connecting = "", asyncio.Lock()
        self._capacity: StoreCapacity = (0, 0)

    @property
    def pool(self) -> str:
        """FSID/NAME; empty as long as the cluster has not answered."""
        return f"{self._fsid}/{self._settings.reached.pool}" if self._fsid else ""

    def close(self) -> None:
        self._cluster.close()

    async def capacity(self) -> tuple[StoreCapacity, str]:
        """How large it is and what is free, in GiB, and why it cannot be used now; what was seen last where it does not
        answer. Bounded in time."""
        trouble = ""
        try:
            async with asyncio.timeout(SPACE_WITHIN_S), self._faults():
                await self._connect()
                total, free = await self._cluster.space()
                self._capacity = total // GIB, free // GIB
                if not total:
                    trouble = "the Ceph cluster does not say how much its pool holds: see that ceph-mgr runs"
        except (HypervisorRefused, HypervisorDown) as fault:
            trouble = fault.reason
        except TimeoutError:
            trouble = f"the Ceph cluster of {self._settings.conf} has not answered within {SPACE_WITHIN_S:.0f} s"
        return self._capacity, trouble

    async def _connect(self) -> None:
        if self._fsid:
            return
        async with self._connecting:
            if not self._fsid:
                await asyncio.to_thread(self._lay_out)
                self._fsid = await self._cluster.connect()
                await self._cache.sweep_halves()

    def _lay_out(self) -> None:
        try:
            text, _ = Path(self._settings.conf).read_text(), Path(self._settings.keyring).read_text()
        except OSError as error:
            raise StorageRefused(
                f"{error.filename} cannot be read ({error.strerror}): see ceph_conf and ceph_keyring."
            ) from None
        reached = self._settings.reached
        self._settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state_file.write(Path(reached.conf), f"{text}\n[client.{reached.user}]\nkeyring = {self._settings.keyring}\n")
        image_data.sweep(self._settings.state)

    async def check(self, spec: GuestSpec) -> None:
        """Raises HypervisorRefused when its root disk lies in another pool than this one."""
        async with self._faults():
            await self._connect()
        if spec.root_pool != self.pool:
            raise HypervisorRefused(
                f"The root disk of guest {spec.instance_id} lies in {spec.root_pool}, and this host works with "
                f"{self.pool}: see images_rbd_pool and ceph_conf."
            )

    # -- disks ----------------------------------------------------------------------------------------------------
    async def make(self, spec: GuestSpec, ticket: ImageTicket | None, beside: str = "") -> None:
        """What is there is left as it is, or made as large as it is to be. `beside`: that name, beside its root disk;
        one of another image, which was to be dropped when its host did not answer, gives way. Raises TicketWanted, too.
        """
        await self.check(spec)
        name, size_bytes = _disk(spec.instance_id, beside), spec.disk_gb * GIB
        if spec.image is None and not size_bytes:
            raise HypervisorRefused("The guest has neither an image nor a disk size: there is nothing to boot from.")
        async with self._faults():
            found = await self._cluster.look(name)
            if found is not None:
                if not beside or (spec.image is not None and found.parent == image_name(spec.image)):
                    if found.size_bytes < size_bytes:  # cut off between the two steps below
                        await self._cluster.resize(name, size_bytes)
                    return
                await self._remove(name)
            if spec.image is None:
                await self._cluster.create(name, size_bytes)
                return
            wanted = VolumeSpec(spec.instance_id, spec.disk_gb or ANY_GB)
            cached, image_bytes = await self._cache.make(spec.image, wanted, ticket)
            image_data.must_fit(spec.image.id, image_bytes, wanted.size_gb)
            await self._cluster.clone(*cached, name)
            if image_bytes < size_bytes:
                await self._cluster.resize(name, size_bytes)

    async def has(self, instance_id: str) -> bool:
        async with self._faults():
            await self._connect()
            return await self._cluster.look(_disk(instance_id)) is not None

    async def replace(self, instance_id: str, beside: str) -> None:
        """That which lies beside it becomes its root disk; nothing to do when there is none. Each step can be done
        again: the old one goes last."""
        name, new, old = _disk(instance_id), _disk(instance_id, beside), _disk(instance_id, "old")
        async with self._faults():
            await self._connect()
            if await self._cluster.look(new) is not None:
                if await self._cluster.look(name) is not None:
                    await self._remove(old)
                    await self._cluster.rename(name, old)
                await self._cluster.rename(new, name)
            await self._remove(old)

    async def drop(self, instance_id: str, beside: str) -> None:
        async with self._faults():
            await self._connect()
            await self._remove(_disk(instance_id, beside))

    async def remove_all(self, instance_id: str) -> None:
        """What a host that has ended since had half made of it, too."""
        async with self._faults():
            await self._connect()
            for name in await self._cluster.images():
                if _instance_of(name) == instance_id:
                    await self._remove(name)
            await self._cluster.purge()

    async def listing(self) -> tuple[str, tuple[str, ...]]:
        """The pool, and the instances of which there is a disk, or one half made."""
        async with self._faults():
            await self._connect()
            found = {_instance_of(name) for name in await self._cluster.images()}
        return self.pool, tuple(sorted(found - {""}))

    async def _remove(self, name: str) -> None:
        """Once nobody has it open."""
        found, deadline_s = await self._cluster.look(name), self._clock.monotonic_s() + CLOSES_WITHIN_S
        while found is not None and found.clients:
            if self._clock.monotonic_s() > deadline_s:
                raise HypervisorRefused(
                    f"Disk {name} is open at {', '.join(found.clients)}: it is not deleted under a guest."
                )
            await self._clock.sleep(LOOK_S)
            found = await self._cluster.look(name)
        if found is None:
            return
        for snapshot in found.snapshots:
            await self._cluster.remove_snapshot(name, snapshot)
        await self._cluster.remove(name)

    # -- a copy of one moment -------------------------------------------------------------------------------------
    async def copy(self, instance_id: str, copy: str, target: Path, disk_format: str) -> None:
        """Make a file of it as it is at one moment, while its guest runs on."""
        name, snapshot = _disk(instance_id), f"copy-{copy}"
        async with self._faults():
            await self._connect()
            await self._cluster.snapshot(name, snapshot)
            source = self._settings.reached.disk(name, snapshot)
            command = ("convert", "--image-opts", source, "-O", disk_format, str(target))
            await self._programs.run(*image_data.QEMU_IMG, *command, within_s=COPY_S)
            await self._cluster.remove_snapshot(name, snapshot)

    async def drop_copy(self, instance_id: str, copy: str) -> None:
        async with self._faults():
            await self._connect()
            found = await self._cluster.look(_disk(instance_id))
            if found is not None and f"copy-{copy}" in found.snapshots:
                await self._cluster.remove_snapshot(_disk(instance_id), f"copy-{copy}")

    # -- is it the same pool? -------------------------------------------------------------------------------------
    async def write_probe(self, name: str) -> None:
        async with self._faults():
            await self._connect()
            await self._cluster.create(f"{PROBE}{name}", PROBE_BYTES)
            await self._cluster.mark(f"{PROBE}{name}", WRITTEN, str(self._clock.now_us() // 1_000_000))

    async def sees_probe(self, name: str) -> bool:
        async with self._faults():
            await self._connect()
            return await self._cluster.look(f"{PROBE}{name}") is not None

    async def remove_probe(self, name: str) -> None:
        async with self._faults():
            await self._connect()
            await self._cluster.remove(f"{PROBE}{name}")

    async def sweep(self) -> None:
        """Images of which no disk was made for long, and test objects of migrations that nobody ended."""
        old_s = self._clock.now_us() // 1_000_000 - PROBE_KEPT_S
        async with self._faults():
            await self._connect()
            await self._cache.sweep()
            for name in await self._cluster.images():
                if name.startswith(PROBE):
                    found = await self._cluster.look(name)
                    if found is not None and int(found.marks.get(WRITTEN, old_s)) < old_s:
                        await self._cluster.remove(name)

    @contextlib.asynccontextmanager
    async def _faults(self) -> AsyncIterator[None]:
        try:
            yield
        except StorageRefused as fault:
            raise HypervisorRefused(fault.reason) from None
        except StorageDown as fault:
            raise HypervisorDown(fault.reason) from None


def _instance_of(name: str) -> str:
    """Whose disk has that name, or was to have it (an older release made them under another one first); empty: images,
    test objects, and what is not ours."""
    found = _OF_INSTANCE.fullmatch(name)
    return "" if found is None else found[1]


def _disk(instance_id: str, beside: str = "") -> str:
    return f"{instance_id}_disk{f'.{beside}' if beside else ''}"
