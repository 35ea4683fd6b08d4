"""One simulated world: hosts and their agents, controls, the database and the network between them; and the processes
that die in it."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from sqlalchemy import insert

from droveway.agents.compute import ComputeAgent
from droveway.agents.fences import Fence
from droveway.control.control import Control
from droveway.control.observer import LivenessSettings
from droveway.control.runner import Runner
from droveway.control.saga import ControlSettings, Saga
from droveway.control.sagas import STORIES
from droveway.domain.faults import Busy, Stale
from droveway.domain.model import SagaKind
from droveway.domain.scheduling import Ratios
from droveway.drivers.hypervisor.simulated import Durations, Fleet, SimulatedHypervisor
from droveway.simulation.database import Database, Door
from droveway.simulation.loop import SimChance, SimClock, SimLoop, SimNames
from droveway.simulation.network import AgentEnd, ControlEnd, Network
from droveway.store.schema import images
from droveway.store.transaction import Tx

RATIOS = Ratios(cpu=4.0, ram=1.0, disk=1.0)
SETTINGS = ControlSettings(images_path="/images", ratios=RATIOS, stop_grace_s=5.0, command_timeout_s=3.0,
                           long_command_timeout_s=12.0, patience_s=10.0)  # fmt: skip
LIVENESS = LivenessSettings(report_interval_s=2.0, service_down_time_s=7.0)
DURATIONS = Durations(prepare=(0.1, 2.0), start=(0.1, 1.0), power_off=(0.1, 4.0), remove=(0.02, 0.5),
                      arrive=(0.05, 0.5), copy=(0.3, 6.0), switch=(0.01, 0.3), tail=(0.01, 0.5))  # fmt: skip
IMAGE_ID = "5eed0000-0000-4000-8000-000000000001"
RESTART_S = 1.0


class Parts(msgspec.Struct, frozen=True):
    """What the world is built from. A mutant is another part: a subclass, or a story with one step changed."""

    runner: type[Runner] = Runner
    agent: type[ComputeAgent] = ComputeAgent
    stories: dict[SagaKind, Saga] = msgspec.field(default_factory=lambda: STORIES)


class Trace:
    """What happened, in order: hashed always, kept only when somebody will read it."""

    def __init__(self, loop: SimLoop, keep: bool) -> None:
        self._loop = loop
        self._hash = hashlib.sha256()
        self.kept: list[str] | None = [] if keep else None

    def note(self, line: str) -> None:
        text = f"{self._loop.time():.6f} {line}"
        self._hash.update(text.encode())
        if self.kept is not None:
            self.kept.append(text)

    def digest(self) -> str:
        return self._hash.hexdigest()


class Process:
    """A program that can die at any await: its tasks are cancelled where they stand, its doors have been shut before,
    so that whatever it still tries while dying reaches nobody."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.is_alive = True
        self._tasks: dict[asyncio.Task[None], None] = {}

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.world.loop.create_task(work, name=self.name)
        if not self.is_alive:
            task.cancel()
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None and self.is_alive:
            self.world.broken(f"{self.name} failed: {error!r} {getattr(error, 'exceptions', '')}")

    def kill(self) -> None:
        self.is_alive = False
        self.world.dying.append(self)
        for task in list(self._tasks):
            task.cancel()

    @property
    def running(self) -> list[str]:
        return [task.get_name() for task in self._tasks]


class ControlProcess(Process):
    """One life of one control."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        clock = SimClock(world.loop, world.rng)
        self.door = Door(world.database, clock)
        self.bus = ControlEnd(world.network, name)
        self.control = Control(self.door, self.bus, clock, name, SETTINGS, LIVENESS, stories=world.parts.stories,
                               runner=world.parts.runner)  # fmt: skip
        self.spawn(self._run(clock))

    async def _run(self, clock: SimClock) -> None:
        while True:
            try:
                await self.control.start()
                break
            except Busy:  # the process would exit and be started again by its supervisor
                await clock.sleep(RESTART_S)
        try:
            await self.control.run()
        except* Stale:
            # The last write of the life before reached the database after this one had begun: it stands down, as it
            # should, and its supervisor starts it again.
            self.world.counts["controls that stood down"] += 1
            self.world.loop.call_later(RESTART_S, self.world.restart_control, self)

    def kill(self) -> None:
        self.door.is_open = False
        self.bus.shut()
        super().kill()


class AgentProcess(Process):
    """One life of one agent."""

    def __init__(self, world: World, host: Host) -> None:
        super().__init__(world, f"agent of {host.name}")
        self.bus = AgentEnd(world.network, host.name, self.spawn)
        self.hypervisor = SimulatedHypervisor(world.fleet, host.name)
        agent = world.parts.agent(host.name, host.boot_id, host.name, self.hypervisor, self.bus, host.fences,
                                  host.clock, host.off_loop)  # fmt: skip
        self.spawn(agent.run())

    def kill(self, *, silently: bool = False) -> None:
        self.bus.shut(silently=silently)
        super().kill()


class DiskFences:
    """A host's fences: what was written is there after a crash, what was only noted may not be."""

    def __init__(self) -> None:
        self._durable: dict[str, Fence] = {}
        self._noted: dict[str, Fence] = {}

    def read(self, instance_id: str) -> Fence:
        return self._noted.get(instance_id) or self._durable.get(instance_id, Fence())

    def write(self, instance_id: str, fence: Fence) -> None:
        self._durable[instance_id] = fence
        self._noted.pop(instance_id, None)

    def note(self, instance_id: str, fence: Fence) -> None:
        self._noted[instance_id] = fence

    def crash(self) -> None:
        self._noted.clear()


