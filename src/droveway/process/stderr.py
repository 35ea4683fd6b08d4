"""What the program says must never end it: stderr may be a file on a full disk, or a pipe without a reader."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


PATIENCE_MS = 20  # a reader that is only slow loses nothing; one that has stopped does not stop us
AT_ONCE_BYTES = 4096  # what a pipe that has room takes without waiting


class _Lossy(io.FileIO):
    """A descriptor that takes everything; what it cannot pass on, or not soon, is lost."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "w", closefd=False)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            if not self._poll.poll(PATIENCE_MS):
                return memoryview(data).nbytes
            return super().write(memoryview(data)[:AT_ONCE_BYTES]) or 0
        except OSError:
            return memoryview(data).nbytes


def never_fail() -> None:
    """From here on no write to `sys.stderr` raises, in any thread. Nothing is buffered: what is left in a buffer
    could fail at the very end, and turn the exit code into another one."""
    if sys.stderr is None:  # closed by the parent process
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as the program runs
        return
    raw = _Lossy(sys.stderr.fileno())
    sys.stderr = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
