"""Files on an instance store: published whole, timed by the store's own clock, its errors as refusals."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from droveway.ports.hypervisor import HypervisorRefused

T = TypeVar("T")
RESERVE_BYTES, RESERVE_SHARE = 256 * 1024**2, 20  # of its disk stay free; of a small one that share
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def refusing(work: Callable[[], T]) -> T:
    try:
        return work()
    except OSError as error:
        raise HypervisorRefused(
            f"The instance store refused: {error.strerror} ({error.filename or 'no name'})."
        ) from None


def now_s(root: Path) -> float:
    """By the store's own clock, which sets the times of its files; another host's is not compared with ours."""
    with tempfile.TemporaryFile(dir=root) as mark:
        return os.fstat(mark.fileno()).st_mtime


def free_bytes(directory: Path) -> int:
    """What may be written there, beside a reserve."""
    found = os.statvfs(directory)
    reserve = min(RESERVE_BYTES, found.f_blocks * found.f_frsize // RESERVE_SHARE)
    return found.f_bavail * found.f_frsize - reserve


def publish(unfinished: Path, final: Path, mode: int) -> None:
    """Give a complete file its final name, durably; a file that has it already stays.

    A link instead of a rename: renaming would take the file from under a guest, perhaps of another host, that has
    just opened the first one.
    """
    unfinished.chmod(mode)
    _sync(unfinished)
    try:
        os.link(unfinished, final)
        os.unlink(unfinished)
    except FileExistsError:
        os.unlink(unfinished)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(unfinished, final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
