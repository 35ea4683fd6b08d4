"""The embedded bus: framed msgpack over a unix socket. Control listens, one connection an agent and one a heart.

A frame is four bytes of length, then one tagged struct, or a heart's beat (beats.py), whose first byte no struct has.
The end of a connection is news in itself: the kernel says it at once when an agent dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog

from droveway.domain.faults import Unreachable, WrongConfiguration
from droveway.domain.service_kinds import COMPUTE
from droveway.drivers.bus import beats
from droveway.drivers.bus.hearts import Heart, Hearts
from droveway.drivers.bus.rate_limited_log import RateLimitedLog
from droveway.drivers.bus.socket_frames import (
    AnswerFrame,
    CommandFrame,
    Peer,
    decode_from_agent,
    decode_from_control,
    read_frame,
)
from droveway.ports.bus import (
    NO_MESSAGE,
    AgentDisconnected,
    Command,
    Hello,
    MalformedMessage,
    Notice,
    Welcome,
    why_no_reply,
    wrong_protocol,
)
from droveway.ports.clock import Chance
from droveway.ports.replies import Answer
from droveway.ports.senders import display_name, is_own, name_taken, wrong_sender

log = structlog.get_logger("droveway.bus")
RECONNECT_FIRST_S, RECONNECT_MAX_S = 0.05, 1.0
CLOSE_MAX_S = 1.0
COMMANDS_MAX = 1024  # in flight to one agent
PATH_MAX = 107  # what sockaddr_un holds
ECHO = b"\xb2"  # begins the one frame of a connection that control opens to itself; no struct and no beat has it


class _Agent(Peer):
    def __init__(self, writer: asyncio.StreamWriter, hello: Hello) -> None:
        super().__init__(writer)
        self.hello = hello
        self.key = f"{hello.host}/{hello.service}"
        self.last_word: AgentDisconnected | None = None
        self.waiting: dict[int, asyncio.Future[Answer]] = {}


class SocketControlBus:
    """Control's end: listens at `path`."""

    def __init__(self, path: Path) -> None:
        if len(os.fsencode(path)) > PATH_MAX:
            raise WrongConfiguration(f"bus path {path} is longer than {PATH_MAX} bytes; choose a shorter state_path")
        self._path = path
        self._agents: dict[tuple[str, str], _Agent] = {}  # by host and service
        self._number, self._rate_limited = 0, RateLimitedLog()
        self._echoes: dict[bytes, asyncio.Future[None]] = {}
        self._server: asyncio.Server | None = None
        self._accepted: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._on_notice: Callable[[Notice], Welcome | None] = lambda _: None
        self._hearts = Hearts(self._on_notice)

    @property
    def trouble(self) -> str:
        """Nothing lies between the two ends that could fail alone."""
        return ""

    @property
    def is_direct(self) -> bool:
        return True

    async def echo(self, timeout_s: float) -> None:
        """A connection of its own: it finds out that the socket is not ours any more, and that no descriptor is left.
        Raises Unreachable."""
        self._number += 1
        frame = ECHO + b"%d" % self._number
        returned = self._echoes[frame] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_unix_connection(self._path)
                try:
                    writer.write(len(frame).to_bytes(4, "big") + frame)
                    await returned
                finally:
                    writer.transport.abort()
        except TimeoutError:
            raise Unreachable(f"{self._path} does not answer within {timeout_s:g} s, or is another program's") from None
        except OSError as error:
            raise Unreachable(f"no connection can be made to {self._path}: {error.strerror or error}") from None
        finally:
            del self._echoes[frame]

    async def serve(self, on_notice: Callable[[Notice], Welcome | None]) -> None:
        self._on_notice, self._hearts = on_notice, Hearts(on_notice)
        if _somebody_listens(self._path):
            raise WrongConfiguration(f"another control already listens at {self._path}; stop it first")
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self._path, limit=1 << 20, backlog=1024)
        self._path.chmod(0o600)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._accepted.values():
            writer.close()
        if self._accepted:
            await asyncio.wait(list(self._accepted), timeout=CLOSE_MAX_S)
        self._path.unlink(missing_ok=True)

    async def command(self, host: str, command: Command, timeout_s: float, service: str = COMPUTE) -> Answer:
        agent, who = self._agents.get((host, service)), display_name(host, service)
        if agent is None:
            await asyncio.sleep(0)
            raise Unreachable(f"{who} is not connected")
        if len(agent.waiting) >= COMMANDS_MAX:
            raise Unreachable(f"{who} has {COMMANDS_MAX} commands waiting")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        agent.waiting[number] = answer
        try:
            if not agent.send(CommandFrame(number, command)):
                raise Unreachable(f"the queue to {who} is full")
            async with asyncio.timeout(timeout_s):
                found = await answer
        except TimeoutError:
            raise Unreachable(f"{who} did not answer within {timeout_s:.0f} s") from None
        finally:
            agent.waiting.pop(number, None)
        if why_not := why_no_reply(command.verb, found):
            self._on_notice(MalformedMessage(host, why_not, service))
            raise Unreachable(f"{host}: its answer is invalid: {why_not}")
        return found

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._accepted[task] = writer
        task.add_done_callback(self._accepted.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await read_frame(reader)
            if first[:1] == ECHO:
                self._on_echo(first)
                writer.close()
                return
            if first[:1] == beats.FIRST_BYTE:
                await self._listen_to_heart(reader, writer, first)
                return
            hello = decode_from_agent(first)
        except EOFError:
            writer.close()
            return
        except (ValueError, msgspec.DecodeError) as error:
            self._close_unknown(writer, str(error))
            return
        if not isinstance(hello, Hello):
            self._close_unknown(writer, "a hello comes first")
            return
        agent = _Agent(writer, hello)
        refusal = self._refusal(hello)
        welcome = refusal or self._on_notice(hello) or Welcome(1.0)
        if not welcome.accepted:
            refusal = welcome
        if refusal is not None:
            agent.send(refusal)
            self._rate_limited.warn(
                "agent refused",
                agent.key,
                host=hello.host,
                service=hello.service,
                address=hello.address,
                because=refusal.reason,
            )
            agent.close()
            return
        self._agents[hello.host, hello.service] = agent
        agent.send(welcome)
        reason = "its agent's connection ended: the process has ended or was killed"
        try:
            await self._listen(reader, agent)
        except (ValueError, msgspec.DecodeError) as error:
            reason = f"{NO_MESSAGE} ({error}); the connection was closed"
            self._rate_limited.warn(
                "malformed message from an agent", agent.key, host=hello.host, service=hello.service, error=str(error)
            )
        finally:
            self._drop(agent, reason)

    def renew(self) -> None:
        """Agents make the connections."""

    def _on_echo(self, frame: bytes) -> None:
        returned = self._echoes.get(frame)
        if returned is not None and not returned.done():
            returned.set_result(None)

    def _close_unknown(self, writer: asyncio.StreamWriter, why: str) -> None:
        pid = _pid_of(writer)
        self._rate_limited.warn(
            "a connection was closed: what it said is no hello and no beat", str(pid), pid=pid, because=why
        )
        writer.close()

    async def _listen_to_heart(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, beat: bytes) -> None:
        heart = Heart(_pid_of(writer))
        reason = "its heart's connection ended: the process has ended or was killed"
        try:
            while True:
                self._hearts.on_beat(heart, beat)
                beat = await read_frame(reader)
        except EOFError:
            pass
        except ValueError as error:
            reason = f"its heart sent something that is no beat ({error}); the connection was closed"
            self._rate_limited.warn("malformed message from a heart", str(heart.pid), pid=heart.pid, error=str(error))
        finally:
            writer.close()
            self._hearts.drop(heart, reason)

    def _refusal(self, hello: Hello) -> Welcome | None:
        other, wrong = self._agents.get((hello.host, hello.service)), wrong_protocol(hello.protocol)
        if other is not None:
            return Welcome(1.0, accepted=False, reason=name_taken(hello, other.hello))
        if wrong:
            message = self._on_notice(hello)  # the failure detector tells why that host is not there
            return (
                message if message is not None and not message.accepted else Welcome(1.0, accepted=False, reason=wrong)
            )
        return None

    async def _listen(self, reader: asyncio.StreamReader, agent: _Agent) -> None:
        while True:
            try:
                message = decode_from_agent(await read_frame(reader))
            except EOFError:
                return
            except msgspec.ValidationError as error:  # the frame is whole: the next one can be read
                self._on_notice(MalformedMessage(agent.hello.host, f"{NO_MESSAGE} ({error})", agent.hello.service))
                continue
            if isinstance(message, AnswerFrame):
                waiting = agent.waiting.get(message.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message.answer)
            elif not is_own(message, agent.hello):
                self._on_notice(MalformedMessage(agent.hello.host, wrong_sender(message), agent.hello.service))
            elif isinstance(message, AgentDisconnected):
                agent.last_word = message
            else:
                self._on_notice(message)

    def _drop(self, agent: _Agent, reason: str) -> None:
        agent.close()
        hello = agent.hello
        if self._agents.get((hello.host, hello.service)) is agent:
            del self._agents[hello.host, hello.service]
        for waiting in agent.waiting.values():
            if not waiting.done():
                waiting.set_exception(Unreachable(f"the connection to {display_name(hello.host, hello.service)} ended"))
        self._on_notice(agent.last_word or AgentDisconnected(hello.host, reason, service=hello.service))


class SocketAgentBus:
    """An agent's end: connects to `path`, and again whenever the connection ends."""

    def __init__(self, path: Path, chance: Chance) -> None:
        self._path, self._chance = path, chance
        self._peer: Peer | None = None
        self._busy: set[asyncio.Task[None]] = set()
        self._refused, self._retry_after_s = "", 0.0  # what control said to this agent last

    async def run(
        self,
        hello: Callable[[], Hello],
        on_welcome: Callable[[Welcome], None],
        on_command: Callable[[Command], Awaitable[Answer]],
    ) -> None:
        delay_s = RECONNECT_FIRST_S
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._path, limit=1 << 20)
            except OSError:
                await asyncio.sleep(delay_s * self._chance.uniform(0.5, 1.0))
                delay_s = min(delay_s * 2, RECONNECT_MAX_S)
                continue
            peer, message = Peer(writer), hello()
            peer.send(message)
            try:
                if await self._serve(reader, peer, on_welcome, on_command):
                    delay_s = RECONNECT_FIRST_S
            except asyncio.CancelledError:
                peer.send(
                    AgentDisconnected(
                        message.host, "its agent has ended in good order", in_order=True, service=message.service
                    )
                )
                raise
            except (EOFError, ValueError, msgspec.DecodeError) as error:
                log.info("connection to control ended", because=str(error) or "closed by control")
            finally:
                self._peer = None
                peer.close()
            await asyncio.sleep(max(delay_s, self._retry_after_s) * self._chance.uniform(0.5, 1.0))
            delay_s = min(delay_s * 2, RECONNECT_MAX_S)

    async def _serve(
        self,
        reader: asyncio.StreamReader,
        peer: Peer,
        on_welcome: Callable[[Welcome], None],
        on_command: Callable[[Command], Awaitable[Answer]],
    ) -> bool:
        """Until the connection ends; True when it had been accepted."""
        accepted = False
        while True:
            try:
                message = decode_from_control(await read_frame(reader))
            except EOFError:
                return accepted
            if isinstance(message, Welcome):
                accepted = message.accepted
                self._retry_after_s = 0.0
                if accepted:
                    self._peer = peer
                else:
                    if message.reason != self._refused:
                        log.error("control refused this agent", because=message.reason)
                    self._retry_after_s = message.retry_after_s
                self._refused = message.reason
                on_welcome(message)
            elif len(self._busy) < COMMANDS_MAX:
                task = asyncio.create_task(self._handle(peer, message, on_command))
                self._busy.add(task)
                task.add_done_callback(self._busy.discard)

    async def _handle(
        self, peer: Peer, message: CommandFrame, on_command: Callable[[Command], Awaitable[Answer]]
    ) -> None:
        peer.send(AnswerFrame(message.number, await on_command(message.command)))

    def notify(self, notice: Notice) -> None:
        if self._peer is not None:
            self._peer.send(notice)

    async def close(self) -> None:
        for task in list(self._busy):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._peer is not None:
            self._peer.close()


def _pid_of(writer: asyncio.StreamWriter) -> int:
    """Who is at the other end, says the kernel."""
    credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder)


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True
