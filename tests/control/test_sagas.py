"""Every saga, failed at every command in every way: it ends done or undone, and the world agrees with the rows.

The hosts are simulated ones behind real agents; the bus between them and control breaks exactly where it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Any

import pytest

from droveway.agents.compute import ComputeAgent
from droveway.agents.fences import MemoryFences
from droveway.control.control import Control
from droveway.control.observer import LivenessSettings
from droveway.control.saga import ControlSettings
from droveway.control.sagas import STORIES
from droveway.domain.faults import Busy, Conflict, Unreachable
from droveway.domain.model import ENDED_SAGA, Flavor, GuestState, SagaKind, SagaStatus
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.drivers.hypervisor.fleet import Durations, Fleet
from droveway.drivers.hypervisor.simulated import SimulatedHypervisor
from droveway.ports.bus import ASKS, AgentBus, Answer, Command, Hello, Inspect, Notice, Welcome
from droveway.store import events, hosts, instances, migrations, sagas
from droveway.store.instances import NewInstance
from droveway.store.schema import metadata
from droveway.store.transaction import MemoryStore

TINY = Flavor("1", "tiny", 1, 128, 1)
SETTINGS = ControlSettings(images_path="/nowhere", stop_grace_s=0.01, command_timeout_s=0.5, owed_patience_s=0.02,
                           patience_s=0.05, retry_s=0.002, retry_max_s=0.01)  # fmt: skip


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

    async def serve(self, on_notice: object) -> None:
        self._world.on_notice = on_notice  # type: ignore[assignment]
        for host, agent in self._world.agents.items():
            on_notice(Hello(host, "boot", "here"))  # type: ignore[operator]
            on_notice(await agent._full_report())  # type: ignore[operator]

    async def close(self) -> None:
        pass

    async def command(self, host: str, command: Command, timeout_s: float) -> Answer:
        world, agent = self._world, self._world.agents[host]
        if isinstance(command.verb, ASKS):
            return await agent.obey(command)
        if len(world.commands) >= world.gone_from.get(host, 1000) - 1:
            raise Unreachable(f"{host} is gone")
        world.commands.append((host, type(command.verb).__name__))
        breaks = world.breaks if len(world.commands) == world.at else None
        assert breaks is not Bug.BUG, "broken on purpose"
        if breaks is Break.REFUSED:
            return Answer("refused", "broken on purpose")
        if breaks is Break.REQUEST_LOST:
            raise Unreachable(f"{host} was told nothing")
        if breaks is Break.CONTROL_KILLED:
            world.kill_control()
            await asyncio.sleep(60)
        if breaks is Break.DOUBLED:
            world.late.append(asyncio.create_task(world.again_later(agent, command)))
        answer = await agent.obey(command)
        if breaks is Break.ANSWER_LOST:
            raise Unreachable(f"{host} did something")
        if breaks is Break.REFUSED_AFTER_ACTING:
            return Answer("refused", "broken after it had acted")
        if breaks is Break.CONTROL_KILLED_AFTER:
            world.kill_control()
            await asyncio.sleep(60)
        return answer


class NoBus:
    """An agent's end that leads nowhere: the test calls `obey` itself."""

    def tell(self, notice: Notice) -> None:
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


