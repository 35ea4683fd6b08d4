"""Hosts in a store, without agents: for tests of what is decided on them."""

from __future__ import annotations

import msgspec

from droveway.control.scheduling.placer import Decision, Placer
from droveway.control.scheduling.requests import to_boot
from droveway.domain.liveness import State
from droveway.domain.model import Flavor, Resources
from droveway.domain.placement import HostFacts, NumaCell
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.compute import instances
from droveway.store.compute.instances import NewInstance
from droveway.store.engine.transaction import MemoryStore, Tx
from droveway.store.fleet import host_reports, hosts, services
from droveway.store.fleet.services import Verdict
from tests.store import databases


def memory_store() -> MemoryStore:
    return databases.with_schema(MemoryStore(SystemClock(), SystemNames()))


def resources(name: str, memory_mb: int = 4096, vcpus: int = 4, cells: int = 0) -> Resources:
    return Resources(
        "simulated",
        1,
        name,
        vcpus,
        memory_mb,
        memory_mb,
        100,
        100,
        cells=tuple(
            NumaCell(n, tuple(range(n * vcpus // cells, (n + 1) * vcpus // cells)), memory_mb // cells)
            for n in range(cells)
        ),
    )


def add_host(tx: Tx, name: str, memory_mb: int = 4096, vcpus: int = 4, cells: int = 0) -> None:
    """Up, enabled, with an accepted report."""
    hosts.join(tx, name, "nova")
    services.register(tx, name, hosts.COMPUTE, "nova")
    services.record_verdicts(tx, [Verdict(name, hosts.COMPUTE, State.ALIVE, "it answers", tx.now_us)])
    host_reports.report(tx, name, msgspec.to_builtins(resources(name, memory_mb, vcpus, cells)), True, "")


def flavor(ram_mb: int = 1024, vcpus: int = 1, **extra_specs: str) -> Flavor:
    return Flavor("1", "f", vcpus, ram_mb, 1, extra_specs=extra_specs)


def create(tx: Tx, wanted: Flavor | None = None, group: str | None = None) -> str:
    """An instance that wants a host."""
    new = NewInstance("p", "u", "g", "g", wanted or flavor(), None, server_group_id=group)
    return instances.create(tx, new)


def boot(tx: Tx, placer: Placer, instance_id: str) -> Decision:
    """What the boot saga writes when it chooses."""
    decision = placer.choose(tx, to_boot(tx, instances.get(tx, instance_id), {}))
    if decision.host is not None:
        held = msgspec.to_builtins(decision.cells) or None
        instances.set_(tx, instance_id, host=decision.host, held_cells=held)
    return decision


def release(tx: Tx, instance_id: str) -> None:
    host = instances.get(tx, instance_id)["host"]
    instances.set_(tx, instance_id, host=None, held_cells=None)
    hosts.touch(tx, host)


def beyond(facts: HostFacts) -> bool:
    """More is held there than the default ratios allow."""
    return facts.ram_mb_used > facts.memory_mb or facts.vcpus_used > 16 * facts.vcpus
