"""The highest generation per guest that this host has seen, on the disk before anything is done about it (law 2)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import msgspec

KEPT_MAX = 50_000


class Fence(msgspec.Struct, frozen=True):
    """`outcome`, once there is one: a doubled message is answered with it, and not carried out again."""

    generation: int = 0
    verb: str = ""
    outcome: str = ""
    sentence: str = ""


NONE = Fence()


class Fences(Protocol):
    def read(self, instance_id: str) -> Fence: ...
    def write(self, instance_id: str, fence: Fence) -> None:
        """Durable when it returns; may block for the time of an fsync."""
        ...

    def note(self, instance_id: str, fence: Fence) -> None:
        """Remember an outcome; losing it in a crash only means doing an idempotent verb again."""
        ...


class FileFences:
    """A log that is only appended to, and read once at the start. One fdatasync a command: measured at a tenth of
    replacing a small file, whose directory must be synced too. Rewritten at the start when it has grown long."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._known: dict[str, Fence] = {}
        lines = self._load(path)
        if lines > max(1000, 4 * len(self._known)):
            self._rewrite(path)
        self._log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def read(self, instance_id: str) -> Fence:
        return self._known.get(instance_id, NONE)

    def write(self, instance_id: str, fence: Fence) -> None:
        self.note(instance_id, fence)
        os.fdatasync(self._log)

    def note(self, instance_id: str, fence: Fence) -> None:
        # One write call of one line: appended whole, also when two threads append at once.
        os.write(self._log, _line(instance_id, fence))
        self._known[instance_id] = fence

    def close(self) -> None:
        os.close(self._log)

    def _load(self, path: Path) -> int:
        """The last word on each guest. A torn last line was never answered for, so it does not count."""
        whole, _, torn = path.read_bytes().rpartition(b"\n") if path.exists() else (b"", b"", b"")
        lines = whole.split(b"\n") if whole else []
        for line in lines:
            instance_id, fence = msgspec.json.decode(line, type=tuple[str, Fence])
            self._known.pop(instance_id, None)  # the order is that of the last word
            self._known[instance_id] = fence
        if torn:
            with path.open("r+b") as log:
                log.truncate(len(whole) + 1 if whole else 0)
        return len(lines)

    def _rewrite(self, path: Path) -> None:
        kept = list(self._known.items())[-KEPT_MAX:]
        self._known = dict(kept)
        temporary = path.with_suffix(".new")
        with temporary.open("wb") as log:
            log.writelines(_line(*one) for one in kept)
            log.flush()
            os.fsync(log.fileno())
        temporary.rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _line(instance_id: str, fence: Fence) -> bytes:
    return msgspec.json.encode((instance_id, fence)) + b"\n"


class MemoryFences:
    """For simulation: outlives the simulated agent as a disk would."""

    def __init__(self) -> None:
        self._kept: dict[str, Fence] = {}

    def read(self, instance_id: str) -> Fence:
        return self._kept.get(instance_id, NONE)

    def write(self, instance_id: str, fence: Fence) -> None:
        self._kept[instance_id] = fence

    note = write
