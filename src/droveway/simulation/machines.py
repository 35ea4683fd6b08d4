"""What runs where: the controls, and the hosts with their agents and hearts; and how each of them dies."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from droveway.agents.fences import Fence
from droveway.agents.scripts import ScriptsAgent
from droveway.api.app import Api, ApiSettings, App, build_app
from droveway.api.http.pool import InlinePool
from droveway.api.identity.passwords import matches
from droveway.api.wiring import NetworkSettings
from droveway.control.engine.saga import ControlSettings
from droveway.control.liveness.observer import LivenessSettings
from droveway.domain.faults import Busy, Stale, Unreachable
from droveway.domain.liveness import DIED
from droveway.domain.migration_ladder import CopyTarget
from droveway.domain.model import Subject
from droveway.domain.placement import PlacementSettings
from droveway.domain.service_kinds import COMPUTE, NETWORK, SCRIPTS, VOLUME, row_of, split
from droveway.drivers.credentials.own_table import OwnTable
from droveway.drivers.hypervisor.simulated.driver import SimulatedHypervisor
from droveway.drivers.images.simulated import SimulatedImages
from droveway.periodic.mark import periodic
from droveway.periodic.tasks import PeriodicTasks
from droveway.simulation import apis, guest_volumes
from droveway.simulation.database import DatabaseAccess
from droveway.simulation.hearts import HeartProcess, SimPulse
from droveway.simulation.loop import SimChance, SimClock
from droveway.simulation.network import AgentEnd, ControlEnd
from droveway.simulation.process import Process
from droveway.simulation.truth import AGENT_DEAD, AGENT_HUNG, HEART_DEAD, OFF, STOPPED

if TYPE_CHECKING:
    from droveway.simulation.world import World

PLACEMENT = PlacementSettings(cpu_ratio=4.0, ram_ratio=1.0, disk_ratio=1.0, alternatives=2, wait_for_capacity_s=40.0)
SETTINGS = ControlSettings(
    images_path="",
    api_urls=("http://sim",),
    ticket_key_s=8.0,
    placement=PLACEMENT,
    stop_grace_s=5.0,
    command_timeout_s=3.0,
    long_command_timeout_s=12.0,
    patience_s=10.0,
    refresh_s=10.0,
    start_again_pause_s=60.0,
    network_patience_s=20.0,
    copy=CopyTarget(timeout_s=60.0, post_copy_after_s=3.0),
    copies_at_once=2,
)
LIVENESS = LivenessSettings(
    report_interval_s=2.0, service_down_time_s=7.0, service_hung_time_s=10.0, storm_hold_time_s=15.0
)
API = ApiSettings(
    "http://sim", Path("/images"), precheck_timeout_s=6.0, piece_bytes=apis.PIECE_BYTES, image_streams_max=2
)
NETWORK_API = NetworkSettings(is_on=True)
RESTART_S = 1.0
CARRIES_TWO = 0.6  # of the hosts
FAILS = 0.3  # of an operator's checks
ENDS_S = 1.0  # what a process that is told to end has for it


class ControlProcess(Process):
    """One life of one control, and the API beside it."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        clock = self.clock = SimClock(world.loop, world.rng)
        self.door = DatabaseAccess(world.database, clock, name)
        self.bus = ControlEnd(world.network, name, self)
        self.control = world.parts.control(
            self.door,
            self.bus,
            clock,
            name,
            SETTINGS,
            LIVENESS,
            stories=world.parts.stories,
            runner=world.parts.runner,
            placer=world.parts.placer,
            tasks=PeriodicTasks(clock, SimChance(random.Random(name))),
        )
        self.control.plans.compared_s = 0.0  # a law: what is kept of networks is what a whole read says
        self.control.plans.differs = world.broken
        self._app: App | None = None
        self.spawn(self._run(clock))

    @property
    def app(self) -> App:
        """Wired as process/control.py does, with pools that run in the loop."""
        if self._app is None:
            control, pool = self.control, InlinePool()
            self._app = build_app(
                Api(
                    self.door,
                    self.clock,
                    self.world.names,
                    dataclasses.replace(
                        API,
                        images_directory=apis.images_directory(),
                        network=NetworkSettings() if self.world.networks is None else NETWORK_API,
                    ),
                    credentials=OwnTable(self.door, partial(matches, pool)),
                    hashing=pool,
                    files=pool,
                    sagas_settled=control.sagas_settled,
                    control=control.answers,
                )
            )
        return self._app

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
            self.world.loop.call_later(RESTART_S, self.world.restart_control, self, context=self.world.loop.outside)

    def stop(self) -> None:
        self.world.truth.begin(STOPPED, self.name)
        super().stop()

    def go_on(self) -> None:
        self.world.truth.end(STOPPED, self.name)
        super().go_on()

    def kill(self) -> None:
        self.door.is_open = False
        self.bus.shut()
        super().kill()


