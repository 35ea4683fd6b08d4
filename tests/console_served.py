"""An API as the program serves it, two simulated hosts that bring their consoles to it, and users that look at them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from droveway.agents.consoles import Consoles
from droveway.config.http_bounds import HttpBounds
from droveway.domain.consoles import UNIX, ConsoleKind
from droveway.domain.faults import Conflict
from droveway.domain.model import GuestSpec, ImageRef
from droveway.drivers.clock import SystemChance, SystemClock
from droveway.drivers.consoles.websocket import WebsocketUplinks
from droveway.drivers.hypervisor.simulated.driver import Fleet, SimulatedHypervisor
from droveway.ports.bus import OpenConsole
from droveway.ports.hypervisor import HypervisorRefused
from droveway.process.agents_listener import AgentsListener
from droveway.process.listeners import listen_at, listen_on_machine
from droveway.process.serving import ApiServer
from tests.api.world import NOVA, World, booted, make_image, make_server

SOON_S = 30.0
BOUNDS = HttpBounds()
QUIET = logging.getLogger("tests.client")  # the words of a user's program are not those of ours
QUIET.setLevel(logging.WARNING)


class Served:
    """`carriers`: what agents carry consoles with, by host."""

    def __init__(self, world: World, port: int, directory: Path) -> None:
        self.world, self.port, self.directory = world, port, directory
        self.fleet = Fleet(SystemClock(), SystemChance())
        self.hosts: dict[str, SimulatedHypervisor] = {}
        self.carriers: dict[str, Consoles] = {}
        self.asked: list[str] = []
        world.control.open_console = self._open

    async def _open(self, host: str, instance_id: str, kind: ConsoleKind, url: str, session: str) -> None:
        """As control and the bus between would."""
        self.asked.append(session)
        try:
            await self.carriers[host].open(instance_id, OpenConsole(kind, url, session))
        except HypervisorRefused as refused:
            raise Conflict(refused.reason) from None

    async def begin(self) -> None:
        for name in ("h1", "h2"):
            self.fleet.add_host(name)
            self.hosts[name] = hypervisor = SimulatedHypervisor(self.fleet, name)
            await hypervisor.open(lambda _: None, lambda *_: None)
            socket_path = str(self.directory / "consoles.sock")
            self.carriers[name] = Consoles(name, hypervisor, WebsocketUplinks(name, socket_path, ""))

    async def server(self, token: str, name: str = "g1", host: str = "h1") -> str:
        """One that runs, for the API and for its host."""
        image = await make_image(self.world, token)
        server_id = await make_server(self.world, token, image, name)
        await booted(self.world, server_id, host)
        spec = GuestSpec(server_id, name, 1, 64, 1, ImageRef("i", "raw", 1, "0" * 128, "/i"))
        await self.hosts[host].prepare(spec)
        await self.hosts[host].start(spec)
        return server_id

    async def url(self, token: str, server_id: str, kind: ConsoleKind = ConsoleKind.SERIAL) -> str:
        wanted = {
            ConsoleKind.SERIAL: {"protocol": "serial", "type": "serial"},
            ConsoleKind.VNC: {"protocol": "vnc", "type": "novnc"},
        }[kind]
        reply = await self.world.ask(
            "POST",
            f"{NOVA}/servers/{server_id}/remote-consoles",
            token=token,
            version="2.6",
            json={"remote_console": wanted},
        )
        assert reply.status_code == 200, reply.text
        return str(reply.json()["remote_console"]["url"])

    def look(self, url: str, **more: Any) -> connect:
        """As a browser would, wherever the URL says that the API is."""
        parts = urlsplit(url)
        there = f"ws://127.0.0.1:{self.port}{parts.path}?{parts.query}"
        return connect(there, subprotocols=["binary"], compression=None, proxy=None, logger=QUIET, **more)  # type: ignore[list-item]


async def last_words(socket: ClientConnection) -> str:
    """The sentence with which it is closed."""
    async with asyncio.timeout(SOON_S):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_reason or ""


async def heard(socket: ClientConnection, words: bytes) -> bytes:
    got = b""
    async with asyncio.timeout(SOON_S):
        while words not in got:
            piece = await socket.recv()
            got += piece if isinstance(piece, bytes) else piece.encode()
    return got


@contextlib.asynccontextmanager
async def served(directory: Path, bounds: HttpBounds = BOUNDS, **settings: Any) -> AsyncIterator[Served]:
    listener = listen_at("127.0.0.1:0")
    port = listener.getsockname()[1]
    world = World(directory, base_url=f"http://127.0.0.1:{port}", **settings)
    serving = ApiServer(world.api, listener, bounds)
    here = Served(world, port, directory)
    local = listen_on_machine(directory / "consoles.sock")
    serving.agents = [AgentsListener(world.api, local, bounds, None)]
    world.api.consoles.uplink = UNIX
    running = asyncio.create_task(serving.run())
    try:
        await world.seed()
        await here.begin()
        yield here
    finally:
        serving.end()
        async with asyncio.timeout(SOON_S):
            await running
        for carrier in here.carriers.values():
            await carrier.close()
        listener.close()
        local.close()
        await world.close()
