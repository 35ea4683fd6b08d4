"""Makes the hypervisor of a host whose file says libvirt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from droveway.config.file import Config
from droveway.config.hosts import HostConfig
from droveway.drivers.clock import SystemClock
from droveway.drivers.hypervisor.bases import CacheBounds
from droveway.drivers.hypervisor.libvirt.driver import LibvirtHypervisor, LibvirtSettings
from droveway.ports.hypervisor import MadeHypervisor
from droveway.ports.images import Images

if TYPE_CHECKING:
    from droveway.drivers.hypervisor.libvirt.pool_disks import PoolDisks


def make(config: Config, hosts: Sequence[HostConfig], images: Callable[[str], Images]) -> list[MadeHypervisor]:
    cache = CacheBounds(config.image_cache.max_gib << 30, config.image_cache.max_age_hours * 3600)
    made = []
    for host in hosts:
        settings = LibvirtSettings(
            host=host.name,
            instances_path=host.instances_path,
            admissions_path=str(Path(host.host_state_path) / "admissions"),
            peer_uri=host.peer_uri,
            data_uri=host.data_uri,
            uri=host.libvirt_uri,
            reserved_memory_mb=host.reserved_host_memory_mb,
            reserved_disk_gb=host.reserved_host_disk_gb,
            cache=cache,
            disk_tls_path=host.disk_tls_path,
            directories=dict(one.split(":", 1) for one in host.backend_paths),
            ceph=(host.ceph_conf, host.ceph_user, host.ceph_keyring) if host.ceph_conf else None,
        )
        pool = _pool(host, images(host.name)) if host.images_type == "rbd" else None
        made.append(MadeHypervisor(LibvirtHypervisor(settings, SystemClock(), images(host.name), pool)))
    return made


def _pool(host: HostConfig, images: Images) -> PoolDisks:
    # Here, so that an agent whose root disks are files does not keep in memory what speaks to Ceph.
    from droveway.drivers.hypervisor.libvirt.pool_disks import PoolDisks, PoolSettings
    from droveway.drivers.storage.rbd.cluster import RbdSettings
    from droveway.drivers.storage.rbd.start import cluster

    state = Path(host.host_state_path) / "root-disks"
    reached = RbdSettings(str(state / "ceph.conf"), host.ceph_user, host.images_rbd_pool)
    settings = PoolSettings(host.name, reached, host.ceph_conf, host.ceph_keyring, state)
    return PoolDisks(settings, cluster(reached), images, SystemClock())
