"""How the driver is made for one backend of one host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from droveway.drivers.clock import SystemClock, SystemNames
from droveway.drivers.storage.dir.driver import DirStorage
from droveway.ports.images import Images
from droveway.ports.storage import Storage


def make(backend: Any, host: Any, state: Path, images: Images) -> Storage:
    """`backend`: its keys in the configuration; `state`: where its service alone keeps what it must not lose."""
    return DirStorage(
        backend.name, Path(backend.path), state, images, SystemClock(), SystemNames(), is_mount=backend.is_mount
    )
