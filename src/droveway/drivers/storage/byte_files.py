"""One file or device, or a part of it, open for its bytes; the locks it was opened with end with it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from droveway.ports.storage import StorageRefused

_ALL = 1 << 62
Run = Callable[[Callable[[], Any]], Awaitable[Any]]


class FileReader:
    """Answers droveway.ports.storage.Reader."""

    def __init__(self, descriptor: int, run: Run, first_byte: int = 0, size_bytes: int = _ALL) -> None:
        self._descriptor, self._run, self._first, self._size = descriptor, run, first_byte, size_bytes

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        length, at = min(length_bytes, self._size - offset_bytes), self._first + offset_bytes
        return bytes(await self._run(lambda: os.pread(self._descriptor, max(0, length), at)))

    async def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            await self._run(lambda: os.close(descriptor))


class FileWriter:
    """Answers droveway.ports.storage.Writer."""

    def __init__(self, descriptor: int, run: Run, first_byte: int = 0, size_bytes: int = _ALL) -> None:
        self._descriptor, self._run, self._first, self._size = descriptor, run, first_byte, size_bytes

    async def write(self, offset_bytes: int, data: bytes) -> None:
        if offset_bytes + len(data) > self._size:
            raise StorageRefused(f"{offset_bytes + len(data)} bytes are more than the volume has.")

        def work() -> None:
            rest, at = memoryview(data), self._first + offset_bytes
            while rest:
                written = os.pwrite(self._descriptor, rest, at)
                rest, at = rest[written:], at + written

        await self._run(work)

    async def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return

        def work() -> None:
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

        await self._run(work)
