"""One volume group by LVM's own commands.

Where the kernel has no device-mapper LVM still keeps its metadata (`--driverloaded n`): then a volume is one contiguous
range of a physical volume, which programs open as such. That is for tests and for machines of that kind: it is linear
only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from droveway.drivers.storage.child import Done, Programs
from droveway.drivers.storage.image_data import quoted
from droveway.ports.storage import StorageRefused

PACKAGE = "lvm2"
WITHIN_S = 60.0
_GONE = 5  # by which LVM's commands end, for this and for more


class Part(NamedTuple):
    """Where the bytes of a volume are: all of a device, or so many of it from there on."""

    device: str
    offset_bytes: int
    length_bytes: int
    is_whole: bool

    @property
    def disk(self) -> str:
        """A raw disk, as options of QEMU. Its locks are no help: they are of the device, which volumes may share."""
        part = "" if self.is_whole else f"offset={self.offset_bytes},size={self.length_bytes},"
        return f"driver=raw,{part}file.driver=host_device,file.locking=off,file.filename={quoted(self.device)}"


class LogicalVolume(NamedTuple):
    name: str
    size_bytes: int
    ranges: str
    tags: tuple[str, ...] = ()


class VolumeGroup:
    """`thin_pool`: in which volumes are made; empty: they are linear."""

    def __init__(self, name: str, thin_pool: str, programs: Programs, *, has_mapper: bool) -> None:
        self.name, self.thin_pool, self.has_mapper = name, thin_pool, has_mapper
        self._programs = programs
        self._start_bytes: dict[str, int] = {}  # of the first extent, by physical volume
        self._extent_bytes = 0

    async def check(self) -> None:
        """Raises StorageRefused with what is missing."""
        if self.thin_pool and not self.has_mapper:
            raise StorageRefused(
                f"Thin volumes in {self.name}/{self.thin_pool} need the kernel's device-mapper (dm_thin_pool), which "
                "this host does not have: leave thin_pool empty for linear volumes."
            )
        found = await self._report("pvs", "pv_name,pe_start,vg_extent_size", "--select", f"vg_name={self.name}")
        if not found:
            raise StorageRefused(f"There is no volume group {self.name} on this host: make it with vgcreate.")
        self._start_bytes = {one["pv_name"]: int(one["pe_start"]) for one in found}
        self._extent_bytes = int(found[0]["vg_extent_size"])
        if self.thin_pool:
            await self._check_thin_pool()

    async def _check_thin_pool(self) -> None:
        pools = await self._report("lvs", "lv_name,zero", self.name, "--select", "segtype=thin-pool")
        found = next((one for one in pools if one["lv_name"] == self.thin_pool), None)
        if found is None:
            raise StorageRefused(f"There is no thin pool {self.thin_pool} in volume group {self.name}.")
        if found["zero"] in ("", "0"):
            raise StorageRefused(
                f"Thin pool {self.name}/{self.thin_pool} does not zero the blocks that it hands out, so a volume would "
                f"show what another one held: lvchange --zero y {self.name}/{self.thin_pool}"
            )

    async def space(self) -> tuple[int, int]:
        """Bytes in all, and free ones."""
        if self.thin_pool:
            (pool,) = await self._report("lvs", "lv_size,data_percent", f"{self.name}/{self.thin_pool}")
            total = int(pool["lv_size"])
            return total, int(total * (1 - float(pool["data_percent"] or 0) / 100))
        (group,) = await self._report("vgs", "vg_size,vg_free", self.name)
        return int(group["vg_size"]), int(group["vg_free"])

    async def volumes(self) -> list[LogicalVolume]:
        found = await self._report("lvs", "lv_name,lv_size,seg_pe_ranges,lv_tags", self.name)
        return [
            LogicalVolume(one["lv_name"], int(one["lv_size"]), one["seg_pe_ranges"], tuple(one["lv_tags"].split(",")))
            for one in found
        ]

    async def _find(self, name: str) -> LogicalVolume | None:
        return next((one for one in await self.volumes() if one.name == name), None)

    async def part(self, name: str) -> Part | None:
        """None where there is no such volume."""
        found = await self._find(name)
        if found is None:
            return None
        if self.has_mapper:
            return Part(f"/dev/{self.name}/{name}", 0, found.size_bytes, is_whole=True)
        device, _, extents = found.ranges.rpartition(":")
        if " " in found.ranges:
            raise StorageRefused(f"{self.name}/{name} lies in several pieces, which needs the kernel's device-mapper.")
        first = int(extents.partition("-")[0])
        offset = self._start_bytes[device] + first * self._extent_bytes
        return Part(device, offset, found.size_bytes, is_whole=False)

    # -- making them ----------------------------------------------------------------------------------------------
    async def create(self, name: str, size_bytes: int) -> None:
        if self.thin_pool:
            await self._do("lvcreate", "-V", f"{size_bytes}b", "--thinpool", self.thin_pool, "-n", name, self.name)
        else:
            await self._do("lvcreate", *self._linear, "-Wn", "-Zn", "-y", "-L", f"{size_bytes}b", "-n", name, self.name)

    @property
    def _linear(self) -> tuple[str, ...]:
        return () if self.has_mapper else ("-an", "--alloc", "contiguous")

    async def snapshot(self, origin: str, name: str, tag: str = "") -> None:
        """Thin, active at once like any other volume, and on its own: it stays when its origin goes. `tag`: kept with
        it, since LVM forgets of what it was made when that is replaced."""
        tagged = ("--addtag", tag) if tag else ()
        await self._do("lvcreate", "-s", "-kn", "-ay", *tagged, "-n", name, f"{self.name}/{origin}")

    async def extend(self, name: str, size_bytes: int) -> bool:
        """False where it cannot stay in one piece, and must: then it is to be made anew."""
        alloc = () if self.has_mapper else ("--alloc", "contiguous")
        done = await self._run("lvextend", *alloc, "-L", f"{size_bytes}b", f"{self.name}/{name}")
        if done.code and alloc and "contiguous" in done.words:
            return False
        _must_have_done("lvextend", done)
        return True

    async def rename(self, name: str, new: str) -> None:
        await self._do("lvrename", self.name, name, new)

    async def remove(self, name: str) -> None:
        if await self._find(name) is not None:
            await self._do("lvremove", "-f", f"{self.name}/{name}")

    # -- commands -------------------------------------------------------------------------------------------------
    async def _report(self, command: str, fields: str, *words: str) -> list[dict[str, str]]:
        options = ("--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields)
        done = await self._run(command, *options, *words)
        if done.code == _GONE and "not found" in done.words:
            return []
        _must_have_done(command, done)
        report: list[dict[str, Any]] = json.loads(done.out)["report"]
        rows: list[dict[str, Any]] = next(iter(report[0].values()), [])
        return [{key: str(value) for key, value in row.items()} for row in rows]

    async def _do(self, command: str, *words: str) -> None:
        _must_have_done(command, await self._run(command, *words))

    async def _run(self, command: str, *options: str) -> Done:
        without = () if self.has_mapper else ("--driverloaded", "n")
        done = await self._programs.try_run(PACKAGE, command, *without, *options, within_s=WITHIN_S)
        words = done.words.replace("WARNING: Activation disabled. No device-mapper interaction will be attempted.", "")
        return done._replace(words=" ".join(words.split()))


def lvm_environment() -> dict[str, str]:
    """Of LVM's commands: what tells them of a machine without udev, or of another configuration, is theirs too."""
    theirs = {name: os.environ[name] for name in ("DM_DISABLE_UDEV", "LVM_SYSTEM_DIR") if name in os.environ}
    return {"LVM_SUPPRESS_FD_WARNINGS": "1", **theirs}


def _must_have_done(command: str, done: Done) -> None:
    if done.code:
        raise StorageRefused(f"{command} refused: {done.words}")


def has_mapper(devices: Path = Path("/proc/devices")) -> bool:
    """Blocks. Whether this kernel maps devices."""
    return "device-mapper" in devices.read_text() or Path("/dev/mapper/control").exists()
