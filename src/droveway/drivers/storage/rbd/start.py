"""How the driver is made for one backend of one host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from droveway.drivers.clock import SystemClock
from droveway.drivers.storage.rbd.binding import load
from droveway.drivers.storage.rbd.cluster import Cluster, RbdSettings
from droveway.drivers.storage.rbd.command import RbdCommand
from droveway.drivers.storage.rbd.driver import RbdStorage
from droveway.drivers.storage.rbd.librbd import LibrbdCluster
from droveway.ports.images import Images
from droveway.ports.storage import Storage


def make(backend: Any, host: Any, state: Path, images: Images) -> Storage:
    """`backend`: its keys in the configuration; `state`: where its service alone keeps what it must not lose."""
    settings = RbdSettings(str(state / "ceph.conf"), backend.ceph_user, backend.pool)
    return RbdStorage(
        backend.name, settings, backend.ceph_conf, backend.ceph_keyring, state, cluster(settings), images, SystemClock()
    )


def cluster(settings: RbdSettings) -> Cluster:
    binding = load()
    return RbdCommand(settings) if binding is None else LibrbdCluster(settings, binding)
