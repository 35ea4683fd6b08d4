"""What one guest has used, in one question to libvirt."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import libvirt

from droveway.domain.diagnostics import CpuUse, DiskUse, GuestDiagnostics, NicUse
from droveway.domain.model import GuestState
from droveway.drivers.hypervisor.libvirt.guest import describe, find
from droveway.drivers.hypervisor.promises import check_alive

_STATS = (
    libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
    | libvirt.VIR_DOMAIN_STATS_BLOCK
    | libvirt.VIR_DOMAIN_STATS_BALLOON
)


def read(connection: Any, instance_id: str, use_kvm: bool) -> GuestDiagnostics:
    """Blocking. Raises HypervisorRefused when it does not run."""
    domain = find(connection, instance_id)
    state = GuestState.ABSENT if domain is None else describe(domain).state
    check_alive(instance_id, state)
    ((_, stats),) = connection.domainListGetStats([domain], _STATS, 0)
    assert domain is not None
    macs = {
        target.get("dev", ""): mac.get("address", "")
        for one in ET.fromstring(domain.XMLDesc()).iterfind("devices/interface")
        if (target := one.find("target")) is not None and (mac := one.find("mac")) is not None
    }
    return GuestDiagnostics(
        state="paused" if state is GuestState.PAUSED else "running",
        driver="libvirt",
        hypervisor="kvm" if use_kvm else "qemu",
        cpus=tuple(
            CpuUse(n, stats[f"vcpu.{n}.time"]) for n in range(stats.get("vcpu.maximum", 0)) if f"vcpu.{n}.time" in stats
        ),
        nics=tuple(_nic(stats, f"net.{n}.", macs) for n in range(stats.get("net.count", 0))),
        disks=tuple(_disk(stats, f"block.{n}.") for n in range(stats.get("block.count", 0))),
        memory_maximum_mb=stats.get("balloon.maximum", 0) // 1024,
        memory_used_mb=stats.get("balloon.rss", 0) // 1024,
    )


def _nic(stats: dict[str, Any], at: str, macs: dict[str, str]) -> NicUse:
    device = stats.get(f"{at}name", "")
    kinds = [f"{way}.{what}" for way in ("rx", "tx") for what in ("bytes", "pkts", "errs", "drop")]
    return NicUse(macs.get(device, ""), device, *(stats.get(f"{at}{kind}", 0) for kind in kinds))


def _disk(stats: dict[str, Any], at: str) -> DiskUse:
    kinds = ("rd.bytes", "rd.reqs", "wr.bytes", "wr.reqs")
    return DiskUse(stats.get(f"{at}name", ""), *(stats.get(f"{at}{kind}", 0) for kind in kinds))
