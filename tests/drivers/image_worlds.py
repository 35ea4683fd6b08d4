"""APIs that hold an image, and the drivers by which hosts get it: over HTTP, under a path, simulated."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import uvloop

from droveway.config.http_bounds import HttpBounds
from droveway.domain.image_tickets import PATH, Direction, ImageTicket, challenge_of
from droveway.domain.model import ImageRef
from droveway.drivers.clock import SystemChance, SystemClock
from droveway.drivers.images.http import HttpImages
from droveway.drivers.images.shared_path import SharedPathImages
from droveway.drivers.images.simulated import SimulatedImages
from droveway.ports.images import Images
from droveway.process.listeners import listen_at
from droveway.process.serving import ApiServer
from droveway.store.image import image_tickets, images
from tests.api.world import World, make_image

DATA = bytes(range(256)) * 14_000  # some four pieces
SOON_S = 30.0


class ImageWorld:
    """A real API, served or called; `image` is in it."""

    needs_tickets = True

    def __init__(self, directory: Path, world: World) -> None:
        self.directory, self.world = directory, world
        self.store = directory / "host"
        self.store.mkdir(exist_ok=True)
        self.image = ImageRef("", "raw", 0, "")
        self.drivers: list[Images] = []

    async def open(self) -> None:
        await self.world.seed()
        image_id = await make_image(self.world, await self.world.token(), data=DATA)
        row = await self.world.store.read(images.get, image_id, None)
        self.image = ImageRef(image_id, "raw", row["size_bytes"], row["sha512"], self.path_of_hosts(image_id))

    def path_of_hosts(self, image_id: str) -> str:
        return ""

    def driver(self, host: str = "h1") -> Images:
        made = self.make(host)
        self.drivers.append(made)
        return made

    def make(self, host: str) -> Images:
        raise NotImplementedError

    async def ticket(
        self, host: str = "h1", direction: Direction = Direction.FETCH, image_id: str = "", most: int = len(DATA)
    ) -> ImageTicket | None:
        asked = (image_id or self.image.id, host, direction, most, challenge_of(f"of {host}"))
        if await self.world.store.read(image_tickets.newest) == 0:
            await self.world.store.run(image_tickets.replace, 0)
        token = await self.world.store.run(image_tickets.issue, *asked)
        assert token is not None
        return ImageTicket(token, self.urls)

    urls: tuple[str, ...] = ("http://called",)

    def file(self) -> Path:
        """The image's, where the API has it."""
        return self.world.images / self.image.id

    def content(self, driver: Images, target: Path) -> bytes | None:
        """What a host has there."""
        return target.read_bytes() if target.exists() else None

    def left(self, driver: Images) -> list[str]:
        return [path.name for path in self.store.iterdir()]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON_S):
            while not holds():
                await asyncio.sleep(0.005)

    async def close(self) -> None:
        for driver in self.drivers:
            driver.close()
        await self.world.close()


class HttpWorld(ImageWorld):
    """Two APIs on ports of this machine, of one store."""

    async def open(self) -> None:
        await super().open()
        self.listeners = [listen_at("127.0.0.1:0") for _ in range(2)]
        self.servings = [ApiServer(self.world.api, one, HttpBounds()) for one in self.listeners]
        self.running = [asyncio.create_task(one.run()) for one in self.servings]
        self.urls = tuple(f"http://127.0.0.1:{one.getsockname()[1]}" for one in self.listeners)

    def make(self, host: str) -> Images:
        return HttpImages(host, f"of {host}", SystemClock(), SystemChance())

    async def close(self) -> None:
        for one in self.servings:
            one.end()
        await asyncio.wait(self.running)
        for listener in self.listeners:
            listener.close()
        await super().close()


class PathWorld(ImageWorld):
    needs_tickets = False

    def path_of_hosts(self, image_id: str) -> str:
        return str(images.path_of(self.world.images, image_id))

    def make(self, host: str) -> Images:
        return SharedPathImages(host)


class SimulatedWorld(ImageWorld):
    """The API is called in this process."""

    def make(self, host: str) -> Images:
        return SimulatedImages(host, f"of {host}", SystemClock(), SystemChance(), self)

    async def give(self, image_id: str, headers: Mapping[str, str], take: Callable[[bytes], None]) -> tuple[int, str]:
        reply = await self.world.http.get(f"{PATH}/{image_id}", headers=dict(headers))
        if reply.status_code in (200, 206):
            for first in range(0, len(reply.content), 1 << 20):
                take(reply.content[first : first + (1 << 20)])
                await asyncio.sleep(0)
            return reply.status_code, ""
        return reply.status_code, str(reply.json()["error"]["message"])

    async def take(self, image_id: str, headers: Mapping[str, str], data: bytes) -> tuple[int, str]:
        sent = {**headers, "content-type": "application/octet-stream"}
        reply = await self.world.http.put(f"{PATH}/{image_id}", headers=sent, content=data)
        return reply.status_code, "" if reply.status_code == 204 else str(reply.json()["error"]["message"])

    def content(self, driver: Images, target: Path) -> bytes | None:
        assert isinstance(driver, SimulatedImages)
        found = driver.files.get(target)
        return None if found is None else bytes(found)

    def left(self, driver: Images) -> list[str]:
        assert isinstance(driver, SimulatedImages)
        return [path.name for path in driver.files]


WORLDS: dict[str, type[ImageWorld]] = {"http": HttpWorld, "path": PathWorld, "simulated": SimulatedWorld}


def play(kind: str, directory: Path, story: Callable[[Any], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def run() -> None:
        world = WORLDS[kind](directory, World(directory, **settings))
        await world.open()
        try:
            async with asyncio.timeout(150):
                await story(world)
        finally:
            await world.close()

    uvloop.run(run())


def sha512(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest()
