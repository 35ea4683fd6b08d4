"""A boot on a host that has to fetch the image: it is given a ticket when it asks for one, and no other host's; when
the image does not come right, another host is tried."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
from sqlalchemy import insert, select

from droveway.domain.faults import Fault
from droveway.domain.image_tickets import TICKET_HEADER, VERIFIER_HEADER, Direction
from droveway.drivers.clock import SystemChance
from droveway.drivers.images.simulated import ImageFaults, SimulatedImages
from droveway.ports.bus import Command, Prepare
from droveway.ports.replies import Answer, ImageTicketNeeded
from droveway.store.compute import instances
from droveway.store.compute.instances import NewInstance
from droveway.store.image import image_tickets
from droveway.store.schema import images, sagas
from tests.control.world import SETTINGS, TINY, World
from tests.drivers.image_worlds import DATA, sha512

IMAGE_ID = "5eed0000-0000-4000-8000-000000000001"
FETCHING = msgspec.structs.replace(SETTINGS, images_path="", api_urls=("http://api.example:8774",))


class Fetching(World):
    """Hosts that share nothing; the APIs look at tickets as the real ones do."""

    def __init__(self) -> None:
        super().__init__(FETCHING)
        self.faults: dict[str, ImageFaults] = {}
        self.shown: list[tuple[str, str]] = []
        self.images_of = lambda host: SimulatedImages(
            host, f"of {host}", self.clock, SystemChance(), self, lambda: self.faults.get(host, ImageFaults())
        )

    async def give(self, image_id: str, headers: Mapping[str, str], take: Callable[[bytes], None]) -> tuple[int, str]:
        shown = headers[TICKET_HEADER], image_id, Direction.FETCH, headers[VERIFIER_HEADER]
        try:
            claims = await self.store.read(image_tickets.admit, *shown)
        except Fault as fault:
            return 401, fault.reason
        self.shown.append((claims.host, claims.id))
        take(DATA)
        await self.store.run(image_tickets.spend, claims)
        return 200, ""

    async def take(self, image_id: str, headers: Mapping[str, str], data: bytes) -> tuple[int, str]:
        raise ConnectionError

    async def boot(self) -> str:
        new = NewInstance("p", "u", "g", "g", TINY, IMAGE_ID)
        instance_id = await self.store.run(instances.create, new)
        await self.quiet()
        return instance_id

    async def row(self, instance_id: str) -> Any:
        return await self.store.read(instances.get, instance_id)


@contextlib.asynccontextmanager
async def play() -> AsyncIterator[Fetching]:
    world = Fetching()
    await world.open()
    await world.store.run(
        lambda tx: tx.execute(
            insert(images),
            {
                "id": IMAGE_ID,
                "project_id": "p",
                "name": "tiny",
                "status": "active",
                "visibility": "public",
                "protected": False,
                "container_format": "bare",
                "disk_format": "qcow2",
                "min_ram_mb": 0,
                "min_disk_gb": 0,
                "size_bytes": len(DATA),
                "sha512": sha512(DATA),
                "properties": {},
                "tags": [],
                "created_at_us": tx.now_us,
                "updated_at_us": tx.now_us,
            },
        )
    )
    try:
        async with asyncio.timeout(30):
            yield world
    finally:
        await world.close()


async def test_a_ticket_only_for_a_host_that_asks_for_one() -> None:
    async with play() as world:
        tickets: list[Any] = []
        for agent in world.agents.values():
            _watch(agent, tickets)
        for _ in range(4):
            row = await world.row(await world.boot())
            assert row["vm_state"] == "active"
        hosts = [host for host, _ in world.shown]
        assert sorted(hosts) == ["h1", "h2"]  # once each, for two guests each
        assert [ticket is not None for ticket in tickets] == [False, True, False, True, False, False]
        (urls,) = {ticket.urls for ticket in tickets if ticket}
        assert urls == ("http://api.example:8774",)
        notes = await world.store.read(lambda tx: str(tx.execute(select(sagas.c.notes, sagas.c.params)).all()))
        assert not any(ticket.token in notes for ticket in tickets if ticket)


def _watch(agent: Any, tickets: list[Any]) -> None:
    """What each Prepare carries."""
    handle = agent.handle

    async def watched(command: Command) -> Answer:
        if isinstance(command.verb, Prepare):
            tickets.append(command.verb.ticket)
        answer: Answer = await handle(command)
        return answer

    agent.handle = watched


async def test_a_damaged_image_is_tried_on_another_host() -> None:
    async with play() as world:
        world.faults = {"h1": ImageFaults(damaged=1.0)}
        for _ in range(2):
            row = await world.row(await world.boot())
            assert (row["vm_state"], row["host"]) == ("active", "h2")
        said = await world.store.read(lambda tx: str(tx.execute(select(sagas.c.error)).all()))
        assert f"h1: Image {IMAGE_ID} is damaged: its bytes, as host h1 has read them" in said
        world.faults["h2"] = ImageFaults(disk_full=1.0)
        world.fleet.hosts["h2"].bases.clear()
        row = await world.row(await world.boot())
        assert row["vm_state"] == "error"
        message = row["fault"]["message"]
        said = await world.store.read(lambda tx: str(tx.execute(select(sagas.c.error)).all()))
        assert f"h2: Host h2 could not keep image {IMAGE_ID}: the disk is full" in said
        assert f"Image {IMAGE_ID} is damaged" in message or "the disk is full" in message


async def test_an_invalid_challenge_is_refused() -> None:
    """What a peer says is data with a grammar."""
    async with play() as world:

        async def lies(command: Command) -> Answer:
            return ImageTicketNeeded("a ticket please", "x" * 64)

        for agent in world.agents.values():
            agent.handle = lies  # type: ignore[method-assign]
        instance_id = await world.store.run(instances.create, NewInstance("p", "u", "g", "g", TINY, IMAGE_ID))
        await asyncio.sleep(0.3)
        assert await world.store.read(image_tickets.newest) == 0
        assert (await world.row(instance_id))["vm_state"] in {"building", "error"}
