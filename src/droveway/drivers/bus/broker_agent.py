"""An agent's end of the bus over a broker; broker.py tells the whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from droveway.drivers.bus import beats
from droveway.drivers.bus.broker_link import BrokerLink
from droveway.drivers.bus.broker_messages import (
    NOTICE_KINDS,
    Answered,
    CommandMessage,
    HelloFrom,
    Probe,
    ProbeReply,
    WelcomeFrom,
    decode_for_agent,
    encode,
    word,
)
from droveway.drivers.bus.rate_limited_log import RateLimitedLog
from droveway.ports.bus import AgentDisconnected, Beat, Command, Hello, Notice, Welcome
from droveway.ports.clock import Chance, Names
from droveway.ports.replies import Answer

log = structlog.get_logger("droveway.bus")
COMMANDS_MAX = 1024  # carried out at once
HELLO_FIRST_S, HELLO_MAX_S = 0.5, 4.0  # until a control has let this agent in
HELLO_SPREAD_S = 0.25  # agents asked all at once do not answer all at once
SPREAD_MAX_S = 10.0  # whatever a control says
CONTROL_ID_MAX = 64
CONTROLS_MAX = 64  # remembered; each start of a control is a new one


class BrokerAgentBus:
    """An agent's end; several may share a link."""

    def __init__(self, link: BrokerLink, chance: Chance, names: Names) -> None:
        self._link, self._chance, self._id = link, chance, names.uuid()
        self._prefix = link.settings.prefix
        self._answers = f"{self._prefix}.answer.".encode()
        self._host = self._name = self._subject = ""
        self._let_in_by: dict[str, None] = {}  # controls, in the order of their welcomes
        self._refused_by, self._retry_after_s = "", 0.0
        self._is_new = False  # the connection is, and no control on it has its hello
        self._spread_s = 0.0  # as the last control that let it in has said
        self._holds: asyncio.TimerHandle | None = None  # its hello, until then
        self._asking: set[str] = set()
        self._due = asyncio.Event()
        self._busy: set[asyncio.Task[None]] = set()
        self._on_welcome: Callable[[Welcome], None] = lambda _: None
        self._on_command: Callable[[Command], Awaitable[Answer]] | None = None
        self._rate_limited = RateLimitedLog()
        self.dropped = 0  # notices and answers that were not sent

    async def run(
        self,
        hello: Callable[[], Hello],
        on_welcome: Callable[[Welcome], None],
        on_command: Callable[[Command], Awaitable[Answer]],
    ) -> None:
        self._on_welcome, self._on_command = on_welcome, on_command
        hello_from = hello()
        self._host, service = hello_from.host, hello_from.service
        self._name = word(self._host)
        p, link = self._prefix, self._link
        self._subject = f"{p}.agent.{self._name}.{self._id}"
        sids = [
            link.subscribe(self._subject, self._on_message),
            link.subscribe(f"{p}.ask", self._on_ask),
            link.subscribe(f"{p}.ask.{self._name}", self._on_ask),
        ]
        link.use(self)
        try:
            await self._keep_saying_hello(hello)
        finally:
            self.notify(
                AgentDisconnected(self._host, "its agent has ended in good order", in_order=True, service=service)
            )
            self._hold_no_more()
            self._let_in_by.clear()
            for sid in sids:
                link.unsubscribe(sid)
            link.release(self)

    async def _keep_saying_hello(self, hello: Callable[[], Hello]) -> None:
        """Until cancelled: on a new connection, when a control asks that has not let this agent in, and again and
        again while one refuses or none has answered."""
        delay_s = HELLO_FIRST_S
        while True:
            is_in = bool(self._let_in_by) and not self._refused_by
            if self._holds is None:
                if self._link.is_connected:
                    for to in self._whom_to_greet():
                        where = f"{self._prefix}.hello{to}.{self._name}"
                        self._link.publish(where, encode(HelloFrom(self._id, hello())), self._subject)
                self._is_new = False
                self._asking.clear()
            self._due.clear()
            if is_in or self._holds is not None:
                delay_s = HELLO_FIRST_S
                await self._due.wait()
            else:
                with contextlib.suppress(TimeoutError):
                    pause_s = max(delay_s, self._retry_after_s if self._refused_by else 0.0)
                    async with asyncio.timeout(pause_s * self._chance.uniform(0.5, 1.0)):
                        await self._due.wait()
                delay_s = min(delay_s * 2, HELLO_MAX_S)
            if self._asking:
                # In this pause a welcome to an earlier hello may come; and of two agents under one name the one that
                # was let in before answers first.
                pause_s = HELLO_SPREAD_S if self._refused_by else 0.0
                await asyncio.sleep(pause_s + self._chance.uniform(0, HELLO_SPREAD_S))

    def _whom_to_greet(self) -> list[str]:
        """Ends of subjects: empty for all controls."""
        wanted = self._asking - self._let_in_by.keys()
        if self._refused_by:
            wanted.add(self._refused_by)
        if self._is_new or not (self._let_in_by or wanted):
            return [""]
        return [f"-to.{word(control)}" for control in wanted if control]

    def on_connected(self) -> None:
        """Where the broker is back after a while, thousands are on it again at once. Who had been let in is known: it
        obeys commands now, and says hello in its turn."""
        self._is_new = True
        if self._spread_s:
            pause_s = self._chance.uniform(0, self._spread_s)
            self._holds = asyncio.get_running_loop().call_later(pause_s, self._hold_no_more)
        self._due.set()

    def on_lost(self, reason: str) -> None:
        self._hold_no_more()
        self._let_in_by.clear()
        self._refused_by = ""
        self._due.set()

    def _hold_no_more(self) -> None:
        if self._holds is not None:
            self._holds.cancel()
            self._holds = None
            self._due.set()

    def _on_ask(self, subject: bytes, _reply: bytes, payload: bytes | None) -> None:
        """To all: a control has a new connection. To this host alone: that control does not know who speaks."""
        control = (payload or b"")[:CONTROL_ID_MAX].decode(errors="replace")
        if subject != f"{self._prefix}.ask".encode():
            self._let_in_by.pop(control, None)
            self._hold_no_more()
        if len(self._asking) < CONTROLS_MAX:
            self._asking.add(control)
            self._due.set()

    def _on_message(self, _subject: bytes, reply: bytes, payload: bytes | None) -> None:
        if payload is None:  # no control receives the hello: the one that refused this agent is gone too
            self._refused_by = ""
            return
        try:
            message = decode_for_agent(payload)
        except msgspec.DecodeError as error:
            self._rate_limited.warn("malformed message dropped", self._host, host=self._host, error=str(error))
            return
        if not isinstance(message, WelcomeFrom) and not reply.startswith(self._answers):
            return  # a control asks for its answers there, and nowhere else
        match message:
            case WelcomeFrom(control, welcome):
                self._welcomed(control, welcome)
            case Probe():
                self._link.publish(reply.decode(errors="replace"), encode(ProbeReply()))
            case CommandMessage(command) if len(self._busy) < COMMANDS_MAX:
                task = asyncio.get_running_loop().create_task(self._handle(command, reply.decode(errors="replace")))
                self._busy.add(task)
                task.add_done_callback(self._busy.discard)

    def _welcomed(self, control: str, welcome: Welcome) -> None:
        self._let_in_by.pop(control, None)
        if welcome.accepted:
            self._spread_s = min(welcome.spread_s, SPREAD_MAX_S)
            self._let_in_by[control] = None
            if len(self._let_in_by) > CONTROLS_MAX:
                del self._let_in_by[next(iter(self._let_in_by))]
            if self._refused_by == control:
                self._refused_by = ""
            self._due.set()
        else:
            if self._refused_by != control:
                log.error("control refused this agent", because=welcome.reason)
            self._refused_by, self._spread_s = control, 0.0
        self._retry_after_s = welcome.retry_after_s
        self._on_welcome(welcome)

    async def _handle(self, command: Command, reply: str) -> None:
        assert self._on_command is not None, "commands arrive while the bus runs"
        answer = await self._on_command(command)
        if not self._link.publish(reply, encode(Answered(answer))):
            self.dropped += 1

    def notify(self, notice: Notice) -> None:
        if not self._let_in_by and self._holds is None:
            return
        if isinstance(notice, Beat):
            subject, payload = f"{self._prefix}.beat.{self._name}", beats.encode(notice)
        else:
            kind = NOTICE_KINDS[type(notice)]
            subject, payload = f"{self._prefix}.notice.{kind}.{self._name}.{self._id}", encode(notice)
        if not self._link.publish(subject, payload):
            self.dropped += 1

    async def close(self) -> None:
        for task in list(self._busy):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._link.closed()
