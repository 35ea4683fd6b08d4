"""What the bus contract is held over: each driver with its means of transport, under one set of verbs."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from droveway.domain.faults import Unreachable
from droveway.domain.model import Guest, GuestState, of_instance
from droveway.drivers.bus.broker import BrokerControlBus
from droveway.drivers.bus.broker_agent import BrokerAgentBus
from droveway.drivers.bus.broker_messages import encode
from droveway.drivers.bus.broker_peers import BrokerPeerBus
from droveway.drivers.bus.nats_link import NatsLink, NatsSettings
from droveway.drivers.bus.rabbitmq_link import RabbitLink, RabbitSettings
from droveway.drivers.bus.socket import SocketAgentBus, SocketControlBus
from droveway.drivers.clock import SystemChance, SystemNames
from droveway.ports.bus import AgentBus, Command, ControlBus, Hello, Notice, ReadConsole, Report, Welcome
from droveway.ports.replies import Answer, ConsoleText
from lab import servers

Obey = Callable[[Command], Awaitable[Answer]]
ASK = Command(of_instance("i"), 1, ReadConsole())
PIECE = 60_000
# Of the RabbitMQ broker that stays: each with a password, and what it may configure, write and read.
USERS = {
    **servers.RABBITMQ_GUEST,
    "me": ("secret", ".*"),
    "mended": ("secret", ".*"),  # it gets another password at a restart
    "outside": ("secret", ""),
    "little": ("secret", "other"),
}


async def echo(command: Command) -> Answer:
    return ConsoleText(f"{command.subject.id} {command.generation}")


async def never(command: Command) -> Answer:
    await asyncio.sleep(60)
    return ConsoleText("")


def filled(size: int, sequence: int = 1) -> Report:
    """A report of h1 that fills so many bytes of a message, in pieces that each field may hold."""
    pieces, bare = size // PIECE, Report("h1", "boot", sequence, True, "", None, (), True)
    guests = tuple(Guest("i", GuestState.PAUSED, copy_error="x" * PIECE) for _ in range(pieces))
    rest = size - len(encode(msgspec.structs.replace(bare, guests=guests)))
    while rest < 0:
        guests, rest = guests[1:], rest + len(encode(guests[0]))
    return msgspec.structs.replace(bare, guests=guests, reason="x" * max(rest - 4, 0))


class World(Protocol):
    """Makes the two ends of one bus."""

    def control(self) -> ControlBus: ...
    def agent(self) -> AgentBus: ...


class SocketWorld:
    def __init__(self, path: Path) -> None:
        self.path = path

    def control(self) -> ControlBus:
        return SocketControlBus(self.path)

    def agent(self) -> AgentBus:
        return SocketAgentBus(self.path, SystemChance())


class BrokerWorld(World, Protocol):
    """A bus with a broker has one more kind of end."""

    def peer(self) -> BrokerPeerBus: ...


class NatsWorld:
    def __init__(self, settings: NatsSettings) -> None:
        self.settings = settings

    def link(self, **changes: object) -> NatsLink:
        return NatsLink(msgspec.structs.replace(self.settings, **changes), SystemChance())

    def control(self) -> BrokerControlBus:
        return BrokerControlBus(self.link(), SystemNames())

    def peer(self) -> BrokerPeerBus:
        return BrokerPeerBus(self.link(), SystemNames())

    def agent(self, link: NatsLink | None = None) -> BrokerAgentBus:
        return BrokerAgentBus(link or self.link(), SystemChance(), SystemNames())


class RabbitWorld:
    def __init__(self, settings: RabbitSettings) -> None:
        self.settings = settings

    def link(self, **changes: object) -> RabbitLink:
        return RabbitLink(msgspec.structs.replace(self.settings, **changes), SystemChance())

    def control(self) -> BrokerControlBus:
        return BrokerControlBus(self.link(), SystemNames())

    def peer(self) -> BrokerPeerBus:
        return BrokerPeerBus(self.link(), SystemNames())

    def agent(self, link: RabbitLink | None = None) -> BrokerAgentBus:
        return BrokerAgentBus(link or self.link(), SystemChance(), SystemNames())


class Ends:
    """Control's end of a bus, and as many agents as a test wants."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.control = world.control()
        self.spread_s = 0.0
        self.heard: list[Notice] = []
        self.welcomes: list[Welcome] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.buses: list[AgentBus] = []

    def on_notice(self, notice: Notice) -> Welcome | None:
        self.heard.append(notice)
        return Welcome(0.25, spread_s=self.spread_s) if isinstance(notice, Hello) else None

    def agent(
        self,
        host: str,
        handle: Obey = echo,
        *,
        bus: AgentBus | None = None,
        address: str = "",
        boot_id: str = "boot",
        service: str = "nova-compute",
    ) -> AgentBus:
        bus = bus or self.world.agent()
        self.buses.append(bus)
        hello = Hello(host, boot_id, address or f"address of {host}", service=service)
        self.tasks.append(asyncio.create_task(bus.run(lambda: hello, self.welcomes.append, handle)))
        return bus

    def told(self, kind: type, host: str = "h1") -> list[Notice]:
        return [one for one in self.heard if isinstance(one, kind) and getattr(one, "host", "") == host]

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await asyncio.gather(*(bus.close() for bus in self.buses))
        await self.control.close()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 30) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def ends(world: World) -> AsyncIterator[Ends]:
    both = Ends(world)
    await both.control.serve(both.on_notice)
    try:
        yield both
    finally:
        await both.close()


