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
from droveway.ports.bus import ASKS, Answer, Command, Gone, Hello, Notice, Welcome
from droveway.simulation.loop import SimLoop

LATE_MAX_S = 40.0
HELLO_AGAIN_S = 1.0
Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Network:
    """Who is linked with whom. `loss`, `double` and `late` are chances of each single message."""

    def __init__(self, loop: SimLoop, rng: random.Random, note: Callable[[str], None]) -> None:
        self.loop, self.rng, self.note = loop, rng, note
        self.loss = self.double = self.late = 0.0
        self.controls: dict[str, ControlEnd] = {}
        self.agents: dict[str, AgentEnd] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.counts: Counter[str] = Counter()

    def deliver(self, arrive: Callable[..., None], *args: Any) -> None:
        """Carry one message: `arrive(*args)` never, once or twice, soon or late."""
        rng = self.rng
        copies = 1
        if self.double and rng.random() < self.double:
            copies = 2
            self.counts["messages doubled"] += 1
        for _ in range(copies):
            if self.loss and rng.random() < self.loss:
                self.counts["messages lost"] += 1
                continue
            delay_s = 0.0005 + rng.random() * 0.004
            if self.late and rng.random() < self.late:
                delay_s = rng.uniform(0.5, LATE_MAX_S)
                self.counts["messages late"] += 1
            self.loop.call_later(delay_s, arrive, *args)

    def calm(self) -> None:
        """From now on messages arrive once and soon; those under way are what they are."""
        self.loss = self.double = self.late = 0.0
        for control, host in sorted(self.cuts):
            self.heal(control, host)

    def is_cut(self, control: str, host: str) -> bool:
        return (control, host) in self.cuts

    def cut(self, control: str, host: str, *, silently: bool) -> None:
        """Nothing passes between the two; `silently`: neither is told."""
        self.cuts.add((control, host))
        agent, end = self.agents.get(host), self.controls.get(control)
        if agent is not None and end is not None and not silently:
            self._part(end, agent, "the connection was lost")

    def heal(self, control: str, host: str) -> None:
        self.cuts.discard((control, host))
        agent, end = self.agents.get(host), self.controls.get(control)
        if agent is not None and end is not None:
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
        self.agents[agent.host] = agent
        for control in list(self.controls.values()):
            self._meet(control, agent)

    def agent_went(self, agent: AgentEnd, *, silently: bool = False) -> None:
        """`silently`: its machine went with it, and nobody closes a connection."""
        if self.agents.get(agent.host) is not agent:
            return
        del self.agents[agent.host]
        if not silently:
            for control in list(self.controls.values()):
                if control.greeted.get(agent.host) is agent and not self.is_cut(control.name, agent.host):
                    self._part(control, agent, "the connection of its agent ended")

    def _meet(self, control: ControlEnd, agent: AgentEnd) -> None:
        """An agent reaches a control a little later and says hello until it is welcomed."""
        self.loop.call_later(self.rng.uniform(0.01, 1.0), self._hello, control, agent)

    def _hello(self, control: ControlEnd, agent: AgentEnd) -> None:
        both_here = self.agents.get(agent.host) is agent and self.controls.get(control.name) is control
        if not both_here or self.is_cut(control.name, agent.host) or control.name in agent.linked:
            return
        self.deliver(self._at_control, control.name, agent.hello(), agent)
        self.loop.call_later(HELLO_AGAIN_S, self._hello, control, agent)

    def _part(self, control: ControlEnd, agent: AgentEnd, sentence: str) -> None:
        agent.linked.discard(control.name)
        for waiting in control.waiting.pop(agent.host, []):
            if not waiting.done():
                waiting.set_exception(Unreachable(f"{agent.host}: {sentence}"))
        if control.greeted.get(agent.host) is agent:
            del control.greeted[agent.host]
        gone = Gone(agent.host, sentence)
        self.loop.call_later(self.rng.uniform(0.001, 0.3), self._gone, control, gone)

    def _gone(self, control: ControlEnd, gone: Gone) -> None:
        """News of the bus itself, not a message: never late, and never after the Hello of a newer connection."""
        if control.is_open and gone.host not in control.greeted:
            control.on_notice(gone)

    # -- arrivals -----------------------------------------------------------------------------------------------------
    def _at_control(self, name: str, notice: Notice, agent: AgentEnd | None = None) -> None:
        control = self.controls.get(name)
        if control is None or self.is_cut(name, notice.host):
            return
        if agent is not None and self.agents.get(agent.host) is not agent:
            return  # a hello opens a connection, and there is nobody at the other end of this one
        if agent is not None:
            control.greeted[agent.host] = agent
        welcome = control.on_notice(notice)
        if agent is not None and welcome is not None:
            self.deliver(self._welcomed, name, agent, welcome)

    def _welcomed(self, name: str, agent: AgentEnd, welcome: Welcome) -> None:
        if self.agents.get(agent.host) is agent and not self.is_cut(name, agent.host) and name in self.controls:
            agent.linked.add(name)
            agent.on_welcome(welcome)

    def tell(self, agent: AgentEnd, notice: Notice) -> None:
        for name in sorted(agent.linked):
            self.deliver(self._at_control, name, notice)

    def at_agent(self, control: ControlEnd, host: str, command: Command, reply: asyncio.Future[Answer]) -> None:
        agent = self.agents.get(host)
        if agent is None or self.is_cut(control.name, host):
            self.counts["commands that met nobody"] += 1
            return
        agent.spawn(self._obey(agent, control, command, reply))

    async def _obey(self, agent: AgentEnd, control: ControlEnd, command: Command,
                    reply: asyncio.Future[Answer]) -> None:  # fmt: skip
        answer = await agent.on_command(command)
        where = answer.guest.state.value if answer.guest is not None else "-"
        self.note(f"{agent.host} {type(command.verb).__name__} {command.instance_id[:8]} g{command.generation} "
                  f"-> {answer.outcome} {where} {answer.sentence}")  # fmt: skip
        self.counts["commands carried out"] += 1
        if not self.is_cut(control.name, agent.host):
            self.deliver(_answered, reply, answer)


