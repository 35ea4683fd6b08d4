"""A volume group on a file: a disk of the lab's storage host, for `./dev up --storage lvm`.

The loop device is found again by its file, so an `up` that was interrupted leaves none that the next call does not
know, and a lab whose directory is gone is rid of its own by `lab sweep` (lab/registry.py).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab.nodes import ServerFailed

DEVICES = Path("/sys/block")
WITHIN_S = 60.0


def attach(disk: Path, size_bytes: int, group: str) -> None:
    """Idempotent. A sparse file of that size becomes a disk, and holds that volume group."""
    disk.parent.mkdir(parents=True, exist_ok=True)
    if not disk.exists():
        with disk.open("wb") as file:
            file.truncate(size_bytes)
    found = loops(disk)
    device = found[0] if found else _run("losetup", "-f", "--show", str(disk)).strip()
    if _tried("vgs", "-q", group):
        if has_mapper():
            _run("vgchange", "-q", "-ay", group)
        return
    _run("pvcreate", "-q", "-ff", "-y", device)
    _run("vgcreate", "-q", group, device)


def detach(directory: Path, group: str) -> None:
    """Whatever disks lie below that directory, which may be gone. Nobody has them open any more."""
    for device in loops(directory):
        if has_mapper():
            _tried("vgchange", "-q", "-an", group)
        _run("losetup", "-d", device)


def loops(below: Path) -> list[str]:
    """The loop devices of that file, or of files below that directory."""
    found = []
    for backing in DEVICES.glob("loop*/loop/backing_file"):
        try:
            path = Path(backing.read_text().strip().removesuffix(" (deleted)"))
        except OSError:  # detached meanwhile
            continue
        if path.is_relative_to(below):
            found.append(f"/dev/{backing.parent.parent.name}")
    return sorted(found)


def has_mapper() -> bool:
    """Whether this kernel maps devices: without, LVM keeps its metadata alone (droveway/drivers/storage/lvm)."""
    return "device-mapper" in Path("/proc/devices").read_text()


def _tried(*command: str) -> bool:
    return _done(*command).returncode == 0


def _run(*command: str) -> str:
    done = _done(*command)
    if done.returncode:
        raise ServerFailed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _done(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False, cwd="/")
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise ServerFailed(f"{command[0]}: {error}") from None
