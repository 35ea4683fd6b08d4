"""A cluster by the `rbd` and `ceph` commands, where librbd cannot be loaded into this process: each call is a program
of its own, which costs some 60 ms and ends in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from droveway.drivers.storage.child import COPY_S, Programs
from droveway.drivers.storage.rbd.cluster import RbdImage, RbdSettings
from droveway.drivers.storage.rbd.librbd import ANSWERS_WITHIN_S, CUT_OFF_S
from droveway.ports.storage import Extent, StorageDown, StorageRefused

PACKAGE = "ceph-common"
NOT_FOUND, BUSY, EXISTS, HAS_SNAPSHOTS, TIMED_OUT = 2, 16, 17, 39, 110  # codes by which they end
_SECTOR = 512


class RbdCommand:
    """Answers droveway.drivers.storage.rbd.cluster.Cluster."""

    def __init__(self, settings: RbdSettings) -> None:
        self._settings = settings
        self._programs = Programs()

    async def connect(self) -> str:
        fsid = (await self._ceph("fsid")).strip()
        await self.images()
        return fsid

    def close(self) -> None:
        """Nothing of it is open between two calls."""

    async def space(self) -> tuple[int, int]:
        for pool in json.loads(await self._ceph("df", "--format", "json"))["pools"]:
            if pool["name"] == self._settings.pool:
                free = int(pool["stats"]["max_avail"])
                return free + int(pool["stats"]["stored"]), free
        return 0, 0

    # -- images ---------------------------------------------------------------------------------------------------
    async def images(self) -> list[str]:
        return sorted(await self._read("ls", self._settings.pool))

    async def look(self, image: str) -> RbdImage | None:
        try:
            # Apart from the others, of which some watch the image themselves for a moment.
            status, locks = await asyncio.gather(
                self._read("status", self._at(image)), self._read("lock", "ls", self._at(image))
            )
            info, snapshots, marks = await asyncio.gather(
                self._read("info", self._at(image)),
                self._read("snap", "ls", self._at(image)),
                self._read("image-meta", "ls", self._at(image)),
            )
        except _Missing:
            return None
        clients = {one["address"] for one in (*status.get("watchers", ()), *_locks(locks))}
        return RbdImage(
            int(info["size"]),
            tuple(sorted(one["name"] for one in snapshots)),
            tuple(sorted(clients)),
            dict(marks),
            str(info.get("parent", {}).get("image", "")),
        )

    async def create(self, image: str, size_bytes: int) -> None:
        await self._do("create", "--size", f"{size_bytes}B", self._at(image), fine=(EXISTS,))

    async def clone(self, parent: str, snapshot: str, image: str) -> None:
        second = ("--rbd-default-clone-format", "2")
        await self._do("clone", *second, self._at(parent, snapshot), self._at(image), fine=(EXISTS,))

    async def resize(self, image: str, size_bytes: int) -> None:
        await self._do("resize", "--no-progress", "--size", f"{size_bytes}B", self._at(image))

    async def rename(self, image: str, name: str) -> None:
        await self._do("rename", self._at(image), self._at(name))

    async def remove(self, image: str) -> None:
        code = await self._do("rm", "--no-progress", self._at(image), fine=(NOT_FOUND, BUSY, HAS_SNAPSHOTS))
        if code in (BUSY, HAS_SNAPSHOTS):
            await self._do("trash", "mv", self._at(image))

    async def purge(self) -> None:
        with contextlib.suppress(StorageRefused):  # some have clones still
            await self._do("trash", "purge", "--no-progress", self._settings.pool)

    # -- snapshots ------------------------------------------------------------------------------------------------
    async def snapshot(self, image: str, snapshot: str) -> None:
        await self._do("snap", "create", "--no-progress", self._at(image, snapshot), fine=(EXISTS,))

    async def remove_snapshot(self, image: str, snapshot: str) -> None:
        await self._do("snap", "rm", "--no-progress", self._at(image, snapshot), fine=(NOT_FOUND,))

    async def has_clones(self, image: str, snapshot: str) -> bool:
        return bool(await self._read("children", "--all", self._at(image, snapshot)))

    async def roll_back(self, image: str, snapshot: str) -> None:
        await self._do("snap", "rollback", "--no-progress", self._at(image, snapshot), within_s=COPY_S)

    # -- who has it open ------------------------------------------------------------------------------------------
    async def mark(self, image: str, key: str, value: str | None) -> None:
        if value is not None:
            await self._do("image-meta", "set", self._at(image), key, value)
        else:
            await self._do("image-meta", "remove", self._at(image), key, fine=(NOT_FOUND,))

    async def cut_off(self, image: str, clients: tuple[str, ...]) -> None:
        for client in clients:
            await self._ceph("osd", "blocklist", "add", client, str(CUT_OFF_S))
        for one in _locks(await self._read("lock", "ls", self._at(image))):
            if one["address"] in clients:
                await self._do("lock", "rm", self._at(image), one["id"], one["locker"])

    # -- its bytes ------------------------------------------------------------------------------------------------
    async def changed(
        self, image: str, snapshot: str, since: str | None, offset_bytes: int, length_bytes: int
    ) -> list[Extent]:
        """The command knows no part of an image: all of it is in the first answer."""
        if offset_bytes:
            return []
        from_snapshot = () if since is None else ("--from-snap", since)
        found = await self._read("diff", *from_snapshot, self._at(image, snapshot), within_s=COPY_S)
        return [
            Extent(int(one["offset"]), int(one["length"]), is_zero=one["exists"] in ("false", False)) for one in found
        ]

    async def open(self, image: str, snapshot: str | None, *, writes: bool) -> CommandImage:
        found = await self.look(image)
        if found is None or (snapshot is not None and snapshot not in found.snapshots):
            raise StorageRefused(f"{self._at(image, snapshot or '')} is not there.")
        return CommandImage(self._settings.disk(image, snapshot or ""), found.size_bytes, self._programs)

    # -- small parts ----------------------------------------------------------------------------------------------
    def _at(self, image: str, snapshot: str = "") -> str:
        return f"{self._settings.pool}/{image}" + (f"@{snapshot}" if snapshot else "")

    async def _ceph(self, *words: str) -> str:
        timeout = ("--connect-timeout", str(ANSWERS_WITHIN_S))
        out = await self._programs.run(
            PACKAGE, "ceph", "-c", self._settings.conf, "--id", self._settings.user, *timeout, *words
        )
        return out.decode()

    async def _read(self, *words: str, within_s: float = ANSWERS_WITHIN_S) -> Any:
        done = await self._programs.try_run(PACKAGE, *self._rbd, *words, "--format", "json", within_s=within_s)
        if done.code == NOT_FOUND:
            raise _Missing(done.words)
        self._must_have(done.code, done.words, ())
        return json.loads(done.out or b"[]")

    async def _do(self, *words: str, fine: Sequence[int] = (), within_s: float = 60.0) -> int:
        """How it ended: well, or in one of those ways."""
        done = await self._programs.try_run(PACKAGE, *self._rbd, *words, within_s=within_s)
        self._must_have(done.code, done.words, fine)
        return done.code

    @property
    def _rbd(self) -> tuple[str, ...]:
        return ("rbd", "-c", self._settings.conf, "--id", self._settings.user)

    def _must_have(self, code: int, words: str, fine: Sequence[int]) -> None:
        if code == TIMED_OUT:
            raise StorageDown(f"The Ceph cluster of {self._settings.conf} does not answer ({words}).")
        if code and code not in fine:
            raise StorageRefused(f"Ceph refused in pool {self._settings.pool}: {words}.")


class _Missing(StorageRefused):
    """There is no such image."""


def _locks(found: Any) -> list[dict[str, str]]:
    """As one list: an older release answers with a table by the lock's id."""
    if isinstance(found, dict):
        return [{"id": key, **value} for key, value in found.items()]
    return list(found)


