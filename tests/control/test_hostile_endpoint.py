"""A destination that says it is somewhere else than it is known to be gets no guest, and no source is told its word."""

from __future__ import annotations

import pytest

from droveway.domain.model import MigrationEndpoint, SagaKind
from droveway.drivers.hypervisor.simulated.driver import SimulatedHypervisor
from droveway.store.compute import instances
from droveway.store.work import sagas
from tests.control.world import world

EVIL = "qemu+ext://h/system?command=/tmp/x"


class Lying(SimulatedHypervisor):
    """Tells the endpoint that a test wants."""

    said: MigrationEndpoint

    def endpoint(self) -> MigrationEndpoint:
        return self.said


@pytest.mark.parametrize(
    ("peer", "data", "words"),
    [
        (EVIL, "sim://{}", "cannot take guests of other hosts"),
        ("sim://{}", "unix:///tmp/s", "cannot take guests of other hosts"),
        ("sim://h9", "sim://{}", "in its last report it was at"),
        ("qemu+tls://127.0.0.1/system", "tcp://127.0.0.1", "in its last report it was at"),
    ],
)
async def test_a_destination_is_where_its_last_report_said(peer: str, data: str, words: str) -> None:
    async with world() as w:
        instance_id = await w.create()
        (source,) = await w.runs_on(instance_id)
        other = "h2" if source == "h1" else "h1"
        w.agents[other]._hypervisor.__class__ = Lying  # it has been compromised since it joined
        Lying.said = MigrationEndpoint(other, peer.format(other), data.format(other))
        saga_id = await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})
        await w.quiet()
        saga = await w.store.read(sagas.get, saga_id)
        assert saga["status"] == "undone" and words in saga["error"], saga["error"]
        assert "BeginCopy" not in [verb for _, verb in w.commands]
        assert await w.runs_on(instance_id) == [source]
        await w.check(instance_id)
