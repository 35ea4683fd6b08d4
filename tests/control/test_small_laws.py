"""Laws that a thousand simulated worlds may not break for long enough to be seen: each by hand."""

from __future__ import annotations

from typing import Any

import pytest

from droveway.domain.model import Guest, GuestState, SagaKind
from droveway.ports.bus import Command, Inspect
from droveway.ports.replies import Answer, GuestStatus
from droveway.store.compute import instances
from droveway.store.fleet import hosts
from tests.control.test_declared_gone import move_of, moving, row
from tests.control.test_sagas import EXPECTED, act
from tests.control.world import Break, World, world

A, P, R = GuestState.ABSENT, GuestState.PAUSED, GuestState.RUNNING


async def test_where_both_seem_to_run_the_first_is_asked_again() -> None:
    async with moving(A, R) as (w, instance_id, at, to):
        agent, lies = w.agents[at], [True]
        handle = agent.handle

        async def once_from_before_the_switch(command: Command) -> Answer:
            answer = await handle(command)
            if isinstance(command.verb, Inspect) and lies:
                lies.pop()
                return GuestStatus(Guest(instance_id, R), "boot")
            return answer

        agent.handle = once_from_before_the_switch  # type: ignore[method-assign]
        await w.quiet()
        assert not lies
        assert (await move_of(w, instance_id))["status"] == "done"
        assert (await row(w, instance_id))["host"] == to


async def test_what_is_paused_at_the_source_is_a_husk_when_the_destination_has_booted_since() -> None:
    """Then nobody can say that it has not run there: it is never resumed."""
    async with moving(P, A) as (w, instance_id, at, to):
        w.fleet.hosts[at].domains[instance_id].is_husk = True
        w.fleet.lives_on.pop(instance_id)
        w.agents[to]._boot_id = "the next boot"
        await w.quiet()
        assert w.fleet.violations == []
        assert (await move_of(w, instance_id))["status"] == "undone"
        assert await w.runs_on(instance_id) == []


async def test_a_guest_that_powers_itself_off_where_it_was_moved_to_is_stopped_and_not_started_again() -> None:
    async with world() as w:
        w.agents["h1"]._boot_id, w.agents["h2"]._boot_id = "boot of h1", "boot of h2"
        instance_id = await w.create()
        assert await w.do(instance_id, SagaKind.LIVE_MIGRATION) == "done"
        place = (await row(w, instance_id))["host"]
        assert (await row(w, instance_id))["ran_boot_id"] == f"boot of {place}"
        w.fleet.hosts[place].domains[instance_id].state = GuestState.SHUTOFF
        w.fleet.lives_on.pop(instance_id)
        await w.report()
        assert (await row(w, instance_id))["vm_state"] == "stopped"


ENDS_AS = {
    SagaKind.STOP: "stopped",
    SagaKind.DELETE: "deleted",
    SagaKind.PAUSE: "paused",
    SagaKind.SUSPEND: "suspended",
    SagaKind.RESCUE: "rescued",
    SagaKind.SHELVE: "shelved_offloaded",
    SagaKind.SOFT_DELETE: "soft-delete",
    SagaKind.COLD_MIGRATION: "resized",
    SagaKind.RESIZE_SERVER: "resized",
}


@pytest.mark.parametrize("breaks", [Break.REQUEST_LOST, Break.ANSWER_LOST])
@pytest.mark.parametrize(("kind", "at"), [(k, n + 1) for k, verbs in EXPECTED.items() for n in range(len(verbs))])
async def test_a_host_that_does_not_answer_once_has_not_failed(kind: SagaKind, at: int, breaks: Break) -> None:
    async with world() as w:
        w.at, w.breaks = at, breaks
        instance_id = await act(w, kind)
        found = await row(w, instance_id)
        assert (found["vm_state"], found["fault"]) == (ENDS_AS.get(kind, "active"), None)
        if kind is SagaKind.LIVE_MIGRATION:
            assert (await move_of(w, instance_id))["status"] == "done"


async def claims(w: World) -> dict[str, int]:
    return dict(await w.store.read(hosts.claims_of_all))


async def test_capacity_that_a_move_leaves_is_nudged() -> None:
    async with world() as w:
        instance_id = await w.create()
        source, before = (await row(w, instance_id))["host"], await claims(w)
        assert await w.do(instance_id, SagaKind.LIVE_MIGRATION) == "done"
        after = await claims(w)
        assert after[source] > before[source]
        assert all(after[host] >= before[host] + 2 for host in after if host != source), "claimed, and taken over"


async def test_capacity_that_a_failed_boot_or_move_gives_back_is_nudged() -> None:
    async with world(hosts=("h1",)) as w:
        before = await claims(w)
        w.at, w.breaks = 1, Break.REFUSED
        await w.create()
        assert (await claims(w))["h1"] >= before["h1"] + 2
    async with world() as w:
        instance_id = await w.create()
        source, before = (await row(w, instance_id))["host"], await claims(w)
        w.at, w.breaks = len(w.commands) + 1, Break.REFUSED
        assert await w.do(instance_id, SagaKind.LIVE_MIGRATION) == "undone"
        after = await claims(w)
        assert all(after[host] >= before[host] + 2 for host in after if host != source)


async def test_a_fence_is_raised_only_by_compare_and_swap() -> None:
    async with world() as w:
        instance_id = await w.create()
        fence = (await row(w, instance_id))["fence"]
        assert await w.store.run(instances.raise_fence, instance_id, fence - 1) is None
        assert await w.store.run(instances.raise_fence, instance_id, fence) == fence + 1
        assert await w.store.run(instances.raise_fence, instance_id, fence) is None, "it has been raised since"
        seen: Any = await row(w, instance_id)
        assert seen["fence"] == fence + 1
