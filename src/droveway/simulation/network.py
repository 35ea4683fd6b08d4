"""The bus under simulation: every agent is linked with every control, and messages are lost, doubled or late.

Harsher than any real bus: a message may outlive its sender and the process that it was meant for, and reach the next
one of that name up to LATE_MAX_S later.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from droveway.domain.faults import Unreachable
from droveway.domain.model import Guest
from droveway.domain.service_kinds import COMPUTE
from droveway.ports.bus import READ_ONLY, AgentDisconnected, Beat, Command, Hello, Notice, Ping, Welcome
from droveway.ports.replies import Answer
from droveway.simulation.loop import SimLoop
from droveway.simulation.truth import APART, ASK_LOST, BEAT_LOST, BROKER_AWAY, CUT, DEAF, PARTED, SILENCE, FaultPeriods

LATE_MAX_S = 40.0
HELLO_AGAIN_S = 1.0
ASK_FELT_S = 6.0  # so long around a lost question the host seems not to answer: it is asked every few seconds
Address = tuple[str, str]  # a host, and the name of one of its services
Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Network:
    """Who is linked with whom. `loss`, `double` and `late` are chances of each single message."""

    def __init__(
        self, loop: SimLoop, rng: random.Random, note: Callable[[str], None], truth: FaultPeriods, beat_felt_s: float
    ) -> None:
        self.loop, self.rng, self.note, self.truth = loop, rng, note, truth
        self._beat_felt_s = beat_felt_s  # so long before and after a lost beat its host is not heard: an interval
        self.loss = self.double = self.late = 0.0
        self.controls: dict[str, ControlEnd] = {}
        self.agents: dict[Address, AgentEnd] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.deaf: set[str] = set()  # controls that nothing reaches and that reach no agent, without an error
        self.apart: set[str] = set()  # the same, and what they send themselves comes back
        self.troubles: dict[str, str] = {}  # controls whose broker is away, as they know
        self.is_silent = False  # all beats of the world are lost
        self.counts: Counter[str] = Counter()

    def deliver(self, arrive: Callable[..., None], *args: Any, lost: tuple[Any, ...] | None = None) -> None:
        """Carry one message: `arrive(*args)` never, once or twice, soon or late. `lost`: how that is put on record."""
        rng = self.rng
        copies = 1
        if self.double and rng.random() < self.double:
            copies = 2
            self.counts["messages doubled"] += 1
        for _ in range(copies):
            if self.loss and rng.random() < self.loss:
                self.counts["messages lost"] += 1
                if lost is not None:
                    self.truth.around(lost[0], *lost)
                continue
            delay_s = 0.0005 + rng.random() * 0.004
            if self.late and rng.random() < self.late:
                delay_s = rng.uniform(0.5, LATE_MAX_S)
                self.counts["messages late"] += 1
                if lost is not None:
                    self.truth.around(lost[0], *lost)
            self.loop.call_later(delay_s, arrive, *args, context=self.loop.outside)

    def calm(self) -> None:
        """From now on messages arrive once and soon; those under way are what they are."""
        self.loss = self.double = self.late = 0.0
        self.quieten(is_silent=False)
        for control in sorted(self.troubles):
            self.mend(control)
        for control in sorted(self.deaf | self.apart):
            self.undeafen(control)
        for control, host in sorted(self.cuts):
            self.heal(control, host)

    def is_cut(self, control: str, host: str) -> bool:
        return (control, host) in self.cuts or any(control in some for some in (self.deaf, self.apart, self.troubles))

    def cut(self, control: str, host: str, *, silently: bool) -> None:
        """Nothing passes between the two; `silently`: neither is told."""
        self.cuts.add((control, host))
        self.truth.begin(CUT, control, host)
        end = self.controls.get(control)
        for agent in self._agents_of(host):
            if end is not None and not silently:
                self._part(end, agent, "the connection was lost")

    def heal(self, control: str, host: str) -> None:
        self.cuts.discard((control, host))
        self.truth.end(CUT, control, host)
        end = self.controls.get(control)
        for agent in self._agents_of(host):
            if end is not None:
                self._meet(end, agent)

    def _agents_of(self, host: str) -> list[AgentEnd]:
        return [agent for (name, _), agent in self.agents.items() if name == host]

    def deafen(self, control: str, *, has_broker: bool) -> None:
        """Silently nothing passes between that control and any host."""
        (self.apart if has_broker else self.deaf).add(control)
        self.truth.begin(APART if has_broker else DEAF, control)

    def undeafen(self, control: str) -> None:
        self.deaf.discard(control)
        self.apart.discard(control)
        self.truth.end(DEAF, control)
        self.truth.end(APART, control)
        self._meet_all(control)

    def trouble(self, control: str, reason: str) -> None:
        """The broker is away for that control, which knows it."""
        self.troubles[control] = reason
        self.truth.begin(BROKER_AWAY, control)

    def mend(self, control: str) -> None:
        self.troubles.pop(control, None)
        self.truth.end(BROKER_AWAY, control)
        self._meet_all(control)

    def quieten(self, *, is_silent: bool) -> None:
        self.is_silent = is_silent
        (self.truth.begin if is_silent else self.truth.end)(SILENCE)

    def _meet_all(self, control: str) -> None:
        end = self.controls.get(control)
        if end is not None:
            for agent in list(self.agents.values()):
                self._meet(end, agent)

    # -- who comes and goes -------------------------------------------------------------------------------------------
    def control_came(self, control: ControlEnd) -> None:
        self.controls[control.name] = control
        for agent in list(self.agents.values()):
            self._meet(control, agent)

    def control_went(self, control: ControlEnd) -> None:
        if self.controls.get(control.name) is control:
            del self.controls[control.name]
            for agent in self.agents.values():
                agent.linked.discard(control.name)

    def agent_came(self, agent: AgentEnd) -> None:
        self.agents[agent.key] = agent
        for control in list(self.controls.values()):
            self._meet(control, agent)

    def agent_went(self, agent: AgentEnd, *, silently: bool = False, in_order: bool = False) -> None:
        """`silently`: its machine went with it, and no connection is closed. `in_order`: it said that it goes."""
        if self.agents.get(agent.key) is not agent:
            return
        del self.agents[agent.key]
        if not silently:
            for control in list(self.controls.values()):
                if control.greeted.get(agent.key) is agent and not self.is_cut(control.name, agent.host):
                    self._part(control, agent, "the connection of its agent ended", in_order)

    def _meet(self, control: ControlEnd, agent: AgentEnd) -> None:
        """An agent reaches a control a little later and says hello until it is welcomed."""
        self.loop.call_later(self.rng.uniform(0.01, 1.0), self._hello, control, agent, context=self.loop.outside)

    def _hello(self, control: ControlEnd, agent: AgentEnd) -> None:
        both_here = self.agents.get(agent.key) is agent and self.controls.get(control.name) is control
        if not both_here or self.is_cut(control.name, agent.host) or control.name in agent.linked:
            return
        if not self.loop.is_stopped(agent.owner):
            self.deliver(self._at_control, control.name, agent.hello(), agent)
        self.loop.call_later(HELLO_AGAIN_S, self._hello, control, agent, context=self.loop.outside)

    def _part(self, control: ControlEnd, agent: AgentEnd, reason: str, in_order: bool = False) -> None:
        agent.linked.discard(control.name)
        self.truth.begin(PARTED, control.name, *agent.key)
        for waiting in control.waiting.pop(agent.key, []):
            if not waiting.done():
                waiting.set_exception(Unreachable(f"{agent.host}: {reason}"))
        if control.greeted.get(agent.key) is agent:
            del control.greeted[agent.key]
        gone = AgentDisconnected(agent.host, reason, in_order, agent.service)
        self.loop.call_later(self.rng.uniform(0.001, 0.3), self._gone, control, gone, context=self.loop.outside)

    def _gone(self, control: ControlEnd, gone: AgentDisconnected) -> None:
        """News of the bus itself, not a message: never late, and never after the Hello of a newer connection."""
        if self.loop.is_stopped(control.owner):
            self.loop.hold(control.owner, self._gone, control, gone)
        elif control.is_open and (gone.host, gone.service) not in control.greeted:
            control.on_notice(gone)

    # -- arrivals -----------------------------------------------------------------------------------------------------
    def _at_control(self, name: str, notice: Notice, agent: AgentEnd | None = None) -> None:
        control = self.controls.get(name)
        if control is None or self.is_cut(name, notice.host):
            return
        if self.loop.is_stopped(control.owner):
            self.loop.hold(control.owner, self._at_control, name, notice, agent)
            return
        if agent is not None and self.agents.get(agent.key) is not agent:
            return  # a hello opens a connection, and this one has no other end
        control.has_heard = True
        welcome = control.on_notice(notice)
        if agent is not None and welcome is not None and welcome.accepted:  # otherwise it says hello again
            control.greeted[agent.key] = agent
            self.truth.end(PARTED, name, *agent.key)
            self.deliver(self._welcomed, name, agent, welcome)

    def _welcomed(self, name: str, agent: AgentEnd, welcome: Welcome) -> None:
        if self.agents.get(agent.key) is agent and not self.is_cut(name, agent.host) and name in self.controls:
            agent.linked.add(name)
            agent.on_welcome(welcome)

    def notify(self, agent: AgentEnd, notice: Notice) -> None:
        for name in sorted(agent.linked):
            self.deliver(self._at_control, name, notice)

    def beat(self, beat: Beat) -> None:
        """From a host's heart to everybody who listens; it needs no hello."""
        if not self.is_silent:
            for name in self.controls:
                if not self.is_cut(name, beat.host):
                    self.deliver(self._at_control, name, beat, lost=(self._beat_felt_s, BEAT_LOST, name, beat.host))

    def at_itself(self, control: ControlEnd, returned: asyncio.Future[None]) -> None:
        """An echo."""
        if self.controls.get(control.name) is not control or control.name in self.deaf or control.trouble:
            return
        if self.loop.is_stopped(control.owner):
            self.loop.hold(control.owner, self.at_itself, control, returned)
        elif not returned.done():
            returned.set_result(None)

    def at_agent(self, control: ControlEnd, to: Address, command: Command, reply: asyncio.Future[Answer]) -> None:
        agent = self.agents.get(to)
        if agent is None or self.is_cut(control.name, agent.host):
            self.counts["commands without a receiver"] += 1
            return
        agent.spawn(self._handle(agent, control, command, reply))

    async def _handle(
        self, agent: AgentEnd, control: ControlEnd, command: Command, reply: asyncio.Future[Answer]
    ) -> None:
        answer = await agent.on_command(command)
        guest: Guest | None = getattr(answer, "guest", None)
        where = "-" if guest is None else guest.state.value
        self.note(
            f"{agent.host} {type(command.verb).__name__} {command.subject.id[:8]} g{command.generation} "
            f"-> {type(answer).__name__} {where} {getattr(answer, 'reason', '')}"
        )
        self.counts["commands carried out"] += 1
        if not self.is_cut(control.name, agent.host):
            self.deliver(_answered, reply, answer, lost=(ASK_FELT_S, ASK_LOST, control.name, *agent.key))