class World:
    def __init__(self) -> None:
        self.clock = SystemClock()
        self.fleet = Fleet(self.clock, SystemChance())
        self.store = FailingStore(self.clock, SystemNames())
        metadata.create_all(self.store._connection)
        self.store._connection.commit()
        self.agents: dict[str, ComputeAgent] = {}
        self.commands: list[tuple[str, str]] = []
        self.at = 0
        self.breaks: Break | Bug | None = None
        self.gone_from: dict[str, int] = {}  # a host, and from which command on it does not answer
        self.late: list[asyncio.Task[None]] = []
        self.on_notice: Callable[[Notice], Welcome | None] | None = None
        self._control: Control | None = None
        self._task: asyncio.Task[None] | None = None
        self._restart: asyncio.Task[None] | None = None

    async def open(self) -> None:
        for name in ("h1", "h2"):
            self.fleet.add_host(name)
            hypervisor = SimulatedHypervisor(self.fleet, name)
            await hypervisor.open(lambda _: None, lambda *_: None)
            bus: AgentBus = NoBus()

            async def inline(call: object) -> None:
                call()  # type: ignore[operator]

            self.agents[name] = ComputeAgent(name, "boot", "here", hypervisor, bus, MemoryFences(), self.clock, inline)
        await self.start_control()
        while len([r for r in await self.store.read(hosts.list_all) if r["hypervisor_up"] and r["is_up"]]) < 2:
            await asyncio.sleep(0.005)

    async def start_control(self) -> None:
        self._control = Control(self.store, DirectBus(self), self.clock, "control", SETTINGS, LivenessSettings(1, 600))
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

    async def again_later(self, agent: ComputeAgent, command: Command) -> None:
        """The same message once more: at once, and when everything is long over."""
        await asyncio.sleep(0.01)
        await agent.obey(command)
        while not self.fleet.hosts or await self.store.read(sagas.count_open):
            await asyncio.sleep(0.005)
        await agent.obey(command)

    async def close(self) -> None:
        for task in (self._task, self._restart, *self.late):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(t for t in (self._task, self._restart, *self.late) if t), return_exceptions=True)
        await self.store.close()

    # -- acts and checks ----------------------------------------------------------------------------------------------
    async def create(self) -> str:
        new = NewInstance("p", "u", "g", "g", TINY, None)
        instance_id = str((await self.store.run(instances.create, new))["id"])
        await self.quiet()
        return instance_id

    async def do(self, instance_id: str, kind: SagaKind) -> str:
        saga_id = await self.store.run(instances.intend, instance_id, kind, {})
        await self.quiet()
        return str((await self.store.read(sagas.get, saga_id))["status"])

    async def quiet(self) -> None:
        async with asyncio.timeout(10):
            while await self.store.read(sagas.count_open):
                await asyncio.sleep(0.002)
            await asyncio.gather(*self.late)
            if self._restart is not None:
                await self._restart

    async def report(self) -> None:
        """Every host says what it has; the guests loop looks at it."""
        assert self.on_notice is not None
        for agent in self.agents.values():
            self.on_notice(await agent._full_report())
        await asyncio.sleep(0.05)
        await self.quiet()

    async def runs_on(self, instance_id: str) -> list[str]:
        states = {}
        for host, agent in self.agents.items():
            guest = (await agent.obey(Command(instance_id, 0, Inspect()))).guest
            assert guest is not None
            states[host] = guest.state
        return [host for host, state in states.items() if state is GuestState.RUNNING]

    async def check(self, instance_id: str) -> None:
        """Rows and world agree, and nothing is left over."""
        assert self.fleet.violations == []
        row = await self.store.read(instances.get, instance_id, None, deleted=True)
        assert row["task_state"] is None
        running = await self.runs_on(instance_id)
        if row["vm_state"] == "active":
            assert running == [row["host"]]
        elif row["vm_state"] in {"deleted", "error"}:
            assert running == []
        files = self.fleet.stores["shared"]
        if row["host"] is None:
            assert instance_id not in files.disks
            assert all(instance_id not in host.domains for host in self.fleet.hosts.values())
        assert not files.probes
        for host in self.fleet.hosts.values():
            assert host.name == row["host"] or instance_id not in host.domains, f"a husk on {host.name}"
        for one in await self.store.read(sagas.listing, limit=100, only_open=False):
            assert SagaStatus(one["status"]) in ENDED_SAGA - {SagaStatus.BROKEN}, one["error"]
        moved = await self.store.read(migrations.find)
        assert all(m["status"] in {"completed", "error", "cancelled"} and not m["holds_claim"] for m in moved)
        used = sum(h["running_vms"] for h in await self.store.read(hosts.list_all))
        assert used == (1 if row["host"] else 0)


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    one = World()
    await one.open()
    try:
        yield one
    finally:
        await one.close()


async def act(w: World, kind: SagaKind) -> str:
    """Bring an instance to where `kind` may begin, arm the break, do it; the instance."""
    if kind is SagaKind.BOOT:
        w.commands.clear()
        return await w.create()
    at, w.at = w.at, 0
    instance_id = await w.create()
    if kind is SagaKind.START:
        await w.do(instance_id, SagaKind.STOP)
    w.commands.clear()
    w.at = at
    await w.do(instance_id, kind)
    return instance_id


def commands_of(kind: SagaKind) -> list[str]:
    """What that saga commands when nothing goes wrong."""

    async def story() -> list[str]:
        async with world() as w:
            instance_id = await act(w, kind)
            await w.check(instance_id)
            return [verb for _, verb in w.commands]

    return asyncio.run(story())


EXPECTED = {
    SagaKind.BOOT: ["Prepare", "Start"],
    SagaKind.DELETE: ["Remove"],
    SagaKind.STOP: ["Stop"],
    SagaKind.START: ["Start"],
    SagaKind.HARD_REBOOT: ["PowerCycle"],
    SagaKind.LIVE_MIGRATION: ["CheckDestination", "CheckSource", "RemoveProbe", "Admit", "BeginCopy", "Release"],
}


@pytest.mark.parametrize("kind", SagaKind)
def test_the_way_forward(kind: SagaKind) -> None:
    assert commands_of(kind) == EXPECTED[kind]


@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize(("kind", "at"), [(k, n + 1) for k, verbs in EXPECTED.items() for n in range(len(verbs))])
def test_broken_at_every_command(kind: SagaKind, at: int, breaks: Break) -> None:
    if breaks in {Break.REFUSED, Break.REFUSED_AFTER_ACTING} and EXPECTED[kind][at - 1] in {"Remove", "Release"}:
        return  # these end what is left: a host never refuses them, it only may not answer

    async def story() -> None:
        async with world() as w:
            w.at, w.breaks = at, breaks
            instance_id = await act(w, kind)
            w.at = 0
            if kind is not SagaKind.DELETE:
                await w.report()  # a host that acted and then refused is found out by its next report
            await w.check(instance_id)

    asyncio.run(story())


