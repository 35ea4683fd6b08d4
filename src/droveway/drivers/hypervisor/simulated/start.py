"""Makes the hypervisors of simulated hosts, which share one simulated world."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from droveway.config.file import Config
from droveway.config.hosts import HostConfig
from droveway.domain.guest_data import Document
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.drivers.hypervisor.simulated.driver import SimulatedHypervisor
from droveway.drivers.hypervisor.simulated.fleet import Fleet
from droveway.drivers.hypervisor.simulated.fleet_parts import Durations
from droveway.ports.hypervisor import MadeHypervisor
from droveway.ports.images import Images


def make(config: Config, hosts: Sequence[HostConfig], images: Callable[[str], Images]) -> list[MadeHypervisor]:
    """They see every image; those that are made of their disks are sent to an API by `images`."""
    copy_s = max(host.simulated_copy_s for host in hosts)
    fleet = Fleet(SystemClock(), SystemChance(), Durations(copy=(copy_s, copy_s)))
    for host in hosts:
        fleet.add_host(host.name, root_pool=f"simulated/{host.images_rbd_pool}" if host.images_type else "")
    _keep_disks(fleet, Path(config.state_path))
    boot_id = SystemNames().uuid()
    return [MadeHypervisor(SimulatedHypervisor(fleet, host.name, uploads=images(host.name)), boot_id) for host in hosts]


def _keep_disks(fleet: Fleet, directory: Path) -> None:
    """Simulated hosts lose their guests when the process ends, as in a power failure; the disks are still there."""
    store = fleet.stores["shared"]
    disks, drives = directory / "simulated-disks.json", directory / "simulated-drives.json"
    roots = directory / "simulated-roots.json"
    if disks.exists():
        store.disks = msgspec.json.decode(disks.read_bytes(), type=dict[str, int])
        store.used_gb = sum(store.disks.values())
    if drives.exists():
        store.drives = msgspec.json.decode(drives.read_bytes(), type=dict[str, tuple[Document, ...]])
    if roots.exists():
        fleet.roots.there = msgspec.json.decode(roots.read_bytes(), type=dict[str, tuple[str, int]])
    waiting: list[asyncio.TimerHandle] = []

    def save() -> None:
        waiting.clear()
        for path, kept in ((drives, store.drives), (roots, fleet.roots.there), (disks, store.disks)):
            temporary = path.with_suffix(".new")
            temporary.write_bytes(msgspec.json.encode(kept))
            temporary.chmod(0o600)
            temporary.rename(path)

    def changed() -> None:
        if not waiting:  # what changes together is written together
            waiting.append(asyncio.get_running_loop().call_later(0.1, save))

    fleet.disks_changed = changed
