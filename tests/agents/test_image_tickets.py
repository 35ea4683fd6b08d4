"""A host that has to fetch an image says so, with its challenge; asked again with a ticket it goes on, and tells how
far it is. The ticket is written nowhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from droveway.agents import fenced
from droveway.agents.compute import ComputeAgent
from droveway.agents.fences import FileFences
from droveway.domain.image_tickets import ImageTicket, challenge_of
from droveway.domain.model import GuestSpec, ImageRef, of_instance
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.drivers.hypervisor.simulated.driver import SimulatedHypervisor
from droveway.drivers.hypervisor.simulated.fleet import Fleet
from droveway.drivers.images.simulated import SimulatedImages
from droveway.ports.bus import Command, Prepare
from droveway.ports.replies import Answer, GuestStatus, ImageTicketNeeded, Working
from tests.control.world import NoBus
from tests.drivers.image_worlds import DATA, sha512

IMAGE = ImageRef("an-image", "raw", len(DATA), sha512(DATA))
TICKET = ImageTicket("a-secret-token", ("http://api.example:8774",))


class Apis:
    """One that gives the image when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.shown: list[str] = []
        self.refusal = (0, "")

    async def give(self, image_id: str, headers: Any, take: Any) -> tuple[int, str]:
        self.shown.append(headers["x-droveway-ticket"])
        if self.refusal[0]:
            return self.refusal
        take(DATA[:1000])
        await self.go.wait()
        take(DATA[1000:])
        return 200, ""

    async def take(self, image_id: str, headers: Any, data: bytes) -> tuple[int, str]:
        raise ConnectionError


def spec() -> GuestSpec:
    return GuestSpec(SystemNames().uuid(), "g", 1, 128, 1, IMAGE)


@contextlib.asynccontextmanager
async def on_a_host(tmp_path: Path) -> AsyncIterator[Any]:
    fleet, apis = Fleet(SystemClock(), SystemChance()), Apis()
    fleet.add_host("h1")
    images = SimulatedImages("h1", "of h1", SystemClock(), SystemChance(), apis)
    hypervisor = SimulatedHypervisor(fleet, "h1", images)
    await hypervisor.open(lambda _: None, lambda *_: None)
    fences = FileFences(tmp_path / "fences.log")
    agent = ComputeAgent("h1", "boot", "here", hypervisor, NoBus(), fences, SystemClock())
    answers_s, fenced.ANSWER_S = fenced.ANSWER_S, 0.05
    try:
        async with asyncio.timeout(30):
            yield (agent, apis)
    finally:
        fenced.ANSWER_S = answers_s


async def test_it_asks_for_a_ticket_and_tells_how_far_it_is(tmp_path: Path) -> None:
    async with on_a_host(tmp_path) as (agent, apis):
        guest = spec()

        async def ask(ticket: ImageTicket | None = None) -> Answer:
            return await agent.handle(Command(of_instance(guest.instance_id), 7, Prepare(guest, ticket)))

        for _ in range(2):
            answer = await ask()
            assert isinstance(answer, ImageTicketNeeded) and answer.challenge == challenge_of("of h1")
        answer = await ask(TICKET)
        assert isinstance(answer, Working)
        assert answer.reason == f"image an-image: 1000 of {len(DATA)} bytes are here"
        assert isinstance(await ask(), Working)  # it has one that is good
        apis.go.set()
        while isinstance(answer := await ask(), Working):
            pass
        assert isinstance(answer, GuestStatus)
        assert apis.shown == ["a-secret-token"]
        assert "a-secret-token" not in (tmp_path / "fences.log").read_text()


async def test_one_that_has_expired_meanwhile_is_asked_for_again(tmp_path: Path) -> None:
    async with on_a_host(tmp_path) as (agent, apis):
        guest = spec()
        apis.refusal = 401, "the ticket has expired"
        answer = await agent.handle(Command(of_instance(guest.instance_id), 7, Prepare(guest, TICKET)))
        assert isinstance(answer, ImageTicketNeeded) and answer.reason == "the ticket has expired"
        assert answer.challenge == challenge_of("of h1")
        apis.refusal = 0, ""
        apis.go.set()
        while isinstance(
            answer := await agent.handle(Command(of_instance(guest.instance_id), 7, Prepare(guest, TICKET))),
            Working | ImageTicketNeeded,
        ):
            pass
        assert isinstance(answer, GuestStatus)


def test_no_repr_shows_a_ticket() -> None:
    command = Command(of_instance("an-instance"), 7, Prepare(spec(), TICKET))
    for text in (repr(command), str(command), f"{TICKET!r}", f"{TICKET}", repr([TICKET])):
        assert "a-secret-token" not in text and "api.example" in text
