"""What a host offers, asked of libvirt and of its instance store, and whether it could run a guest from elsewhere."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import libvirt

from droveway.domain.cpu_xml import WrongCpu, canonical
from droveway.domain.model import Resources
from droveway.domain.resources import GuestUse, HostUsage
from droveway.drivers.hypervisor.libvirt.connection import reason_of
from droveway.drivers.hypervisor.libvirt.domain_xml import ARCH, MACHINE, HostFacts, cpu_arch, parse_capabilities
from droveway.drivers.hypervisor.libvirt.guest import of_name
from droveway.ports.hypervisor import HypervisorRefused


def kvm_works() -> bool:
    """Whether guests can run on the processor itself. The device alone says little: it opens on machines whose
    processor (or whose own hypervisor) has no virtualisation to give."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as cpuinfo:
            flags = next((line for line in cpuinfo if line.startswith("flags")), "").split()
    except OSError:
        return False
    return "vmx" in flags or "svm" in flags


def read_host_facts(connection: Any, use_kvm: bool) -> HostFacts:
    """Costs libvirtd tens of milliseconds of CPU, and changes only when it is restarted: read once a connection."""
    virt_type = "kvm" if use_kvm else "qemu"
    return parse_capabilities(
        connection.getCapabilities(), connection.getDomainCapabilities(None, ARCH, MACHINE, virt_type), use_kvm
    )


def read_resources(
    connection: Any, facts: HostFacts, use_kvm: bool, room_gb: tuple[int, int], data_uri: str, peer_uri: str
) -> Resources:
    # Not getInfo's memory: that is one NUMA node's on machines whose memory was plugged in later (seen: 4.6 of 24 GiB).
    memory = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
    free_kib = memory.get("free", 0) + memory.get("buffers", 0) + memory.get("cached", 0)
    vcpus = connection.getInfo()[2]
    # CPUs may go offline under a connection: then the cells, read once, are not those of the host any more.
    is_whole = sum(len(cell.cpus) for cell in facts.cells) <= vcpus
    return Resources(
        hypervisor_type="KVM" if use_kvm else "QEMU",
        hypervisor_version=connection.getVersion(),
        hypervisor_hostname=connection.getHostname(),
        vcpus=vcpus,
        memory_mb=memory.get("total", 0) // 1024,
        memory_free_mb=free_kib // 1024,
        disk_gb=room_gb[0],
        disk_free_gb=room_gb[1],
        cpu_arch=facts.arch,
        cpu_model=facts.cpu_model,
        cpu_vendor=facts.cpu_vendor,
        cpu_features=facts.cpu_features,
        cpu_topology=facts.cpu_topology,
        cpu_xml=facts.cpu_xml,
        host_ip=urlsplit(data_uri).hostname or "",
        machine_types=facts.machine_types,
        firmwares=facts.firmwares,
        peer_uri=peer_uri,
        cells=facts.cells if is_whole else (),
        host_uuid=facts.uuid,
    )


_STATS = libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_BLOCK
# A guest whose monitor is busy is left out of what only the monitor knows, and not waited for.
_OF = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT


def read_measured(connection: Any, resources: Resources) -> HostUsage:
    """One call for all guests, and what the kernel of this host says of itself."""
    grow_bytes, found = 0, connection.getAllDomainStats(_STATS, _OF)
    for _, stats in found:
        grow_bytes += max(0, _sum(stats, "capacity") - _sum(stats, "allocation"))
    guests = [
        GuestUse(
            instance_id,
            stats.get("cpu.time", 0) // 1_000_000,
            stats.get("balloon.rss", 0) // 1024,
            _sum(stats, "allocation") // (1024 * 1024),
        )
        for domain, stats in found
        if (instance_id := of_name(domain.name())) is not None
    ]
    with open("/proc/uptime", encoding="ascii") as uptime:
        uptime_s = int(float(uptime.read().split()[0]))
    return HostUsage(
        uptime_s,
        os.getloadavg(),
        _users(),
        resources.memory_free_mb,
        resources.disk_free_gb,
        resources.disk_free_gb - -(-grow_bytes // (1 << 30)),
        tuple(guests),
    )


def _sum(stats: dict[str, Any], what: str) -> int:
    """Over all its disks, bytes."""
    return sum(stats.get(f"block.{number}.{what}", 0) for number in range(stats.get("block.count", 0)))


def _users() -> int:
    """Who is logged in, as `who` counts: the records of that kind in utmp, if the machine keeps one."""
    record = struct.Struct("=h382x")
    with contextlib.suppress(OSError), open("/run/utmp", "rb") as utmp:
        data = utmp.read(record.size * 4096)
        whole = data[: len(data) // record.size * record.size]
        return sum(kind == 7 for (kind,) in record.iter_unpack(whole))
    return 0


def cpu_baseline(connection: Any, cpus: Sequence[str]) -> str:
    """What all of them can run, with KVM: each is what QEMU can give a guest on its host."""
    try:
        given = [canonical(cpu) for cpu in cpus]
    except WrongCpu as wrong:
        raise HypervisorRefused(f"This host cannot work out a common CPU: of one {wrong}.") from None
    try:
        found: str = connection.baselineHypervisorCPU(
            None, ARCH, MACHINE, "kvm", given, libvirt.VIR_CONNECT_BASELINE_CPU_MIGRATABLE
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_ERR_CONFIG_UNSUPPORTED):
            raise
        raise HypervisorRefused(f"These CPUs have no model in common: {reason_of(error)}.") from None
    return found


def check_cpu(connection: Any, instance_id: str, source_cpu_xml: str, use_kvm: bool) -> None:
    """Refused when a guest that runs on the source's CPU could not go on here.

    An emulated guest never touches the host's CPU: QEMU computes its default model, the same on every host. All it
    needs here is an emulator of its architecture; comparing the hosts' processors would refuse moves that work.
    """
    try:
        source_cpu_xml = canonical(source_cpu_xml)  # another host's word
    except WrongCpu as wrong:
        raise HypervisorRefused(f"This host cannot compare its CPU with the source's: {wrong}.") from None
    if not use_kvm:
        arch = cpu_arch(source_cpu_xml) or ARCH
        if arch != ARCH:
            raise HypervisorRefused(f"Guest {instance_id} is a guest of {arch}; this host emulates {ARCH}.")
        return
    if not source_cpu_xml:
        return  # an older source says nothing: libvirt itself compares when the guest arrives
    try:
        verdict = connection.compareHypervisorCPU(
            None, ARCH, MACHINE, "kvm", source_cpu_xml, libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE
        )
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_CPU_INCOMPATIBLE, libvirt.VIR_ERR_XML_ERROR):
            raise
        raise HypervisorRefused(f"This host's CPU cannot run the guest: {reason_of(error)}.") from None
    if verdict == libvirt.VIR_CPU_COMPARE_INCOMPATIBLE:
        raise HypervisorRefused("This host's CPU cannot run the guest: it lacks features of the source's CPU.")