# -- a broker ---------------------------------------------------------------------------------------------------------
class Broker(servers.Server):
    """A NATS broker with options of its own; not started."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        (port,) = servers.free_ports(1)
        command = ["nats-server", "-a", "127.0.0.1", "-p", str(port), *options]
        super().__init__([servers.Node(directory, port, command, _serves)])

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def world(self, **settings: object) -> NatsWorld:
        return NatsWorld(msgspec.structs.replace(NatsSettings((self.url,), ping_interval_s=0.2), **settings))


def _serves(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as asked:
            return asked.recv(4) == b"INFO"
    except OSError:
        return False


@contextlib.contextmanager
def broker(directory: Path, *options: str, started: bool = True) -> Iterator[Broker]:
    obstacle = servers.obstacle("nats")
    if obstacle is not None:
        pytest.skip(obstacle)
    one = Broker(directory, *options)
    try:
        if started:
            one.start()
        yield one
    finally:
        one.kill()


class Rabbit(servers.Server):
    """A RabbitMQ broker with settings and users of its own; not started. `tls`: its authority, certificate and key."""

    def __init__(
        self,
        settings: str = "",
        users: Mapping[str, tuple[str, str]] | None = None,
        tls: tuple[Path, Path, Path] | None = None,
    ) -> None:
        self.node = servers.RabbitmqNode()
        self.directory, self._scheme = self.node.directory, "amqps" if tls else "amqp"
        super().__init__([self.node])
        if tls:
            files = [self.node.keep(path) for path in tls]
            settings += "".join(
                f"ssl_options.{name} = {file}\n"
                for name, file in zip(("cacertfile", "certfile", "keyfile"), files, strict=True)
            )
            settings += "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"
        self.node.configure(settings, users or servers.RABBITMQ_GUEST, secure=bool(tls))

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def world(self, **settings: object) -> RabbitWorld:
        return RabbitWorld(msgspec.structs.replace(RabbitSettings((self.url,), ping_interval_s=0.2), **settings))


@contextlib.contextmanager
def rabbit(
    settings: str = "",
    users: Mapping[str, tuple[str, str]] | None = None,
    *,
    tls: tuple[Path, Path, Path] | None = None,
    started: bool = True,
) -> Iterator[Rabbit]:
    obstacle = servers.obstacle("rabbitmq")
    if obstacle is not None:
        pytest.skip(obstacle)
    one = Rabbit(settings, users, tls)
    try:
        if started:
            one.start()
        yield one
    finally:
        one.kill()
        shutil.rmtree(one.directory, ignore_errors=True)


def ready(one: Rabbit) -> Rabbit:
    """Whatever somebody who failed has left it in: it runs, and serves."""
    one.thaw()
    if not one.node.is_running:
        one.kill()  # what is left of it
        one.start()
    one.node.wait()
    return one


def control_of(e: Ends) -> BrokerControlBus:
    assert isinstance(e.control, BrokerControlBus)
    return e.control


async def works(e: Ends, host: str = "h1") -> None:
    """A command gets through, now or soon."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(Unreachable):
                if isinstance(await e.control.command(host, ASK, 1), ConsoleText):
                    return
            await asyncio.sleep(0.02)


def prefix(name: str) -> str:
    return f"t{abs(hash(name)) % 10**8}"


class Stranger:
    """Somebody on the broker who sends whatever it likes. Waits where a bus would drop."""

    def __init__(self, one: Rabbit, name: str) -> None:
        self.link = one.world(prefix=name).link()

    async def __aenter__(self) -> Stranger:
        self.link.use(self)
        async with asyncio.timeout(30):
            while not self.link.is_connected:
                await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.link.release(self)
        await self.link.closed()

    def on_connected(self) -> None: ...
    def on_lost(self, reason: str) -> None: ...

    async def say(self, subject: str, payload: bytes) -> None:
        wire = self.link._wire
        assert wire is not None
        while wire.unsent_bytes() > 1 << 20:
            await asyncio.sleep(0.002)
        assert self.link.publish(subject, payload)
