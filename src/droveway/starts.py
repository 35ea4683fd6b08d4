"""The program's several starts: control (with the API) and agent. With main.py the only place that names drivers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvloop

from droveway.config import Config, HostConfig
from droveway.domain.faults import Busy, WrongConfiguration
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.ports.bus import AgentBus, ControlBus

log = structlog.get_logger("droveway")
REQUESTS_END_S = 2  # how long requests under way may go on once the program is told to stop
SERVING_ENDS_S = 5.0


def run(work: Coroutine[Any, Any, None], alive_fd: int | None) -> None:
    """Run until done, SIGTERM, SIGINT, or the supervisor is gone (its pipe reads the end)."""

    async def supervised() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)
        is_told = False

        def stop() -> None:
            """Once: a second cancellation would cut short what the first one has begun to put in order."""
            nonlocal is_told
            if alive_fd is not None:
                loop.remove_reader(alive_fd)  # a pipe that has ended stays readable
            if not is_told:
                is_told = True
                task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        if alive_fd is not None:
            loop.add_reader(alive_fd, stop)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    os.umask(0o077)  # whatever any start makes is for its own user: disks, images, credentials, the bus
    try:
        uvloop.run(supervised())  # a fifth less CPU for a migration than asyncio's own loop, for 3 MiB a process
    except ExceptionGroup as group:
        raise _first(group) from group


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The one sentence worth telling when several tasks ended together."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


# -- control ----------------------------------------------------------------------------------------------------------
async def control(config: Config) -> None:
    """Control and API in one process."""
    import uvicorn

    from droveway.api import uploads
    from droveway.api.app import Api, ApiSettings, build_app
    from droveway.api.pool import ThreadPool
    from droveway.control.control import Control
    from droveway.control.observer import LivenessSettings
    from droveway.control.saga import ControlSettings
    from droveway.domain.scheduling import Ratios
    from droveway.store.transaction import open_store

    _private_directories(config)
    listener = _listen(config.api.listen)
    clock, names = SystemClock(), SystemNames()
    store = await open_store(config.database_url, clock, names, log.warning)
    s = config.scheduler
    settings = ControlSettings(
        images_path=config.images_path, stop_grace_s=config.shutdown_timeout,
        ratios=Ratios(s.cpu_allocation_ratio, s.ram_allocation_ratio, s.disk_allocation_ratio),
    )  # fmt: skip
    membership = config.membership
    part = Control(store, _control_bus(config), clock, config.name, settings,
                   LivenessSettings(membership.report_interval_s, membership.service_down_time_s,
                                    config.hung_time_s, config.storm_hold_time),
                   tasks=_tasks(config.name, config.scripts_of_control))  # fmt: skip
    part.why.driver = config.bus
    _let_members_judge(part, config, clock, store)
    hashing, files = ThreadPool("hashing", 2, 128), ThreadPool("files", 2, 64)
    base_url = f"http://{config.api.listen}"
    api = Api(
        store, clock, names,
        ApiSettings(base_url, Path(config.images_path), region=config.api.region,
                    token_expiry_s=config.api.token_expiry_s, max_image_bytes=config.api.max_image_gib << 30),
        hashing=hashing, files=files, sagas_settled=part.sagas_settled, read_console=part.read_console,
        list_tasks=part.list_tasks, why=part.why, liveness_metrics=part.liveness_metrics,
    )  # fmt: skip
    try:
        await _first_admin(config, store, base_url)
        await uploads.recover(api)
        await part.start()
        store.owner = (part.name, part.epoch)
        _keep_the_loop_light()
        server = _Server(
            uvicorn.Config(build_app(api), http="httptools", lifespan="off", access_log=False, log_level="warning",
                           proxy_headers=False, timeout_keep_alive=30, timeout_graceful_shutdown=REQUESTS_END_S)
        )  # fmt: skip
        await _until_stopped(part, server, listener, api)
    finally:
        listener.close()
        await store.close()
        hashing.close()
        files.close()


def _control_bus(config: Config) -> ControlBus:
    link = _broker_link(config)
    if link is not None:
        from droveway.drivers.bus.broker import BrokerControlBus

        return BrokerControlBus(link, SystemNames())
    from droveway.drivers.bus.socket import SocketControlBus

    return SocketControlBus(config.bus_path)


def _agent_bus(config: Config) -> AgentBus:
    link = _broker_link(config)
    if link is not None:
        from droveway.drivers.bus.broker_agent import BrokerAgentBus

        return BrokerAgentBus(link, SystemChance(), SystemNames())
    from droveway.drivers.bus.socket import SocketAgentBus

    return SocketAgentBus(config.bus_path, SystemChance())


def _broker_link(config: Config) -> Any:
    """None when the bus needs no broker."""
    ping = {"ping_interval_s": config.ping_interval_s}
    if config.bus == "nats":
        from droveway.drivers.bus.nats_link import NatsLink, NatsSettings

        return NatsLink(msgspec.convert(msgspec.to_builtins(config.nats) | ping, NatsSettings), SystemChance())
    if config.bus == "rabbitmq":
        from droveway.drivers.bus.rabbitmq_link import RabbitLink, RabbitSettings

        return RabbitLink(msgspec.convert(msgspec.to_builtins(config.rabbitmq) | ping, RabbitSettings), SystemChance())
    return None


def _let_members_judge(part: Any, config: Config, clock: SystemClock, store: Any) -> None:
    """With a membership driver its word counts instead of the beats that arrive here."""
    from droveway.control.members import Members
    from droveway.groups import service_group

    group = service_group(config.membership, clock, store)
    if group is None:
        return
    is_db = config.membership.driver == "db"
    part.defer_to(getattr(group, "beat", None), stamps=not is_db)
    part.why.membership = config.membership.driver
    interval_s = min(1.0, config.membership.report_interval_s)
    part.members = part.why.members = Members(group, part.observer, clock, interval_s)


async def _be_a_member(config: Config, host: str) -> None:
    """An agent keeps its own membership where the driver wants one; for the others its beats do."""
    from droveway.groups import service_group
    from droveway.ports.membership import EVERY_SERVICE

    group = service_group(config.membership, SystemClock())
    if group is None:
        return
    await group.open(lambda _group, _member: None,
                     lambda is_up, sentence: log.info("membership server", is_up=is_up, because=sentence))  # fmt: skip
    try:
        await group.join(EVERY_SERVICE, f"{host}/nova-compute")
        await asyncio.Event().wait()
    finally:
        await group.close()


async def _until_stopped(part: Any, server: Any, listener: socket.socket, api: Any) -> None:
    """Control and the API, until this is cancelled or one of them ends; raises what that one raised."""
    running = asyncio.create_task(part.run(), name="control")
    serving = asyncio.create_task(server.serve([listener]), name="api")
    try:
        await asyncio.wait({running, serving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # The API first: requests under way are answered while whatever they wait for still runs.
        server.should_exit = True
        api.streams.end()
        await asyncio.wait({serving}, timeout=SERVING_ENDS_S)
        serving.cancel()
        has_failed = running.done()
        running.cancel()
        await asyncio.wait({serving, running})
        if not has_failed:
            with contextlib.suppress(Busy):
                await part.leave()
        for task in (running, serving):
            if not task.cancelled():
                task.result()


def _keep_the_loop_light() -> None:
    """Law 6. What is there now is never looked at again by the garbage collector, which otherwise holds every thread
    for tens of milliseconds after a long list; and a thread that works beside the loop gives way after 1 ms, not 5.
    Measured by tests/test_lag.py on a busy machine: 13 to 46 ms with both, 60 to 225 ms without."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
    sys.setswitchinterval(0.001)


