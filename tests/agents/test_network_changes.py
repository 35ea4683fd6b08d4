"""A host is told what differs of its plan, and takes it where it has the plan that this begins from."""

from __future__ import annotations

import errno
from pathlib import Path

from droveway.agents.kept_plan import FileKeptPlan, MemoryKeptPlan
from droveway.domain.network_change import between
from droveway.domain.network_plan import HostNetworks
from droveway.ports.bus import ChangeNetworks
from droveway.ports.replies import StaleFence, Unavailable
from tests.agents.test_network import ONE, TWO, answer, as_kept, plan, running


async def test_a_change_is_taken_where_it_fits_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "networks.json"
    async with running(FileKeptPlan(path)) as it:
        begins = ChangeNetworks(between(plan(4, ONE), plan(5, TWO)))
        assert await it.ask(begins) == answer(-1), "it has none: control sends the whole one"
        await it.apply(plan(4, ONE))
        for _ in range(2):  # and again, as a bus may say it
            assert await it.ask(begins) == answer(5)
            assert it.place.plan == plan(5, TWO) and FileKeptPlan(path).read() == as_kept(plan(5, TWO))
        assert await it.ask(ChangeNetworks(between(plan(3), plan(4, ONE)))) == StaleFence(
            "revision 4 of the networks is older than 5", 5
        )
        assert await it.ask(ChangeNetworks(between(plan(6), plan(7, ONE)))) == answer(5)
        assert it.place.plan == plan(5, TWO)
        assert await it.ask(ChangeNetworks(between(plan(5, TWO), plan(8, ONE, TWO)))) == answer(8)
        assert it.place.plan == plan(8, ONE, TWO)
    async with running(FileKeptPlan(path)) as it:  # it starts from what it kept
        assert it.place.plan == plan(8, ONE, TWO)


async def test_what_cannot_be_kept_is_not_acted_on() -> None:
    class FullDisk(MemoryKeptPlan):
        def write(self, plan: HostNetworks) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    async with running(FullDisk()) as it:
        expected = "the plan of networks cannot be kept (No space left on device): nothing was done"
        assert await it.apply(plan(1, ONE)) == Unavailable(expected)
        assert it.place.applied == 0
