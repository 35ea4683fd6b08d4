"""The API on a port of this machine as the program serves it, and clients that speak to it byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from droveway.config.http_bounds import HttpBounds
from droveway.process.listeners import listen_at
from droveway.process.serving import ApiServer
from tests.api.world import World

QUICK = HttpBounds(header_timeout_s=0.3, idle_timeout_s=0.3, body_timeout_s=0.3, send_timeout_s=0.3)
GET = b"GET /identity/v3 HTTP/1.1\r\nhost: x\r\n\r\n"
SOON_S = 30.0


class Client:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):  # uvloop's word for a connection that is gone
            self.writer.write(data)
            await self.writer.drain()

    async def all(self) -> bytes:
        """What it is told until the connection ends."""
        got = b""
        async with asyncio.timeout(SOON_S):
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(1 << 16):
                    got += piece
        return got

    async def status(self) -> int:
        """Of the next reply, which is read whole."""
        async with asyncio.timeout(SOON_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await self.reader.readexactly(length)
        return int(head.split()[1])


class Served:
    """The API on a port of this machine."""

    def __init__(self, world: World, serving: ApiServer, port: int) -> None:
        self.world, self.serving, self.port = world, serving, port
        self.clients: list[Client] = []

    async def client(self, **options: Any) -> Client:
        made = Client(*await asyncio.open_connection("127.0.0.1", self.port, **options))
        self.clients.append(made)
        return made

    async def ask(self, data: bytes = GET) -> bytes:
        """What a new connection is told when it sends that."""
        client = await self.client()
        await client.send(data)
        return await client.all()

    async def answers(self) -> bool:
        return (await self.ask(GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))).startswith(b"HTTP/1.1 200")

    @property
    def held(self) -> int:
        return len(self.serving._server._held)


def served(directory: Path, story: Callable[[Served], Coroutine[Any, Any, None]], bounds: HttpBounds = QUICK) -> None:
    async def run() -> None:
        world = World(directory)
        listener = listen_at("127.0.0.1:0")
        serving = ApiServer(world.api, listener, bounds)
        running = asyncio.create_task(serving.run())
        there = Served(world, serving, listener.getsockname()[1])
        try:
            await world.seed()
            await story(there)
        finally:
            for client in there.clients:
                client.writer.close()
            serving.end()
            async with asyncio.timeout(SOON_S):
                await running
            listener.close()
            await world.close()

    uvloop.run(run())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not holds():
            await asyncio.sleep(0.01)
