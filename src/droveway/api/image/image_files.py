"""The files of the image store. Everything here blocks, and is run in the file pool; what a file system refuses is a
fault with words: NoSpace, or StoreRefused."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from droveway.domain import image_format, qcow2_tables
from droveway.domain.faults import NoSpace, StoreRefused

log = structlog.get_logger("droveway.images")
PARTIAL = ".upload-"  # the beginning of the name of a file that is not (yet) an image
RESERVE_SHARE = 10  # of a small file system a tenth is kept free, whatever was configured
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def refusing(what: str) -> Iterator[None]:
    """An error of the file system, as a fault that says what could not be done. FileNotFoundError stays itself."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        log.warning("the image store refused", doing=what, because=str(error))
        if error.errno in _FULL:
            raise NoSpace(
                f"The image store is full: {what} failed ({error.strerror}). Delete images, or let an administrator "
                "make room, and try again."
            ) from None
        raise StoreRefused(
            f"The image store refused: {what} failed ({error.strerror or error}); an administrator must look at it."
        ) from None


def check_capacity(directory: Path, more_bytes: int, reserved_bytes: int) -> None:
    """Raises NoSpace when so many bytes more would leave less than the reserve free: what else lies on that file
    system, the database first of all, must be able to go on, or nothing could be deleted either."""
    with refusing("looking for room"):
        found = os.statvfs(directory)
    kept = min(reserved_bytes, found.f_blocks * found.f_frsize // RESERVE_SHARE)
    if found.f_bavail * found.f_frsize - more_bytes < kept:
        raise NoSpace(
            f"The image store has no room for that: {kept // 2**20} MiB of its disk stay free. Delete images, or let "
            "an administrator make room, and try again."
        )


def remove(path: Path) -> None:
    with refusing("deleting the data of an image"):
        path.unlink(missing_ok=True)


class UploadFile:
    """The file of one upload, unbuffered: what was not written is not kept either. `reserved_bytes` of the disk stay
    free."""

    def __init__(self, path: Path, reserved_bytes: int) -> None:
        self.path = path
        self.size = 0
        self.head = b""
        self._reserved_bytes = reserved_bytes
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha512 = hashlib.sha512()
        self._file: BinaryIO | None = None
        self._closed = False
        self._lock = threading.Lock()  # a write may still be running when its upload is given up

    def write(self, pieces: list[bytes]) -> None:
        with self._lock:
            if not self._closed:
                check_capacity(self.path.parent, sum(map(len, pieces)), self._reserved_bytes)
                with refusing("writing the data of an image"):
                    self._write(pieces)

    def _write(self, pieces: list[bytes]) -> None:
        if self._file is None:
            self._file = self.path.open("w+b", buffering=0)
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[self._file.write(rest) :]
            self._md5.update(piece)
            self._sha512.update(piece)
            self.size += len(piece)
            if len(self.head) < image_format.HEAD_BYTES:
                self.head += piece[: image_format.HEAD_BYTES - len(self.head)]

    def check(self, disk_format: str, max_virtual_bytes: int) -> dict[str, Any]:
        """Make the data durable and look at it. The columns of an active image; raises BadRequest."""
        self.write([])  # an empty upload has a file too, and is refused for what it holds
        file = self._file
        assert file is not None
        with refusing("writing the data of an image"):
            os.fsync(file.fileno())
        found = image_format.inspect(disk_format, self.head, self.size, max_virtual_bytes)
        if disk_format == "qcow2":
            with refusing("reading the data of an image"):
                qcow2_tables.check(self.head, self.size, lambda at, size: os.pread(file.fileno(), size, at))
        return {
            "size_bytes": self.size,
            "virtual_size_bytes": found.virtual_size_bytes,
            "checksum": self._md5.hexdigest(),
            "sha512": self._sha512.hexdigest(),
        }

    def publish(self, final: Path) -> None:
        with refusing("publishing the data of an image"):
            self.path.chmod(0o600)
            self.path.replace(final)
            directory = os.open(final.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def close(self) -> None:
        """No file of ours stays behind, whatever happened, and whatever the file system says to it."""
        with self._lock:
            self._closed = True
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                log.warning(
                    "a part of an upload could not be deleted; the next start will try again",
                    file=self.path.name,
                    because=str(error),
                )
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._file.close()