class CommandImage:
    """Answers OpenImage, by QEMU's tools."""

    def __init__(self, disk: str, size_bytes: int, programs: Programs) -> None:
        self._disk, self._size_bytes, self._programs = disk, size_bytes, programs

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        first = offset_bytes - offset_bytes % _SECTOR
        last = min(self._size_bytes, -(-(offset_bytes + length_bytes) // _SECTOR) * _SECTOR)
        part = self._disk.replace("driver=raw,", f"driver=raw,offset={first},size={last - first},", 1)
        with tempfile.TemporaryDirectory() as scratch:
            target = os.path.join(scratch, "read")
            command = ("convert", "--image-opts", "-O", "raw", part, target)
            await self._programs.run("qemu-utils", "qemu-img", *command, within_s=60.0)
            data = await asyncio.to_thread(Path(target).read_bytes)
        return data[offset_bytes - first : offset_bytes - first + length_bytes]

    async def write(self, offset_bytes: int, data: bytes) -> None:
        """In whole sectors: what stands around them is read first."""
        first = offset_bytes - offset_bytes % _SECTOR
        last = -(-(offset_bytes + len(data)) // _SECTOR) * _SECTOR
        if (first, last) != (offset_bytes, offset_bytes + len(data)):
            around = bytearray(await self.read(first, last - first))
            around[offset_bytes - first : offset_bytes - first + len(data)] = data
            data = bytes(around)
        with tempfile.NamedTemporaryFile() as source:
            source.write(data)
            source.flush()
            line = f"write -s {source.name} {first} {len(data)}"
            await self._programs.run("qemu-utils", "qemu-io", "--image-opts", "-c", line, self._disk, within_s=60.0)

    async def close(self) -> None:
        """Each write was on the disks when it ended."""
