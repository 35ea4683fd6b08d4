"""What one host can still give, in whole units, under the operator's ratios. Pure and exact: integers only come out, so
that hosts that are equal weigh the same.

A CPU that a pinned guest holds is used by no other: it leaves the host's CPUs before the ratio is applied. A guest that
floats may not have more vcpus than there are such CPUs, however high the ratio: it would overcommit against itself.
"""

from __future__ import annotations

import math

from droveway.domain.placement import HostFacts, PlacementSettings

Ratios = tuple[float, float, float, int, int]
# ram, cpu, disk: still free (below 0 when more is held than there is). own_cpu: for a guest whose vcpus are pinned.
# *_share: the free part of all there is, in 2**30ths.
# disk_all: all that may be promised of its disks.
FIELDS = ("ram", "cpu", "own_cpu", "disk", "ram_share", "cpu_share", "disk_share", "disk_all")
WHOLE = 1 << 30
NOISE = 1e-9  # 100 * 0.29 is 28.999999999999996


def ratios_of(settings: PlacementSettings) -> Ratios:
    return (
        settings.cpu_ratio,
        settings.ram_ratio,
        settings.disk_ratio,
        settings.reserved_memory_mb,
        settings.reserved_disk_gb,
    )


def dedicated(facts: HostFacts) -> int:
    """How many CPUs are held by pinned guests."""
    return sum([len(held.cpus) for held in facts.held_cells]) if facts.held_cells else 0


def _times(amount: int, ratio: float) -> int:
    return math.floor(amount * ratio + NOISE)


def _share(free: int, capacity: int) -> int:
    return free * WHOLE // capacity if capacity > 0 else 0


def capacities(facts: HostFacts, ratios: Ratios) -> tuple[int, int, int]:
    """All that may be promised there: memory in MiB, vcpus, disk in GiB."""
    cpu_ratio, ram_ratio, disk_ratio, reserved_memory_mb, reserved_disk_gb = ratios
    return (
        _times(max(0, facts.memory_mb - facts.reserved_memory_mb - reserved_memory_mb), ram_ratio),
        _times(facts.vcpus, cpu_ratio),
        _times(max(0, facts.disk_gb - facts.reserved_disk_gb - reserved_disk_gb), disk_ratio),
    )


def headroom_of(facts: HostFacts, ratios: Ratios) -> dict[str, int]:
    """The row of this host: a value for each of FIELDS."""
    ram_all, cpu_all, disk_all = capacities(facts, ratios)
    alone = dedicated(facts)
    shared, floating = facts.vcpus - alone, facts.vcpus_used - alone
    cpu = cpu_all - facts.vcpus_used
    cpu_free = min(cpu, _times(shared, ratios[0]) - floating)
    needed = math.ceil(floating / ratios[0] - NOISE) if ratios[0] > 0 else facts.vcpus
    ram, disk = ram_all - facts.ram_mb_used, disk_all - facts.disk_gb_used
    return {
        "ram": ram,
        "cpu": min(cpu_free, shared),
        "own_cpu": min(cpu, shared - needed),
        "disk": disk,
        "ram_share": _share(ram, ram_all),
        "cpu_share": _share(cpu_free, cpu_all),
        "disk_share": _share(disk, disk_all),
        "disk_all": disk_all,
    }
