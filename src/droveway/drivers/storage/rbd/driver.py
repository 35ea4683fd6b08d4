"""Volumes as images of a pool of Ceph: clones and snapshots are copy on write, at once, and independent of each other.

    volume-ID            an image; its snapshots are snapshot-ID
    image-SHA512@base    the bytes of an image of the image service, made once: volumes of it are clones

An image that is removed while clones share data with it hides in the pool's trash until the last of them is gone. Which
hosts are admitted stands in the metadata of the image, beside the addresses of their clients as far as they were seen.

RBD's exclusive lock is no guard against a second writer: it is handed on to whichever client asks. That a volume is
attached once is up to the table of attachments; that a client is gone is made so by the cluster's blocklist.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, unquote
from weakref import WeakValueDictionary

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.domain.volume.disks import DiskFormat, DiskSource, RbdSource
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
from droveway.drivers.storage import image_data, state_file
from droveway.drivers.storage.child import Programs
from droveway.drivers.storage.image_data import GIB, ImageData, checked, must_fit
from droveway.drivers.storage.rbd.cluster import Cluster, RbdImage, RbdSettings
from droveway.drivers.storage.rbd.image_cache import ImageCache
from droveway.ports.clock import Clock
from droveway.ports.images import Images
from droveway.ports.storage import OWN_SNAPSHOT, Extent, Reader, StorageDown, StorageRefused, Writer

VOLUME, SNAPSHOT, CLONE, HOST = "volume-", "snapshot-", "clone-", "droveway.host."
WINDOW_BYTES = 64 * GIB  # of one question for what has changed
LOOKS_WITHIN_S = 20.0
GUARANTEES = StorageGuarantees(
    clone=Clone.INSTANT,
    snapshots=True,
    independent_snapshots=True,
    grows_in_use=True,
    reverts=True,
    thin=True,
    changed_blocks=True,
    exclusive="the table of attachments alone: RBD hands its exclusive lock to whichever client asks for it.",
    fencing="the clients of a host are blocklisted in the cluster and their locks broken: they never write again.",
    isolation="a host's cephx user reaches every image of the pool; give each host a user of its own.",
)


class RbdStorage:
    """Answers droveway.ports.storage.Storage."""

    def __init__(
        self,
        backend: str,
        settings: RbdSettings,
        conf: str,
        keyring: str,
        state: Path,
        cluster: Cluster,
        images: Images,
        clock: Clock,
    ) -> None:
        """`settings.conf` is made of `conf` and `keyring` when it is opened."""
        self._backend, self._settings, self._conf, self._keyring = backend, settings, conf, keyring
        self._state, self._cluster = state, cluster
        self._programs = Programs()
        self._data = ImageData(images, state, self._programs, asyncio.to_thread)
        self._cache = ImageCache(cluster, settings, self._data, clock)
        self._turns = WeakValueDictionary[str, asyncio.Lock]()
        self._fsid = ""

    @property
    def guarantees(self) -> StorageGuarantees:
        return GUARANTEES

    async def open(self) -> None:
        await asyncio.to_thread(self._prepare)
        await self._check_tools()
        fsid = await self._cluster.connect()
        await asyncio.to_thread(self._must_be_the_same, fsid)
        self._fsid = fsid
        await self._cluster.purge()

    def _prepare(self) -> None:
        try:
            text = Path(self._conf).read_text()
            Path(self._keyring).read_text()
        except OSError as error:
            raise StorageRefused(
                f"Backend {self._backend} cannot read {error.filename} ({error.strerror}): see ceph_conf and "
                "ceph_keyring."
            ) from None
        of_user = f"\n[client.{self._settings.user}]\nkeyring = {self._keyring}\n"
        state_file.write(Path(self._settings.conf), text + of_user)
        image_data.sweep(self._state)

    async def _check_tools(self) -> None:
        done = await self._programs.try_run(*image_data.QEMU_IMG, "info", "--image-opts", "driver=rbd")
        if "Unknown driver" in done.words:
            raise StorageRefused("qemu-img knows no RBD on this host: install qemu-block-extra.")

    def _must_be_the_same(self, fsid: str) -> None:
        remembered, found = self._state / f"backend-{self._backend}", f"{fsid}/{self._settings.pool}"
        before = state_file.read(remembered)
        if before and before != found:
            raise StorageRefused(
                f"Backend {self._backend} had pool {before}, and {self._conf} leads to {found}: see that it is the "
                f"right cluster, or remove {remembered} when it was replaced on purpose."
            )
        if not before:
            state_file.write(remembered, found)

    async def close(self) -> None:
        self._cluster.close()

    async def pool(self) -> StoragePool:
        total, free, trouble = 0, 0, ""
        try:
            async with asyncio.timeout(LOOKS_WITHIN_S):
                total, free = await self._cluster.space()
            if not total:
                trouble = "The Ceph cluster does not say how much its pool holds: see that its manager runs (ceph-mgr)."
            elif not self._fsid:
                trouble = f"Backend {self._backend} is not open yet."
            elif not free:
                trouble = f"Pool {self._settings.pool} of Ceph is full."
        except (StorageRefused, StorageDown) as fault:
            trouble = fault.reason
        except TimeoutError:
            trouble = f"The Ceph cluster has not answered within {LOOKS_WITHIN_S:.0f} s."
        return StoragePool(total / GIB, free / GIB, GUARANTEES, "rbd", trouble)

    # -- volumes --------------------------------------------------------------------------------------------------
    async def create(self, volume: VolumeSpec, origin: VolumeOrigin | None = None) -> None:
        if volume.disk_format is not DiskFormat.RAW:
            raise StorageRefused(f"Volumes of this backend are raw, not {volume.disk_format}.")
        name, size_bytes = _volume(volume.volume_id), volume.size_gb * GIB
        async with self._turn(volume.volume_id):
            match origin:
                case None:
                    await self._cluster.create(name, size_bytes)
                    return
                case FromVolume(source_id):
                    await self._clone_volume(source_id, volume)
                case FromSnapshot(snapshot_id, source_id):
                    source = await self._with_snapshot(source_id, snapshot_id)
                    await self._clone(source_id, source, _snapshot(snapshot_id), volume)

    async def _clone_volume(self, source_id: str, volume: VolumeSpec) -> None:
        """By a snapshot that is there for a moment only."""
        source, snapshot = _volume(source_id), f"{CLONE}{volume.volume_id}"
        if await self._cluster.look(_volume(volume.volume_id)) is None:
            found = await self._there(source_id)
            self._must_fit(source, found, volume)
            await self._cluster.snapshot(source, snapshot)
            await self._clone(source_id, found, snapshot, volume)
        with contextlib.suppress(StorageRefused):  # the source was deleted meanwhile, and it with it
            await self._cluster.remove_snapshot(source, snapshot)

    async def _clone(self, source_id: str, source: RbdImage, snapshot: str, volume: VolumeSpec) -> None:
        """Where there is one already, by an earlier call, it stays."""
        self._must_fit(_volume(source_id), source, volume)
        await self._cluster.clone(_volume(source_id), snapshot, _volume(volume.volume_id))
        if source.size_bytes < volume.size_gb * GIB:
            await self._grow(_volume(volume.volume_id), volume.size_gb * GIB)

    def _must_fit(self, name: str, source: RbdImage, volume: VolumeSpec) -> None:
        if source.size_bytes > volume.size_gb * GIB:
            raise StorageRefused(f"The volume is smaller than {name}, of which it is to be made.")

    async def _grow(self, name: str, size_bytes: int) -> None:
        found = await self._cluster.look(name)
        if found is not None and found.size_bytes < size_bytes:
            await self._cluster.resize(name, size_bytes)

    async def fill(self, volume: VolumeSpec, image: ImageRef, ticket: ImageTicket | None) -> None:
        """As a clone of the image's own, which is made first where there is none yet: no bytes move then."""
        name = _volume(volume.volume_id)
        async with self._turn(volume.volume_id):
            found = await self._cluster.look(name)  # none after one that was cut off
            if found is not None:
                self._must_be_free(volume.volume_id, found, "filled with an image")
            cached, size_bytes = await self._cache.make(image, volume, ticket)
            must_fit(image.id, size_bytes, volume.size_gb)
            if found is not None:
                await self._cluster.remove(name)
            await self._cluster.clone(*cached, name)
            await self._grow(name, volume.size_gb * GIB)

    async def send(self, volume: VolumeSpec, image_id: str, disk_format: str, ticket: ImageTicket | None) -> int:
        """As it was at one moment, also while a guest writes it."""
        name, snapshot = _volume(volume.volume_id), f"{CLONE}{checked(image_id)}"
        await self._there(volume.volume_id)
        async with self._turn(f"{volume.volume_id} {image_id}"):
            await self._cluster.snapshot(name, snapshot)
            try:
                return await self._data.send(self._settings.disk(name, snapshot), image_id, disk_format, ticket)
            finally:
                await self._cluster.remove_snapshot(name, snapshot)

    async def delete(self, volume_id: str) -> None:
        name = _volume(volume_id)
        async with self._turn(volume_id):
            if (found := await self._cluster.look(name)) is not None:
                if snapshots := _snapshots(found):
                    raise StorageRefused(
                        f"Volume {volume_id} has snapshots: {', '.join(snapshots)}; delete them first."
                    )
                self._must_be_free(volume_id, found, "deleted")
                for passing in found.snapshots:
                    await self._cluster.remove_snapshot(name, passing)
                await self._cluster.remove(name)
        await self._cluster.purge()

    async def extend(self, volume: VolumeSpec) -> None:
        async with self._turn(volume.volume_id):
            found, size_bytes = await self._there(volume.volume_id), volume.size_gb * GIB
            if found.size_bytes > size_bytes:
                raise StorageRefused(f"Volume {volume.volume_id} is larger than {volume.size_gb} GiB already.")
            if found.size_bytes < size_bytes:
                await self._cluster.resize(_volume(volume.volume_id), size_bytes)

    # -- snapshots ------------------------------------------------------------------------------------------------
    async def snapshot(self, volume_id: str, snapshot_id: str) -> None:
        async with self._turn(volume_id):
            await self._there(volume_id)
            await self._cluster.snapshot(_volume(volume_id), _snapshot(snapshot_id))

    async def delete_snapshot(self, volume_id: str, snapshot_id: str) -> None:
        async with self._turn(volume_id):
            found = await self._cluster.look(_volume(volume_id))
            if found is not None and _snapshot(snapshot_id) in found.snapshots:
                await self._cluster.remove_snapshot(_volume(volume_id), _snapshot(snapshot_id))

    async def revert(self, volume: VolumeSpec, snapshot_id: str) -> None:
        name = _volume(volume.volume_id)
        async with self._turn(volume.volume_id):
            found = await self._with_snapshot(volume.volume_id, snapshot_id)
            self._must_be_free(volume.volume_id, found, "reverted")
            await self._cluster.roll_back(name, _snapshot(snapshot_id))
            await self._grow(name, volume.size_gb * GIB)

    # -- who may open it ------------------------------------------------------------------------------------------
    async def admit(self, volume: VolumeSpec, host: str, *, read_only: bool = False, identity: str = "") -> DiskSource:
        name = _volume(volume.volume_id)
        async with self._turn(volume.volume_id):
            found = await self._there(volume.volume_id)
            admitted = _admitted(found, volume.volume_id)
            if host not in admitted:
                if len(admitted) == 1:  # the clients that are there now are the other one's
                    (other,) = admitted
                    clients = sorted({*admitted[other], *found.clients})
                    await self._cluster.mark(name, _host(volume.volume_id, other), json.dumps(clients))
                await self._cluster.mark(name, _host(volume.volume_id, host), "[]")
        return RbdSource(self._fsid, self._settings.pool, name)

    async def withdraw(self, volume_id: str, host: str, *, force: bool = False) -> None:
        name = _volume(volume_id)
        async with self._turn(volume_id):
            found = await self._cluster.look(name)
            if found is None or host not in (admitted := _admitted(found, volume_id)):
                return
            seen = set(admitted[host])
            clients = tuple(sorted(seen if len(admitted) > 1 else seen | set(found.clients)))
            open_by = ", ".join(sorted(set(clients) & set(found.clients)))
            if open_by and not force:
                raise StorageRefused(
                    f"Volume {volume_id} is open on host {host} ({open_by}): detach it from its server first."
                )
            if force:
                await self._cluster.cut_off(name, clients)
            await self._cluster.mark(name, _host(volume_id, host), None)

    def _must_be_free(self, volume_id: str, found: RbdImage, what: str) -> None:
        admitted = sorted(_admitted(found, volume_id))
        if found.clients or admitted:
            where = f"host {', '.join(admitted)}" if admitted else ", ".join(found.clients)
            raise StorageRefused(
                f"Volume {volume_id} may be open on {where}: it cannot be {what} until it is detached."
            )

    # -- its bytes ------------------------------------------------------------------------------------------------
    async def reader(self, volume: VolumeSpec, snapshot_id: str | None = None) -> Reader:
        if snapshot_id is None:
            await self._there(volume.volume_id)
            return await self._cluster.open(_volume(volume.volume_id), None, writes=False)
        await self._with_snapshot(volume.volume_id, snapshot_id)
        return await self._cluster.open(_volume(volume.volume_id), _snapshot(snapshot_id), writes=False)

    async def writer(self, volume: VolumeSpec) -> Writer:
        found = await self._there(volume.volume_id)
        self._must_be_free(volume.volume_id, found, "written")
        return await self._cluster.open(_volume(volume.volume_id), None, writes=True)

    async def changed(
        self, volume: VolumeSpec, snapshot_id: str, since_snapshot_id: str | None
    ) -> AsyncIterator[Extent]:
        found = await self._with_snapshot(volume.volume_id, snapshot_id)
        since = None if since_snapshot_id is None else _snapshot(since_snapshot_id)
        name = _volume(volume.volume_id)
        for at in range(0, found.size_bytes, WINDOW_BYTES):
            for extent in await self._cluster.changed(name, _snapshot(snapshot_id), since, at, WINDOW_BYTES):
                yield extent

    async def inventory(self) -> tuple[StoredVolume, ...]:
        names = [name for name in await self._cluster.images() if name.startswith(VOLUME)]
        found = await asyncio.gather(*(self._cluster.look(name) for name in names))
        return tuple(
            _stored(name.removeprefix(VOLUME), one) for name, one in zip(names, found, strict=True) if one is not None
        )

    # -- small parts ----------------------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def _turn(self, volume_id: str) -> AsyncIterator[None]:
        async with self._turns.setdefault(volume_id, asyncio.Lock()):
            yield

    async def _there(self, volume_id: str) -> RbdImage:
        found = await self._cluster.look(_volume(volume_id))
        if found is None:
            raise StorageRefused(f"Volume {volume_id} is not in backend {self._backend} (pool {self._settings.pool}).")
        return found

    async def _with_snapshot(self, volume_id: str, snapshot_id: str) -> RbdImage:
        found = await self._there(volume_id)
        if _snapshot(snapshot_id) not in found.snapshots:
            raise StorageRefused(f"Snapshot {snapshot_id} of volume {volume_id} is not in backend {self._backend}.")
        return found


def _volume(volume_id: str) -> str:
    return f"{VOLUME}{checked(volume_id)}"


def _snapshot(snapshot_id: str) -> str:
    return f"{SNAPSHOT}{checked(snapshot_id)}"


def _snapshots(image: RbdImage) -> list[str]:
    """Of users: those of backups go with the volume."""
    found = (one.removeprefix(SNAPSHOT) for one in image.snapshots if one.startswith(SNAPSHOT))
    return [one for one in found if not one.startswith(OWN_SNAPSHOT)]


def _stored(volume_id: str, image: RbdImage) -> StoredVolume:
    holders = tuple(sorted(_admitted(image, volume_id)))
    return StoredVolume(volume_id, image.size_bytes, tuple(_snapshots(image)), holders)


def _host(volume_id: str, host: str) -> str:
    """A clone inherits the metadata of its parent: what names another volume is not about this one."""
    return f"{HOST}{volume_id}.{quote(host, safe='')}"


def _admitted(image: RbdImage, volume_id: str) -> dict[str, list[str]]:
    """The hosts, each with the clients that were seen to be its own."""
    of = _host(volume_id, "")
    return {
        unquote(key.removeprefix(of)): json.loads(value) for key, value in image.marks.items() if key.startswith(of)
    }
