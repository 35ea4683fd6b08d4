"""A hostile agent says everything in the protocol wrongly, one message at a time, over each bus: it is refused and said
once, and nobody else is touched."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from structlog.testing import capture_logs

from droveway.control.engine.nudges import Nudges
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.domain.faults import Unreachable
from droveway.domain.model import of_instance
from droveway.drivers.bus import beats
from droveway.drivers.bus.broker_agent import BrokerAgentBus
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.ports.bus import MAX_MESSAGE_BYTES, Beat, Command, Notice, Ping, ReadConsole, Welcome
from tests.drivers.bus_worlds import Ends, SocketWorld, World, control_of
from tests.drivers.hostile_words import GOOD, HOST, NO_MESSAGES, OTHER, wrong
from tests.drivers.identity_worlds import Hostile, Identities, managed_rabbit, signed_nats

encode = msgspec.msgpack.Encoder().encode
LOGGED_MAX = 12  # lines about thousands of messages


class HostileAgent(Protocol):
    """The hostile agent. `say`: a message of that kind, as the bus carries it."""

    async def say(self, kind: str, payload: bytes) -> None: ...
    async def answer(self, payload: Any) -> None:
        """To the command that arrives next."""
        ...

    async def close(self) -> None: ...


class SocketHostileAgent:
    """One that control closes the door on comes again, and says hello as it should."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def _connected(self, *, greets: bool = True) -> asyncio.StreamWriter:
        if self._writer is None or self._writer.is_closing() or (self._reader is not None and self._reader.at_eof()):
            await self.close()
            self._reader, self._writer = await asyncio.open_unix_connection(self._path)
            if greets:
                self._send(encode(GOOD["hello"]))
                await self._read()
        return self._writer

    def _send(self, payload: bytes) -> None:
        assert self._writer is not None
        self._writer.write(len(payload).to_bytes(4, "big") + payload)

    async def _read(self) -> Any:
        assert self._reader is not None
        size = int.from_bytes(await self._reader.readexactly(4), "big")
        return msgspec.msgpack.decode(await self._reader.readexactly(size))

    async def say(self, kind: str, payload: bytes) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if kind == "hello":
                await self.close()
            writer = await self._connected(greets=kind != "hello")
            self._send(payload)
            await writer.drain()

    async def answer(self, payload: Any) -> None:
        await self._connected()
        command = await self._read()
        with contextlib.suppress(ConnectionError):
            self._send(encode({"type": "answer", "number": command["number"], "answer": payload}))

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()
            self._reader = self._writer = None


class BrokerHostileAgent:
    """On its own subjects; that it may use no others is shown in test_broker_identities.py."""

    def __init__(self, own: Identities) -> None:
        self._hostile, self._link = Hostile(own, HOST), None
        self._commands: asyncio.Queue[bytes] = asyncio.Queue()
        self._subjects = {
            "hello": f"droveway.hello.{HOST}",
            "report": f"droveway.notice.report.{HOST}.evil",
            "changed": f"droveway.notice.changed.{HOST}.evil",
            "gone": f"droveway.notice.gone.{HOST}.evil",
            "beat": f"droveway.beat.{HOST}",
            "answer": f"droveway.notice.answer.{HOST}.evil",
        }

    async def _connected(self) -> Any:
        if self._link is None:
            self._link = await self._hostile.connected()  # type: ignore[assignment]
            assert self._link is not None
            self._link.subscribe(f"droveway.agent.{HOST}.evil", self._on_message)
            await self.say("hello", encode({"agent": "evil", "hello": GOOD["hello"]}))
        return self._link

    def _on_message(self, _subject: bytes, reply: bytes, payload: bytes | None) -> None:
        if reply:
            self._commands.put_nowait(reply)

    async def say(self, kind: str, payload: bytes) -> None:
        link = await self._connected()
        link.publish(self._subjects[kind], payload)

    async def answer(self, payload: Any) -> None:
        link = await self._connected()
        reply = await self._commands.get()
        link.publish(reply.decode(), encode({"type": "answer", "answer": payload}))

    async def close(self) -> None:
        await self._hostile.close()


# -- the three buses --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identities]:
    with signed_nats(tmp_path_factory.mktemp("hostile") / "nats") as one:
        yield one


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[Identities]:
    with managed_rabbit() as one:
        yield one


