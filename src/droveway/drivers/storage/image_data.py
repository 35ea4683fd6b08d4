"""Images on their way into a volume and out of one: files of a scratch directory, between an API and qemu-img.

Every open states its format. What a guest wrote into a raw volume is read as raw, whatever it looks like; what an image
says of other files is refused before qemu-img sees it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from droveway.domain.image_format import DISK_FORMATS
from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.drivers.images.inspection import virtual_size
from droveway.drivers.storage.child import COPY_S, Programs
from droveway.ports.images import ImageRefused, Images
from droveway.ports.storage import StorageRefused

GIB = 1024**3
QEMU_IMG = ("qemu-utils", "qemu-img")
_ID = re.compile(r"[A-Za-z0-9-]{1,64}")

Run = Callable[[Callable[[], Any]], Awaitable[Any]]


def checked(identity: str) -> str:
    """That of a volume, a snapshot or an image, which becomes a part of a name. Raises StorageRefused."""
    if not _ID.fullmatch(identity):
        raise StorageRefused(f"{identity[:64]!r} is not an id.")
    return identity


def of_file(path: Path) -> str:
    """The rest of the options of QEMU for a disk that is that file."""
    return f"file.driver=file,file.filename={quoted(str(path))}"


def quoted(value: str) -> str:
    """As a value among options of QEMU."""
    return value.replace(",", ",,")


def must_fit(image_id: str, virtual_bytes: int, size_gb: int) -> None:
    """Raises StorageRefused."""
    if virtual_bytes > size_gb * GIB:
        raise StorageRefused(
            f"Image {image_id} describes a disk of {virtual_bytes / GIB:.2f} GiB, more than the volume's {size_gb} "
            "GiB; make a larger volume."
        )


class ImageData:
    """`scratch`: where files lie meanwhile; `run` is for what blocks."""

    def __init__(self, images: Images, scratch: Path, programs: Programs, run: Run) -> None:
        self._images, self._scratch, self._programs, self._run = images, scratch, programs, run

    async def fill(
        self,
        image: ImageRef,
        name: str,
        size_gb: int,
        ticket: ImageTicket | None,
        into: Callable[[int], Awaitable[str]],
    ) -> None:
        """Fetch that image and convert it into the raw disk of zeros that `into` makes, of at least so many bytes, and
        names as options of QEMU. Raises StorageRefused, TicketWanted."""
        fetched = self._scratch / f".new-image-{checked(name)}"
        if image.disk_format not in DISK_FORMATS:
            raise StorageRefused(f"Image {image.id} is refused: its format {image.disk_format!r} is not accepted.")
        try:
            await self._images.fetch(image, fetched, ticket)
            virtual_bytes = await self._run(lambda: virtual_size(image, fetched, is_whole=True))
        except ImageRefused as fault:
            await self._drop(fetched)
            raise StorageRefused(fault.reason) from None
        try:
            must_fit(image.id, virtual_bytes, size_gb)
            await self.convert(f"driver={image.disk_format},{of_file(fetched)}", await into(virtual_bytes))
        finally:
            await self._drop(fetched)

    async def send(self, source: str, image_id: str, disk_format: str, ticket: ImageTicket | None) -> int:
        """Send the disk that the options of QEMU name as the data of an image. Raises StorageRefused, TicketWanted."""
        if disk_format not in DISK_FORMATS:
            raise StorageRefused(f"A volume becomes an image as {' or '.join(DISK_FORMATS)}, not as {disk_format!r}.")
        made = self._scratch / f".new-upload-{checked(image_id)}"
        try:
            if ticket is not None:
                command = ("convert", "--image-opts", source, "-O", disk_format, str(made))
                await self._programs.run(*QEMU_IMG, *command, within_s=COPY_S)
            await self._images.send(image_id, made, ticket)
            return int(await self._run(lambda: made.stat().st_size))
        except ImageRefused as fault:
            raise StorageRefused(fault.reason) from None
        finally:
            await self._drop(made)

    async def convert(self, source: str, target: str) -> None:
        """One disk into another, which is there and holds zeros; both as options of QEMU, which say their format."""
        command = (
            "convert",
            "-n",
            "--target-is-zero",
            "-t",
            "writeback",
            "--image-opts",
            "--target-image-opts",
            source,
            target,
        )
        await self._programs.run(*QEMU_IMG, *command, within_s=COPY_S)

    async def _drop(self, path: Path) -> None:
        await self._run(lambda: path.unlink(missing_ok=True))


def sweep(scratch: Path) -> None:
    """Blocks. What an earlier process left half made."""
    for path in scratch.glob(".new-*"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
