"""What the program says must never end it: stderr may be a file on a full disk, or a pipe that nobody reads."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Lossy(io.FileIO):
    """A descriptor that takes everything; what it cannot pass on is lost."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def never_fail() -> None:
    """From here on no write to `sys.stderr` raises, whoever makes it. Nothing is buffered: what is left in a buffer
    could fail at the very end, and turn the exit code into another one."""
    raw = _Lossy(sys.stderr.fileno(), "w", closefd=False)
    sys.stderr = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
