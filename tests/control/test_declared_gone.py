"""A host that will not come back by itself: who waits for it, what ends the wait, and what never follows from that."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from droveway.domain.faults import Conflict, Unreachable
from droveway.domain.liveness import State
from droveway.domain.model import GuestState, SagaKind, SpareDisk, of_host, of_instance
from droveway.drivers.hypervisor.simulated.fleet import Domain, Durations
from droveway.ports.bus import Beat, Command, Hello
from droveway.ports.replies import Answer
from droveway.store.compute import instances, migrations
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import declared, hosts, services
from droveway.store.work import events, sagas
from tests.control.test_sagas import params_of
from tests.control.world import TINY, World, world

R, P, A = GuestState.RUNNING, GuestState.PAUSED, GuestState.ABSENT
Story = Callable[[World, str, str, str], Awaitable[None]]


async def row(w: World, instance_id: str) -> Any:
    return await w.store.read(instances.get, instance_id, None, deleted=True)


async def move_of(w: World, instance_id: str) -> Any:
    return await w.store.read(sagas.last_of, of_instance(instance_id), SagaKind.LIVE_MIGRATION)


def off(w: World, host: str) -> Callable[[], None]:
    """That host answers nobody any more; what it returns brings it back."""
    agent = w.agents[host]
    handle = agent.handle

    async def silent(command: Command) -> Answer:
        raise Unreachable(f"{host} is not connected")

    agent.handle = silent  # type: ignore[method-assign]
    return lambda: setattr(agent, "handle", handle)


def declare(tx: Tx, host: str) -> None:
    down = services.Verdict(host, hosts.COMPUTE, State.DEAD, "it is dead", tx.now_us)
    services.record_verdicts(tx, [down])
    declared.declare_gone(tx, host, "its board is broken")


async def until(true: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(30):
        while not await true():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def moving(source: GuestState, destination: GuestState, *, kept: bool = False) -> AsyncIterator[Any]:
    """A live migration that is about to switch, and then finds the two ends so."""
    async with world() as w:
        w.fleet.durations = Durations(copy=(1e6, 1e6))
        instance_id = await w.create()
        at = (await row(w, instance_id))["host"]
        to = "h2" if at == "h1" else "h1"
        await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})
        await until(lambda: _is_copied(w, instance_id))
        copy = w.fleet.copies.pop(instance_id)
        copy.ended.set_result(None)
        for host, state in ((at, source), (to, destination)):
            w.fleet.hosts[host].domains.pop(instance_id, None)
            if state is not A:
                is_defined = kept if host == to else True
                w.fleet.hosts[host].domains[instance_id] = Domain(state, 128, is_defined=is_defined)
        w.fleet.lives_on[instance_id] = to if kept or destination is R else at
        yield (w, instance_id, at, to)


async def _is_copied(w: World, instance_id: str) -> bool:
    copy = w.fleet.copies.get(instance_id)
    active = await w.store.read(sagas.active_of, of_instance(instance_id))
    return copy is not None and copy.has_arrived and active is not None and active["step"] == "await_switch"


async def claims(w: World) -> list[Any]:
    return [one for one in await w.store.read(migrations.find) if one["holds_claim"]]


async def is_up(w: World, host: str) -> bool:
    found = await w.store.read(hosts.get, host)
    return not found["declared"] and not found["forced_down"]


# -- nothing is declared: what hosts say decides, in a bounded time ---------------------------------------------------
@pytest.mark.parametrize("source", [A, P])
async def test_a_guest_that_arrived_and_is_paused_there_is_resumed_once_and_has_switched(source: GuestState) -> None:
    async with moving(source, P, kept=True) as (w, instance_id, __at, to):
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["host"], found["power_state"]) == (to, instances.POWER_RUNNING)
        assert await w.runs_on(instance_id) == [to]
        assert w.fleet.violations == []


async def test_one_that_was_suspended_there_has_switched_and_stays_suspended() -> None:
    async with moving(A, P, kept=True) as (w, instance_id, __at, to):
        w.fleet.hosts[to].domains[instance_id].suspended = True
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["host"], found["power_state"]) == (to, instances.POWER_PAUSED)
        assert await w.runs_on(instance_id) == []


async def test_a_half_that_never_arrived_whole_is_ended_and_the_guest_goes_on_at_its_source() -> None:
    async with moving(P, P) as (w, instance_id, at, to):

        async def is_given_up() -> bool:
            """As libvirt does with a half that is expected no longer."""
            if instance_id not in w.fleet.hosts[to].admitted:
                w.fleet.hosts[to].domains.pop(instance_id, None)
            return instance_id not in w.fleet.hosts[to].domains

        given_up = asyncio.create_task(until(is_given_up))
        await w.quiet()
        await given_up
        assert await w.runs_on(instance_id) == [at]
        assert (await row(w, instance_id))["host"] == at


async def test_a_long_wait_is_recorded_with_its_reason_and_its_way_out() -> None:
    async with moving(R, A) as (w, instance_id, at, __to):
        back = off(w, at)

        async def blocked() -> Any:
            return (await move_of(w, instance_id))["blocked"]

        await until(blocked)
        said = await blocked()
        assert f"{at} must answer before anybody may say where the guest is" in said
        assert "droveway host declare-gone HOST --because" in said
        back()
        await w.quiet()


async def test_a_copy_that_goes_on_for_long_says_so_and_can_be_cancelled() -> None:
    async with world() as w:
        w.fleet.durations = Durations(copy=(1e6, 1e6))
        instance_id = await w.create()
        place = (await row(w, instance_id))["host"]
        await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})

        async def blocked() -> Any:
            return (await move_of(w, instance_id))["blocked"]

        await until(blocked)
        saga_id = (await move_of(w, instance_id))["id"]
        assert f"droveway saga cancel {saga_id}" in await blocked()
        await w.store.run(sagas.cancel, saga_id, "an operator cancelled it")
        await w.quiet()
        assert await w.runs_on(instance_id) == [place]
        assert await claims(w) == []


# -- the source is gone for good --------------------------------------------------------------------------------------
async def test_a_source_that_is_gone_and_a_destination_without_the_guest_end_the_migration() -> None:
    async with moving(R, A) as (w, instance_id, at, to):
        back = off(w, at)
        await w.store.run(declare, at)
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["host"], found["vm_state"], found["power_state"]) == (at, "error", instances.POWER_NONE)
        assert "declared gone" in found["fault"]["message"]
        assert await claims(w) == []
        await w.report_of(to)
        assert await w.runs_on_others(instance_id, at) == [], "it is started nowhere else"
        back()
        await w.store.run(declared.readmit, at)
        await until(lambda: is_up(w, at))
        await w.report()
        found = await row(w, instance_id)
        assert (found["host"], found["vm_state"], found["fault"]) == (at, "active", None), "it ran there all along"
        assert await w.runs_on(instance_id) == [at]


@pytest.mark.parametrize(("destination", "kept"), [(P, True), (A, False)])
async def test_its_server_can_be_deleted_and_the_disk_is_for_the_gone_host_to_delete(
    destination: GuestState, kept: bool
) -> None:
    async with moving(P, destination, kept=kept) as (w, instance_id, at, to):
        back = off(w, at)
        await w.store.run(declare, at)
        await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["deleted"], found["host"]) == (True, at)
        assert await claims(w) == []
        assert instance_id not in w.fleet.hosts[to].domains
        assert instance_id in w.fleet.stores["shared"].disks
        back()
        await w.store.run(declared.readmit, at)
        await until(lambda: is_up(w, at))
        assert instance_id not in w.fleet.stores["shared"].disks
        assert (await row(w, instance_id))["host"] is None


async def test_a_guest_paused_at_the_destination_of_a_gone_source_is_left_so_and_it_is_said() -> None:
    async with moving(P, P, kept=True) as (w, instance_id, at, to):
        off(w, at)
        await w.store.run(declare, at)

        async def blocked() -> Any:
            return "readmit" in ((await move_of(w, instance_id))["blocked"] or "")

        await until(blocked)
        said = (await move_of(w, instance_id))["blocked"]
        assert f"droveway host readmit {at}" in said
        assert "delete the server" in said
        assert await w.runs_on_others(instance_id, at) == []
        await w.store.run(sagas.cancel, (await move_of(w, instance_id))["id"], "no")
        await asyncio.sleep(0.1)
        assert w.fleet.hosts[to].domains[instance_id].state is P, "cancelled, and neither ended nor started"


async def test_a_destination_that_is_gone_may_have_it_where_the_source_has_not() -> None:
    async with moving(A, R, kept=True) as (w, instance_id, at, to):
        off(w, to)
        await w.store.run(declare, to)
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["host"], found["vm_state"], found["power_state"]) == (to, "error", instances.POWER_NONE)
        await w.report_of(at)
        assert await w.runs_on_others(instance_id, to) == []
        await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["deleted"], found["host"]) == (True, to)


# -- other sagas, the word itself -------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [SagaKind.STOP, SagaKind.HARD_REBOOT, SagaKind.DELETE])
async def test_no_saga_waits_for_it(kind: SagaKind) -> None:
    async with world() as w:
        instance_id = await w.create()
        place = (await row(w, instance_id))["host"]
        off(w, place)
        await w.store.run(instances.intend, instance_id, kind, {})
        await w.store.run(declare, place)
        await w.quiet()
        found = await row(w, instance_id)
        assert found["deleted"] == (kind is SagaKind.DELETE)
        assert (found["task_state"], found["host"]) == (None, place)


async def test_a_boot_on_it_is_not_tried_elsewhere_for_it_may_run_there() -> None:
    async with world() as w:
        new = instances.NewInstance("p", "u", "g", "g", TINY, None)
        w.fleet.durations = Durations(prepare=(0.2, 0.2))
        instance_id = await w.store.run(instances.create, new)

        async def prepares() -> bool:
            return any(verb == "Prepare" for _, verb in w.commands)

        await until(prepares)
        place = w.commands[-1][0]
        back = off(w, place)
        await w.store.run(declare, place)
        await w.control.admission.look()
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["vm_state"], found["host"]) == ("error", place)
        assert "declared gone" in found["fault"]["message"]
        assert await w.runs_on_others(instance_id, place) == []
        w.fleet.hosts[place].domains[instance_id] = Domain(R, 128, is_defined=True)
        back()
        await w.store.run(declared.readmit, place)
        await until(lambda: is_up(w, place))
        found = await row(w, instance_id)
        assert (found["vm_state"], found["power_state"], found["fault"]) == (
            "active",
            instances.POWER_RUNNING,
            None,
        )


async def test_its_agent_is_refused_with_a_reason_until_it_is_readmitted() -> None:
    async with world() as w:
        await w.store.run(declare, "h1")

        async def is_refused() -> bool:
            assert w.on_notice is not None
            welcome = w.on_notice(Hello("h1", "boot", "here"))
            return welcome is not None and not welcome.accepted and "droveway host readmit h1" in welcome.reason

        await until(is_refused)
        beats = w.control.observer.numbers.beats
        assert w.on_notice is not None
        w.on_notice(Beat("h1", "boot", 10**6))
        assert w.control.observer.numbers.beats == beats
        (service,) = await w.store.read(services.list_all, "h1", hosts.COMPUTE)
        with pytest.raises(Conflict, match="was declared gone"):
            await w.store.run(lambda tx: services.set_(tx, service["uuid"], forced_down=False))
        await w.store.run(declared.readmit, "h1")
        await until(lambda: is_up(w, "h1"))
        welcome = w.on_notice(Hello("h1", "boot", "here"))
        assert welcome is not None
        assert welcome.accepted


@pytest.mark.parametrize("when", ["before", "meanwhile", "readmitted", "declared twice", "never"])
async def test_what_an_operator_forced_down_stays_down_after_it_was_readmitted(when: str) -> None:
    async with world() as w:
        (service,) = await w.store.read(services.list_all, "h1", hosts.COMPUTE)

        async def set_down(is_forced: bool) -> None:
            await w.store.run(lambda tx: services.set_(tx, service["uuid"], forced_down=is_forced))

        async def is_admitted() -> bool:
            return not (await w.store.read(hosts.get, "h1"))["declared"]

        if when in ("before", "declared twice"):
            await set_down(True)
        await w.store.run(declare, "h1")
        if when == "declared twice":
            await w.store.run(declared.declare_gone, "h1", "it still burns")
        if when == "meanwhile":
            await set_down(True)
        assert [one.declared for one in await w.store.read(declared.words)] == [declared.GONE]
        comes_back = off(w, "h1")
        await w.store.run(declared.readmit, "h1")
        if when == "readmitted":
            await set_down(True)
        assert [one.declared for one in await w.store.read(declared.words)] == [declared.READMITTED]
        with pytest.raises(Conflict, match="was declared gone"):
            await set_down(False)
        comes_back()
        await w.report_of("h1")
        await until(is_admitted)
        assert (await w.store.read(hosts.get, "h1"))["forced_down"] is (when != "never")
        await set_down(False)
        assert await is_up(w, "h1")


async def test_a_host_that_is_up_is_not_declared_gone_and_one_not_declared_is_not_readmitted() -> None:
    async with world() as w:
        with pytest.raises(Conflict, match="h1 is up"):
            await w.store.run(declared.declare_gone, "h1", "a typing mistake")
        with pytest.raises(Conflict, match="was not declared gone"):
            await w.store.run(declared.readmit, "h1")


async def test_what_runs_on_a_readmitted_host_and_is_another_hosts_now_is_ended_before_it_is_up() -> None:
    async with world() as w:
        instance_id = await w.create()
        place = (await row(w, instance_id))["host"]
        other = "h2" if place == "h1" else "h1"
        await w.store.run(declare, other)
        w.fleet.hosts[other].domains[instance_id] = Domain(R, 128, is_defined=True)
        await w.store.run(declared.readmit, other)
        await until(lambda: is_up(w, other))
        assert await w.runs_on(instance_id) == [place]


async def test_a_readmitted_host_that_cannot_be_compared_says_why_it_is_not_used_yet() -> None:
    async with world() as w:
        await w.store.run(declare, "h1")
        comes_back = off(w, "h1")
        await w.store.run(declared.readmit, "h1")
        silent = "its board is broken; it may not be used yet: h1 is not connected"

        async def says() -> Any:
            return (await w.store.read(hosts.get, "h1"))["declared_because"] == silent

        await until(says)
        told = [
            one["body"]["reason"]
            for one in await w.store.read(events.of_subject, of_host("h1"))
            if "may not be used yet" in str(one["body"])
        ]
        assert told == ["it may not be used yet: h1 is not connected"]
        comes_back()
        await w.report_of("h1")  # without a report it is asked again after HIDDEN_LOOK_S
        await until(lambda: is_up(w, "h1"))
        assert (await w.store.read(hosts.get, "h1"))["declared_because"] == ""


@pytest.mark.parametrize("kind", [SagaKind.REBUILD, SagaKind.RESCUE])
async def test_what_a_host_that_was_gone_kept_beside_a_disk_is_not_taken_for_another_image(kind: SagaKind) -> None:
    """The saga that made it was undone without that host."""
    async with world() as w:
        instance_id, params = await w.create(), await params_of(w, kind)
        disk = SpareDisk.REBUILD if kind is SagaKind.REBUILD else SpareDisk.RESCUE
        store = w.fleet.hosts[(await row(w, instance_id))["host"]].store
        store.spares[instance_id, disk.value] = "the image of that time"
        assert await w.do(instance_id, kind, params) == "done"
        made = store.images[instance_id] if kind is SagaKind.REBUILD else store.spares[instance_id, disk.value]
        assert made == params["image_id"]
