"""One [[host.backend]] of a configuration file: where volumes lie, served by `cinder-volume@NAME` of that host."""

from __future__ import annotations

import math

import msgspec

from droveway.config.drivers import STORAGES, known
from droveway.domain.service_kinds import VOLUME, name_error, split
from droveway.domain.volume.model import BackendSettings

RATIO_MAX = 1000.0


class BackendConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Its service is `cinder-volume@NAME`, which stands in services of its host; the name of the backend in every list
    is HOST@NAME."""

    name: str  # of the backend on its host
    driver: str  # dir | rbd | lvm | simulated
    volume_backend_name: str = ""  # what volume types ask for; several backends may have the same; empty: its name
    max_over_subscription_ratio: float = 20.0  # how far a thin pool may be promised beyond what it has
    reserved_percentage: int = 0  # of the pool, given to no volume
    capabilities: dict[str, str] = {}  # more words that volume types may ask for, such as {ssd = "True"}
    path: str = ""  # dir: the directory in which its volumes lie, which every host has that opens them
    is_mount: bool = False  # dir: it is a mount point, and without its mount it is not there
    pool: str = ""  # rbd: of the Ceph cluster
    ceph_conf: str = ""  # rbd: the configuration file of the cluster
    ceph_user: str = ""  # rbd: as whom the service comes, without "client."
    ceph_keyring: str = ""  # rbd: where the key of that user is
    volume_group: str = ""  # lvm: in which its volumes lie
    thin_pool: str = ""  # lvm: of that volume group; empty: volumes are linear, and have no snapshots
    address: str = ""  # lvm: where its exports listen, as other hosts reach it
    total_gb: float = 1024.0  # simulated: how large it is imagined

    @property
    def service(self) -> str:
        return f"{VOLUME}@{self.name}"

    @property
    def settings(self) -> BackendSettings:
        """What the volume scheduler is told."""
        return BackendSettings(
            self.volume_backend_name or self.name,
            self.max_over_subscription_ratio,
            self.reserved_percentage,
            self.capabilities,
        )


def problems(backends: tuple[BackendConfig, ...], services: tuple[str, ...]) -> list[str]:
    """Every sentence that is wrong with those of one host beyond their types."""
    names = [one.name for one in backends]
    found = [f"two [[host.backend]] are named {name}" for name in dict.fromkeys(names) if names.count(name) > 1]
    served = [backend for binary, backend in map(split, services) if binary == VOLUME and backend]
    found += [f"services: {VOLUME}@{name} has no [[host.backend]] of that name" for name in served if name not in names]
    found += [
        f"backend {name}: no service has it; add {VOLUME}@{name} to services, or remove that [[host.backend]]"
        for name in dict.fromkeys(names)
        if name not in served and not name_error(f"{VOLUME}@{name}")
    ]
    return found + [f"backend {one.name}: {reason}" for one in backends for reason in _wrong(one)]


def _wrong(one: BackendConfig) -> list[str]:
    found = [reason for reason in (name_error(one.service),) if reason]
    driver = STORAGES.get(one.driver)
    if driver is None:
        return [*found, f"driver = {one.driver!r} must be {known(STORAGES)}"]
    found += [f"{key} is missing; the driver {one.driver} needs it" for key in driver.needs if not getattr(one, key)]
    ratio, reserved = one.max_over_subscription_ratio, one.reserved_percentage
    if not 1.0 <= ratio <= RATIO_MAX:
        found.append(f"max_over_subscription_ratio = {ratio:g} must be from 1 to {RATIO_MAX:g}, such as 20.0")
    if not 0 <= reserved <= 99:
        found.append(f"reserved_percentage = {reserved} must be from 0 to 99, such as 10")
    if not (math.isfinite(one.total_gb) and one.total_gb >= 0):
        found.append(f"total_gb = {one.total_gb:g} must be a number of GiB, such as 1024")
    return found
