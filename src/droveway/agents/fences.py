"""The highest generation per guest that this host has seen, on the disk before anything is done about it (law 2)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import msgspec

KEPT_MAX = 50_000


class Fence(msgspec.Struct, frozen=True):
    """`answered`: the outcome of that generation's verb, so that a doubled message is answered and not done again."""

    generation: int = 0
    verb: str = ""
    outcome: str = ""
    sentence: str = ""


class Fences(Protocol):
    def read(self, instance_id: str) -> Fence: ...
    def write(self, instance_id: str, fence: Fence) -> None:
        """Durable when it returns; may block for the time of an fsync."""
        ...

    def note(self, instance_id: str, fence: Fence) -> None:
        """Remember an outcome; losing it in a crash only means doing an idempotent verb again."""
        ...


class FileFences:
    """One small file a guest, replaced atomically and fsynced; the last ones are kept in memory too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Fence] = {}
        path.mkdir(parents=True, exist_ok=True)
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def read(self, instance_id: str) -> Fence:
        fence = self._known.get(instance_id)
        if fence is None:
            try:
                fence = msgspec.json.decode((self._path / instance_id).read_bytes(), type=Fence)
            except FileNotFoundError:
                fence = Fence()
            if len(self._known) >= KEPT_MAX:
                self._known.clear()
            self._known[instance_id] = fence
        return fence

    def write(self, instance_id: str, fence: Fence) -> None:
        self._replace(instance_id, fence, durable=True)

    def note(self, instance_id: str, fence: Fence) -> None:
        self._replace(instance_id, fence, durable=False)

    def _replace(self, instance_id: str, fence: Fence, *, durable: bool) -> None:
        temporary = self._path / f".{instance_id}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(fence))
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(self._path / instance_id)
        if durable:
            os.fsync(self._directory)
        self._known[instance_id] = fence


class MemoryFences:
    """For simulation: outlives the simulated agent as a disk would."""

    def __init__(self) -> None:
        self._kept: dict[str, Fence] = {}

    def read(self, instance_id: str) -> Fence:
        return self._kept.get(instance_id, Fence())

    def write(self, instance_id: str, fence: Fence) -> None:
        self._kept[instance_id] = fence

    note = write