@pytest.fixture(params=["socket", *(pytest.param(name, marks=pytest.mark.servers) for name in ("nats", "rabbitmq"))])
def bus(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[World, Callable[[], HostileAgent]]:
    if request.param == "socket":
        path = tmp_path / "bus.sock"
        return SocketWorld(path), lambda: SocketHostileAgent(path)
    own: Identities = request.getfixturevalue(request.param)
    return own.world, lambda: BrokerHostileAgent(own)


class Scene(Ends):
    """Control as it listens, an honest agent, and the hostile one."""

    def __init__(self, world: World, evil: HostileAgent) -> None:
        super().__init__(world)
        self.observer, self.evil = Observer(SystemClock(), Nudges(), LivenessSettings()), evil
        self.failures: list[dict[str, Any]] = []

    def on_notice(self, notice: Notice) -> Welcome | None:
        super().on_notice(notice)
        return self.observer.on_notice(notice)

    async def is_well(self) -> None:
        """The honest one is obeyed and heard, and nothing is said of it but what it said."""
        answer = await self.control.command(OTHER, Command(of_instance("g"), 1, ReadConsole()), 5)
        assert answer.text == "g 1"
        seen = self.observer.observation(OTHER)
        assert seen is not None and seen.is_connected("nova-compute") and seen.boot_id == "boot"
        assert not seen.services["nova-compute"].disconnect_reason
        kinds = Counter(type(one).__name__ for one in self.heard if getattr(one, "host", "") == OTHER)
        assert kinds.keys() <= {"Hello"}, kinds
        assert OTHER not in self.observer.inbox.refused() and not self.failures, self.failures


@contextlib.asynccontextmanager
async def scene(bus: tuple[World, Callable[[], HostileAgent]]) -> AsyncIterator[Scene]:
    world, evil = bus
    one = Scene(world, evil())
    asyncio.get_running_loop().set_exception_handler(lambda _, context: one.failures.append(context))
    await one.control.serve(one.on_notice)
    try:
        identities = getattr(one.evil, "_hostile", None)
        link = None if identities is None else await identities._of.link(OTHER)
        one.agent(OTHER, bus=None if link is None else BrokerAgentBus(link, SystemChance(), SystemNames()))
        await one.until(lambda: bool(one.welcomes), 15)
        yield one
    finally:
        await one.evil.close()
        await one.close()


@contextlib.asynccontextmanager
async def told(bus: tuple[World, Callable[[], HostileAgent]]) -> AsyncIterator[Scene]:
    with capture_logs() as logs:
        async with scene(bus) as one:
            yield one
            await one.is_well()
    loud = [line for line in logs if line["log_level"] in {"warning", "error", "critical"}]
    assert len(loud) <= LOGGED_MAX, Counter(line["event"] for line in loud)


@pytest.mark.parametrize("kind", ["hello", "report", "changed", "gone", "answer"])
async def test_every_message_with_one_thing_wrong(bus: tuple[World, Callable[[], HostileAgent]], kind: str) -> None:
    async with told(bus) as s:
        is_socket = isinstance(s.evil, SocketHostileAgent)
        for number, spoilt in enumerate(wrong(kind)):
            message = spoilt
            if kind == "hello" and not is_socket:
                message = {"agent": "evil", "hello": message}
            elif kind == "answer" and is_socket:
                message = {"type": "answer", "number": number, "answer": message}
            try:
                payload = encode(message)
            except (OverflowError, ValueError):
                continue
            await s.evil.say(kind, payload)
            if number % 100 == 0:
                await s.is_well()
        await s.is_well()


async def test_messages_that_are_none_and_orders_that_are_none(bus: tuple[World, Callable[[], HostileAgent]]) -> None:
    async with told(bus) as s:
        for payload in NO_MESSAGES:
            for kind in GOOD:
                await s.evil.say(kind, payload)
            await s.is_well()
        for kind in ("gone", "gone", "report", "answer", "changed", "beat", "hello", "hello", "gone", "report"):
            await s.evil.say(kind, encode(GOOD[kind]))
        if isinstance(s.evil, SocketHostileAgent):
            await s.evil.close()
            reader, writer = await asyncio.open_unix_connection(s.evil._path)
            writer.write((MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        else:
            for agent in ("", "a.b", "*", ">", "x" * 65, "h1"):
                await s.evil.say("hello", encode({"agent": agent, "hello": GOOD["hello"]}))


async def test_a_beat_with_any_byte_wrong(bus: tuple[World, Callable[[], HostileAgent]]) -> None:
    good = beats.encode(GOOD["beat"])
    async with told(bus) as s:
        for at in range(len(good)):
            for byte in (0, 1, 0x7F, 0xFF, good[at] ^ 1):
                spoilt = bytearray(good)
                spoilt[at] = byte
                await s.evil.say("beat", bytes(spoilt))
                await s.evil.say("beat", good[:at])
        for beat in (Beat(OTHER, "boot", 99), Beat("x" * 300, "boot", 1), Beat(HOST, "b" * 300, 1)):
            if not isinstance(
                s.evil, SocketHostileAgent
            ):  # there any process of this user is a heart; the pid tells which
                await s.evil.say("beat", beats.encode(beat))


async def test_answers_with_one_thing_wrong_end_as_unreachable_or_as_an_answer(
    bus: tuple[World, Callable[[], HostileAgent]],
) -> None:
    async with told(bus) as s:
        await s.evil.say("report", encode(GOOD["report"]))
        await s.until(lambda: s.observer.is_known(HOST), 15)
        some = [one for number, one in enumerate(wrong("answer")) if number % 23 == 0]
        for message in some:
            with contextlib.suppress(OverflowError, ValueError):
                encode(message)
                answering = asyncio.create_task(s.evil.answer(message))
                with contextlib.suppress(Unreachable):
                    await s.control.command(HOST, Command(of_instance("g1"), 1, Ping()), 0.1)
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)


async def test_what_is_refused_is_told_of_its_host_alone_and_once(
    bus: tuple[World, Callable[[], HostileAgent]],
) -> None:
    async with told(bus) as s:
        await s.evil.say("report", encode({**msgspec.to_builtins(GOOD["report"]), "sequence": "one"}))
        for _ in range(50):
            await s.evil.say("report", encode({**msgspec.to_builtins(GOOD["report"]), "generation": -(1 << 63)}))
            await s.evil.say("gone", encode({**msgspec.to_builtins(GOOD["gone"]), "host": OTHER}))
        await s.until(lambda: HOST in s.observer.inbox.refused(), 15)
        assert list(s.observer.inbox.refused()) == [HOST]
        assert "no message" in s.observer.inbox.refused()[HOST][0]
        if not isinstance(s.evil, SocketHostileAgent):
            assert control_of(s).garbage >= 1
