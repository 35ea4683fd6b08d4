"""Copies of a guest's root disk as it is at one moment: whole files, which nothing else stands behind.

Of a guest that lives QEMU makes it (libvirt's backup, pushed): what the guest writes meanwhile is put aside first, so
the copy is of the moment at which it began, and the guest runs on. Nothing is frozen in the guest: to it the copy is as
if the power had gone at that moment. The job is QEMU's: it goes on while no agent is there, and the next call waits for
it; one that has ended unseen is made again, because nobody can say how it ended.
"""

from __future__ import annotations

import contextlib
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libvirt

from droveway.domain.copy_pace import DiskCopySample, first_speed, next_speed
from droveway.domain.model import GuestJob, GuestState
from droveway.drivers.hypervisor.libvirt.connection import LibvirtConnection
from droveway.drivers.hypervisor.libvirt.guest import describe, find
from droveway.drivers.hypervisor.libvirt.instance_files import InstanceFiles, qemu_img
from droveway.drivers.hypervisor.promises import check_not_moving
from droveway.drivers.hypervisor.store_files import publish
from droveway.ports.clock import Clock
from droveway.ports.hypervisor import HypervisorRefused
from droveway.ports.replies import DiskCopied

if TYPE_CHECKING:
    from droveway.drivers.hypervisor.libvirt.pool_disks import PoolDisks

FORMAT = "qcow2"
PREFIX = "copy-"
LOOK_EVERY_S = 0.1
SPEEDS_ALIKE = 10  # a tenth more or less is no other speed
BLOCK_BYTES = 512  # of st_blocks
CONVERTED_WITHIN_S = 3000.0
ENDS_WITHIN_S = 10.0
_LIVES = (GuestState.RUNNING, GuestState.PAUSED)


class DiskCopies:
    def __init__(
        self, connection: LibvirtConnection, files: InstanceFiles, clock: Clock, pool: PoolDisks | None = None
    ) -> None:
        self._connection, self._files, self._clock, self._pool = connection, files, clock, pool

    def path(self, instance_id: str, copy: str) -> Path:
        return Path(self._files.directory(instance_id)) / f"{PREFIX}{self._files.checked_name(copy)}"

    async def make(self, instance_id: str, copy: str) -> DiskCopied:
        final = self.path(instance_id, copy)
        unfinished = self._files.unfinished(final)
        if not await self._files.run(final.exists):
            if await self._is_in_pool(instance_id):
                await self._of_pool(instance_id, copy, unfinished, final)
                return DiskCopied(await self._files.run(lambda: final.stat().st_size), FORMAT)
            await self._files.run(lambda: self._check_there(instance_id, final))
            if await self._connection.call(lambda c: _begin(c, instance_id, unfinished)):
                await self._until_ended(instance_id, unfinished)
            else:
                source = Path(self._files.directory(instance_id)) / "disk"
                await qemu_img("convert", "-O", FORMAT, str(source), str(unfinished), within_s=CONVERTED_WITHIN_S)
            await self._files.run(lambda: publish(unfinished, final, 0o600))
        return DiskCopied(await self._files.run(lambda: final.stat().st_size), FORMAT)

    async def _is_in_pool(self, instance_id: str) -> bool:
        if self._pool is None or await self._files.run(lambda: self._files.has_disk(instance_id)):
            return False
        return await self._pool.has(instance_id)

    async def _of_pool(self, instance_id: str, copy: str, unfinished: Path, final: Path) -> None:
        """A snapshot is the moment: the guest notices nothing. What is sent is a file of it on this host."""
        assert self._pool is not None, "it lies there"
        await self._files.run(lambda: _remove(unfinished, *final.parent.glob(f"{PREFIX}*")))
        await self._pool.copy(instance_id, copy, unfinished, FORMAT)
        await self._files.run(lambda: publish(unfinished, final, 0o600))

    def _check_there(self, instance_id: str, final: Path) -> None:
        """And take away what an earlier copy has left."""
        if not self._files.has_disk(instance_id):
            raise HypervisorRefused(f"Guest {instance_id} has no disk here.")
        for old in final.parent.glob(f"{PREFIX}*"):
            old.unlink(missing_ok=True)

    async def _until_ended(self, instance_id: str, unfinished: Path) -> None:
        speed, before = 0, DiskCopySample(self._clock.monotonic_s())
        while await self._connection.call(lambda c: _is_under_way(c, instance_id, unfinished)):
            now = await self._progress(instance_id, unfinished)
            faster = next_speed(speed, before, now) if speed else first_speed()
            if abs(faster - speed) > speed / SPEEDS_ALIKE:
                speed = faster
                await self._go_at(instance_id, speed)
            before = now
            # QEMU ends the job with a flush for which the guest waits: of what has been flushed before there is little.
            await self._files.run(lambda: _flush(unfinished))
            await self._clock.sleep(LOOK_EVERY_S)
        trouble = await self._connection.call(lambda c: _why_failed(c, instance_id))
        if trouble:
            await self._files.run(lambda: unfinished.unlink(missing_ok=True))
            raise HypervisorRefused(f"The disk of guest {instance_id} could not be copied: {trouble}.")

    async def _go_at(self, instance_id: str, bytes_a_s: int) -> None:
        await self._connection.call(lambda c: _set_speed(c, instance_id, bytes_a_s))

    async def _progress(self, instance_id: str, unfinished: Path) -> DiskCopySample:
        total, passed = await self._connection.call(lambda c: _passed(c, instance_id))
        written = await self._files.run(lambda: _allocated(unfinished))
        return DiskCopySample(self._clock.monotonic_s(), total, passed, written)

    async def drop(self, instance_id: str, copy: str) -> None:
        final = self.path(instance_id, copy)
        unfinished = self._files.unfinished(final)
        if self._pool is not None:
            await self._pool.drop_copy(instance_id, copy)
        deadline_s = self._clock.monotonic_s() + ENDS_WITHIN_S
        while await self._connection.call(lambda c: _abort(c, instance_id, unfinished)):
            if self._clock.monotonic_s() > deadline_s:
                raise HypervisorRefused(f"The copy of the disk of guest {instance_id} has not ended here yet.")
            await self._clock.sleep(LOOK_EVERY_S)
        await self._files.run(lambda: _remove(unfinished, final))


