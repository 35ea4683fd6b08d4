"""The start of a service of one real host, or of several simulated ones."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog

from droveway.config.drivers import HYPERVISORS, NETWORKS, STORAGES
from droveway.config.file import Config
from droveway.config.hosts import HostConfig
from droveway.domain.faults import WrongConfiguration
from droveway.domain.service_kinds import BACKUP, COMPUTE, NETWORK, SCRIPTS, VOLUME, row_of, split
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.ports.hypervisor import MadeHypervisor
from droveway.ports.images import Images
from droveway.process import disk_identity, host_certificate
from droveway.process.buses import agent_bus
from droveway.process.load import load

log = structlog.get_logger("droveway")
NETWORKS_RUN = Path("/run/droveway-network")  # emptied by a reboot, as are the devices and processes it is about


async def agents(config: Config, names: tuple[str, ...], service: str) -> None:
    """That service of one real host, or of several simulated ones that share one imagined world."""
    hosts = [config.host_named(name) for name in names]
    if len(hosts) > 1 and not all(host.shares_a_process for host in hosts):
        raise WrongConfiguration(f"one process is a service of one real host; it was given {', '.join(names)}")
    works = _STARTS[split(service)[0]](config, hosts, service)
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(_be_a_member(config, name, service))
        for host in hosts:
            if service == host.services[0]:  # one of its services renews the certificate of the host
                group.create_task(host_certificate.keep(host, SystemClock(), SystemChance()))
        for work in works:
            group.create_task(work)


def _compute(config: Config, hosts: list[HostConfig], _service: str) -> list[Coroutine[Any, Any, None]]:
    from droveway.agents.pulse import LoopWatch

    driver = HYPERVISORS[hosts[0].hypervisor]
    for host in hosts:
        disk_identity.ensure(host)
    made = load(driver.start)(config, hosts, lambda name: _images(config, name))
    watch, is_alone = LoopWatch(SystemClock()), not driver.hosts_share_a_process
    return [_run_compute(config, host, one, watch, is_alone=is_alone) for host, one in zip(hosts, made, strict=True)]


def directory(config: Config, host: HostConfig, service: str) -> Path:
    """Where that service alone keeps what it must not lose, its fences among them. Compute's is that of its host: so it
    was before a host had several, and an agent of that release must not run beside this one."""
    place = Path(host.host_state_path or f"{config.state_path}/hosts/{host.name}")
    return place if service == COMPUTE else place / service


def _address() -> str:
    return f"{socket.gethostname()} pid {os.getpid()}"


async def _run_compute(config: Config, host: HostConfig, made: MadeHypervisor, watch: Any, *, is_alone: bool) -> None:
    """`is_alone`: the process is of this host, and no second one may be."""
    from droveway.agents.compute import ComputeAgent
    from droveway.agents.fences import FileFences
    from droveway.process import heart

    state = directory(config, host, COMPUTE)
    lock = heart.only_one(state / "agent.lock", f"agent of host {host.name}") if is_alone else None
    boot_id = heart.boot_id(host)
    agent = ComputeAgent(
        host.name,
        boot_id,
        _address(),
        made.hypervisor,
        agent_bus(config),
        FileFences(state / "fences.log"),
        SystemClock(),
        pulse=heart.pulse(config, host, boot_id, watch, COMPUTE),
        tasks=periodic_tasks(host.name, config.scripts_on(host.name, COMPUTE), made.hypervisor),
        guests_boot_id=made.guests_boot_id,
        consoles=_consoles(config, host, made),
    )
    try:
        await agent.run()
    finally:
        if lock is not None:
            os.close(lock)


def _consoles(config: Config, host: HostConfig, made: MadeHypervisor) -> Any:
    from droveway.agents.consoles import Consoles
    from droveway.drivers.consoles.websocket import WebsocketUplinks

    socket_path = str(config.consoles_path) if config.has_console_socket else ""
    return Consoles(host.name, made.hypervisor, WebsocketUplinks(host.name, socket_path, host.tls_path))


def _images(config: Config, host: str) -> Images:
    """Fetched from APIs, or seen under a path, as control says with each."""
    from droveway.drivers.images.by_way import ImagesByTransport
    from droveway.drivers.images.http import HttpImages
    from droveway.drivers.images.shared_path import SharedPathImages

    tls = (config.image_cache.tls_ca, config.host_named(host).tls_path)
    fetched = HttpImages(host, SystemNames().secret(), SystemClock(), SystemChance(), *tls)
    return ImagesByTransport(SharedPathImages(host), fetched)


def periodic_tasks(host: str, scripts: Sequence[Any], *owners: object) -> Any:
    """What is marked in these, and the operator's scripts."""
    from droveway.periodic.tasks import PeriodicTasks

    tasks = PeriodicTasks(SystemClock(), SystemChance())
    tasks.collect(*owners)
    tasks.add_scripts(scripts, host)
    return tasks


def _scripts(config: Config, hosts: list[HostConfig], _service: str) -> list[Coroutine[Any, Any, None]]:
    from droveway.agents.pulse import LoopWatch
    from droveway.process import heart

    watch = LoopWatch(SystemClock())
    return [_run_scripts(config, host, heart.boot_id(host), watch) for host in hosts]


