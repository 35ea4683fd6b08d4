"""A boot whose host does not answer: nothing may be done elsewhere, and its user sees why, until that host is back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest

from droveway.agents import fenced
from droveway.domain.model import SagaKind, of_instance
from droveway.drivers.hypervisor.simulated import mounts
from droveway.drivers.hypervisor.simulated.fleet import Durations
from droveway.ports.bus import Command, Remove, Start
from droveway.ports.replies import Answer, Refused, Unavailable
from droveway.store.compute import instances
from droveway.store.compute.instances import NewInstance
from droveway.store.work import sagas
from tests.control.test_declared_gone import off, row, until
from tests.control.world import SETTINGS, TINY, World, world

Story = Callable[[World, str], Awaitable[None]]


async def boot(w: World) -> str:
    return await w.store.run(instances.create, NewInstance("p", "u", "g", "g", TINY, None))


async def saga_of(w: World, instance_id: str) -> Any:
    return await w.store.read(sagas.last_of, of_instance(instance_id), SagaKind.BOOT)


async def shows(w: World, instance_id: str) -> Any:
    """The row, once its user is told of a fault while the saga goes on asking."""

    async def told() -> bool:
        return bool((await row(w, instance_id))["fault"])

    await until(told)
    found = await row(w, instance_id)
    assert found["vm_state"] == "error"
    assert await w.store.read(sagas.count_open) > 0
    return found


@contextlib.asynccontextmanager
async def silent(**settings: Any) -> AsyncIterator[tuple[World, str, Callable[[], None]]]:
    """No host answers from before the boot until the story brings them back."""
    async with world(msgspec.structs.replace(SETTINGS, **settings)) as w:
        backs = [off(w, host) for host in w.host_names]

        def back() -> None:
            for each in backs:
                each()

        yield (w, await boot(w), back)


@pytest.fixture
def quick() -> Iterator[None]:
    """A store is known to hang, and a command to take long, after a moment."""
    within_s, answer_s = mounts.ANSWERS_WITHIN_S, fenced.ANSWER_S
    mounts.ANSWERS_WITHIN_S, fenced.ANSWER_S = 0.05, 0.02
    try:
        yield
    finally:
        mounts.ANSWERS_WITHIN_S, fenced.ANSWER_S = within_s, answer_s


@pytest.mark.usefixtures("quick")
async def test_a_store_that_hangs_under_it_is_a_fault_until_it_answers() -> None:
    async with world() as w:
        for host in w.host_names:
            w.fleet.mounts.hang(host)
        instance_id = await boot(w)
        found = await shows(w, instance_id)
        place, message = found["host"], found["fault"]["message"]
        assert message.startswith(f"{place}: the instance store of {place} does not answer")
        assert message.endswith(f"; {place} must remove what it has of it before it is tried on another host")
        assert {host for host, _ in w.commands} == {place}, "what it may still make there would be another's disk"
        for host in w.host_names:
            w.fleet.mounts.answer(host)
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["vm_state"], found["fault"]) == ("active", None)
        assert found["host"] != place
        await w.check(instance_id)


@pytest.mark.usefixtures("quick")
async def test_a_disk_that_takes_long_is_no_fault() -> None:
    async with world() as w:
        w.fleet.durations = Durations(prepare=(3.0, 3.0))
        instance_id = await boot(w)

        async def waits() -> bool:
            return "is at work" in ((await saga_of(w, instance_id))["blocked"] or "")

        await until(waits)
        found = await row(w, instance_id)
        assert (found["vm_state"], found["fault"]) == ("building", None)


async def test_it_is_being_built_again_once_its_host_is_back() -> None:
    async with silent() as (w, instance_id, back):
        place = (await shows(w, instance_id))["host"]
        w.fleet.durations = Durations(prepare=(0.2, 0.2))
        back()

        async def is_built() -> bool:
            found = await row(w, instance_id)
            return (found["vm_state"], found["fault"]) == ("building", None)

        await until(is_built)
        await w.quiet()
        assert (await row(w, instance_id))["host"] not in {place, None}
        await w.check(instance_id)


async def test_one_that_has_no_host_left_to_try_stays_a_fault_and_says_what_it_failed_by() -> None:
    async with silent(boot_tries=1) as (w, instance_id, back):
        saga = await saga_of(w, instance_id)

        async def says_more() -> bool:
            return "before this ends" in ((await row(w, instance_id))["fault"] or {}).get("message", "")

        await until(says_more)
        back()
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["vm_state"], found["host"]) == ("error", None)
        assert found["fault"]["message"] == (await w.store.read(sagas.get, saga["id"]))["error"]
        await w.check(instance_id)


async def test_it_can_be_deleted_while_it_waits() -> None:
    async with silent() as (w, instance_id, back):
        place = (await shows(w, instance_id))["host"]
        await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["deleted"], found["host"]) == (True, place), "the host owes the removal"
        back()
        await w.report()

        async def is_removed() -> bool:
            return (await row(w, instance_id))["host"] is None

        await until(is_removed)
        await w.check(instance_id)


async def test_one_that_is_cancelled_meanwhile_does_not_seem_to_be_built_for_ever() -> None:
    async with silent() as (w, instance_id, back):
        await shows(w, instance_id)
        await w.store.run(sagas.cancel, (await saga_of(w, instance_id))["id"], "an operator cancelled it")
        back()
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["vm_state"], found["host"]) == ("error", None)
        assert "must remove" not in found["fault"]["message"]
        await w.check(instance_id)


async def test_what_another_control_takes_over_is_still_shown_and_goes_on() -> None:
    async with silent() as (w, instance_id, back):
        await shows(w, instance_id)
        w.kill_control()
        assert w._restart is not None
        await w._restart
        assert (await row(w, instance_id))["fault"]
        back()
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["vm_state"], found["fault"]) == ("active", None)
        await w.check(instance_id)


def answered_by(w: World, verb: type, answer: Callable[[Command], Answer]) -> Callable[[], None]:
    """Every host carries that command out and answers so; what it returns ends that."""
    before = {host: agent.handle for host, agent in w.agents.items()}
    for agent in w.agents.values():

        async def handle(command: Command, handle: Any = agent.handle) -> Answer:
            if isinstance(command.verb, verb):
                return answer(command)
            return await handle(command)  # type: ignore[no-any-return]

        agent.handle = handle  # type: ignore[method-assign]

    def back() -> None:
        for host, handle in before.items():
            w.agents[host].handle = handle  # type: ignore[method-assign]

    return back


async def test_a_host_that_is_silent_about_the_start_is_a_fault_too() -> None:
    async with world() as w:
        back = answered_by(w, Start, lambda _: Unavailable("libvirt does not answer"))
        instance_id = await boot(w)
        found = await shows(w, instance_id)
        place = found["host"]
        assert found["fault"]["message"] == (
            f"{place} was told to start it, and may have done so: {place}: libvirt does not answer"
        )
        back()
        await w.quiet()
        found = await row(w, instance_id)
        assert (found["vm_state"], found["host"], found["fault"]) == ("active", place, None)
        await w.check(instance_id)


async def test_a_removal_that_is_refused_for_long_is_a_fault() -> None:
    async with world() as w:
        starts = answered_by(w, Start, lambda _: Refused("no such machine type"))
        back = answered_by(w, Remove, lambda _: Refused("its disk is busy"))
        instance_id = await boot(w)
        message = (await shows(w, instance_id))["fault"]["message"]
        assert "no such machine type" in message and message.endswith("its disk is busy")
        shown = (await row(w, instance_id))["fault"]
        await asyncio.sleep(2 * w.settings.patience_s)
        assert (await row(w, instance_id))["fault"] == shown, "said once"
        back()
        starts()
        await w.quiet()
        assert (await row(w, instance_id))["fault"] is None
        await w.check(instance_id)


async def test_a_wait_of_a_running_server_is_shown_with_the_action_and_not_as_a_fault() -> None:
    async with world() as w:
        instance_id = await w.create()
        back = off(w, (await row(w, instance_id))["host"])
        saga_id = await w.store.run(instances.intend, instance_id, SagaKind.STOP, {})

        async def waits() -> Any:
            return (await w.store.read(sagas.get, saga_id))["blocked"]

        await until(waits)
        found = await row(w, instance_id)
        assert (found["vm_state"], found["fault"]) == ("active", None)
        back()
        await w.quiet()
        assert await waits() is None
