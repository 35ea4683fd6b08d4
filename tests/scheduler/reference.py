"""Placing again, one host after the other and without columns: slow, and written from the rules alone. What the product
says is compared with it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from droveway.domain.placement import GroupPolicy, HostFacts, PlacementRequest, PlacementSettings

Rule = Callable[[PlacementRequest, HostFacts, PlacementSettings], bool]


def _aggregate_values(host: HostFacts, key: str) -> list[str]:
    return [word.strip() for value in host.aggregates.get(key, ()) for word in value.split(",")]


def _capabilities(ask: PlacementRequest, host: HostFacts, _s: PlacementSettings) -> bool:
    wanted = ask.extra_specs.get("capabilities:cpu_info:features")
    trait = ask.extra_specs.get("trait:HW_CPU_X86_AVX2")
    if trait is not None and ("avx2" in host.cpu_features) != (trait == "required"):
        return False
    return wanted is None or all(word in host.cpu_features for word in wanted.split()[1:])


def _aggregates(ask: PlacementRequest, host: HostFacts, _s: PlacementSettings) -> bool:
    specs = {
        key.removeprefix("aggregate_instance_extra_specs:"): value
        for key, value in ask.extra_specs.items()
        if key.startswith("aggregate_instance_extra_specs:") or ":" not in key
    }
    return all(value in _aggregate_values(host, key) for key, value in specs.items())


def _project(ask: PlacementRequest, host: HostFacts, _s: PlacementSettings) -> bool:
    mine = [key for key in host.aggregates if key.startswith("filter_tenant_id")]
    return not mine or any(ask.project_id in _aggregate_values(host, key) for key in mine)


def _affinity(ask: PlacementRequest, host: HostFacts, _s: PlacementSettings) -> bool:
    group = ask.group
    if group is None or group.policy is not GroupPolicy.AFFINITY or sum(group.on_hosts.values()) == 0:
        return True
    return group.on_hosts.get(host.name, 0) > 0 and host.name not in group.moving


def _anti_affinity(ask: PlacementRequest, host: HostFacts, _s: PlacementSettings) -> bool:
    group = ask.group
    if group is None or group.policy is not GroupPolicy.ANTI_AFFINITY:
        return True
    return group.on_hosts.get(host.name, 0) < group.max_per_host


def _ram(ask: PlacementRequest, host: HostFacts, s: PlacementSettings) -> bool:
    usable = max(0, host.memory_mb - host.reserved_memory_mb - s.reserved_memory_mb)
    return ask.ram_mb == 0 or host.ram_mb_used + ask.ram_mb <= math.floor(usable * s.ram_ratio + 1e-9)


def _cpu(ask: PlacementRequest, host: HostFacts, s: PlacementSettings) -> bool:
    alone = sum(len(cell.cpus) for cell in host.held_cells)
    floating = host.vcpus_used - alone
    if host.vcpus_used + ask.vcpus > math.floor(host.vcpus * s.cpu_ratio + 1e-9):
        return False
    if ask.numa is not None and ask.numa.pinned:
        left = host.vcpus - alone - ask.vcpus
        return left >= 0 and floating <= left * s.cpu_ratio + 1e-9
    shared = host.vcpus - alone
    return ask.vcpus <= shared and floating + ask.vcpus <= math.floor(shared * s.cpu_ratio + 1e-9)


def _disk(ask: PlacementRequest, host: HostFacts, s: PlacementSettings) -> bool:
    usable = max(0, host.disk_gb - host.reserved_disk_gb - s.reserved_disk_gb)
    return ask.disk_gb == 0 or host.disk_gb_used + ask.disk_gb <= math.floor(usable * s.disk_ratio + 1e-9)


def _numa(ask: PlacementRequest, host: HostFacts, _s: PlacementSettings) -> bool:
    """Every way of giving the nodes cells is tried."""
    if ask.numa is None:
        return True
    count = ask.numa.nodes
    if count > ask.vcpus:
        return False
    nodes = [
        (ask.vcpus // count + (i < ask.vcpus % count), ask.ram_mb // count + (i < ask.ram_mb % count))
        for i in range(count)
    ]

    def fits(node: tuple[int, int], cell_id: int) -> bool:
        cell = next(one for one in host.cells if one.id == cell_id)
        held = [one for one in host.held_cells if one.cell == cell_id]
        free = len(set(cell.cpus) - {cpu for one in held for cpu in one.cpus})
        if ask.numa is not None and ask.numa.pinned:
            free -= max((one.vcpus for one in held if not one.cpus), default=0)
        return node[0] <= free and node[1] <= max(0, cell.memory_mb - sum(one.memory_mb for one in held))

    return any(all(map(fits, nodes, way)) for way in itertools.permutations([cell.id for cell in host.cells], count))


RULES: dict[str, Rule] = {
    "asked": lambda ask, host, _s: ask.only in (None, host.name),
    "never": lambda ask, host, _s: host.name not in ask.never,
    "failed": lambda ask, host, _s: host.name not in ask.failed,
    "zone": lambda ask, host, _s: ask.zone in (None, host.zone),
    "up": lambda _ask, host, _s: host.is_up,
    "enabled": lambda _ask, host, _s: not host.disabled,
    "report_accepted": lambda _ask, host, _s: host.refused == "",
    "answers": lambda _ask, host, _s: host.hypervisor_up,
    "store": lambda _ask, host, _s: not host.store_trouble,
    "hypervisor": lambda ask, host, _s: (
        ask.hypervisor_type is None
        or host.hypervisor_type.lower() == ask.hypervisor_type.lower()
        or (ask.hypervisor_type.lower(), host.hypervisor_type.lower()) == ("qemu", "kvm")
    ),
    "version": lambda ask, host, _s: host.hypervisor_version >= ask.least_hypervisor_version,
    "architecture": lambda ask, host, _s: ask.architecture in (None, host.architecture),
    "machine": lambda ask, host, _s: (
        ask.machine_type is None or not host.machine_types or ask.machine_type in host.machine_types
    ),
    "firmware": lambda ask, host, _s: ask.firmware is None or ask.firmware in host.firmwares,
    "root_pool": lambda ask, host, _s: ask.root_pool in ("", host.root_pool),
    "capabilities": _capabilities,
    "aggregates": _aggregates,
    "project": _project,
    "same_host": lambda ask, host, _s: ask.same_host is None or host.name in ask.same_host,
    "different_host": lambda ask, host, _s: host.name not in ask.different_host,
    "affinity": _affinity,
    "anti_affinity": _anti_affinity,
    "ram": _ram,
    "cpu": _cpu,
    "disk": _disk,
    "numa": _numa,
}


def first_failing(ask: PlacementRequest, host: HostFacts, settings: PlacementSettings) -> str | None:
    """The name of the first rule that this host fails."""
    return next((name for name, rule in RULES.items() if not rule(ask, host, settings)), None)
