"""The root disk of a guest that is resized, or moves while it is off: a copy of it as it was lies beside it until that
is confirmed, and takes its place again when it is reverted.

The copy bears the mark of the saga that made it, so that a command which comes late finds no copy of another one.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from droveway.drivers.hypervisor.libvirt.instance_files import GIB, InstanceFiles, qemu_img, tool
from droveway.drivers.hypervisor.promises import check_room
from droveway.drivers.hypervisor.store_files import publish
from droveway.ports.hypervisor import HypervisorRefused

KEEP_TIMEOUT_S = 3600.0
_QCOW2_HEAD = struct.Struct(">4sIQIIQ")  # magic, version, backing name at, its length, cluster bits, size


class KeptDisks:
    def __init__(self, files: InstanceFiles) -> None:
        self._files = files

    def _disk(self, instance_id: str) -> Path:
        return Path(self._files.directory(instance_id)) / "disk"

    def _kept(self, instance_id: str, mark: str) -> Path:
        return self._disk(instance_id).with_name(f"disk.kept-{self._files.checked_name(mark)}")

    async def keep(self, instance_id: str, mark: str) -> None:
        """The file as it is, with the name of the image behind it, and without what the disk has never held."""
        disk, final = self._disk(instance_id), self._kept(instance_id, mark)
        if await self._files.run(final.exists):
            return
        size_bytes, allocated_bytes = await self._files.run(lambda: _sizes(disk, instance_id))
        check_room(instance_id, await self._files.free_bytes(), min(size_bytes, allocated_bytes))
        unfinished = self._files.unfinished(final)
        words = ("--reflink=auto", "--sparse=always", "--", str(disk), str(unfinished))
        await tool("coreutils", "cp", *words, within_s=KEEP_TIMEOUT_S)
        await self._files.run(lambda: publish(unfinished, final, 0o600))

    async def grow(self, instance_id: str, size_gb: int) -> None:
        """qemu-img is told the format: it would otherwise guess it from what a guest wrote."""
        disk = self._disk(instance_id)
        size_bytes, _ = await self._files.run(lambda: _sizes(disk, instance_id))
        if size_bytes < size_gb * GIB:
            await qemu_img("resize", "-q", "-f", "qcow2", str(disk), str(size_gb * GIB))

    async def restore(self, instance_id: str, mark: str) -> None:
        kept = self._kept(instance_id, mark)

        def work() -> None:
            if kept.exists():
                kept.replace(kept.with_name("disk"))
                _sync(kept.parent)

        await self._files.run(work)

    async def forget(self, instance_id: str, mark: str) -> None:
        kept = self._kept(instance_id, mark)

        def work() -> None:
            kept.unlink(missing_ok=True)
            self._files.unfinished(kept).unlink(missing_ok=True)

        await self._files.run(work)


def _sizes(disk: Path, instance_id: str) -> tuple[int, int]:
    """As the guest sees it, and what it takes on the store."""
    try:
        with disk.open("rb") as file:
            magic, *_, size_bytes = _QCOW2_HEAD.unpack(file.read(_QCOW2_HEAD.size))
    except (FileNotFoundError, struct.error):
        raise HypervisorRefused(f"Guest {instance_id} has no disk here.") from None
    if magic != b"QFI\xfb":
        raise HypervisorRefused(f"{disk} is no disk that was made here.")
    return size_bytes, disk.stat().st_blocks * 512


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
