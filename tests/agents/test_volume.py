"""The service of a backend: what it obeys, what it answers, and how it says that its pool is of no use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from droveway.agents import fenced, volume
from droveway.agents.fences import MemoryFences
from droveway.agents.volume import VolumeAgent
from droveway.domain.model import of_instance
from droveway.domain.volume.model import FromSnapshot, VolumeSpec, of_snapshot, of_volume
from droveway.drivers.clock import SystemClock
from droveway.drivers.storage.simulated import SimulatedPool, SimulatedStorage
from droveway.ports.bus import Command, Inspect, Ping, Verb
from droveway.ports.replies import (
    PingResult,
    PoolStatus,
    Refused,
    StaleFence,
    Unavailable,
    VolumeAdmitted,
    VolumeDone,
    VolumeList,
    Working,
)
from droveway.ports.volume_verbs import (
    AdmitVolume,
    CreateVolume,
    DeleteSnapshot,
    DeleteVolume,
    ExtendVolume,
    ListVolumes,
    ReadPool,
    SnapshotVolume,
    WithdrawVolume,
)
from tests.control.world import NoBus

V, W = VolumeSpec("v", 1), VolumeSpec("w", 1)


async def inline(call: Callable[[], None]) -> None:
    call()


class Backend:
    def __init__(self) -> None:
        self.pool, self.fences = SimulatedPool("fast", 10.0), MemoryFences()
        self.agent = self.started()

    def started(self) -> VolumeAgent:
        """A process of it; what is on its disk stays."""
        storage = SimulatedStorage(self.pool)
        name, clock = "cinder-volume@fast", SystemClock()
        return VolumeAgent("h1", name, "boot", "here", storage, NoBus(), self.fences, clock, off_loop=inline)

    async def ask(self, verb: Verb, generation: int = 1, about: str = "v") -> Any:
        return await self.agent.handle(Command(of_volume(about), generation, verb))


async def backend() -> Backend:
    made = Backend()
    await made.agent.look()
    return made


async def test_it_does_what_it_is_told_once_and_nothing_that_is_older() -> None:
    b = await backend()
    assert isinstance(await b.ask(CreateVolume(V), 5), VolumeDone)
    assert isinstance(await b.ask(ExtendVolume(VolumeSpec("v", 3)), 6), VolumeDone)
    assert isinstance(await b.ask(DeleteVolume(), 5), StaleFence)
    b.agent = b.started()
    await b.agent.look()
    assert isinstance(await b.ask(DeleteVolume(), 5), StaleFence), "its fences outlive it"
    admitted = await b.ask(AdmitVolume(V, "h2"), 6)
    assert isinstance(admitted, VolumeAdmitted) and isinstance(await b.ask(AdmitVolume(V, "h2"), 6), VolumeAdmitted)
    (stored,) = (await b.ask(ListVolumes())).volumes
    assert (stored.size_bytes, stored.holders) == (3 << 30, ("h2",))
    b.pool.open_by("v", "h2")
    refused = await b.ask(DeleteVolume(), 7)
    assert isinstance(refused, Refused) and "open on h2" in refused.reason
    b.pool.closed_by("v", "h2")
    assert await b.ask(DeleteVolume(), 7) == refused, "the same command is answered from memory"
    b.pool.open_by("v", "h2")
    assert isinstance(await b.ask(WithdrawVolume("h2"), 8), Refused)
    assert isinstance(await b.ask(WithdrawVolume("h2", force=True), 9), VolumeDone)
    assert isinstance(await b.ask(DeleteVolume(), 9), VolumeDone) and not b.pool.volumes


async def test_several_of_a_kind_under_one_generation_are_each_done() -> None:
    b = await backend()
    await b.ask(CreateVolume(V), 1)
    for name in ("a", "b"):
        assert isinstance(await b.ask(SnapshotVolume(name), 2), VolumeDone)
    assert sorted(b.pool.volumes["v"].snapshots) == ["a", "b"]
    assert isinstance(await b.ask(CreateVolume(W, FromSnapshot("a", "v")), 1, "w"), VolumeDone)
    refused = await b.ask(DeleteSnapshot("a"), 3)
    assert isinstance(refused, Refused) and "w" in refused.reason
    assert isinstance(await b.ask(DeleteSnapshot("b"), 3), VolumeDone)


async def test_it_refuses_what_is_not_its_own() -> None:
    b = await backend()
    assert "does no Inspect" in (await b.ask(Inspect())).reason
    for subject in (of_instance("i"), of_snapshot("s")):
        answer = await b.agent.handle(Command(subject, 1, CreateVolume(V)))
        assert isinstance(answer, Refused) and "done to a volume" in answer.reason


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        ({"down": "no route to the monitors"}, "its pool is out of reach: no route to the monitors"),
        ({"refuses": "the volume group b21 is not there"}, "its driver refuses: the volume group b21 is not there"),
        ({"trouble": "the OSDs are full"}, "its pool cannot be used: the OSDs are full"),
        ({"total_gb": 0.0}, "its pool is full: none of 0 GiB is free"),
    ],
)
async def test_it_says_why_its_pool_is_of_no_use(cause: dict[str, Any], sentence: str) -> None:
    b = Backend()
    for name, value in cause.items():
        setattr(b.pool, name, value)
    await b.agent.look()
    assert b.agent.health()[0] is False
    told = b.agent.health()[1]
    assert told == sentence or told.endswith(sentence.partition(": ")[2]), told
    assert isinstance(await b.ask(Ping()), PingResult), "it answers whatever its pool does"
    b.pool.down = b.pool.refuses = b.pool.trouble = ""
    b.pool.total_gb = 10.0
    await b.agent.look()
    assert b.agent.health() == (True, "10.0 of 10.0 GiB are free")
    assert isinstance(await b.ask(ReadPool()), PoolStatus) and isinstance(await b.ask(ListVolumes()), VolumeList)


async def test_a_pool_that_hangs_holds_neither_answers_nor_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fenced, "ANSWER_S", 0.05)
    monkeypatch.setattr(volume, "POOL_ANSWER_S", 0.05)
    b = await backend()
    b.pool.hangs.clear()
    making = await b.ask(CreateVolume(V), 2)
    assert making == Working("the volume is being made")
    before = b.agent.reports.full().generation
    await b.agent.look()
    assert b.agent.health() == (False, "its pool cannot be used: pool fast does not answer")
    report = b.agent.reports.full()
    assert report.generation > before and report.pool is not None and report.pool.trouble
    assert isinstance(await b.ask(CreateVolume(V), 2), Unavailable), "so control waits for it no longer than it must"
    b.pool.hangs.set()
    await b.agent.look()
    await asyncio.sleep(0)
    assert isinstance(await b.ask(CreateVolume(V), 2), VolumeDone)
    assert (await b.ask(ListVolumes())).volumes