def _private_directories(config: Config) -> None:
    try:
        Path(config.images_path).mkdir(parents=True, exist_ok=True)
        Path(config.images_path).chmod(0o700)
    except OSError as error:
        raise WrongConfiguration(
            f"state_path = {config.state_path} cannot be used: {error.filename}: {error.strerror}; "
            "make it a directory that this program may write"
        ) from None


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    # With the protocol named, asyncio switches Nagle off on each connection: without it every reply waits 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(1024)  # at once: until then another program may bind the same port
    except OSError as error:
        raise WrongConfiguration(
            f"api.listen = {address} cannot be used: {error.strerror}; stop what listens there, or choose another port"
        ) from None
    return listener


async def _first_admin(config: Config, store: Any, base_url: str) -> None:
    """An empty store gets its domain, roles, flavors and an admin whose random password stands in clouds.yaml."""
    from droveway.api.passwords import hash_password
    from droveway.store import flavors, identity

    kept = Path(config.state_path) / "admin-password"
    if not kept.exists():
        # Written before the user is made: a crash in between leaves a password that fits.
        temporary = kept.with_suffix(".new")
        temporary.write_text(SystemNames().secret())
        temporary.rename(kept)
    password = kept.read_text()
    hashed = await asyncio.to_thread(hash_password, password)
    await store.run(identity.seed, hashed)
    await store.run(flavors.seed)
    if config.api.clouds_yaml:
        _write_clouds_yaml(Path(config.api.clouds_yaml), base_url, config.api.region, password)