def _flush(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        os.fdatasync(file.fileno())


def _allocated(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_blocks * BLOCK_BYTES
    return 0


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _target(domain: Any) -> str | None:
    """Where the backup that is under way goes; None when there is none."""
    try:
        found = ET.fromstring(domain.backupGetXMLDesc()).find("disks/disk/target")
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN_BACKUP, libvirt.VIR_ERR_OPERATION_INVALID):
            return None
        raise
    return "" if found is None else found.get("file", "")


def _living(connection: Any, instance_id: str) -> Any | None:
    domain = find(connection, instance_id)
    return domain if domain is not None and describe(domain).state in _LIVES else None


def _begin(connection: Any, instance_id: str, unfinished: Path) -> bool:
    """Whether QEMU copies it, begun now or before; False when the guest does not live, and its disk is a file. Raises
    HypervisorRefused."""
    domain = _living(connection, instance_id)
    if domain is None:
        unfinished.unlink(missing_ok=True)
        return False
    check_not_moving(instance_id, describe(domain).job)
    if (target := _target(domain)) == str(unfinished):
        return True
    if target is not None:
        raise HypervisorRefused(f"Guest {instance_id} is being backed up already, to {target or 'elsewhere'}.")
    unfinished.unlink(missing_ok=True)
    domain.backupBegin(_backup_xml(domain, unfinished), None, 0)
    return True


def _targets(domain: Any) -> Iterator[tuple[str, bool]]:
    """Of its disks, and whether each is its root disk, known by its name: one that is rescued has it second."""
    for disk in ET.fromstring(domain.XMLDesc()).iterfind("devices/disk"):
        source, target = disk.find("source"), disk.find("target")
        assert target is not None, "every disk of a domain has a target"
        yield target.get("dev", ""), source is not None and Path(source.get("file", "")).name == "disk"


def _root(domain: Any) -> str | None:
    return next((target for target, is_root in _targets(domain) if is_root), None)


def _backup_xml(domain: Any, unfinished: Path) -> str:
    """Of its root disk alone."""
    backup = ET.Element("domainbackup", mode="push")
    disks = ET.SubElement(backup, "disks")
    for target, is_root in _targets(domain):
        one = ET.SubElement(disks, "disk", name=target, backup="yes" if is_root else "no")
        if is_root:
            one.set("type", "file")
            ET.SubElement(one, "driver", type=FORMAT)
            ET.SubElement(one, "target", file=str(unfinished))
    return ET.tostring(backup, encoding="unicode")


def _is_under_way(connection: Any, instance_id: str, unfinished: Path) -> bool:
    domain = _living(connection, instance_id)
    return domain is not None and _target(domain) == str(unfinished)


def _passed(connection: Any, instance_id: str) -> tuple[int, int]:
    """Of the job that is under way: bytes in all, and those that it is through with; 0 where it is not any more."""
    domain = _living(connection, instance_id)
    stats: dict[str, Any] = {} if domain is None else domain.jobStats()
    return int(stats.get("disk_total", 0)), int(stats.get("disk_processed", 0))


def _set_speed(connection: Any, instance_id: str, bytes_a_s: int) -> None:
    """Of the copy. One that has ended in the meantime has none."""
    domain = _living(connection, instance_id)
    root = None if domain is None else _root(domain)
    if domain is not None and root is not None:
        with contextlib.suppress(libvirt.libvirtError):
            domain.blockJobSetSpeed(root, bytes_a_s, libvirt.VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES)


def _why_failed(connection: Any, instance_id: str) -> str:
    """Of the job that has ended; empty when all is there."""
    domain = _living(connection, instance_id)
    if domain is None:
        return "the guest ended meanwhile"
    stats: dict[str, Any] = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    is_backup = stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP
    if is_backup and stats.get("type") == libvirt.VIR_DOMAIN_JOB_COMPLETED:
        return ""
    return str(stats.get("errmsg") or "QEMU gave it up, as when the disk of the host is full")


def _abort(connection: Any, instance_id: str, unfinished: Path) -> bool:
    """Ask for its end; False when it is not under way."""
    domain = _living(connection, instance_id)
    if domain is None or describe(domain).job is GuestJob.OUTGOING or _target(domain) != str(unfinished):
        return False
    with contextlib.suppress(libvirt.libvirtError):
        domain.abortJob()
    return True
