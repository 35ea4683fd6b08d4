"""The files of a guest that moves between hosts which do not see one store: read at its source, made empty at its
destination, where QEMU copies into them what the source's hold.

Until the guest has arrived a mark lies beside them, the id of the saga that wants them. What bears no mark is a guest's
own, and is neither overwritten nor deleted for a move: a store that two hosts share, and that was not seen to be
shared, would lose a disk otherwise.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import zlib
from pathlib import Path

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import GuestSpec, LocalDisk, LocalFiles
from droveway.drivers.hypervisor.bases import Bases
from droveway.drivers.hypervisor.libvirt.config_drive import NAME as DRIVE
from droveway.drivers.hypervisor.libvirt.hardware_xml import EPHEMERAL, SWAP
from droveway.drivers.hypervisor.libvirt.instance_files import InstanceFiles, blank, qemu_img
from droveway.drivers.hypervisor.promises import check_room
from droveway.drivers.hypervisor.store_files import publish
from droveway.ports.hypervisor import HypervisorRefused

MARK = ".arriving"
ROOT = "disk"
MIB = 1024**2
DRIVE_MAX_BYTES = 64 * MIB
PACKED_MAX_BYTES = MIB  # of what one message carries
_QCOW2_HEAD = struct.Struct(">4sIQIIQ")  # magic, version, where the name of its backing file is, its length, …, size
_NAME_MAX_BYTES = 1023


class Arrivals:
    def __init__(self, files: InstanceFiles, bases: Bases) -> None:
        self._files, self._bases = files, bases

    async def read(self, instance_id: str) -> LocalFiles:
        directory = Path(self._files.directory(instance_id))
        return await self._files.run(lambda: _read(directory))

    async def prepare(
        self,
        spec: GuestSpec,
        files: LocalFiles,
        mark: str,
        room_bytes: int,
        free_bytes: int,
        ticket: ImageTicket | None,
    ) -> None:
        """Raises TicketWanted, too."""
        directory = Path(self._files.directory(spec.instance_id))
        self._files.checked_name(mark)
        await self._files.run(lambda: _take_place(directory, spec.instance_id, mark, free_bytes, room_bytes))
        for disk in files.disks:
            if not await self._files.run((directory / disk.name).exists):
                await self._make(spec, disk, ticket)
        if files.drive:
            await self._files.run(lambda: self._write_drive(directory, files.drive))

    async def _make(self, spec: GuestSpec, disk: LocalDisk, ticket: ImageTicket | None) -> None:
        final = Path(self._files.directory(spec.instance_id)) / disk.name
        unfinished = self._files.unfinished(final)
        if disk.disk_format == "raw":
            await self._files.run(lambda: blank(unfinished, disk.size_bytes))
        else:
            backing: list[str] = []
            if disk.base:
                if spec.image is None or spec.image.file_name != disk.base:
                    raise HypervisorRefused(
                        f"The disk of guest {spec.instance_id} has {disk.base} behind it, not here."
                    )
                base, _ = await self._bases.make(spec.image, disk.size_bytes, ticket)
                backing = ["-b", str(base), "-F", spec.image.disk_format]
            await qemu_img("create", "-q", "-f", "qcow2", *backing, str(unfinished), str(disk.size_bytes))
        await self._files.run(lambda: publish(unfinished, final, 0o600))

    def _write_drive(self, directory: Path, packed: bytes) -> None:
        final = directory / DRIVE
        if final.exists():
            return
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(packed, DRIVE_MAX_BYTES)
        if not unpacking.eof:
            raise HypervisorRefused("The config drive that came with the guest is not whole.")
        unfinished = self._files.unfinished(final)
        unfinished.write_bytes(data)
        publish(unfinished, final, 0o400)

    async def keep(self, instance_id: str) -> None:
        directory = Path(self._files.directory(instance_id))
        await self._files.run(lambda: (directory / MARK).unlink(missing_ok=True))

    async def drop(self, instance_id: str, mark: str) -> None:
        """Of a guest that is not here."""
        directory = Path(self._files.directory(instance_id))
        await self._files.run(lambda: _drop(directory, mark))


def _read(directory: Path) -> LocalFiles:
    disks = tuple(_disk(directory / name) for name in (ROOT, EPHEMERAL, SWAP) if (directory / name).exists())
    if not (directory / DRIVE).exists():
        return LocalFiles(disks)
    packed = zlib.compress((directory / DRIVE).read_bytes())
    if len(packed) > PACKED_MAX_BYTES:
        raise HypervisorRefused(f"The config drive of guest {directory.name} is too large to be taken along.")
    return LocalFiles(disks, packed)


def _disk(path: Path) -> LocalDisk:
    found = path.stat()
    allocated_bytes = found.st_blocks * 512
    if path.name != ROOT:
        return LocalDisk(path.name, "raw", found.st_size, allocated_bytes)
    with path.open("rb") as file:
        magic, _, name_at, name_bytes, _, size_bytes = _QCOW2_HEAD.unpack(file.read(_QCOW2_HEAD.size))
        if magic != b"QFI\xfb" or name_bytes > _NAME_MAX_BYTES:
            raise HypervisorRefused(f"{path} is no disk that was made here.")
        file.seek(name_at)
        base = os.path.basename(file.read(name_bytes).decode(errors="replace")) if name_at else ""
    return LocalDisk(path.name, "qcow2", size_bytes, allocated_bytes, base)


def _take_place(directory: Path, instance_id: str, mark: str, free_bytes: int, room_bytes: int) -> None:
    directory.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    found = _mark_of(directory)
    if found is None and directory.exists() and any(directory.iterdir()):
        raise HypervisorRefused(
            f"This host has files of guest {instance_id} already, at {directory}: either it sees the store of the "
            "guest and did not find the test file there in time, or an earlier stay has left them. Delete them, if it "
            "is certain that no other host uses them, and migrate again."
        )
    if found is not None and found != mark:
        shutil.rmtree(directory)
    if _mark_of(directory) != mark:
        check_room(instance_id, free_bytes, room_bytes)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = directory / f"{MARK}.new"
        unfinished.write_text(mark)
        publish(unfinished, directory / MARK, 0o600)


def _mark_of(directory: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return (directory / MARK).read_text()
    return None


def _drop(directory: Path, mark: str) -> None:
    found = _mark_of(directory)
    if found != (mark or None):
        return  # another's, or the guest's own
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)
