"""Control's end of the bus over a broker, NATS or RabbitMQ; what holds for both ends is told here.

No process here sees an agent's connection end, so what the socket bus learns from the kernel is asked for instead:
- an agent says hello, to every control at once, until one welcomes it; again when its connection is new, when a
  control that has just started asks, and when a control hears from an agent it does not know;
- a service of a host is held by one agent, whose subjects name its host and its life: what the broker permits is the
  host's, whatever services it carries. When another says hello, the holder is probed: the broker says at once when it
  is gone, and one that does not answer in time has lost the name. Commands go to the holder's own subject, so an agent
  that was refused never hears one;
- an answer counts from the agent that was asked, and only to that request: its subject names the host, which the
  broker's permissions hold to its own name, and ends in a secret that went out with the request alone;
- a command that waits probes too: a killed agent ends it within PROBE_S, not at its deadline;
- an agent that ends in good order says so (Gone). That of a killed one is sent by its host's heart;
- beats need no agent: a heart's are passed on as they come;
- an echo takes the subject of a beat, under a name that no host can have, so that it shares the beats' subscription.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from droveway.domain.faults import Unreachable
from droveway.domain.liveness import LEFT
from droveway.domain.service_kinds import COMPUTE
from droveway.drivers.bus import beats
from droveway.drivers.bus.broker_agents import Agent, Agents
from droveway.drivers.bus.broker_link import BrokerLink
from droveway.drivers.bus.broker_messages import (
    Answered,
    CommandMessage,
    HelloFrom,
    Probe,
    WelcomeFrom,
    decode_answer,
    decode_hello,
    decode_notice,
    encode,
    word,
)
from droveway.drivers.bus.rate_limited_log import RateLimitedLog
from droveway.ports.bus import (
    NO_MESSAGE,
    AgentDisconnected,
    Command,
    MalformedMessage,
    Notice,
    Welcome,
    why_no_reply,
    wrong_protocol,
)
from droveway.ports.clock import Names
from droveway.ports.replies import Answer
from droveway.ports.senders import display_name, is_own, name_taken, wrong_sender

COMMANDS_MAX = 1024  # in flight to one agent
SECRET = 22  # characters of a request's secret, six bits each
CONTROL_ID = 16  # characters: short, for RabbitMQ's subjects end at 255 bytes
PROBE_S = 2.0
SETTLING_MAX = 1024  # names claimed by two agents, looked into at once
ASKS_MAX_PER_S = 1024
ASK_AGAIN_S = 30.0  # while a service of a host is missing
ECHO = "=echo-"  # begins the last word of an echo's subject; of no name is this the word


class _Request(msgspec.Struct):
    """Sent, not answered yet. Known by the subject on which its answer comes. A probe's answer is None."""

    agent: Agent
    answer: asyncio.Future[Answer | None]
    is_probe: bool


