"""One control, two simulated hosts behind real agents, and a bus and a store that break where they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from droveway.agents.backup import BackupAgent
from droveway.agents.backup_chunks import BackupChunks
from droveway.agents.compute import ComputeAgent
from droveway.agents.fenced import FencedAgent
from droveway.agents.fences import Fences, MemoryFences
from droveway.agents.volume import VolumeAgent
from droveway.control.control import Control
from droveway.control.engine.saga import ControlSettings
from droveway.control.liveness.observer import LivenessSettings
from droveway.domain.faults import Busy, Conflict, Fault, Unreachable
from droveway.domain.image_tickets import TICKET_HEADER, VERIFIER_HEADER, Direction
from droveway.domain.model import ENDED_SAGA, Flavor, GuestState, SagaKind, SagaStatus, of_instance
from droveway.domain.placement import HostFacts
from droveway.domain.service_kinds import COMPUTE, VOLUME, address_of
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.drivers.hypervisor.simulated.driver import SimulatedHypervisor
from droveway.drivers.hypervisor.simulated.fleet import Fleet
from droveway.drivers.images.simulated import SimulatedImages
from droveway.drivers.storage.simulated import SimulatedPool, SimulatedStorage
from droveway.ports.bus import READ_ONLY, AgentBus, Command, Hello, Inspect, Notice, Welcome
from droveway.ports.replies import Answer, GuestStatus, Refused
from droveway.store.compute import instances, migrations
from droveway.store.compute.instances import NewInstance
from droveway.store.engine.transaction import MemoryStore, Tx
from droveway.store.fleet import hosts
from droveway.store.image import image_tickets, images
from droveway.store.volume import backends as stored_backends
from droveway.store.work import sagas
from tests.store import databases

TINY = Flavor("1", "tiny", 1, 128, 1)
SETTINGS = ControlSettings(
    images_path="/nowhere",
    api_urls=("http://api",),
    stop_grace_s=0.01,
    command_timeout_s=0.5,
    deferred_cleanup_patience_s=0.02,
    settle_s=0.05,
    patience_s=0.05,
    retry_s=0.002,
    retry_max_s=0.01,
)


MIGRATED = {"completed", "error", "cancelled", "finished", "confirmed", "reverted"}
HELD = {"paused": (GuestState.PAUSED, False), "suspended": (GuestState.SHUTOFF, True)}


class Break(StrEnum):
    REFUSED = "the host refuses"
    REQUEST_LOST = "the request is lost once"
    ANSWER_LOST = "the answer is lost once"
    DOUBLED = "the request arrives twice"
    REFUSED_AFTER_ACTING = "the host acts, then refuses"
    CONTROL_KILLED = "control dies with the request on its way"
    CONTROL_KILLED_AFTER = "control dies with the answer on its way"


class Bug(StrEnum):
    BUG = "an assertion of ours fails"


class DirectBus:
    """Control's bus, straight into the agents; the command number `at` (asks not counted) meets `breaks`."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def trouble(self) -> str:
        return self._world.trouble

    async def serve(self, on_notice: object) -> None:
        self._world.on_notice = on_notice  # type: ignore[assignment]
        for host, agent in self._world.agents.items():
            on_notice(Hello(host, "boot", "here"))  # type: ignore[operator]
            on_notice(await agent.reports.full())  # type: ignore[operator]
        for (host, service), backend in self._world.backends.items():
            on_notice(Hello(host, "boot", "here", service=service))  # type: ignore[operator]
            await backend.look()
            on_notice(backend.reports.full())  # type: ignore[operator]

    is_direct = True

    async def echo(self, timeout_s: float) -> None:
        pass

    def renew(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def command(self, host: str, command: Command, timeout_s: float, service: str = "nova-compute") -> Answer:
        world, agent = self._world, self._world.service(host, service)
        if self.trouble:
            raise Unreachable(f"{host} is not connected: {self.trouble}")
        if isinstance(command.verb, READ_ONLY):
            return await agent.handle(command)
        if len(world.commands) >= world.gone_from.get(host, 1000) - 1:
            raise Unreachable(f"{host} is gone")
        world.commands.append((host, type(command.verb).__name__))
        breaks = world.breaks if len(world.commands) == world.at else None
        assert breaks is not Bug.BUG, "broken on purpose"
        if breaks is Break.REFUSED:
            return Refused("broken on purpose")
        if breaks is Break.REQUEST_LOST:
            raise Unreachable(f"{host} was told nothing")
        if breaks is Break.CONTROL_KILLED:
            world.kill_control()
            await asyncio.sleep(60)
        if breaks is Break.DOUBLED:
            world.late.append(asyncio.create_task(world.again_later(agent, command)))
        answer = await agent.handle(command)
        if breaks is Break.ANSWER_LOST:
            raise Unreachable(f"{host} did something")
        if breaks is Break.REFUSED_AFTER_ACTING:
            return Refused("broken after it had acted")
        if breaks is Break.CONTROL_KILLED_AFTER:
            world.kill_control()
            await asyncio.sleep(60)
        return answer


class NoBus:
    """An agent's end that leads nowhere: the test calls `obey` itself."""

    def notify(self, notice: Notice) -> None:
        pass

    async def run(self, *_: object) -> None:
        await asyncio.sleep(3600)

    async def close(self) -> None:
        pass


class FailingStore(MemoryStore):
    """Its write number `fail_at` meets a full disk, before or after anything was done."""

    fail_at = 0
    writes = 0

    async def run(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self.writes += 1
        if self.writes == self.fail_at:
            raise Busy("the database did not take it (database or disk is full); try again in a second")
        return await super().run(fn, *args, **kwargs)

    async def read(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        return await MemoryStore.run(self, fn, *args, **kwargs)


class TakingApis:
    """APIs that take the data of an image, and have none to give."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def give(self, image_id: str, headers: Mapping[str, str], take: Callable[[bytes], None]) -> tuple[int, str]:
        raise ConnectionError("nothing is fetched here")

    async def take(self, image_id: str, headers: Mapping[str, str], data: bytes) -> tuple[int, str]:
        def write(tx: Tx) -> tuple[int, str]:
            try:
                claims = image_tickets.admit(
                    tx, headers[TICKET_HEADER], image_id, Direction.SEND, headers[VERIFIER_HEADER]
                )
                assert len(data) <= claims.max_bytes
                row = images.claim_upload(tx, image_id, None, len(data))
                sha512 = hashlib.sha512(data).hexdigest()
                images.finish_upload(tx, image_id, row["generation"], {"size_bytes": len(data), "sha512": sha512})
                image_tickets.spend(tx, claims)
            except Fault as fault:
                return 409 if isinstance(fault, Conflict) else 404, fault.reason
            return 204, ""

        return await self._store.run(write)


class World:
    bus_type = DirectBus
    is_apart = False  # each host has an instance store of its own
    root_pool = ""  # in which all of them keep root disks

    def __init__(
        self, settings: ControlSettings = SETTINGS, hosts: Sequence[str] = ("h1", "h2"), backends: Sequence[str] = ()
    ) -> None:
        self.settings, self.host_names = settings, hosts
        self.clock = SystemClock()
        self.fleet = Fleet(self.clock, SystemChance())
        self.store = databases.with_schema(FailingStore(self.clock, SystemNames()))
        self.agents: dict[str, ComputeAgent] = {}
        self.images_of: Callable[[str], SimulatedImages | None] = self._images  # where a host fetches them from
        self.pools = {name: SimulatedPool(name, 100.0) for name in backends}  # by HOST@BACKEND
        self.backends: dict[tuple[str, str], VolumeAgent | BackupAgent] = {}  # by host, and service there
        self.commands: list[tuple[str, str]] = []
        self.at = 0
        self.breaks: Break | Bug | None = None
        self.gone_from: dict[str, int] = {}  # a host, and from which command on it does not answer
        self.trouble = ""  # of the broker
        self.late: list[asyncio.Task[None]] = []
        self.on_notice: Callable[[Notice], Welcome | None] | None = None
        self._control: Control | None = None
        self._task: asyncio.Task[None] | None = None
        self._restart: asyncio.Task[None] | None = None

    def _images(self, host: str) -> SimulatedImages:
        return SimulatedImages(host, "v" * 40, self.clock, SystemChance(), TakingApis(self.store))

    def store_of(self, host: str) -> str:
        return host if self.is_apart else "shared"

    async def open(self) -> None:
        for name in self.host_names:
            self.fleet.add_host(name, store=self.store_of(name), root_pool=self.root_pool)
            hypervisor = SimulatedHypervisor(self.fleet, name, self.images_of(name))
            await hypervisor.open(lambda _: None, lambda *_: None)
            bus: AgentBus = NoBus()

            async def inline(call: object) -> None:
                call()  # type: ignore[operator]

            self.agents[name] = ComputeAgent(name, "boot", "here", hypervisor, bus, MemoryFences(), self.clock, inline)
        for pool in self.pools.values():
            self.open_backend(pool, MemoryFences())
        await self.start_control()
        while sum(one.hypervisor_up and one.is_up for one in await self.facts()) < len(self.host_names):
            await asyncio.sleep(0.005)
        while sum(one.is_up for one in await self.store.read(stored_backends.facts_of_all)) < len(self.pools):
            await asyncio.sleep(0.005)

    def open_backend(self, pool: SimulatedPool, fences: Fences) -> None:
        host, service = address_of(pool.name, VOLUME)
        storage = SimulatedStorage(pool, self._images(host))

        async def inline(call: Callable[[], None]) -> None:
            call()

        self.backends[host, service] = VolumeAgent(
            *(host, service, "boot", "here", storage, NoBus(), fences, self.clock),
            off_loop=inline,
            backups=self.backup_chunks(host),
        )

    def backup_chunks(self, host: str) -> BackupChunks | None:
        return None

    async def look(self) -> None:
        """Every backend is looked at, and control told."""
        assert self.on_notice is not None
        for backend in self.backends.values():
            await backend.look()
            self.on_notice(backend.reports.full())
        await asyncio.sleep(0.02)

    def service(self, host: str, service: str) -> ComputeAgent | VolumeAgent | BackupAgent:
        return self.agents[host] if service == COMPUTE else self.backends[host, service]

    async def start_control(self) -> None:
        self._control = Control(
            self.store, self.bus_type(self), self.clock, "control", self.settings, LivenessSettings(1, 600)
        )
        await self._control.start()
        self._task = asyncio.create_task(self._control.run())

    def kill_control(self) -> None:
        """At this very await; the next process starts a moment later and finds only the store."""
        assert self._task is not None
        self._task.cancel()

        async def again() -> None:
            await asyncio.gather(self._task, return_exceptions=True)  # type: ignore[arg-type]
            await self.start_control()

        self._restart = asyncio.create_task(again())

    async def again_later(self, agent: FencedAgent, command: Command) -> None:
        """The same message once more: at once, and when everything is long over."""
        await asyncio.sleep(0.01)
        await agent.execute(command)
        while not self.fleet.hosts or await self.store.read(sagas.count_open):
            await asyncio.sleep(0.005)
        await agent.execute(command)

    async def close(self) -> None:
        for task in (self._task, self._restart, *self.late):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(t for t in (self._task, self._restart, *self.late) if t), return_exceptions=True)
        await self.store.close()

    @property
    def control(self) -> Control:
        assert self._control is not None
        return self._control

    async def facts(self) -> list[HostFacts]:
        return await self.store.read(hosts.facts_of_all)

    # -- acts and checks ----------------------------------------------------------------------------------------------
    async def create(self) -> str:
        new = NewInstance("p", "u", "g", "g", TINY, None)
        instance_id = await self.store.run(instances.create, new)
        await self.quiet()
        return instance_id

    async def do(self, instance_id: str, kind: SagaKind, params: dict[str, Any] | None = None) -> str:
        saga_id = await self.store.run(instances.intend, instance_id, kind, params or {})
        await self.quiet()
        return str((await self.store.read(sagas.get, saga_id))["status"])

    async def quiet(self) -> None:
        async with asyncio.timeout(30):
            while await self.store.read(sagas.count_open):
                await asyncio.sleep(0.002)
            await asyncio.gather(*self.late)
            if self._restart is not None:
                await self._restart

    async def report(self) -> None:
        """Every host says what it has; the guests loop looks at it."""
        assert self.on_notice is not None
        for report in [await agent.reports.full() for agent in self.agents.values()]:
            self.on_notice(report)  # all at one moment: a guest was moved by hand between two of them
        await asyncio.sleep(0.05)
        await self.quiet()

    async def runs_on(self, instance_id: str) -> list[str]:
        states = {}
        for host, agent in self.agents.items():
            answer = await agent.handle(Command(of_instance(instance_id), 0, Inspect()))
            assert isinstance(answer, GuestStatus)
            states[host] = answer.guest.state
        return [host for host, state in states.items() if state is GuestState.RUNNING]

    async def runs_on_others(self, instance_id: str, than: str) -> list[str]:
        """As the hypervisors know it, whether or not that host answers."""
        on = {name: host.domains.get(instance_id) for name, host in self.fleet.hosts.items() if name != than}
        return [name for name, domain in on.items() if domain is not None and domain.state is GuestState.RUNNING]

    async def report_of(self, host: str) -> None:
        assert self.on_notice is not None
        self.on_notice(await self.agents[host].reports.full())
        await asyncio.sleep(0.05)
        await self.quiet()

    async def check(self, instance_id: str) -> None:
        """Rows and world agree, and nothing is left over."""
        assert self.fleet.violations == []
        row = await self.store.read(instances.get, instance_id, None, deleted=True)
        assert row["task_state"] is None
        running = await self.runs_on(instance_id)
        if row["vm_state"] in {"active", "rescued"} or (row["vm_state"] == "resized" and row["power_state"] == 1):
            assert running == [row["host"]]
            assert self.fleet.hosts[row["host"] or ""].domains[instance_id].rescue is (row["vm_state"] == "rescued")
        elif row["vm_state"] in {"deleted", "error", "shelved", "shelved_offloaded", "soft-delete", "stopped"}:
            assert running == []
        if row["vm_state"] in HELD:
            domain = self.fleet.hosts[row["host"] or ""].domains[instance_id]
            assert (domain.state, domain.saved) == HELD[row["vm_state"]] and not running
        if row["host"] is None:
            assert all(instance_id not in store.disks for store in self.fleet.stores.values())
            assert all(instance_id not in host.domains for host in self.fleet.hosts.values())
        assert not any(store.probes or store.copies for store in self.fleet.stores.values())
        has_kept = any(store.kept for store in self.fleet.stores.values())
        assert (row["former"] is not None) == has_kept == (row["vm_state"] == "resized")
        spares = {"rescue"} if row["vm_state"] == "rescued" else set()
        assert {kind for store in self.fleet.stores.values() for _, kind in store.spares} == spares
        for host in self.fleet.hosts.values():
            assert host.name == row["host"] or instance_id not in host.domains, f"a husk on {host.name}"
        for one in await self.store.read(sagas.listing, limit=100, only_open=False):
            assert SagaStatus(one["status"]) in ENDED_SAGA - {SagaStatus.BROKEN}, one["error"]
        moved = await self.store.read(migrations.find)
        assert all(m["status"] in MIGRATED and not m["holds_claim"] for m in moved)
        assert (await self.control.audit()).findings == []
        assert sum(h.instances for h in await self.facts()) == (1 if row["host"] else 0)


@contextlib.asynccontextmanager
async def world(
    settings: ControlSettings = SETTINGS, hosts: Sequence[str] = ("h1", "h2"), backends: Sequence[str] = ()
) -> AsyncIterator[World]:
    one = World(settings, hosts, backends)
    await one.open()
    try:
        yield one
    finally:
        await one.close()
