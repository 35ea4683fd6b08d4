"""Is the directory of a backend really there? A mount that is missing leaves an empty directory in its place, which
would look like an empty backend with a lot of room.

So the directory carries a marker with an id, which the service of the backend remembers on its own disk. Who serves the
backend holds a lock on the marker: a second service, be it on another node, is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
from pathlib import Path

from droveway.drivers.storage import state_file
from droveway.ports.storage import StorageRefused

NAME = ".droveway-backend"
_MAX_BYTES = 4096
_FLOCK = struct.Struct("hhqqi4x")


class Marker:
    """Blocks. `state`: where the id is remembered; `fresh`: the id of a backend that is new."""

    def __init__(self, backend: str, root: Path, state: Path, fresh: str, *, is_mount: bool = False) -> None:
        self._backend, self._root, self._fresh, self._is_mount = backend, root, fresh, is_mount
        self._remembered = state / f"backend-{backend}"
        self._descriptor = -1

    def look(self) -> None:
        """Whether it is the directory that it was, and this process alone serves it. Raises StorageRefused, OSError."""
        if not self._root.is_dir():
            raise StorageRefused(f"{self._root} is not there: backend {self._backend} has its volumes in it.")
        if self._is_mount and not os.path.ismount(self._root):
            raise StorageRefused(
                f"{self._root} is not mounted, as is_mount of backend {self._backend} says it must be."
            )
        path = self._root / NAME
        if not path.exists():
            self._make(path)
        self._check(path)
        self._hold(path)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _make(self, path: Path) -> None:
        if self._remembered.exists():
            raise StorageRefused(
                f"{self._root} is not the directory that backend {self._backend} had (there is no {NAME} in it): see "
                "that it is mounted."
            )
        unfinished = path.with_name(f".new-marker-{os.getpid()}")
        state_file.write(unfinished, json.dumps({"backend": self._backend, "id": self._fresh}))
        with contextlib.suppress(FileExistsError):
            os.link(unfinished, path)
        unfinished.unlink()

    def _check(self, path: Path) -> None:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES)
        try:
            found = json.loads(text)
            backend, identity = str(found["backend"]), str(found["id"])
        except (ValueError, LookupError, TypeError):
            raise StorageRefused(f"{path} is damaged: it should say of which backend it is.") from None
        if backend != self._backend:
            raise StorageRefused(
                f"{self._root} is that of backend {backend}, not of {self._backend}: give each a directory of its own."
            )
        if not self._remembered.exists():
            state_file.write(self._remembered, identity)
        elif self._remembered.read_text() != identity:
            raise StorageRefused(
                f"{self._root} is another directory than backend {self._backend} had: see that the right one is "
                f"mounted there, or remove {self._remembered} when it was replaced on purpose."
            )

    def _hold(self, path: Path) -> None:
        """The lock ends with this process, or when the directory is mounted anew, and is taken again then."""
        there = path.stat()
        if self._descriptor >= 0:
            held = os.fstat(self._descriptor)
            if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino):
                return
            self.close()
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        except OSError:
            os.close(descriptor)
            raise StorageRefused(
                f"Backend {self._backend} is served by another volume service already: its directory {self._root} is "
                "locked. One service serves a backend."
            ) from None
        self._descriptor = descriptor