class Host:
    """A machine: boots and crashes, and carries an agent."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        world.fleet.add_host(name, vcpus=8, memory_mb=world.rng.choice([12288, 16384, 24576]), disk_gb=60,
                             cpu_level=world.rng.choice(world.cpu_levels))  # fmt: skip
        self.fences = DiskFences()
        self.boot_id, self.clock = world.names.uuid(), SimClock(world.loop, world.rng)
        self.is_on = True
        self.agent: AgentProcess | None = None

    async def off_loop(self, call: Callable[[], None]) -> None:
        """An fsync takes a moment, before and after it is on the disk."""
        await asyncio.sleep(0.001)
        call()

    def start_agent(self) -> None:
        if self.is_on and self.agent is None:
            self.agent = AgentProcess(self.world, self)

    def kill_agent(self, *, silently: bool = False) -> None:
        if self.agent is not None:
            self.agent.kill(silently=silently)
            self.agent = None

    def crash(self) -> None:
        self.is_on = False
        self.kill_agent(silently=True)
        self.fences.crash()
        self.world.fleet.crash_host(self.name)

    def boot(self) -> None:
        if not self.is_on:
            self.is_on = True
            self.boot_id, self.clock = self.world.names.uuid(), SimClock(self.world.loop, self.world.rng)
            self.world.fleet.boot_host(self.name)
        self.start_agent()


class World:
    """Everything of one seed."""

    def __init__(self, loop: SimLoop, seed: int, parts: Parts, *, keep_trace: bool) -> None:
        self.loop, self.seed, self.parts = loop, seed, parts
        self.rng = random.Random(seed)
        self.names = SimNames(random.Random(seed + 1_000_000_007))
        self.trace = Trace(loop, keep_trace)
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.crashed_guests: set[str] = set()
        self.dying: list[Process] = []
        self.database = Database(loop, self.rng, self.names, RATIOS, self.trace.note)
        self.network = Network(loop, self.rng, self.trace.note)
        self.clock = SimClock(loop, self.rng)
        self.fleet = Fleet(self.clock, SimChance(self.rng), DURATIONS)
        self.cpu_levels = self.rng.choice([(1,), (1,), (1,), (1, 1, 1, 2)])
        self.hosts = {name: Host(self, name) for name in (f"h{i}" for i in range(self.rng.randint(3, 5)))}
        self.control_names = [f"c{i}" for i in range(self.rng.randint(2, 3))]
        self.controls: dict[str, ControlProcess] = {}
        self.database.commit(_image, self.clock.now_us())

    def start(self) -> None:
        for name in self.control_names:
            self.start_control(name)
        for host in self.hosts.values():
            host.boot()

    def start_control(self, name: str) -> None:
        if name not in self.controls:
            self.controls[name] = ControlProcess(self, name)

    def restart_control(self, ended: ControlProcess) -> None:
        if self.controls.get(ended.name) is ended:
            self.kill_control(ended.name)
            self.start_control(ended.name)

    def kill_control(self, name: str) -> None:
        process = self.controls.pop(name, None)
        if process is not None:
            process.kill()

    def broken(self, sentence: str) -> None:
        """A law does not hold."""
        if len(self.violations) < 20:
            self.violations.append(sentence)
            self.trace.note(f"BROKEN {sentence}")

    def stop(self) -> None:
        """The end of the world: nobody may be left over."""
        for name in list(self.controls):
            self.kill_control(name)
        for host in self.hosts.values():
            host.kill_agent()


def _image(tx: Tx) -> None:
    tx.execute(insert(images), {
        "id": IMAGE_ID, "project_id": "p", "name": "tiny", "status": "active", "visibility": "public",
        "protected": False, "container_format": "bare", "disk_format": "qcow2", "min_ram_mb": 0, "min_disk_gb": 0,
        "size_bytes": 1 << 20, "virtual_size_bytes": 1 << 30, "checksum": "0" * 32, "sha512": "0" * 128,
        "properties": {}, "tags": [], "created_at_us": tx.now_us, "updated_at_us": tx.now_us,
    })  # fmt: skip
