"""What the bus contract is held over: each driver with its means of transport, under one set of verbs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import pytest

from droveway.drivers.bus.nats import NatsAgentBus, NatsControlBus, NatsLink, NatsSettings
from droveway.drivers.bus.socket import SocketAgentBus, SocketControlBus
from droveway.drivers.clock import SystemChance, SystemNames
from droveway.ports.bus import AgentBus, Answer, Command, ControlBus, Hello, Notice, Welcome
from lab import servers

Obey = Callable[[Command], Awaitable[Answer]]


async def echo(command: Command) -> Answer:
    return Answer("ok", text=f"{command.instance_id} {command.generation}")


async def never(command: Command) -> Answer:
    await asyncio.sleep(60)
    return Answer("ok")


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


class NatsWorld:
    def __init__(self, settings: NatsSettings) -> None:
        self.settings = settings

    def link(self, **changes: object) -> NatsLink:
        return NatsLink(msgspec.structs.replace(self.settings, **changes), SystemChance())

    def control(self) -> NatsControlBus:
        return NatsControlBus(self.link(), SystemNames())

    def agent(self, link: NatsLink | None = None) -> NatsAgentBus:
        return NatsAgentBus(link or self.link(), SystemChance(), SystemNames())


class Ends:
    """Control's end of a bus, and as many agents as a test wants."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.control = world.control()
        self.heard: list[Notice] = []
        self.welcomes: list[Welcome] = []
        self.tasks: list[asyncio.Task[None]] = []

    def on_notice(self, notice: Notice) -> Welcome | None:
        self.heard.append(notice)
        return Welcome(0.25) if isinstance(notice, Hello) else None

    def agent(self, host: str, obey: Obey = echo, *, bus: AgentBus | None = None, address: str = "",
              boot_id: str = "boot") -> AgentBus:  # fmt: skip
        bus = bus or self.world.agent()
        hello = Hello(host, boot_id, address or f"address of {host}")
        self.tasks.append(asyncio.create_task(bus.run(lambda: hello, self.welcomes.append, obey)))
        return bus

    def told(self, kind: type, host: str = "h1") -> list[Notice]:
        return [one for one in self.heard if isinstance(one, kind) and getattr(one, "host", "") == host]

    async def until(self, condition: Callable[[], bool], timeout_s: float = 8) -> None:
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
        for task in both.tasks:
            task.cancel()
        await asyncio.gather(*both.tasks, return_exceptions=True)
        await both.control.close()


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
