"""A backend of volumes, and what guests do with it: QEMU's own tools open a volume as a host would."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.domain.volume.disks import DiskSource
from droveway.domain.volume.model import VolumeSpec
from droveway.drivers.images.shared_path import SharedPathImages
from droveway.ports.images import TicketWanted
from droveway.ports.storage import Storage

GIB = 1024**3
V1, V2, V3 = (f"{number:08x}-0000-4000-8000-00000000aaaa" for number in (1, 2, 3))
S1, S2 = (f"{number:08x}-0000-4000-8000-00000000bbbb" for number in (1, 2))
TICKET = ImageTicket("a ticket")
SECRET = b"what only this machine may read\n" * 16


class FiledImages(SharedPathImages):
    """Images that lie under a path; what is sent is kept in a directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__("h1")
        self.sent = directory / "sent"
        self.sent.mkdir(exist_ok=True)

    async def send(self, image_id: str, source: Path, ticket: ImageTicket | None) -> None:
        if ticket is None:
            raise TicketWanted("a ticket is wanted", "a challenge")
        copy = ["cp", "--sparse=always", str(source), str(self.sent / image_id)]
        await asyncio.to_thread(subprocess.run, copy, check=True)


class Guest:
    """A disk that is open as a guest has it: qemu-io, fed line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ready(self) -> str:
        """What it says until it asks for a command."""
        assert self._process.stdout is not None
        try:
            return (await asyncio.wait_for(self._process.stdout.readuntil(b"qemu-io> "), 30)).decode()
        except asyncio.IncompleteReadError as ended:
            raise AssertionError(f"qemu-io has ended: {ended.partial.decode()}") from None

    async def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        return await self.ready()

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()

    async def write(self, offset_bytes: int, byte: int, length_bytes: int = 4096) -> None:
        assert "wrote" in (said := await self.ask(f"write -f -P {byte} {offset_bytes} {length_bytes}")), said

    async def reads(self, offset_bytes: int, byte: int, length_bytes: int = 4096) -> bool:
        said = await self.ask(f"read -P {byte} {offset_bytes} {length_bytes}")
        return "read " in said and "verification failed" not in said


class StorageWorld:
    """`storage` is open; `images` are those that it is given; `converts`: images and what is sent have formats."""

    converts = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.images = FiledImages(directory)
        self.storage: Storage = self.make()

    def make(self, **given: Any) -> Storage:
        """The service's driver, as at each of its starts."""
        raise NotImplementedError

    async def open(self) -> None:
        await self.storage.open()

    async def close(self) -> None:
        await self.storage.close()
        self.images.close()

    async def restart(self) -> None:
        await self.storage.close()
        self.storage = self.make()
        await self.storage.open()

    def blockdev(self, source: DiskSource, host: str) -> str:
        """As QEMU of that host is told to open it."""
        raise NotImplementedError

    async def admit(self, volume: VolumeSpec, host: str) -> DiskSource:
        return await self.storage.admit(volume, host)

    def objects(self, host: str) -> list[str]:
        """What QEMU of that host has beside its disks."""
        return []

    # -- what a guest and an API do -------------------------------------------------------------------------------
    @contextlib.asynccontextmanager
    async def guest(self, source: DiskSource, host: str = "h1") -> AsyncIterator[Any]:
        process = await asyncio.create_subprocess_exec(
            *("stdbuf", "-o0", "qemu-io", *self.objects(host), "--cache", "writeback", "--image-opts"),
            f"driver=raw,{self.blockdev(source, host)}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **self.environment(host)},
        )
        try:
            guest = Guest(process)
            await guest.ready()
            yield guest
            if process.returncode is None:
                await process.communicate(b"quit\n")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def environment(self, host: str) -> dict[str, str]:
        return {}

    def image(self, name: str, data: bytes, disk_format: str = "raw", *options: str) -> ImageRef:
        path = self.directory / f"{name}.{disk_format}"
        path.write_bytes(data)
        if disk_format != "raw":
            raw = path.rename(path.with_suffix(".raw"))
            qemu_img("convert", "-f", "raw", "-O", disk_format, *options, str(raw), str(path))
        return self.ref(path, disk_format)

    def hostile(self) -> ImageRef:
        """A qcow2 image that names a file of the host as what lies behind it."""
        (self.directory / "secret").write_bytes(SECRET)
        path = self.directory / "hostile.qcow2"
        secret = str(self.directory / "secret")
        qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, str(path), "1M")
        return self.ref(path, "qcow2")

    def ref(self, path: Path, disk_format: str) -> ImageRef:
        data = path.read_bytes()
        return ImageRef(path.stem, disk_format, len(data), hashlib.sha512(data).hexdigest(), str(path))

    def content(self, image: ImageRef) -> bytes:
        return Path(image.path).read_bytes()

    async def bytes_of(self, volume: VolumeSpec, at: int, length: int, snapshot_id: str | None = None) -> bytes:
        reader = await self.storage.reader(volume, snapshot_id)
        try:
            return await reader.read(at, length)
        finally:
            await reader.close()

    async def put(self, volume: VolumeSpec, at: int, data: bytes) -> None:
        writer = await self.storage.writer(volume)
        try:
            await writer.write(at, data)
        finally:
            await writer.close()


def qemu_img(*arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], check=True)
