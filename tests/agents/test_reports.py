"""What an agent says of its host: a moment of weakness of the hypervisor does not keep the host out of use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from droveway.agents.compute import ComputeAgent
from droveway.agents.fences import MemoryFences
from droveway.domain.model import Resources
from droveway.drivers.clock import SystemChance, SystemClock
from droveway.drivers.hypervisor.simulated import Fleet, SimulatedHypervisor
from droveway.ports.bus import Answer, Command, Hello, Notice, Report, Welcome
from droveway.ports.hypervisor import HypervisorRefused

WITHIN_S = 5.0


class Slow(SimulatedHypervisor):
    """Connected, but the first question comes too early."""

    asked = 0

    async def resources(self) -> Resources:
        self.asked += 1
        if self.asked == 1:
            raise HypervisorRefused("The hypervisor refused: still looking at its emulators.")
        return await super().resources()


class Ear:
    """An agent's end of a bus that welcomes it once and keeps what is told."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[Report] = asyncio.Queue()

    async def run(self, hello: Callable[[], Hello], on_welcome: Callable[[Welcome], None],
                  on_command: Callable[[Command], Awaitable[Answer]]) -> None:  # fmt: skip
        on_welcome(Welcome(1.0))
        await asyncio.Event().wait()

    def tell(self, notice: Notice) -> None:
        if isinstance(notice, Report):
            self.reports.put_nowait(notice)

    async def close(self) -> None:
        pass


def test_a_report_that_could_not_be_made_is_made_again_soon() -> None:
    async def play() -> None:
        fleet = Fleet(SystemClock(), SystemChance())
        fleet.add_host("s1")
        ear = Ear()
        agent = ComputeAgent("s1", "boot", "here", Slow(fleet, "s1"), ear, MemoryFences(), SystemClock())
        running = asyncio.create_task(agent.run())
        try:
            async with asyncio.timeout(WITHIN_S):
                first, second = await ear.reports.get(), await ear.reports.get()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert (first.is_complete, first.sentence) == (False, "The hypervisor refused: still looking at its emulators.")
        assert second.is_complete and second.resources is not None

    asyncio.run(play())
