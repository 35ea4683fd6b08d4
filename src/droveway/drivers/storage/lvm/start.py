"""How the driver is made for one backend of one host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from droveway.drivers.clock import SystemClock
from droveway.drivers.storage.exports.nbdkit import NbdExports
from droveway.drivers.storage.lvm.driver import LvmStorage
from droveway.ports.images import Images
from droveway.ports.storage import Storage


def make(backend: Any, host: Any, state: Path, images: Images) -> Storage:
    """`backend`: its keys in the configuration; `state`: where its service alone keeps what it must not lose."""
    exports = NbdExports(state / "exports", backend.address, Path(host.tls_path) / "current")
    return LvmStorage(backend.name, backend.volume_group, backend.thin_pool, state, exports, images, SystemClock())
