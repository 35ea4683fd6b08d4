"""What an agent says of its host: a moment of weakness of the hypervisor does not keep the host out of use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from droveway.agents import reports
from droveway.agents.compute import ComputeAgent
from droveway.agents.fences import Fences, FileFences, MemoryFences
from droveway.domain.model import Resources
from droveway.drivers.clock import SystemChance, SystemClock
from droveway.drivers.hypervisor.simulated.driver import Fleet, SimulatedHypervisor
from droveway.ports.bus import Command, Hello, Notice, Report, Welcome
from droveway.ports.clock import Clock
from droveway.ports.hypervisor import HypervisorRefused
from droveway.ports.replies import Answer

WITHIN_S = 5.0


class Slow(SimulatedHypervisor):
    """Connected, but the first question comes too early."""

    asked = 0

    async def resources(self) -> Resources:
        self.asked += 1
        if self.asked == 1:
            raise HypervisorRefused("The hypervisor refused: still looking at its emulators.")
        return await super().resources()


class RecordingAgentBus:
    """An agent's end of a bus that welcomes it once and keeps what is told."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[Report] = asyncio.Queue()

    async def run(
        self,
        hello: Callable[[], Hello],
        on_welcome: Callable[[Welcome], None],
        on_command: Callable[[Command], Awaitable[Answer]],
    ) -> None:
        on_welcome(Welcome(1.0))
        await asyncio.Event().wait()

    def notify(self, notice: Notice) -> None:
        if isinstance(notice, Report):
            self.reports.put_nowait(notice)

    async def close(self) -> None:
        pass


async def test_a_report_that_could_not_be_made_is_made_again_soon() -> None:
    fleet = Fleet(SystemClock(), SystemChance())
    fleet.add_host("s1")
    recorder = RecordingAgentBus()
    agent = ComputeAgent("s1", "boot", "here", Slow(fleet, "s1"), recorder, MemoryFences(), SystemClock())
    running = asyncio.create_task(agent.run())
    try:
        async with asyncio.timeout(WITHIN_S):
            first, second = await recorder.reports.get(), await recorder.reports.get()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert (first.is_complete, first.reason) == (False, "The hypervisor refused: still looking at its emulators.")
    assert second.is_complete and second.resources is not None


class OldClock(SystemClock):
    """A wall clock that was set to 1970."""

    def now_us(self) -> int:
        return 5_000_000


@asynccontextmanager
async def life(fleet: Fleet, fences: Fences, clock: Clock | None = None) -> AsyncIterator[RecordingAgentBus]:
    """One life of the agent of s1."""
    recorder = RecordingAgentBus()
    agent = ComputeAgent(
        "s1", "boot", "here", SimulatedHypervisor(fleet, "s1"), recorder, fences, clock or SystemClock()
    )
    running = asyncio.create_task(agent.run())
    try:
        async with asyncio.timeout(WITHIN_S):
            yield recorder
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def new_fleet() -> Fleet:
    fleet = Fleet(SystemClock(), SystemChance())
    fleet.add_host("s1")
    return fleet


def change(fleet: Fleet, **values: int) -> None:
    fleet.hosts["s1"].resources = msgspec.structs.replace(fleet.hosts["s1"].resources, **values)


async def test_a_change_is_sent_by_itself_with_a_higher_generation_and_nothing_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reports, "LOOK_S", 0.02)
    fleet = new_fleet()
    async with life(fleet, MemoryFences()) as recorder:
        full = await recorder.reports.get()
        assert full.measured is not None and full.measured.memory_free_mb == 65536
        change(fleet, vcpus=32)
        told = await recorder.reports.get()
        assert (told.generation > full.generation, told.measured) == (True, None)
        assert told.resources is not None and told.resources.vcpus == 32
        change(fleet, memory_free_mb=17)  # moves by itself: no news
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await recorder.reports.get()


async def test_the_slow_report_repeats_the_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "FULL_S", 0.1)
    async with life(new_fleet(), MemoryFences()) as recorder:
        told = [await recorder.reports.get() for _ in range(3)]
    assert len({one.generation for one in told}) == 1
    assert all(one.measured is not None and one.is_complete for one in told)


async def test_the_generation_rises_over_restarts_whatever_the_clock_says_and_over_lost_files(tmp_path: Path) -> None:
    async def first(fences: Fences, clock: Clock | None = None) -> int:
        async with life(new_fleet(), fences, clock) as recorder:
            return (await recorder.reports.get()).generation

    fences = FileFences(tmp_path / "fences.log")
    one = await first(fences)
    two = await first(FileFences(tmp_path / "fences.log"), OldClock())  # set back while it was down
    await asyncio.sleep(1.1)
    three = await first(MemoryFences())  # installed anew
    assert one < two and one < three and two == one + 1


async def test_a_hypervisor_that_is_lost_and_found_is_a_change_each_time() -> None:
    fleet = new_fleet()
    async with life(fleet, MemoryFences()) as recorder:
        up = await recorder.reports.get()
        fleet.stop_hypervisor("s1")
        down = await recorder.reports.get()
        fleet.return_hypervisor("s1")
        again = await recorder.reports.get()
    assert [one.hypervisor_up for one in (up, down, again)] == [True, False, True]
    assert (down.is_complete, down.resources) == (False, None)
    assert down.reason == "The hypervisor of host s1 does not answer."
    assert up.generation < down.generation < again.generation