async def _run_scripts(config: Config, host: HostConfig, boot_id: str, watch: Any) -> None:
    from droveway.agents.scripts import ScriptsAgent
    from droveway.process import heart

    lock = heart.only_one(directory(config, host, SCRIPTS) / "agent.lock", f"{SCRIPTS} of host {host.name}")
    tasks = periodic_tasks(host.name, config.scripts_on(host.name, SCRIPTS))
    try:
        await ScriptsAgent(
            host.name,
            boot_id,
            _address(),
            tasks,
            agent_bus(config),
            SystemClock(),
            heart.pulse(config, host, boot_id, watch, SCRIPTS),
        ).run()
    finally:
        os.close(lock)


def _network(config: Config, hosts: list[HostConfig], _service: str) -> list[Coroutine[Any, Any, None]]:
    from droveway.agents.pulse import LoopWatch
    from droveway.process import heart

    watch = LoopWatch(SystemClock())
    return [_run_network(config, host, heart.boot_id(host), watch) for host in hosts]


async def _run_network(config: Config, host: HostConfig, boot_id: str, watch: Any) -> None:
    from droveway.agents.kept_plan import FileKeptPlan
    from droveway.agents.metadata.kept import FileKeptGuests
    from droveway.agents.metadata.server import MetadataServer
    from droveway.agents.network import HostFacts, NetworkAgent
    from droveway.process import heart

    state = directory(config, host, NETWORK)
    lock = heart.only_one(state / "agent.lock", f"{NETWORK} of host {host.name}")
    driver, run = NETWORKS[host.network], NETWORKS_RUN / host.name
    network = load(driver.start)(host, run)
    try:
        await NetworkAgent(
            host.name,
            boot_id,
            _address(),
            network,
            agent_bus(config),
            FileKeptPlan(state / "networks.json"),
            SystemClock(),
            HostFacts(host.tunnel_address, tuple(one.partition(":")[0] for one in host.physical_networks)),
            _in_thread,
            heart.pulse(config, host, boot_id, watch, NETWORK),
            FileKeptGuests(state / "guests"),
            MetadataServer(run, host.name, network) if driver.has_guests else None,
        ).run()
    finally:
        os.close(lock)


def _volume(config: Config, hosts: list[HostConfig], service: str) -> list[Coroutine[Any, Any, None]]:
    from droveway.agents.pulse import LoopWatch
    from droveway.process import heart

    watch = LoopWatch(SystemClock())
    return [_run_volume(config, host, service, heart.boot_id(host), watch) for host in hosts]


async def _run_volume(config: Config, host: HostConfig, service: str, boot_id: str, watch: Any) -> None:
    from droveway.agents.fences import FileFences
    from droveway.agents.volume import VolumeAgent
    from droveway.process import heart

    state, backend = directory(config, host, service), host.backend_named(split(service)[1])
    lock = heart.only_one(state / "agent.lock", f"{service} of host {host.name}")
    storage = load(STORAGES[backend.driver].start)(backend, host, state, _images(config, host.name))
    try:
        await VolumeAgent(
            host.name,
            service,
            boot_id,
            _address(),
            storage,
            agent_bus(config),
            FileFences(state / "fences.log"),
            SystemClock(),
            backend.settings,
            pulse=heart.pulse(config, host, boot_id, watch, service),
            backups=_backup_chunks(config, host),
        ).run()
    finally:
        os.close(lock)


def _backup_chunks(config: Config, host: HostConfig) -> Any:
    """None where the configuration names no store of backups."""
    from droveway.agents.backup_chunks import BackupChunks
    from droveway.process.backups import objects

    found = objects(config.backup)
    return None if found is None else BackupChunks(found, SystemClock(), host.name)


def _backup(config: Config, hosts: list[HostConfig], service: str) -> list[Coroutine[Any, Any, None]]:
    from droveway.agents.pulse import LoopWatch
    from droveway.process import heart

    watch = LoopWatch(SystemClock())
    return [_run_backup(config, host, service, heart.boot_id(host), watch) for host in hosts]


async def _run_backup(config: Config, host: HostConfig, service: str, boot_id: str, watch: Any) -> None:
    from droveway.agents.backup import BackupAgent
    from droveway.agents.fences import FileFences
    from droveway.process import heart

    state = directory(config, host, service)
    lock = heart.only_one(state / "agent.lock", f"{service} of host {host.name}")
    try:
        await BackupAgent(
            host.name,
            boot_id,
            _address(),
            _backup_chunks(config, host),
            agent_bus(config),
            FileFences(state / "fences.log"),
            SystemClock(),
            pulse=heart.pulse(config, host, boot_id, watch, service),
        ).run()
    finally:
        os.close(lock)


async def _in_thread(call: Callable[[], None]) -> None:
    await asyncio.to_thread(call)


# How each service of a host is started.
_STARTS: dict[str, Callable[[Config, list[HostConfig], str], list[Coroutine[Any, Any, None]]]] = {
    COMPUTE: _compute,
    SCRIPTS: _scripts,
    NETWORK: _network,
    VOLUME: _volume,
    BACKUP: _backup,
}


async def _be_a_member(config: Config, host: str, service: str) -> None:
    """An agent keeps its own membership where the driver wants one; for the others its beats do."""
    from droveway.ports.membership import EVERY_SERVICE
    from droveway.process.membership import service_group

    group = service_group(config.membership, SystemClock())
    if group is None:
        return
    await group.open(
        lambda _group, _member: None,
        lambda is_up, reason: log.info("membership server", is_up=is_up, because=reason),
    )
    try:
        await group.join(EVERY_SERVICE, "/".join(row_of(host, service)))
        await asyncio.Event().wait()
    finally:
        await group.close()
