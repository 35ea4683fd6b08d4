"""One file, open for its bytes; the locks it was opened with end with it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

Run = Callable[[Callable[[], Any]], Awaitable[Any]]


class FileReader:
    """Answers droveway.ports.storage.Reader."""

    def __init__(self, descriptor: int, run: Run) -> None:
        self._descriptor, self._run = descriptor, run

    async def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        return bytes(await self._run(lambda: os.pread(self._descriptor, length_bytes, offset_bytes)))

    async def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            await self._run(lambda: os.close(descriptor))


class FileWriter:
    """Answers droveway.ports.storage.Writer."""

    def __init__(self, descriptor: int, run: Run) -> None:
        self._descriptor, self._run = descriptor, run

    async def write(self, offset_bytes: int, data: bytes) -> None:
        def work() -> None:
            rest, at = memoryview(data), offset_bytes
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
