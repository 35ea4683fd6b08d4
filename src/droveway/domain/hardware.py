"""The virtual machine of a guest, beside its vcpus, memory and disks: what its flavor and its image wished for."""

from __future__ import annotations

import msgspec

GIB = 1024**3
BIOS, UEFI = "bios", "uefi"
VGA, NO_SCREEN = "vga", "none"


class Hardware(msgspec.Struct, frozen=True, omit_defaults=True):
    """`disk_limits`: libvirt's names for the most that each disk may move in a second. `pmu`: None leaves the choice to
    the hypervisor."""

    disk_bus: str = "virtio"
    nic_model: str = "virtio"
    firmware: str = BIOS
    video: str = VGA  # the device of its screen; NO_SCREEN: it has none
    sockets: int = 0  # 0: each vcpu is a socket
    cores: int = 0
    threads: int = 0
    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    disk_limits: dict[str, int] = {}
    rng: bool = False
    rng_bytes: int = 0  # in each period
    rng_period_ms: int = 1000
    watchdog: str = ""  # what it does when it is not fed; "" for no watchdog
    guest_agent: bool = False
    hpet: bool = False
    hides_hypervisor: bool = False
    windows: bool = False
    pmu: bool | None = None
    power_off_s: float | None = None  # how long it may take to power off; None: as long as all others


def claimed_disk_gb(root_gb: int, ephemeral_gb: int, swap_mb: int, image_virtual_bytes: int) -> int:
    """What a server holds of its host's disk, in whole GiB. A root disk of 0 is as large as its image says."""
    return (root_gb or -(-image_virtual_bytes // GIB)) + ephemeral_gb + -(-swap_mb // 1024)