class AgentProcess(Process):
    """One life of one service of a host."""

    def __init__(self, host: Host, service: str) -> None:
        world = host.world
        super().__init__(world, f"{service} of {host.name}")
        self.service, self._host = service, host
        self.bus = AgentEnd(world.network, (host.name, service), self.spawn, self)
        pulse = SimPulse(host, self, LIVENESS.report_interval_s)
        if service == COMPUTE:
            self.hypervisor = SimulatedHypervisor(world.fleet, host.name, self._images())
            agent = world.parts.agent(
                host.name,
                host.boot_id,
                host.name,
                self.hypervisor,
                self.bus,
                host.fences,
                host.clock,
                host.off_loop,
                pulse=pulse,
            )
            self.spawn(agent.run())
        elif service == NETWORK:
            assert host.wires is not None, "it has networks"
            networks = world.parts.network_agent(
                host.name,
                host.boot_id,
                host.name,
                world.parts.network(host.wires.place),
                self.bus,
                host.wires.kept,
                host.clock,
                host.wires.facts,
                host.off_loop,
                pulse,
            )
            self.spawn(networks.run())
        elif split(service)[0] == VOLUME:
            assert world.volumes is not None, "it has volumes"
            name = row_of(host.name, service)[0]
            storage = world.parts.storage(world.volumes.pools[name], self._images())
            volume_agent = world.parts.volume_agent(
                host.name,
                service,
                host.boot_id,
                host.name,
                storage,
                self.bus,
                world.volumes.fences[name],
                host.clock,
                guest_volumes.SETTINGS,
                host.off_loop,
                pulse,
            )
            self.spawn(volume_agent.run())
        else:
            chance = random.Random(world.rng.random())
            tasks = PeriodicTasks(host.clock, SimChance(chance))
            tasks.collect(Checks(chance))
            scripts = ScriptsAgent(host.name, host.boot_id, host.name, tasks, self.bus, host.clock, pulse)
            self.spawn(scripts.run())

    def _images(self) -> SimulatedImages:
        world, host = self.world, self._host
        return world.parts.images(
            host.name,
            world.names.secret(),
            host.clock,
            SimChance(world.rng),
            world.apis,
            lambda: world.fleet.faults.images,
        )

    def stop(self) -> None:
        self.world.truth.begin(AGENT_HUNG, self._host.name, self.service)
        super().stop()

    def go_on(self) -> None:
        self.world.truth.end(AGENT_HUNG, self._host.name, self.service)
        super().go_on()

    def kill(self, *, silently: bool = False) -> None:
        self.bus.shut(silently=silently)
        super().kill()


class Checks:
    """What an operator has checked now and then."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    @periodic(every_s=20.0)
    async def disks(self) -> None:
        if self._chance.random() < FAILS:
            raise Unreachable("a disk did not answer")


class DiskFences:
    """A host's fences: what was written is there after a crash, what was only noted may not be."""

    def __init__(self) -> None:
        self._durable: dict[Subject, Fence] = {}
        self._noted: dict[Subject, Fence] = {}

    def read(self, subject: Subject) -> Fence:
        return self._noted.get(subject) or self._durable.get(subject, Fence())

    def write(self, subject: Subject, fence: Fence) -> None:
        self._durable[subject] = fence
        self._noted.pop(subject, None)

    def note(self, subject: Subject, fence: Fence) -> None:
        self._noted[subject] = fence

    def crash(self) -> None:
        self._noted.clear()