@pytest.mark.parametrize("number", range(1, 11))
@pytest.mark.parametrize("kind", [SagaKind.BOOT, SagaKind.DELETE, SagaKind.LIVE_MIGRATION])
def test_a_store_that_fails_once_is_waited_out(kind: SagaKind, number: int) -> None:
    async def story() -> None:
        async with world() as w:
            if kind is SagaKind.BOOT:
                instance = await w.store.run(instances.create, NewInstance("p", "u", "g", "g", TINY, None))
                instance_id = str(instance["id"])
            else:
                instance_id = await w.create()
                await w.store.run(instances.intend, instance_id, kind, {})
            w.store.fail_at = w.store.writes + number
            await w.quiet()
            await w.check(instance_id)
            one = (await w.store.read(sagas.listing, limit=1, only_open=False))[0]
            assert one["status"] == "done"

    asyncio.run(story())


def test_a_broken_saga_holds_its_instance_until_it_is_retried() -> None:
    async def story() -> None:
        async with world() as w:
            instance_id = await w.create()
            w.at, w.breaks = 5, Bug.BUG
            saga_id = await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})
            async with asyncio.timeout(5):
                while (await w.store.read(sagas.get, saga_id))["status"] != "broken":
                    await asyncio.sleep(0.005)
            with pytest.raises(Conflict, match="live_migration is broken"):
                await w.store.run(instances.intend, instance_id, SagaKind.STOP, {})
            assert w.on_notice is not None
            for agent in w.agents.values():  # the guests loop looks, and keeps its hands off
                w.on_notice(await agent._full_report())
            await asyncio.sleep(0.05)
            assert (await w.store.read(instances.get, instance_id))["vm_state"] == "active"
            await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})  # waits behind it
            await w.store.run(sagas.retry, saga_id)
            await w.quiet()
            await w.check(instance_id)
            assert (await w.store.read(instances.get, instance_id, None, deleted=True))["deleted"]

    asyncio.run(story())


@pytest.mark.parametrize("host", ["the source", "the destination"])
def test_a_host_that_is_gone_does_not_hold_a_guest_that_runs_elsewhere(host: str) -> None:
    async def story() -> None:
        async with world() as w:
            instance_id = await w.create()
            source = (await w.store.read(instances.get, instance_id))["host"]
            other = "h2" if source == "h1" else "h1"
            gone = source if host == "the source" else other
            # The source is gone once the guest has switched, the destination in the middle of being told of it.
            w.gone_from = {gone: 6 if host == "the source" else 4}
            w.commands.clear()
            saga_id = await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})
            await w.quiet()
            row = await w.store.read(instances.get, instance_id)
            assert row["task_state"] is None and row["host"] != gone
            told = [t for e in await w.store.read(events.of_subject, saga_id) for t in e["body"]["ticks"]]
            assert any(t["mark"] == "~" and "left for later" in t["text"] for t in told)
            assert await w.runs_on(instance_id) == [row["host"]]

    asyncio.run(story())


def test_a_disk_that_takes_long_is_waited_for() -> None:
    async def story() -> None:
        async with world() as w:
            w.fleet.durations = Durations(prepare=(3.5, 3.5))
            instance_id = await w.create()
            await w.check(instance_id)
            assert [verb for _, verb in w.commands] == ["Prepare", "Prepare", "Start"]
            assert (await w.store.read(instances.get, instance_id))["vm_state"] == "active"

    asyncio.run(story())


def test_a_saga_that_is_cancelled_before_its_pivot_is_undone() -> None:
    async def story() -> None:
        async with world() as w:
            instance_id = await w.create()
            saga_id = await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})
            await w.store.run(sagas.cancel, saga_id, "somebody thought better of it")
            await w.quiet()
            saga = await w.store.read(sagas.get, saga_id)
            assert saga["status"] == "undone" and "thought better" in saga["error"]
            assert (await w.store.read(migrations.find))[0]["status"] == "cancelled"
            await w.check(instance_id)

    asyncio.run(story())


def test_a_delete_waits_for_the_saga_it_cancels() -> None:
    async def story() -> None:
        async with world() as w:
            instance_id = await w.create()
            await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})
            first = await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})
            again = await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})
            await w.quiet()
            assert (await w.store.read(sagas.get, first))["status"] == "done"
            assert again == first or (await w.store.read(sagas.get, again))["status"] == "done"
            await w.check(instance_id)

    asyncio.run(story())


def test_the_ticks_tell_what_happened_and_why() -> None:
    async def story() -> None:
        async with world() as w:
            w.at, w.breaks = 2, Break.REFUSED
            await act(w, SagaKind.BOOT)
            saga = (await w.store.read(sagas.listing, limit=1, only_open=False))[0]
            told = [(t["mark"], t["step"]) for e in await w.store.read(events.of_subject, saga["id"])
                    for t in e["body"]["ticks"]]  # fmt: skip
            assert told == [("+", "choose_host"), ("+", "prepare_guest"), ("!", "start_guest"), ("-", "prepare_guest"),
                            ("-", "choose_host")]  # fmt: skip
            assert "broken on purpose" in saga["error"]

    asyncio.run(story())


def test_every_story_is_told() -> None:
    assert set(STORIES) == set(SagaKind)
