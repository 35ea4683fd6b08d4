"""The tasks that the program itself has."""

from __future__ import annotations

from typing import Any, cast

import pytest
from sqlalchemy import func, insert, select

from droveway.control.engine.saga import ControlSettings
from droveway.control.loops.upkeep import AGE_OUT_S, BATCH, RECLAIM_EVERY_S, Upkeep
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.periodic.mark import collect
from droveway.periodic.tasks import PeriodicTasks
from droveway.store.engine.transaction import MemoryStore, Tx
from droveway.store.schema import events
from tests.store import databases


async def test_old_rows_are_aged_out() -> None:
    """All of it, batch by batch, and nothing that is young."""
    clock = SystemClock()

    def write(tx: Tx) -> None:
        row: dict[str, Any] = {"kind": "tick", "subject_kind": "host", "subject_id": "s", "body": {}}
        tx.execute(insert(events), [row | {"at_us": number} for number in range(2 * BATCH + BATCH // 2)])
        tx.execute(insert(events), [row | {"at_us": clock.now_us()}])

    store = databases.with_schema(MemoryStore(clock, SystemNames()))
    await store.run(write)
    nobody = cast("Any", None)  # of the other parts of control it asks nothing
    upkeep = Upkeep(store, clock, nobody, "one", 1, nobody, ControlSettings(""))
    tasks = PeriodicTasks(clock, SystemChance())
    tasks.collect(upkeep)
    wanted = [("age_out", "task", AGE_OUT_S), ("reclaim_servers", "task", RECLAIM_EVERY_S)]
    assert [(task.name, task.kind, task.every_s) for task in tasks.listing()] == wanted
    await upkeep.age_out()
    assert await store.read(lambda tx: tx.execute(select(func.count()).select_from(events)).scalar_one()) == 1
    await store.close()


def test_a_libvirt_host_sweeps_its_bases_and_lets_stalled_guests_try_again() -> None:
    pytest.importorskip("libvirt")
    from droveway.drivers.hypervisor.libvirt.driver import LibvirtHypervisor

    assert [(one.name, one.mark.run_on_start) for one in collect(LibvirtHypervisor)] == [
        ("resume_stalled", False),
        ("sweep_bases", True),
    ]
