"""A failure detector with all that it needs, in a test's hands: the clock, the bus, the beats."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from droveway.control.engine.nudges import Nudges
from droveway.control.liveness.detector import FailureDetector
from droveway.control.liveness.duty import DetectorDuty
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.control.liveness.verdicts import Verdicts
from droveway.control.liveness.why import Why
from droveway.domain.faults import Unreachable
from droveway.domain.liveness import HostObservation, State
from droveway.drivers.clock import SystemClock
from droveway.ports.bus import Beat, Command, Hello, Notice, Ping, Reach, Welcome
from droveway.ports.replies import Answer, PingResult, ReachResult
from droveway.store.engine.transaction import Store
from droveway.store.fleet import services
from tests.store import databases

COMPUTE = "nova-compute"
TICK_S = 0.25
SETTINGS = LivenessSettings()


class HandClock(SystemClock):
    """Stands still until it is put forward."""

    at_s = 1000.0

    def monotonic_s(self) -> float:
        return self.at_s

    def now_us(self) -> int:
        return int(self.at_s * 1_000_000)


class Answers:
    """Control's bus: who answers a ping, and whose hypervisor others reach."""

    trouble = ""
    is_direct = False

    def __init__(self) -> None:
        self.echoes = True  # what this control sends itself comes back
        self.renewed = 0
        self.answering: set[str] = set()
        self.quiet: set[tuple[str, str]] = set()  # services that do not answer, whatever others of their host do
        self.reachable: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    async def serve(self, on_notice: Callable[[Notice], Welcome | None]) -> None: ...
    async def close(self) -> None: ...

    async def echo(self, timeout_s: float) -> None:
        if not self.echoes:
            raise Unreachable(f"the broker did not return it within {timeout_s:g} s")

    def renew(self) -> None:
        self.renewed += 1

    async def command(self, host: str, command: Command, timeout_s: float, service: str = "nova-compute") -> Answer:
        self.asked.append((host, type(command.verb).__name__))
        match command.verb:
            case Ping() if host in self.answering and (host, service) not in self.quiet:
                return PingResult()
            case Reach(uri, _, reference):
                if uri.removeprefix("sim://") in self.reachable:
                    return ReachResult(reached=True)
                if reference and reference.removeprefix("sim://") not in self.reachable:
                    return ReachResult(reached=False, reason="it reaches nobody", is_cut_off=True)
                return ReachResult(reached=False, reason=f"{uri} does not answer")
        raise Unreachable(f"the agent of {host} did not answer")


class DetectorHarness:
    """`step` puts the clock forward as a loop would: a quarter of a second at a time, a look each."""

    def __init__(
        self, clock: HandClock, store: Store, name: str = "one", settings: LivenessSettings = SETTINGS
    ) -> None:
        self.clock, self.store, self.bus, nudges = clock, store, Answers(), Nudges()
        self.observer = Observer(clock, nudges, settings)
        self.verdicts = Verdicts(store, clock, nudges, self.observer, settings)
        self.detector = FailureDetector(self.observer, self.bus, clock, settings, self.verdicts.put)
        self.duty = DetectorDuty(store, clock, name, self.detector, self.verdicts)
        self._why = Why(store, clock, self.observer, self.detector, self.verdicts, self.duty)
        self.beating: dict[str, str] = {}  # host -> boot id
        self.still: set[str] = set()  # hosts whose service does not move
        self._counter = 0
        self._moves: dict[str, int] = {}

    async def open(self) -> DetectorHarness:
        self.observer.learn(await self.verdicts.load())
        await self.duty.look([])
        return self

    async def why(self, host: str, binary: str) -> Any:
        """As it is shown, in plain values."""
        return msgspec.to_builtins(await self._why(host, binary))

    def hello(self, *hosts: str, boot: str = "boot") -> None:
        for host in hosts:
            self.observer.on_notice(Hello(host, boot, "here"))
            self.observer.inbox.put_peer_uris({host: f"sim://{host}"})
            self.beating[host] = boot
            self.bus.answering.add(host)
            self.bus.reachable.add(host)

    def beat(self, host: str, *, lateness_ms: int = 3, note: str = "", wall_us: int = 0) -> None:
        self._counter += 1
        if host not in self.still:
            self._moves[host] = self._counter
        moves = (self._moves.get(host, 0),)
        notes = (note,) if note else ()
        boot = self.beating[host]
        self.observer.on_notice(Beat(host, boot, self._counter, 1, (COMPUTE,), moves, (lateness_ms,), wall_us, notes))

    async def step(self, seconds: float, *, writes: bool = True) -> None:
        """Everybody who beats does so once a second."""
        for number in range(round(seconds / TICK_S)):
            self.clock.at_s += TICK_S
            if number % 4 == 0:
                for host in self.beating:
                    self.beat(host)
            await self.detector.input.confirm()
            self.detector.look()
            for _ in range(4):
                await asyncio.sleep(0)  # second opinions
        if writes:
            await self.verdicts._once(self.detector)
            await self.verdicts.refresh(self.detector)

    def silence(self, *hosts: str, gone: bool = False) -> None:
        """They beat no more; `gone`: and nobody answers for them."""
        for host in hosts:
            self.beating.pop(host, None)
            if gone:
                self.bus.answering.discard(host)
                self.bus.reachable.discard(host)

    def state(self, host: str) -> State:
        return self.observation(host).services[COMPUTE].state

    def observation(self, host: str) -> HostObservation:
        seen = self.observer.observation(host)
        assert seen is not None, f"{host} is not known"
        return seen

    async def row(self, host: str) -> tuple[bool, str]:
        """As the lists show it: up, and the state that was written."""
        (row,) = await self.store.read(services.list_all, host, COMPUTE)
        return row["is_up"], row["state"]


def new_store(clock: HandClock) -> Store:
    return databases.store(clock)


Story = Callable[[DetectorHarness], Awaitable[None]]


def play(story: Story, *hosts: str) -> None:
    """The story, once `hosts` have been alive for two seconds."""

    async def whole() -> None:
        clock = HandClock()
        store = new_store(clock)
        hall = await DetectorHarness(clock, store).open()
        hall.hello(*hosts)
        await hall.step(2)
        for host in hosts:
            assert await hall.row(host) == (True, "alive")
        await story(hall)
        await store.close()

    asyncio.run(whole())