def _answered(reply: asyncio.Future[Answer], answer: Answer) -> None:
    if not reply.done():
        reply.set_result(answer)


def _expired(reply: asyncio.Future[Answer], host: str) -> None:
    if not reply.done():
        reply.set_exception(Unreachable(f"{host} did not answer in time"))


class ControlEnd:
    """ControlBus for one life of one control."""

    def __init__(self, network: Network, name: str) -> None:
        self.name = name
        self._network = network
        self.on_notice: Callable[[Notice], Welcome | None] = lambda _: None
        self.waiting: dict[str, list[asyncio.Future[Answer]]] = {}
        self.greeted: dict[str, AgentEnd] = {}  # whose hello has arrived, as long as the connection lasts
        self.is_open = True

    async def serve(self, on_notice: Callable[[Notice], Welcome | None]) -> None:
        self.on_notice = on_notice
        self._network.control_came(self)

    async def command(self, host: str, command: Command, timeout_s: float) -> Answer:
        network = self._network
        reply: asyncio.Future[Answer] = network.loop.create_future()
        if not self.is_open:
            return await reply  # a dead process asks nobody and is answered by nobody
        network.counts["commands"] += 1
        network.counts["commands fenced"] += not isinstance(command.verb, ASKS)
        agent = network.agents.get(host)
        if agent is None or self.name not in agent.linked:
            raise Unreachable(f"{host} is not connected")
        waiting = self.waiting.setdefault(host, [])
        waiting.append(reply)
        timer = network.loop.call_later(timeout_s, _expired, reply, host)
        network.deliver(network.at_agent, self, host, command, reply)
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
    """AgentBus for one life of one agent. `spawn` starts what ends when the agent's process does."""

    def __init__(self, network: Network, host: str, spawn: Spawn) -> None:
        self.host = host
        self.spawn = spawn
        self._network = network
        self.linked: set[str] = set()
        self.is_open = True
        self.hello: Callable[[], Hello]
        self.on_welcome: Callable[[Welcome], None]
        self.on_command: Callable[[Command], Awaitable[Answer]]

    async def run(self, hello: Callable[[], Hello], on_welcome: Callable[[Welcome], None],
                  on_command: Callable[[Command], Awaitable[Answer]]) -> None:  # fmt: skip
        self.hello, self.on_welcome, self.on_command = hello, on_welcome, on_command
        self._network.agent_came(self)
        await self._network.loop.create_future()

    def tell(self, notice: Notice) -> None:
        if self.is_open and self.linked:
            self._network.tell(self, notice)

    async def close(self) -> None:
        self.shut()

    def shut(self, *, silently: bool = False) -> None:
        self.is_open = False
        self._network.agent_went(self, silently=silently)