def _write_clouds_yaml(path: Path, base_url: str, region: str, password: str) -> None:
    text = f"""clouds:
  droveway:
    auth:
      auth_url: {base_url}/identity/v3
      username: admin
      password: {password}
      project_name: admin
      user_domain_name: Default
      project_domain_name: Default
    region_name: {region}
    identity_api_version: 3
"""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_text(text)
        temporary.rename(path)
    except OSError as error:
        raise WrongConfiguration(f"api.clouds_yaml = {path} cannot be written: {error.strerror}") from None


def _Server(settings: Any) -> Any:  # noqa: N802 - stands where the class would, which cannot be named before its import
    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn without its own signal handling: run() above decides when to stop."""

        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            yield

    return Server(settings)


# -- agent ------------------------------------------------------------------------------------------------------------
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
    from droveway import heart_start
    from droveway.agents.compute import ComputeAgent
    from droveway.agents.fences import FileFences
    from droveway.agents.pulse import LoopWatch
    from droveway.drivers.hypervisor.libvirt import LibvirtHypervisor, LibvirtSettings

    state = Path(host.host_state_path)
    lock = heart_start.only_one(state / "agent.lock", f"agent of host {host.name}")
    settings = LibvirtSettings(host=host.name, instances_path=host.instances_path,
                               admissions_path=str(state / "admissions"), peer_uri=host.peer_uri,
                               data_uri=host.data_uri, uri=host.libvirt_uri)  # fmt: skip
    hypervisor = LibvirtHypervisor(settings, SystemClock())
    boot_id = heart_start.boot_id(host)
    pulse = heart_start.pulse(config, host, boot_id, LoopWatch(SystemClock()))
    agent = ComputeAgent(host.name, boot_id, f"{socket.gethostname()} pid {os.getpid()}", hypervisor,
                         _agent_bus(config), FileFences(state / "fences.log"), SystemClock(),
                         tasks=_tasks(host.name, config.scripts_on(host.name), hypervisor), pulse=pulse)  # fmt: skip
    try:
        await agent.run()
    finally:
        os.close(lock)


def _tasks(host: str, scripts: Sequence[Any], *owners: object) -> Any:
    """What is marked in these, and the operator's scripts."""
    from droveway.periodic.tasks import PeriodicTasks

    tasks = PeriodicTasks(SystemClock(), SystemChance())
    tasks.collect(*owners)
    tasks.add_scripts(scripts, host)
    return tasks


def _simulated(config: Config, hosts: list[HostConfig]) -> list[Coroutine[Any, Any, None]]:
    from droveway import heart_start
    from droveway.agents.compute import ComputeAgent
    from droveway.agents.fences import FileFences
    from droveway.agents.pulse import LoopWatch
    from droveway.drivers.hypervisor.simulated import Fleet, SimulatedHypervisor

    fleet = Fleet(SystemClock(), SystemChance())
    for host in hosts:
        fleet.add_host(host.name)
    _keep_disks(fleet, Path(config.state_path) / "simulated-disks.json")
    boot_id, watch = SystemNames().uuid(), LoopWatch(SystemClock())
    works = []
    for host in hosts:
        state = Path(host.host_state_path or f"{config.state_path}/hosts/{host.name}")
        agent = ComputeAgent(host.name, boot_id, f"{socket.gethostname()} pid {os.getpid()}",
                             SimulatedHypervisor(fleet, host.name), _agent_bus(config),
                             FileFences(state / "fences.log"), SystemClock(),
                             tasks=_tasks(host.name, config.scripts_on(host.name)),
                             pulse=heart_start.pulse(config, host, boot_id, watch))  # fmt: skip
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
