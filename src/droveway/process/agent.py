"""The start of an agent: of one real host, or of several simulated ones."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from droveway.config.file import Config, HostConfig
from droveway.domain.faults import WrongConfiguration
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.process.buses import agent_bus

log = structlog.get_logger("droveway")


async def agents(config: Config, names: tuple[str, ...]) -> None:
    """The agent of one real host, or those of several simulated ones that share one imagined world."""
    hosts = [config.host_named(name) for name in names]
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(_be_a_member(config, name))
        if all(host.hypervisor == "simulated" for host in hosts):
            for work in _simulated(config, hosts):
                group.create_task(work)
        elif len(hosts) == 1:
            group.create_task(_real(config, hosts[0]))
        else:
            raise WrongConfiguration(f"one process runs the agent of one libvirt host; it was given {', '.join(names)}")


async def _real(config: Config, host: HostConfig) -> None:
    from droveway.agents.compute import ComputeAgent
    from droveway.agents.fences import FileFences
    from droveway.agents.pulse import LoopWatch
    from droveway.drivers.hypervisor.libvirt.driver import LibvirtHypervisor, LibvirtSettings
    from droveway.process import heart

    state = Path(host.host_state_path)
    lock = heart.only_one(state / "agent.lock", f"agent of host {host.name}")
    settings = LibvirtSettings(
        host=host.name,
        instances_path=host.instances_path,
        admissions_path=str(state / "admissions"),
        peer_uri=host.peer_uri,
        data_uri=host.data_uri,
        uri=host.libvirt_uri,
        reserved_memory_mb=host.reserved_host_memory_mb,
        reserved_disk_gb=host.reserved_host_disk_gb,
    )
    hypervisor = LibvirtHypervisor(settings, SystemClock())
    boot_id = heart.boot_id(host)
    pulse = heart.pulse(config, host, boot_id, LoopWatch(SystemClock()))
    agent = ComputeAgent(
        host.name,
        boot_id,
        f"{socket.gethostname()} pid {os.getpid()}",
        hypervisor,
        agent_bus(config),
        FileFences(state / "fences.log"),
        SystemClock(),
        pulse=pulse,
        tasks=periodic_tasks(host.name, config.scripts_on(host.name), hypervisor),
    )
    try:
        await agent.run()
    finally:
        os.close(lock)


def periodic_tasks(host: str, scripts: Sequence[Any], *owners: object) -> Any:
    """What is marked in these, and the operator's scripts."""
    from droveway.periodic.tasks import PeriodicTasks

    tasks = PeriodicTasks(SystemClock(), SystemChance())
    tasks.collect(*owners)
    tasks.add_scripts(scripts, host)
    return tasks


def _simulated(config: Config, hosts: list[HostConfig]) -> list[Coroutine[Any, Any, None]]:
    from droveway.agents.compute import ComputeAgent
    from droveway.agents.fences import FileFences
    from droveway.agents.pulse import LoopWatch
    from droveway.drivers.hypervisor.simulated.driver import Fleet, SimulatedHypervisor
    from droveway.process import heart

    fleet = Fleet(SystemClock(), SystemChance())
    for host in hosts:
        fleet.add_host(host.name)
    _keep_disks(fleet, Path(config.state_path) / "simulated-disks.json")
    boot_id, watch = SystemNames().uuid(), LoopWatch(SystemClock())
    works = []
    for host in hosts:
        state = Path(host.host_state_path or f"{config.state_path}/hosts/{host.name}")
        agent = ComputeAgent(
            host.name,
            boot_id,
            f"{socket.gethostname()} pid {os.getpid()}",
            SimulatedHypervisor(fleet, host.name),
            agent_bus(config),
            FileFences(state / "fences.log"),
            SystemClock(),
            tasks=periodic_tasks(host.name, config.scripts_on(host.name)),
            pulse=heart.pulse(config, host, boot_id, watch),
        )
        works.append(agent.run())
    return works


def _keep_disks(fleet: Any, path: Path) -> None:
    """Simulated hosts lose their guests when the process ends, as in a power failure; the disks are still there."""
    store = fleet.stores["shared"]
    if path.exists():
        store.disks = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
        store.used_gb = sum(store.disks.values())
    waiting: list[asyncio.TimerHandle] = []

    def save() -> None:
        waiting.clear()
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(store.disks))
        temporary.rename(path)

    def changed() -> None:
        if not waiting:  # what changes together is written together
            waiting.append(asyncio.get_running_loop().call_later(0.1, save))

    fleet.disks_changed = changed


async def _be_a_member(config: Config, host: str) -> None:
    """An agent keeps its own membership where the driver wants one; for the others its beats do."""
    from droveway.ports.membership import EVERY_SERVICE
    from droveway.process.membership import service_group

    group = service_group(config.membership, SystemClock())
    if group is None:
        return
    await group.open(
        lambda _group, _member: None,
        lambda is_up, sentence: log.info("membership server", is_up=is_up, because=sentence),
    )
    try:
        await group.join(EVERY_SERVICE, f"{host}/nova-compute")
        await asyncio.Event().wait()
    finally:
        await group.close()
