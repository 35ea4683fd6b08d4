"""An instance store that does not answer: it is said, nobody waits for it, and what waited is done when it is back."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from droveway.agents import fenced
from droveway.agents.compute import ComputeAgent
from droveway.agents.fences import MemoryFences
from droveway.domain.model import GuestState, of_instance
from droveway.drivers.clock import SystemChance, SystemClock
from droveway.drivers.hypervisor import store_watch
from droveway.drivers.hypervisor.libvirt.instance_files import InstanceFiles
from droveway.drivers.hypervisor.simulated.driver import SimulatedHypervisor
from droveway.drivers.hypervisor.simulated.fleet import Fleet
from droveway.drivers.hypervisor.store_watch import ANSWERS_WITHIN_S, StoreCapacity, StoreWatch
from droveway.drivers.images.shared_path import SharedPathImages
from droveway.ports.bus import Command, Inspect, Prepare, Remove, Stop
from droveway.ports.hypervisor import HypervisorDown
from droveway.ports.replies import GuestStatus, StaleFence, Unavailable
from tests.agents.test_removals import GUEST, SPEC
from tests.control.world import NoBus


class Fast(SystemClock):
    """Whose seconds are hundredths."""

    def monotonic_s(self) -> float:
        return super().monotonic_s() * 100


async def test_commands_are_answered_and_carried_out_when_the_store_is_back() -> None:
    answer_s, fenced.ANSWER_S = fenced.ANSWER_S, 0.05
    try:
        clock = Fast()
        fleet = Fleet(clock, SystemChance())
        fleet.add_host("h1")
        hypervisor = SimulatedHypervisor(fleet, "h1")
        await hypervisor.open(lambda _: None, lambda *_: None)
        agent = ComputeAgent("h1", "boot", "here", hypervisor, NoBus(), MemoryFences(), clock)
        fleet.mounts.hang("h1")
        preparing = asyncio.create_task(agent.handle(Command(of_instance(GUEST), 3, Prepare(SPEC))))
        await asyncio.sleep(2 * ANSWERS_WITHIN_S / 100)
        report = await agent.reports.full()
        assert report.is_complete and report.resources is not None
        assert "the instance store of h1 does not answer" in report.resources.store_trouble
        told = await preparing
        assert told == Unavailable(report.resources.store_trouble)
        removing = await agent.handle(Command(of_instance(GUEST), 4, Remove()))
        assert isinstance(removing, Unavailable), "the disk that is still to be made must not come after the removal"
        assert isinstance(await agent.handle(Command(of_instance(GUEST), 0, Inspect())), GuestStatus)
        fleet.mounts.answer("h1")
        removed = await agent.handle(Command(of_instance(GUEST), 5, Remove()))
        assert isinstance(removed, GuestStatus)
        assert removed.guest.state is GuestState.ABSENT
        assert GUEST not in fleet.hosts["h1"].store.disks
        assert (await agent.reports.full()).resources.store_trouble == ""  # type: ignore[union-attr]
        assert isinstance(await agent.handle(Command(of_instance(GUEST), 4, Stop(0.0))), StaleFence)
    finally:
        fenced.ANSWER_S = answer_s


async def test_the_watch_tells_a_store_that_hangs_from_one_that_refuses(tmp_path: Path) -> None:
    within_s, store_watch.ANSWERS_WITHIN_S = store_watch.ANSWERS_WITHIN_S, 0.3
    try:
        answers, refusal = threading.Event(), ""

        def look(_root: Path) -> tuple[StoreCapacity | None, str]:
            answers.wait(60)
            return (500, 400), refusal

        async def answer() -> None:
            answers.set()
            while watch.silence():
                await asyncio.sleep(0.01)

        watch = StoreWatch(tmp_path, SystemClock(), look)
        with pytest.raises(HypervisorDown, match="does not answer"):  # it never has: its size is not known
            await watch.headroom()
        await answer()
        assert await watch.headroom() == ((500, 400), "")
        answers.clear()
        files = InstanceFiles(str(tmp_path), "h1", SharedPathImages("h1"), watch)
        assert await files.run(lambda: 1) == 1
        headroom, trouble = await watch.headroom()
        assert headroom == (500, 400) and "does not answer" in trouble and watch.trouble() == trouble
        with pytest.raises(HypervisorDown, match="does not answer"):
            await files.run(lambda: 1)
        assert await files.run_beside(lambda: 1) == 1
        await answer()
        assert await watch.headroom() == ((500, 400), "")
        assert watch.trouble() == ""
        refusal = "the instance store takes no files"
        await watch.headroom()
        assert await watch.headroom() == ((500, 400), refusal) and watch.trouble() == ""
        files.close()
    finally:
        store_watch.ANSWERS_WITHIN_S = within_s


def test_a_look_writes(tmp_path: Path) -> None:
    headroom, refusal = store_watch.look_at(tmp_path)
    assert headroom is not None and refusal == "" and list(tmp_path.iterdir()) == []
    assert store_watch.look_at(tmp_path / "not" / "yet")[1] == ""
    (tmp_path / "file").touch()
    assert "takes no files: Not a directory" in store_watch.look_at(tmp_path / "file")[1]
