"""A file that is being made of an image's data, piece by piece, while its sha512 runs beside it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from droveway.domain.model import ImageRef
from droveway.ports.images import ImageRefused

PIECE_BYTES = 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PartialImage:
    """Blocks. Two buffers in turn: one is read into while the other is hashed, which takes as long as the reading."""

    def __init__(self, image: ImageRef, target: Path, host: str) -> None:
        self.image, self.target, self.size = image, target, 0
        self._host = host
        self._sha512 = hashlib.sha512()
        self._hashing = ThreadPoolExecutor(1, "image-sha512")
        self._buffers = (bytearray(PIECE_BYTES), bytearray(PIECE_BYTES))
        self._hashed: list[Future[None]] = []
        self._turn = 0
        self._file = -1

    @property
    def missing(self) -> int:
        return self.image.size_bytes - self.size

    def buffer(self) -> memoryview:
        """Where the next piece goes; no longer than what is missing."""
        if len(self._hashed) == len(self._buffers):
            self._hashed.pop(0).result()
        return memoryview(self._buffers[self._turn])[: min(PIECE_BYTES, self.missing)]

    def take(self, piece: memoryview) -> None:
        """What was read into the buffer. Raises ImageRefused."""
        self._turn = (self._turn + 1) % len(self._buffers)
        self._hashed.append(self._hashing.submit(self._sha512.update, piece))
        try:
            if self._file < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                self._file = os.open(self.target, flags, 0o600)
            rest = piece
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            why = "the disk is full" if error.errno in _FULL else f"{error.strerror}"
            raise ImageRefused(
                f"Host {self._host} could not keep image {self.image.id}: {why} ({self.target.parent}); make room "
                "there, or look at that disk."
            ) from None
        self.size += len(piece)

    def check(self, source: str) -> None:
        """Whether all of it is what it should be. Raises ImageRefused."""
        for one in self._hashed:
            one.result()
        self._hashed.clear()
        if self.missing or self._sha512.hexdigest() != self.image.sha512:
            raise ImageRefused(
                f"Image {self.image.id} is damaged: its bytes, as host {self._host} has read them from {source}, are "
                "not those of its checksum."
            )

    def close(self) -> None:
        self._hashing.shutdown()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        self.close()
        with contextlib.suppress(OSError):  # a store that refuses: the next start of this host's agent sweeps
            self.target.unlink(missing_ok=True)
