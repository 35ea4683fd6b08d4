"""A removal is done once: by the time it is answered the guest may be made on another host of the same store."""

from __future__ import annotations

import pytest

from droveway.agents.compute import ComputeAgent
from droveway.agents.fences import Fence
from droveway.domain.model import GuestSpec, ImageRef, of_instance
from droveway.drivers.clock import SystemChance, SystemClock
from droveway.drivers.hypervisor.simulated.driver import SimulatedHypervisor
from droveway.drivers.hypervisor.simulated.fleet import Fleet
from droveway.ports.bus import AgentBus, Command, DropFiles, Prepare, Remove
from droveway.ports.replies import GuestStatus, Unavailable
from droveway.simulation.machines import DiskFences
from tests.control.world import NoBus

GUEST = "fec28c7c-68e9-49ac-8d2e-3a0199d32a7f"
IMAGE = ImageRef("5eed0000-0000-4000-8000-000000000001", "qcow2", 1 << 20, "0" * 128, "/images/tiny")
SPEC = GuestSpec(GUEST, "guest", 1, 512, 1, IMAGE)


class FullDisk(DiskFences):
    """Takes what is to be done, and not that it was done."""

    def write(self, instance_id: str, fence: Fence) -> None:
        if fence.outcome:
            raise OSError(28, "No space left on device")
        super().write(instance_id, fence)


class Hosts:
    def __init__(self) -> None:
        self.fleet = Fleet(SystemClock(), SystemChance())
        self.fences = {"h1": DiskFences(), "h2": DiskFences()}
        for name in self.fences:
            self.fleet.add_host(name)

    async def agent(self, host: str) -> ComputeAgent:
        """A new process of it."""
        hypervisor = SimulatedHypervisor(self.fleet, host)
        await hypervisor.open(lambda _: None, lambda *_: None)
        bus: AgentBus = NoBus()

        async def inline(call: object) -> None:
            call()  # type: ignore[operator]

        return ComputeAgent(host, "boot", "here", hypervisor, bus, self.fences[host], SystemClock(), inline)

    def has_disk(self) -> bool:
        return GUEST in self.fleet.hosts["h1"].store.disks


@pytest.mark.parametrize("verb", [Remove(), DropFiles()], ids=lambda verb: type(verb).__name__)
async def test_a_removal_that_comes_again_after_the_host_crashed_deletes_nothing(verb: Remove | DropFiles) -> None:
    hosts = Hosts()
    first = await hosts.agent("h1")
    assert isinstance(await first.handle(Command(of_instance(GUEST), 3, Prepare(SPEC))), GuestStatus)
    removal = Command(of_instance(GUEST), 4, verb)
    assert isinstance(await first.handle(removal), GuestStatus)
    second = await hosts.agent("h2")
    assert isinstance(await second.handle(Command(of_instance(GUEST), 9, Prepare(SPEC))), GuestStatus)
    hosts.fences["h1"].crash()
    assert isinstance(await (await hosts.agent("h1")).handle(removal), GuestStatus)
    assert hosts.has_disk()


@pytest.mark.parametrize("verb", [Remove(), DropFiles()], ids=lambda verb: type(verb).__name__)
async def test_a_removal_that_cannot_be_recorded_is_not_answered_as_done(verb: Remove | DropFiles) -> None:
    hosts = Hosts()
    hosts.fences["h1"] = FullDisk()
    agent = await hosts.agent("h1")
    assert isinstance(await agent.handle(Command(of_instance(GUEST), 3, Prepare(SPEC))), GuestStatus)
    answer = await agent.handle(Command(of_instance(GUEST), 4, verb))
    assert isinstance(answer, Unavailable)
    assert answer.reason == "it was removed, but the fence cannot be written (No space left on device)"