class BrokerControlBus:
    """Control's end. `trouble` is why there is no broker now, or empty."""

    def __init__(self, link: BrokerLink, names: Names) -> None:
        self._link, self._names, self._prefix = link, names, link.settings.prefix
        self._id = names.secret()[:CONTROL_ID]
        self._agents = Agents()
        self._requests: dict[bytes, _Request] = {}
        self._echo_subject = f"{self._prefix}.beat.{ECHO}{self._id}"
        self._echo_prefix = f"{self._prefix}.beat.{ECHO}".encode()
        self._echoes: dict[bytes, asyncio.Future[None]] = {}
        self._settling: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._asked: set[str] = set()
        self._asked_since_s = float("-inf")
        self._rate_limited = RateLimitedLog()
        self._reader = beats.BeatReader()
        self._sids: list[int] = []
        self._on_notice: Callable[[Notice], Welcome | None] = lambda _: None
        self.garbage = 0  # messages that were none
        self.strays = 0  # answers to nothing that was asked
        self.foreign_beats = 0  # of another boot than the agent that holds the name, or under another's name

    @property
    def trouble(self) -> str:
        return self._link.trouble

    @property
    def is_direct(self) -> bool:
        return False

    async def echo(self, timeout_s: float) -> None:
        """Raises Unreachable."""
        payload = self._names.secret().encode()  # which only a receiver of it can send back
        returned = self._echoes[payload] = asyncio.get_running_loop().create_future()
        try:
            if not self._link.publish(self._echo_subject, payload):
                await asyncio.sleep(0)
                raise Unreachable(f"nothing can be sent to the broker{self._because()}")
            async with asyncio.timeout(timeout_s):
                await returned
        except TimeoutError:
            raise Unreachable(f"the broker did not return it within {timeout_s:g} s{self._because()}") from None
        finally:
            del self._echoes[payload]

    def renew(self) -> None:
        self._link.renew()

    def _on_echo(self, subject: bytes, payload: bytes) -> None:
        """Other controls' are heard as well."""
        returned = self._echoes.get(payload) if subject == self._echo_subject.encode() else None
        if returned is not None and not returned.done():
            returned.set_result(None)

    async def serve(self, on_notice: Callable[[Notice], Welcome | None]) -> None:
        """Returns at once, broker or none: the link connects by itself."""
        self._on_notice = on_notice
        p, subscribe = self._prefix, self._link.subscribe
        self._sids = [
            subscribe(f"{p}.hello.*", self._on_hello),
            subscribe(f"{p}.hello-to.{self._id}.*", self._on_hello),
            subscribe(f"{p}.notice.*.*.*", self._on_message),
            subscribe(f"{p}.beat.*", self._on_beat),
            subscribe(f"{p}.answer.{self._id}.*.*", self._on_answer),
        ]
        self._link.use(self)

    async def close(self) -> None:
        for task in list(self._settling.values()):
            task.cancel()
        for sid in self._sids:
            self._link.unsubscribe(sid)
        self._link.release(self)
        self.on_lost("this control is ending")
        await self._link.closed()

    def on_connected(self) -> None:
        self._link.publish(f"{self._prefix}.ask", self._id.encode())

    def on_lost(self, reason: str) -> None:
        """What waits ends. Who is let in stays so: the end of a broker says nothing about agents."""
        for to in list(self._requests):
            self._fail(to, reason)

    # -- requests -----------------------------------------------------------------------------------------------------
    async def command(self, host: str, command: Command, timeout_s: float, service: str = COMPUTE) -> Answer:
        agent = self._agents.get(host, service)
        if agent is None or not self._link.is_connected:
            await asyncio.sleep(0)
            raise Unreachable(f"{display_name(host, service)} is not connected{self._because()}")
        if len(agent.waiting) >= COMMANDS_MAX:
            raise Unreachable(f"{agent.display_name} has {COMMANDS_MAX} commands waiting")
        answer = await self._request(agent, encode(CommandMessage(command)), timeout_s)
        assert answer is not None, "only a probe is answered with nothing"
        if why_not := why_no_reply(command.verb, answer):
            self._on_notice(MalformedMessage(host, why_not, service))
            raise Unreachable(f"{host}: its answer is invalid: {why_not}")
        return answer

    async def _request(self, agent: Agent, message: bytes, timeout_s: float, is_probe: bool = False) -> Answer | None:
        loop = asyncio.get_running_loop()
        to = f"{self._prefix}.answer.{self._id}.{agent.name}.{self._names.secret()[:SECRET]}"
        key = to.encode()
        request = self._requests[key] = _Request(agent, loop.create_future(), is_probe)
        agent.waiting.add(key)
        try:
            if not self._link.publish(agent.subject, message, to):
                raise Unreachable(
                    f"{len(message)} bytes to {agent.display_name} were not sent: the queue "
                    f"to the broker is full, or they are over its max_payload"
                )
            loop.call_later(PROBE_S, self._look, key)
            async with asyncio.timeout(timeout_s):
                return await request.answer
        except TimeoutError:
            reason = f"{agent.display_name} did not answer within {timeout_s:.0f} s{self._because()}"
            raise Unreachable(reason) from None
        finally:
            del self._requests[key]
            agent.waiting.discard(key)

    def _look(self, to: bytes) -> None:
        """Is there still a process that will answer? If not, the broker says so at once."""
        request = self._requests.get(to)
        if request is not None:
            self._link.publish(request.agent.subject, encode(Probe()), to.decode())
            asyncio.get_running_loop().call_later(PROBE_S, self._look, to)

    def _on_answer(self, subject: bytes, _reply: bytes, payload: bytes | None) -> None:
        request = self._requests.get(subject)
        if request is None or request.answer.done():
            self.strays += request is None  # late, or forged
            return
        if payload is None:
            self._fail(subject, "its process has ended, or it is connecting again")
            return
        try:
            message = decode_answer(payload)
        except msgspec.DecodeError:
            self._count_garbage(subject, request.agent.name)
            return
        if isinstance(message, Answered):
            request.answer.set_result(message.answer)
        elif request.is_probe:
            request.answer.set_result(None)

    def _fail(self, to: bytes, because: str) -> None:
        request = self._requests.get(to)
        if request is not None and not request.answer.done():
            who = request.agent.display_name
            request.answer.set_exception(Unreachable(f"the connection to {who} ended: {because}"))

    def _because(self) -> str:
        why = self._link.trouble or self._link.complaint
        return f": {why}" if why else ""

    # -- who is let in ------------------------------------------------------------------------------------------------
    def _on_hello(self, subject: bytes, _reply: bytes, payload: bytes | None) -> None:
        name = subject.decode(errors="replace").rpartition(".")[2]
        try:
            hello_from = decode_hello(payload or b"")
        except msgspec.DecodeError:
            self._count_garbage(subject, name)
            return
        hello = hello_from.hello
        holder, key = self._agents.get(hello.host, hello.service), (hello.host, hello.service)
        other = self._agents.by_life(name, hello_from.agent)
        if word(hello.host) != name or (other is not None and other.key != key):
            self._count_garbage(subject, name)
        elif wrong := wrong_protocol(hello.protocol):
            refusal = self._on_notice(hello)  # the failure detector tells why that host is not there
            self._refuse(hello_from, wrong, 0.0 if refusal is None else refusal.retry_after_s)
        elif holder is None or holder.id == hello_from.agent:
            self._let_in(hello_from)
        elif key not in self._settling and len(self._settling) < SETTLING_MAX:  # or it asks again
            task = asyncio.get_running_loop().create_task(self._settle(holder, hello_from))
            self._settling[key] = task
            task.add_done_callback(lambda _: self._settling.pop(key, None))

    async def _settle(self, holder: Agent, hello_from: HelloFrom) -> None:
        """Two agents claim a name: it stays with the holder if that is there."""
        try:
            await self._request(holder, encode(Probe()), PROBE_S, is_probe=True)
        except Unreachable as fault:
            if self._link.is_connected and self._agents.get(*holder.key) is holder:
                self._drop(holder, fault.reason)
                self._let_in(hello_from)
            return
        self._refuse(hello_from, name_taken(hello_from.hello, holder.hello))

    def _let_in(self, hello_from: HelloFrom) -> None:
        known = self._agents.get(hello_from.hello.host, hello_from.hello.service)
        agent = Agent(hello_from, self._prefix)
        if known is not None:  # the same one on a new connection
            self._reader.forget(known.beat_subject)
            agent.waiting = known.waiting
        self._agents.put(agent)
        welcome = self._on_notice(hello_from.hello) or Welcome(1.0)
        if not welcome.accepted:
            self._agents.remove(agent)
        self._link.publish(agent.subject, encode(WelcomeFrom(self._id, welcome)))

    def _refuse(self, hello_from: HelloFrom, reason: str, retry_after_s: float = 0.0) -> None:
        host, service, address = hello_from.hello.host, hello_from.hello.service, hello_from.hello.address
        self._rate_limited.warn(
            "agent refused", f"{host}/{service}", host=host, service=service, address=address, because=reason
        )
        answer = WelcomeFrom(self._id, Welcome(1.0, False, reason, retry_after_s))
        self._link.publish(f"{self._prefix}.agent.{word(hello_from.hello.host)}.{hello_from.agent}", encode(answer))

    def _drop(self, agent: Agent, reason: str, in_order: bool = False) -> None:
        self._agents.remove(agent)
        self._reader.forget(agent.beat_subject)
        for to in list(agent.waiting):
            self._fail(to, reason)
        self._on_notice(AgentDisconnected(agent.hello.host, reason, in_order, agent.hello.service))

    def _ask(self, name: str) -> None:
        """Have the agents under that word of a subject say hello; bounded, whatever arrives."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._asked_since_s > 1.0:
            self._asked, self._asked_since_s = set(), now_s
        if name not in self._asked and len(self._asked) < ASKS_MAX_PER_S:
            self._asked.add(name)
            self._link.publish(f"{self._prefix}.ask.{name}", self._id.encode())

    # -- what is heard ------------------------------------------------------------------------------------------------
    def _on_message(self, subject: bytes, _reply: bytes, payload: bytes | None) -> None:
        name, agent_id = subject.decode(errors="replace").split(".")[3:5]
        try:
            notice = decode_notice(payload or b"")
        except msgspec.DecodeError as error:
            self._garbled(subject, name, agent_id, f"{NO_MESSAGE} ({error})")
            return
        agent = self._agents.by_life(name, agent_id)
        if word(notice.host) != name or (agent is not None and not is_own(notice, agent.hello)):
            self._garbled(subject, name, agent_id, wrong_sender(notice))
        elif agent is None:
            if not isinstance(notice, AgentDisconnected):
                self._ask(name)
        elif isinstance(notice, AgentDisconnected):
            self._drop(agent, notice.reason, notice.in_order)
        else:
            self._on_notice(notice)

    def _garbled(self, subject: bytes, name: str, agent_id: str, reason: str) -> None:
        self._count_garbage(subject, name)
        sender = self._agents.by_life(name, agent_id)
        if sender is not None:
            self._on_notice(MalformedMessage(sender.hello.host, reason, sender.hello.service))

    def _on_beat(self, subject: bytes, _reply: bytes, payload: bytes | None) -> None:
        beat = None if payload is None else self._reader.read(subject, payload)
        if beat is not None:
            self._on_notice(beat)
        else:
            self._on_new_beat(subject, payload or b"")

    def _on_new_beat(self, subject: bytes, payload: bytes) -> None:
        """Not of a sender that is known: the first beat of an agent, one of a stranger, an echo, or garbage."""
        if subject.startswith(self._echo_prefix):
            self._on_echo(subject, payload)
            return
        try:
            beat = beats.decode(payload)
        except ValueError:
            self._count_garbage(subject, subject.decode(errors="replace").rpartition(".")[2])
            return
        name = word(beat.host)
        if subject != f"{self._prefix}.beat.{name}".encode():
            self.foreign_beats += 1
            return
        agents = self._agents.of(beat.host)
        if not agents:
            self._ask(name)
        elif all(agent.hello.boot_id != beat.boot_id for agent in agents.values()):
            # A heart that beats in a new boot before its agent is there, or a late one: the detector knows which.
            self.foreign_beats += 1
            self._ask(name)
        else:
            alive = {one for one, late in zip(beat.services, beat.lateness_ms, strict=True) if late < LEFT}
            self._reader.know(subject, payload)
            if alive - agents.keys():  # a service whose hello was lost; what it is asked may be lost, too
                self._ask(name)
                asyncio.get_running_loop().call_later(ASK_AGAIN_S, self._reader.forget, subject)
        self._on_notice(beat)

    def _count_garbage(self, subject: bytes, name: str) -> None:
        """`name`: of the sender, as the subject has it, to which the broker's permissions hold it."""
        self.garbage += 1
        self._rate_limited.warn(
            "malformed message dropped",
            name,
            subject=subject.decode(errors="replace"),
            so_far=self.garbage,
        )
