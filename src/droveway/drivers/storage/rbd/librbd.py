"""A cluster by librbd in this process, in a few threads: every call of the cluster has an end in time, so that a
cluster which is away holds none of them for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from droveway.drivers.storage.rbd.binding import Binding
from droveway.drivers.storage.rbd.cluster import RbdImage, RbdSettings
from droveway.ports.storage import Extent, StorageDown, StorageRefused

T = TypeVar("T")
WORKERS = 4
ANSWERS_WITHIN_S = 15
CUT_OFF_S = 365 * 24 * 3600.0  # longer than any host that hangs will be let hang
_AWAY = (errno.ETIMEDOUT, errno.ENOTCONN, errno.EIO, errno.ESHUTDOWN)
OPTIONS = {
    "rados_mon_op_timeout": str(ANSWERS_WITHIN_S),
    "rados_osd_op_timeout": str(ANSWERS_WITHIN_S),
    "client_mount_timeout": str(ANSWERS_WITHIN_S),
    "rbd_default_clone_format": "2",
    "rbd_cache": "false",  # what was written is on the disks
    "admin_socket": "",
    "log_file": "",
}


class LibrbdCluster:
    """Answers droveway.drivers.storage.rbd.cluster.Cluster."""

    def __init__(self, settings: RbdSettings, binding: Binding) -> None:
        self._settings = settings
        self._rados, self._rbd = binding
        self._pool = ThreadPoolExecutor(WORKERS, "rbd")
        self._cluster: Any = None
        self._io: Any = None

    async def connect(self) -> str:
        return await self._run(self._connect)

    def _connect(self) -> str:
        if self._io is None:
            name = f"client.{self._settings.user}"
            cluster = self._rados.Rados(conffile=self._settings.conf, name=name, conf=OPTIONS)
            cluster.connect(timeout=ANSWERS_WITHIN_S)
            try:
                self._io = cluster.open_ioctx(self._settings.pool)
            except self._rados.Error:
                cluster.shutdown()
                raise
            self._cluster = cluster
        return str(self._cluster.get_fsid())

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        io, cluster, self._io, self._cluster = self._io, self._cluster, None, None
        if io is not None:
            io.close()
            cluster.shutdown()

    async def space(self) -> tuple[int, int]:
        def work() -> tuple[int, int]:
            for pool in self._ask(prefix="df")["pools"]:
                if pool["name"] == self._settings.pool:
                    free = int(pool["stats"]["max_avail"])
                    return free + int(pool["stats"]["stored"]), free
            return 0, 0

        return await self._run(work)

    def _ask(self, **command: Any) -> Any:
        code, out, words = self._cluster.mon_command(
            json.dumps({**command, "format": "json"}), b"", timeout=ANSWERS_WITHIN_S
        )
        if code:
            raise self._rados.OSError(words, errno=-code)
        return json.loads(out) if out.strip() else None

    # -- images ---------------------------------------------------------------------------------------------------
    async def images(self) -> list[str]:
        return await self._run(lambda: sorted(self._rbd.RBD().list(self._io)))

    async def look(self, image: str) -> RbdImage | None:
        def work() -> RbdImage | None:
            try:
                with self._rbd.Image(self._io, image, read_only=True) as found:
                    snapshots = [one for one in found.list_snaps() if one["namespace"] == 0]
                    return RbdImage(
                        found.size(),
                        tuple(sorted(one["name"] for one in snapshots)),
                        self._clients(found),
                        dict(found.metadata_list()),
                        self._parent(found),
                    )
            except self._rbd.ImageNotFound:
                return None

        return await self._run(work)

    def _clients(self, image: Any) -> tuple[str, ...]:
        """A watch runs out when its client hangs; a lock stays."""
        locks = image.list_lockers() or {}
        return tuple(
            sorted(
                {one["addr"] for one in image.watchers_list()} | {address for _, _, address in locks.get("lockers", ())}
            )
        )

    def _parent(self, image: Any) -> str:
        try:
            return str(image.parent_info()[1])
        except self._rbd.ImageNotFound:
            return ""

    async def create(self, image: str, size_bytes: int) -> None:
        def work() -> None:
            with contextlib.suppress(self._rbd.ImageExists):
                self._rbd.RBD().create(self._io, image, size_bytes, old_format=False)

        await self._run(work)

    async def clone(self, parent: str, snapshot: str, image: str) -> None:
        def work() -> None:
            with contextlib.suppress(self._rbd.ImageExists):
                self._rbd.RBD().clone(self._io, parent, snapshot, self._io, image)

        await self._run(work)

    async def resize(self, image: str, size_bytes: int) -> None:
        await self._with(image, lambda found: found.resize(size_bytes))

    async def rename(self, image: str, name: str) -> None:
        await self._run(lambda: self._rbd.RBD().rename(self._io, image, name))

    async def remove(self, image: str) -> None:
        def work() -> None:
            rbd = self._rbd.RBD()
            try:
                rbd.remove(self._io, image)
            except self._rbd.ImageNotFound:
                pass
            except (self._rbd.ImageHasSnapshots, self._rbd.ImageBusy):
                rbd.trash_move(self._io, image, 0)

        await self._run(work)

    async def purge(self) -> None:
        """Children first: a clone of a clone holds both."""

        def work() -> None:
            rbd, went_on = self._rbd.RBD(), True
            while went_on:
                went_on = False
                for one in list(rbd.trash_list(self._io)):
                    with contextlib.suppress(self._rbd.Error):
                        rbd.trash_remove(self._io, one["id"], False)
                        went_on = True

        await self._run(work)

    # -- snapshots ------------------------------------------------------------------------------------------------
    async def snapshot(self, image: str, snapshot: str) -> None:
        def work(found: Any) -> None:
            with contextlib.suppress(self._rbd.ImageExists):
                found.create_snap(snapshot)

        await self._with(image, work)

    async def remove_snapshot(self, image: str, snapshot: str) -> None:
        def work(found: Any) -> None:
            with contextlib.suppress(self._rbd.ImageNotFound):
                found.remove_snap(snapshot)

        await self._with(image, work)

    async def has_clones(self, image: str, snapshot: str) -> bool:
        def work() -> bool:
            with self._rbd.Image(self._io, image, snapshot, read_only=True) as found:
                return any(True for _ in found.list_children2())

        return await self._run(work)

    async def roll_back(self, image: str, snapshot: str) -> None:
        await self._with(image, lambda found: found.rollback_to_snap(snapshot))

    # -- who has it open ------------------------------------------------------------------------------------------
    async def mark(self, image: str, key: str, value: str | None) -> None:
        def work(found: Any) -> None:
            if value is not None:
                found.metadata_set(key, value)
                return
            with contextlib.suppress(KeyError, self._rbd.ImageNotFound):
                found.metadata_remove(key)

        await self._with(image, work)

    async def cut_off(self, image: str, clients: tuple[str, ...]) -> None:
        def work() -> None:
            for client in clients:
                self._ask(prefix="osd blocklist", blocklistop="add", addr=client, expire=CUT_OFF_S)
            with self._rbd.Image(self._io, image, read_only=True) as found:
                locks = found.list_lockers() or {}
                for locker, cookie, address in locks.get("lockers", ()):
                    if address in clients:
                        found.break_lock(locker, cookie)

        await self._run(work)

    # -- its bytes ------------------------------------------------------------------------------------------------
    async def changed(
        self, image: str, snapshot: str, since: str | None, offset_bytes: int, length_bytes: int
    ) -> list[Extent]:
        def work() -> list[Extent]:
            found: list[Extent] = []
            with self._rbd.Image(self._io, image, snapshot, read_only=True) as opened:
                length = min(length_bytes, opened.size() - offset_bytes)
                if length > 0:
                    take: Callable[[int, int, bool], None] = lambda at, size, exists: found.append(  # noqa: E731
                        Extent(at, size, is_zero=not exists)
                    )
                    opened.diff_iterate(offset_bytes, length, since, take)
            return found

        return await self._run(work)

    async def open(self, image: str, snapshot: str | None, *, writes: bool) -> LibrbdImage:
        def work() -> Any:
            return self._rbd.Image(self._io, image, snapshot, read_only=not writes)

        return LibrbdImage(await self._run(work), self._run)

    # -- small parts ----------------------------------------------------------------------------------------------
    def _with(self, image: str, work: Callable[[Any], Any]) -> Awaitable[Any]:
        def opened() -> Any:
            with self._rbd.Image(self._io, image) as found:
                return work(found)

        return self._run(opened)

    def _run(self, work: Callable[[], T]) -> Awaitable[T]:
        def refusing() -> T:
            if self._io is None and work != self._connect:
                raise StorageDown(f"There is no connection to the Ceph cluster of {self._settings.conf}.")
            try:
                return work()
            except (self._rados.Error, self._rbd.Error) as error:
                raise self._fault(error) from None

        return asyncio.get_running_loop().run_in_executor(self._pool, refusing)

    def _fault(self, error: Any) -> StorageRefused | StorageDown:
        settings, number = self._settings, abs(getattr(error, "errno", 0) or 0)
        words = " ".join(str(error).split())
        if number in _AWAY:
            return StorageDown(f"The Ceph cluster of {settings.conf} does not answer ({words}).")
        if number in (errno.EACCES, errno.EPERM):
            return StorageRefused(
                f"Ceph does not let client.{settings.user} do that in pool {settings.pool} ({words}): see its key and "
                "its rights (profile rbd)."
            )
        return StorageRefused(f"Ceph refused in pool {settings.pool}: {words}.")


class LibrbdImage:
    """Answers OpenImage."""

    def __init__(self, image: Any, run: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._image, self._run = image, run

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        return bytes(await self._run(lambda: self._image.read(offset_bytes, length_bytes)))

    async def write(self, offset_bytes: int, data: bytes) -> None:
        await self._run(lambda: self._image.write(data, offset_bytes))

    async def close(self) -> None:
        image, self._image = self._image, None
        if image is not None:
            await self._run(image.close)
