"""Base files that no disk needs any more are deleted, on a store where other hosts may be about to use them.

A caller that needs a base for a new disk first sets the file's time to now (`want`); the disk names the base
only after that, and qemu-img opens the base by its name once more while it makes the disk. The sweep
1. takes those whose time is more than a day back, and of these the ones that no disk on the store names; and where all
   that no disk names is larger than its bound, the oldest of it, too, once it is ten minutes old: within that time
   the caller of `want` has made the disk that names the base, or has given up;
2. takes the name away from each by renaming it, after which `want` does not find that file any more;
3. looks at its time again: the same, and it is deleted; another, and it gets its name back.
So a host that wanted it before step 2 keeps it, and one that comes later finds no such file and makes it anew. A sweep
that is cut short between 2 and 3 leaves the file under the sweeper's own name, and the next one begins with giving it
back. No two machines' clocks are compared: every time here is set by the store.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from droveway.domain.image_format import HEAD_BYTES, backing_file
from droveway.drivers.hypervisor.libvirt.hardware_xml import EPHEMERAL, NVRAM, SWAP

GUESTS_OWN = {"console.log", EPHEMERAL, SWAP, NVRAM}  # none of them has a backing file
KEPT_S = 24 * 3600.0
SAFE_S = 600.0
SWEPT_MAX = 100  # at once: the rest is for the next sweep
FILES_READ_MAX = 200_000  # beyond it what is needed is not known, and nothing is deleted
_USUAL_HEAD_BYTES = 4096


class Bounds(NamedTuple):
    """Of what no disk needs."""

    kept_s: float = KEPT_S
    max_bytes: int = 1 << 62


DAY = Bounds()


def want(base: Path) -> bool:
    """Keep it for at least a day from now; False when there is no such base."""
    try:
        os.utime(base)
    except FileNotFoundError:
        return False
    return True


def sweep(root: Path, bases: Path, host: str, now_s: float, bounds: Bounds = DAY) -> None:
    """Blocks for as long as it takes to read the head of each disk. `host` names this sweeper's own files."""
    taken = f".old-{host}@"  # no host's name holds an @, so that none is the beginning of another's
    for path in bases.glob(f"{taken}*"):
        _give_back(path, bases / path.name.removeprefix(taken))
    found = {path.name: _stamp(path) for path in bases.glob("[!.]*")}
    youngest_ns = (now_s - min(SAFE_S, bounds.kept_s)) * 1e9
    unneeded = _unneeded(root, bases, {name for name, (time_ns, _) in found.items() if time_ns < youngest_ns})
    left_bytes = sum(found[name][1] for name in unneeded)
    count = 0
    for name in sorted(unneeded, key=lambda name: found[name]):  # the oldest first
        time_ns, size_bytes = found[name]
        if (time_ns / 1e9 < now_s - bounds.kept_s or left_bytes > bounds.max_bytes) and count < SWEPT_MAX:
            _delete(bases / name, bases / f"{taken}{name}", time_ns)
            left_bytes, count = left_bytes - size_bytes, count + 1


def _unneeded(root: Path, bases: Path, names: set[str]) -> set[str]:
    """Those of `names` that no file of any guest is backed by; none at all when that cannot be known."""
    left = set(names)
    guests = os.listdir(root) if left else []
    files = (file for guest in guests if guest != bases.name for file in _files(root / guest))
    for count, file in enumerate(files):
        try:
            backing = backing_of(file)
        except ValueError:
            return set()
        left = {name for name in left if name not in backing}
        if not left or count > FILES_READ_MAX:
            return set()
    return left


def _files(guest: Path) -> list[str]:
    """Without those whose every byte is the guest's: one that begins like a damaged disk would keep all bases."""
    try:
        with os.scandir(guest) as found:
            return [file.path for file in found if file.name not in GUESTS_OWN and file.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):  # deleted meanwhile, with its disk; or a test file
        return []


def backing_of(path: str) -> str:
    """Raises ValueError when it has one and its header is damaged."""
    try:
        with open(path, "rb") as file:
            head = file.read(_USUAL_HEAD_BYTES)
            try:
                return backing_file(head)
            except ValueError:
                return backing_file(head + file.read(HEAD_BYTES - len(head)))
    except FileNotFoundError:
        return ""


def _delete(base: Path, taken: Path, seen_ns: int) -> None:
    try:
        base.rename(taken)
    except FileNotFoundError:  # another host sweeps too
        return
    if _time_ns(taken) == seen_ns:
        taken.unlink()
    else:
        _give_back(taken, base)


def _give_back(taken: Path, base: Path) -> None:
    if base.exists():  # made anew meanwhile, of the same bytes
        taken.unlink()
    else:
        taken.rename(base)


def _time_ns(path: Path) -> int:
    """0 when it is gone."""
    return _stamp(path)[0]


def _stamp(path: Path) -> tuple[int, int]:
    """Its time and its size, of an opened file: a network file system then asks the server instead of its cache. (0, 0)
    when it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0, 0
    try:
        found = os.fstat(descriptor)
        return found.st_mtime_ns, found.st_blocks * 512
    finally:
        os.close(descriptor)