class Host:
    """A machine: boots and crashes, and carries a heart and one service or two."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        world.fleet.add_host(
            name,
            vcpus=8,
            memory_mb=world.rng.choice([12288, 16384, 24576]),
            disk_gb=60,
            cpu_level=world.rng.choice(world.cpu_levels),
            store=world.store_of(name),
            root_pool="" if world.root_pools is None else world.root_pools.of_host(name),
        )
        self.fences = DiskFences()
        self.boot_id, self.clock = world.names.uuid(), SimClock(world.loop, world.rng)
        self.is_on = True
        self.services: tuple[str, ...] = (COMPUTE, SCRIPTS) if world.rng.random() < CARRIES_TWO else (COMPUTE,)
        self.wires = None if world.networks is None else world.networks.add_host(name)
        if self.wires is not None:
            self.services += (NETWORK,)
        self.volume_fences = DiskFences()
        if world.volumes is not None:
            self.services += world.volumes.add_host(name, self.volume_fences)
        self.agents: dict[str, AgentProcess] = {}  # by service
        self.heart: HeartProcess | None = None
        for service in self.services:
            world.truth.begin(AGENT_DEAD, name, service)
        world.truth.begin(HEART_DEAD, name)

    async def off_loop(self, call: Callable[[], None]) -> None:
        """An fsync takes a moment, before and after it is on the disk."""
        await asyncio.sleep(0.001)
        call()

    # -- its services -------------------------------------------------------------------------------------------------
    def start_agent(self, service: str) -> None:
        if self.is_on and service not in self.agents:
            self.world.truth.end(AGENT_DEAD, self.name, service)
            self.agents[service] = AgentProcess(self, service)

    def kill_agent(self, service: str, *, silently: bool = False) -> None:
        agent = self.agents.pop(service, None)
        if agent is not None:
            self.world.truth.begin(AGENT_DEAD, self.name, service)
            agent.kill(silently=silently)
            self.note_end_at_heart(agent, DIED)

    async def end_agent(self, service: str) -> None:
        """In good order, as when it is told to."""
        agent = self.agents.pop(service, None)
        if agent is not None:
            self.world.truth.begin(AGENT_DEAD, self.name, service)
            agent.go_on()
            agent.end()
            await asyncio.sleep(ENDS_S)
            agent.kill()

    # -- the heart ----------------------------------------------------------------------------------------------------
    def start_heart(self) -> None:
        if self.is_on and self.heart is None:
            self.world.truth.end(HEART_DEAD, self.name)
            self.heart = self.world.parts.heart(self, LIVENESS.report_interval_s)

    def kill_heart(self) -> None:
        heart, self.heart = self.heart, None
        if heart is not None:
            self.world.truth.begin(HEART_DEAD, self.name)
            heart.kill()

    def note_end_at_heart(self, process: AgentProcess, ending: int) -> None:
        if self.heart is not None:
            self.heart.note_end(process, ending)

    # -- the machine --------------------------------------------------------------------------------------------------
    def crash(self) -> None:
        self.is_on = False
        self.world.truth.begin(OFF, self.name)
        self.kill_heart()
        for service in self.services:
            self.kill_agent(service, silently=True)
        self.fences.crash()
        self.volume_fences.crash()
        self.world.fleet.crash_host(self.name)
        if self.wires is not None:
            self.wires.crash()

    def boot(self) -> None:
        if not self.is_on:
            self.is_on = True
            self.world.truth.end(OFF, self.name)
            self.boot_id, self.clock = self.world.names.uuid(), SimClock(self.world.loop, self.world.rng)
            self.world.fleet.boot_host(self.name)
        self.start_heart()
        for service in self.services:
            self.start_agent(service)
