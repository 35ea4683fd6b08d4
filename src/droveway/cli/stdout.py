"""What a command says must arrive: stdout may be a file on a full disk, or a pipe whose reader has gone."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING

from droveway.domain.faults import Fault

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class CannotWrite(Fault):
    """What the command had to say could not be written; what it did is done."""


class _CheckedOutput(io.FileIO):
    """A descriptor whose troubles have a sentence; told once, and what comes after is lost with the rest."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "w", closefd=False)
        self._is_lost = False

    def write(self, data: ReadableBuffer, /) -> int:
        if self._is_lost:
            return memoryview(data).nbytes
        try:
            return super().write(data) or 0
        except OSError as error:
            self._is_lost = True
            what = "its reader has ended" if isinstance(error, BrokenPipeError) else error.strerror
            raise CannotWrite(f"the output could not be written to the end: {what}") from None


def report_write_errors() -> None:
    """From here on a write to `sys.stdout` that fails raises CannotWrite, which is no OSError: no handler on the way
    takes it for something else."""
    if sys.stdout is None:  # closed by the parent process, who wants to hear nothing
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the program runs
        return
    before = sys.stdout
    raw = io.BufferedWriter(_CheckedOutput(before.fileno()))
    sys.stdout = io.TextIOWrapper(raw, encoding=before.encoding, errors=before.errors, line_buffering=before.isatty())