def _answered(reply: asyncio.Future[Answer], answer: Answer) -> None:
    if not reply.done():
        reply.set_result(answer)


def _not_returned(returned: asyncio.Future[None]) -> None:
    if not returned.done():
        returned.set_exception(Unreachable("the simulated broker did not return it in time"))


def _expired(reply: asyncio.Future[Answer], host: str) -> None:
    if not reply.done():
        reply.set_exception(Unreachable(f"{host} did not answer in time"))


class ControlEnd:
    """ControlBus for one life of one control."""

    def __init__(self, network: Network, name: str, owner: object) -> None:
        self.name, self.owner = name, owner
        self._network = network
        self.on_notice: Callable[[Notice], Welcome | None] = lambda _: None
        self.waiting: dict[Address, list[asyncio.Future[Answer]]] = {}
        self.greeted: dict[Address, AgentEnd] = {}  # whose hello has arrived, as long as the connection lasts
        self.is_open = True
        self.has_heard, self.began_s = False, network.loop.time()  # any host; since when it could

    @property
    def trouble(self) -> str:
        return self._network.troubles.get(self.name, "")

    @property
    def is_direct(self) -> bool:
        return False

    async def echo(self, timeout_s: float) -> None:
        network = self._network
        returned: asyncio.Future[None] = network.loop.create_future()
        if self.trouble:
            raise Unreachable(self.trouble)
        if self.is_open:
            network.deliver(network.at_itself, self, returned)
        timer = network.loop.call_later(timeout_s, _not_returned, returned)
        try:
            await returned
        finally:
            timer.cancel()

    def renew(self) -> None:
        """What a deaf control has lost lies beyond its broker."""

    def has_heard_nobody_for_s(self) -> float:
        """Since it began; 0.0 once it has heard any host."""
        return 0.0 if self.has_heard else self._network.loop.time() - self.began_s

    async def serve(self, on_notice: Callable[[Notice], Welcome | None]) -> None:
        self.on_notice = on_notice
        self._network.control_came(self)

    async def command(self, host: str, command: Command, timeout_s: float, service: str = COMPUTE) -> Answer:
        network, to = self._network, (host, service)
        reply: asyncio.Future[Answer] = network.loop.create_future()
        if not self.is_open:
            return await reply  # a dead process asks nothing and gets no answer
        network.counts["commands"] += 1
        network.counts["commands fenced"] += not isinstance(command.verb, READ_ONLY)
        agent = network.agents.get(to)
        if self.trouble:
            raise Unreachable(f"{host} cannot be asked: {self.trouble}")
        if agent is None or self.name not in agent.linked:
            if type(command.verb) is Ping:
                network.truth.around(ASK_FELT_S, ASK_FELT_S, ASK_LOST, self.name, *to)
            raise Unreachable(f"{service} on {host} is not connected")
        waiting = self.waiting.setdefault(to, [])
        waiting.append(reply)
        timer = network.loop.call_later(timeout_s, _expired, reply, host)
        network.deliver(network.at_agent, self, to, command, reply, lost=(ASK_FELT_S, ASK_LOST, self.name, *to))
        try:
            return await reply
        finally:
            timer.cancel()
            if reply in waiting:
                waiting.remove(reply)

    async def close(self) -> None:
        self.shut()

    def shut(self) -> None:
        self.is_open = False
        self._network.control_went(self)


class AgentEnd:
    """AgentBus for one life of one service of a host. `spawn` starts what ends when its process (`owner`) does."""

    def __init__(self, network: Network, key: Address, spawn: Spawn, owner: object) -> None:
        self.key, self.owner = key, owner
        self.host, self.service = key
        self.spawn = spawn
        self._network = network
        self.linked: set[str] = set()
        self.is_open = True
        self.hello: Callable[[], Hello]
        self.on_welcome: Callable[[Welcome], None]
        self.on_command: Callable[[Command], Awaitable[Answer]]

    async def run(
        self,
        hello: Callable[[], Hello],
        on_welcome: Callable[[Welcome], None],
        on_command: Callable[[Command], Awaitable[Answer]],
    ) -> None:
        self.hello, self.on_welcome, self.on_command = hello, on_welcome, on_command
        self._network.agent_came(self)
        await self._network.loop.create_future()

    def notify(self, notice: Notice) -> None:
        if self.is_open and self.linked:
            self._network.notify(self, notice)

    async def close(self) -> None:
        self.is_open = False
        self._network.agent_went(self, in_order=True)

    def shut(self, *, silently: bool = False) -> None:
        self.is_open = False
        self._network.agent_went(self, silently=silently)
