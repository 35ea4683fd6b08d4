"""Which guests this host expects to arrive. One small file a guest, so that a restarted agent expects the same ones."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class Admissions:
    """Every call touches the disk and blocks for an fsync at most: call it off the loop."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def admit(self, instance_id: str) -> None:
        self._path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path / instance_id, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        self._sync()

    def discard(self, instance_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path / instance_id)
            self._sync()

    def all(self) -> tuple[str, ...]:
        return tuple(sorted(os.listdir(self._path))) if self._path.exists() else ()

    def holds(self, instance_id: str) -> bool:
        return (self._path / instance_id).exists()

    def _sync(self) -> None:
        """A file without content is its directory entry."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
