"""The bases of a store: images that disks are backed by, each made once, whole and checked; and the bounds of those
that no disk needs any more.

`<instances_path>/_base/<sha512 prefix>.<format>`. On a store that several hosts share each of them may make a base at
the same time: the second to finish drops its own. Waiting for another host would mean waiting for a dead one too.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from droveway.domain.image_format import DISK_FORMATS
from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.drivers.hypervisor.libvirt import base_sweep
from droveway.drivers.hypervisor.store_files import free_bytes, now_s, publish
from droveway.drivers.images.inspection import virtual_size
from droveway.ports.hypervisor import HypervisorRefused
from droveway.ports.images import ImageRefused, Images

MIB, GIB = 1024**2, 1024**3

Run = Callable[[Callable[[], Any]], Awaitable[Any]]


class CacheBounds(msgspec.Struct, frozen=True):
    """Of the bases that no disk needs."""

    max_bytes: int = 50 * GIB  # of all of them
    kept_s: float = base_sweep.KEPT_S  # since a disk was last made on it


DAY = CacheBounds()


class Bases:
    """`host` names this host's own unfinished files; `run` is for what blocks and touches the store."""

    def __init__(self, root: Path, host: str, images: Images, run: Run, bounds: CacheBounds = DAY) -> None:
        self._root, self._directory, self._host = root, root / "_base", host
        self._images, self._run, self._bounds = images, run, bounds
        self._unfinished = f".new-{host}@"  # which no host's name holds: none is the beginning of another's
        self._turns: dict[str, asyncio.Lock] = {}

    def close(self) -> None:
        self._images.close()

    def progress(self, image: ImageRef) -> str:
        return self._images.progress(image)

    # -- one base -----------------------------------------------------------------------------------------------------
    async def make(self, image: ImageRef, most_bytes: int, ticket: ImageTicket | None) -> tuple[Path, int]:
        """The base of that image, which no sweep deletes for a while, and the size of its disk. `most_bytes`: the disk
        that is wanted, 0 for any. Raises HypervisorRefused, TicketWanted."""
        base = self._path(image)
        virtual_bytes = None
        # Before anything is copied, so that nothing is for nothing, where the image is seen; from our own once there is
        # one, because the image itself may have been deleted since.
        if await self._run(base.exists):
            virtual_bytes = await self._run(lambda: _virtual_size(image, base))
        elif image.path:
            virtual_bytes = await self._run(lambda: _virtual_size(image, Path(image.path)))
        if virtual_bytes is not None:
            _check_size(image, virtual_bytes, most_bytes)
        # A host makes a base once however many guests want it.
        turn = self._turns.setdefault(base.name, asyncio.Lock())
        async with turn:
            while not await self._run(lambda: base_sweep.want(base)):  # the last word before a disk names it
                await self._fetch(image, base, ticket)
        if not turn.locked():
            self._turns.pop(base.name, None)
        if virtual_bytes is None:
            virtual_bytes = await self._run(lambda: _virtual_size(image, base))
            _check_size(image, virtual_bytes, most_bytes)
        return base, virtual_bytes

    def _path(self, image: ImageRef) -> Path:
        if image.disk_format not in DISK_FORMATS:
            raise HypervisorRefused(f"Image {image.id} is refused: its format {image.disk_format!r} is not accepted.")
        if not re.fullmatch("[0-9a-f]{128}", image.sha512):
            raise HypervisorRefused(f"Image {image.id} carries no sha512 to check it by.")
        return self._directory / image.file_name

    async def _fetch(self, image: ImageRef, base: Path, ticket: ImageTicket | None) -> None:
        unfinished = self._directory / f"{self._unfinished}{base.name}"
        await self._run(lambda: self._make_room(image, unfinished))
        try:
            await self._images.fetch(image, unfinished, ticket)
        except ImageRefused as fault:
            raise HypervisorRefused(fault.reason) from None

        def finish() -> None:
            try:
                _virtual_size(image, unfinished, is_whole=True)  # of the bytes that will be opened
                publish(unfinished, base, 0o400)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    unfinished.unlink()

        await self._run(finish)

    def _make_room(self, image: ImageRef, unfinished: Path) -> None:
        """What the bounds of the cache do not hold any more goes, and so does what is in the way. Raises
        HypervisorRefused."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = unfinished.stat().st_size if unfinished.exists() else 0
        missing = image.size_bytes - there
        self._sweep(max(0, self._bounds.max_bytes - image.size_bytes))
        if free_bytes(self._directory) >= missing:
            return
        self._sweep(0)
        if (free := free_bytes(self._directory)) < missing:
            raise HypervisorRefused(
                f"Host {self._host} has no room for image {image.id}: it needs {missing / MIB:.1f} MiB more, and "
                f"{max(0, free) / MIB:.1f} MiB are free at {self._directory}, beside a reserve."
            )

    # -- all of them --------------------------------------------------------------------------------------------------
    def sweep_halves(self) -> None:
        """Blocks. What an earlier run of this host's agent left."""
        for path in self._directory.glob(f"{self._unfinished}*"):
            path.unlink(missing_ok=True)

    async def sweep(self) -> None:
        """Bases that no disk on the store needs, oldest first, until the bounds hold; and halves."""
        await self._images.sweep()
        await self._run(lambda: self._sweep(self._bounds.max_bytes))

    def _sweep(self, max_bytes: int) -> None:
        if self._directory.exists():
            bounds = base_sweep.Bounds(self._bounds.kept_s, max_bytes)
            base_sweep.sweep(self._root, self._directory, self._host, now_s(self._root), bounds)


def _check_size(image: ImageRef, virtual_bytes: int, most_bytes: int) -> None:
    if most_bytes and virtual_bytes > most_bytes:
        raise HypervisorRefused(
            f"Image {image.id} describes a disk of {virtual_bytes / GIB:.2f} GiB, more than the flavor's "
            f"{most_bytes // GIB} GiB; take a larger flavor or a smaller image."
        )


def _virtual_size(image: ImageRef, path: Path, *, is_whole: bool = False) -> int:
    try:
        return virtual_size(image, path, is_whole=is_whole)
    except ImageRefused as fault:
        raise HypervisorRefused(fault.reason) from None
