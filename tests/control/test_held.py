"""Servers that are paused or suspended, whose state is reset, or whose host goes down meanwhile."""

from __future__ import annotations

import pytest

from droveway.domain.faults import Conflict
from droveway.domain.model import GuestState, SagaKind
from droveway.drivers.hypervisor.simulated.fleet import GuestEnd
from droveway.store.compute import instances
from tests.control.world import Break, World, world

NOVA_PAUSED, NOVA_SHUTDOWN = 3, 4


async def row_of(w: World, instance_id: str) -> tuple[str, int]:
    row = await w.store.read(instances.get, instance_id)
    return row["vm_state"], row["power_state"]


async def test_the_rows_of_what_is_held() -> None:
    async with world() as w:
        instance_id = await w.create()
        await w.do(instance_id, SagaKind.PAUSE)
        assert await row_of(w, instance_id) == ("paused", NOVA_PAUSED)
        with pytest.raises(Conflict, match="Cannot 'suspend' instance g while it is in vm_state paused"):
            await w.do(instance_id, SagaKind.SUSPEND)
        await w.do(instance_id, SagaKind.HARD_REBOOT)
        await w.do(instance_id, SagaKind.SUSPEND)
        assert await row_of(w, instance_id) == ("suspended", NOVA_SHUTDOWN)
        await w.report()
        await w.check(instance_id)
        await w.do(instance_id, SagaKind.HARD_REBOOT)
        await w.check(instance_id)


async def test_a_paused_guest_whose_host_went_down_is_stopped_and_its_memory_alone_is_lost() -> None:
    async with world() as w:
        instance_id = await w.create()
        await w.do(instance_id, SagaKind.PAUSE)
        host = (await w.store.read(instances.get, instance_id))["host"] or ""
        w.fleet.end(w.fleet.hosts[host], instance_id, GuestEnd.HOST_CRASH)
        assert await w.do(instance_id, SagaKind.UNPAUSE) == "undone", "it is not started by that"
        await w.report()
        assert (await row_of(w, instance_id))[0] == "stopped"
        await w.do(instance_id, SagaKind.START)
        await w.check(instance_id)


async def test_a_suspended_guest_that_an_operator_starts_is_active() -> None:
    async with world() as w:
        instance_id = await w.create()
        await w.do(instance_id, SagaKind.SUSPEND)
        host = (await w.store.read(instances.get, instance_id))["host"] or ""
        w.fleet.run(w.fleet.hosts[host], instance_id, 128)
        await w.report()
        assert (await row_of(w, instance_id))[0] == "active"
        await w.check(instance_id)


async def test_a_reset_to_active_writes_what_the_host_says_and_one_to_error_stands() -> None:
    async with world() as w:
        instance_id = await w.create()
        domain = next(host.domains[instance_id] for host in w.fleet.hosts.values() if instance_id in host.domains)
        await w.do(instance_id, SagaKind.RESET_STATE, {"state": "error"})
        await w.report()
        assert (await row_of(w, instance_id))[0] == "error", "nobody puts it right again by himself"
        assert domain.state is GuestState.RUNNING
        await w.do(instance_id, SagaKind.RESET_STATE, {"state": "active"})
        await w.check(instance_id)
        for kind, state in ((SagaKind.PAUSE, "paused"), (SagaKind.HARD_REBOOT, "active"), (SagaKind.STOP, "stopped")):
            await w.do(instance_id, kind)
            await w.do(instance_id, SagaKind.RESET_STATE, {"state": "active"})
            assert (await row_of(w, instance_id))[0] == state


async def test_a_reset_of_what_never_ran_leaves_it_in_error_with_its_fault() -> None:
    async with world() as w:
        instance_id = await w.create()
        fault = {"code": 500, "message": "h1: no", "created_us": 1}
        host = w.fleet.hosts[(await w.store.read(instances.get, instance_id))["host"] or ""]
        w.fleet.end(host, instance_id, GuestEnd.REMOVE)
        w.fleet.forget(host, instance_id)
        never_ran = {"vm_state": "error", "launched_at_us": None, "fault": fault}
        await w.store.run(lambda tx: instances.set_(tx, instance_id, **never_ran))
        assert await w.do(instance_id, SagaKind.RESET_STATE, {"state": "active"}) == "done"
        after = await w.store.read(instances.get, instance_id)
        assert (after["vm_state"], after["task_state"], after["fault"]) == ("error", None, fault)


async def test_a_reset_of_what_cannot_be_asked_changes_nothing() -> None:
    async with world() as w:
        instance_id = await w.create()
        await w.do(instance_id, SagaKind.STOP)
        w.trouble, w.breaks = "the broker is away", Break.REFUSED
        assert await w.do(instance_id, SagaKind.RESET_STATE, {"state": "active"}) == "undone"
        w.trouble = ""
        assert (await row_of(w, instance_id))[0] == "stopped"
