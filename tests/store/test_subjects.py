"""One saga at a time is about a subject or holds it; whose turn it is, and the fences that follow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from droveway.control.loops import guest_rows
from droveway.domain.faults import Conflict, NotFound
from droveway.domain.liveness import State
from droveway.domain.model import (
    END,
    Guest,
    GuestState,
    SagaKind,
    SagaStatus,
    Subject,
    SubjectKind,
    of_host,
    of_instance,
)
from droveway.domain.reconcile import Remedy
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.compute import instances
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.fleet import hosts, services
from droveway.store.schema import saga_subjects
from droveway.store.work import sagas, subjects
from tests.control import hosts as rows

KIND = SagaKind.STOP


class Row:
    """A saga as its runner has it."""

    def __init__(self, tx: Tx, saga_id: str) -> None:
        row = sagas.get(tx, saga_id)
        self.id, self.subject = saga_id, sagas.subject_of(row)
        self.project_id, self.generation = row["project_id"], row["generation"]


def play(url: str, story: Callable[[Tx], Any]) -> None:
    async def run() -> None:
        store = DiskStore(url, SystemClock(), SystemNames())
        try:
            await store.run(story)
        finally:
            await store.close()

    asyncio.run(run())


def instance(tx: Tx) -> Subject:
    """Nobody is at work on it."""
    made = rows.create(tx)
    end(tx, str(sagas.last_of(tx, of_instance(made), SagaKind.BOOT)["id"]))  # type: ignore[index]
    return of_instance(made)


def begin(tx: Tx, subject: Subject, *holds: Subject) -> str:
    tx.now_us += 1  # who asks later comes later
    return sagas.enqueue(tx, KIND, subject, "p", {}, request_id="", holds=holds)


def end(tx: Tx, saga_id: str) -> int:
    return save(tx, saga_id, END, SagaStatus.DONE)


def save(tx: Tx, saga_id: str, step: str, status: SagaStatus, above: int = 0) -> int:
    """The generation it has then."""
    told: dict[str, Any] = {"notes": {}, "error": "", "blocked": None, "ticks": []}
    return sagas.save(tx, Row(tx, saga_id), step=step, status=status, above=above, **told).generation


def status(tx: Tx, saga_id: str) -> str:
    return str(sagas.get(tx, saga_id)["status"])


def test_a_saga_may_be_about_a_host_as_about_an_instance(url: str) -> None:
    def story(tx: Tx) -> None:
        rows.add_host(tx, "h1")
        one = begin(tx, of_host("h1"))
        two = begin(tx, of_host("h1"))
        assert (status(tx, one), status(tx, two)) == ("forward", "queued")
        assert sagas.get(tx, two)["queued_after"] == one
        generation = end(tx, one)
        assert status(tx, two) == "forward" and sagas.get(tx, two)["generation"] == generation + 1
        assert subjects.fence(tx, [of_host("h1")]) == generation + 1
        with pytest.raises(NotFound, match="there is no host h9"):
            begin(tx, of_host("h9"))

    play(url, story)


def test_a_host_that_a_saga_needs_or_waits_for_is_not_forgotten(url: str) -> None:
    """Its fence would go with it, and whoever ends before the one that waits could not end."""

    def story(tx: Tx) -> None:
        rows.add_host(tx, "h1")
        (service,) = services.list_all(tx, "h1")
        down = services.Verdict("h1", "nova-compute", State.DEAD, "its process has ended", tx.now_us)
        services.record_verdicts(tx, [down])
        guest = instance(tx)
        holder, waits = begin(tx, guest), begin(tx, guest, of_host("h1"))
        with pytest.raises(Conflict, match=f"Saga {waits} .* needs h1 and is queued; 'droveway saga cancel"):
            services.remove(tx, service["uuid"])
        end(tx, holder)
        with pytest.raises(Conflict, match="needs h1 and is forward"):
            services.remove(tx, service["uuid"])
        end(tx, waits)
        services.remove(tx, service["uuid"])
        assert services.list_all(tx, "h1") == []

    play(url, story)


def test_what_is_held_is_in_use_until_the_holder_has_ended(url: str) -> None:
    def story(tx: Tx) -> None:
        rows.add_host(tx, "h1")
        host, guest = of_host("h1"), instance(tx)
        for _ in range(3):
            end(tx, begin(tx, host))  # its fence is beyond the guest's
        fence = subjects.fence(tx, [host])
        holder = begin(tx, guest, host)
        assert sagas.get(tx, holder)["generation"] == fence + 1, "its commands are obeyed about both"
        assert subjects.fence(tx, [guest]) == subjects.fence(tx, [host]) == fence + 1
        assert sagas.active_of(tx, host)["id"] == holder  # type: ignore[index]
        assert subjects.busy_among(tx, SubjectKind.HOST, ["h1", "h2"]) == {"h1"}
        waits = begin(tx, host)
        assert status(tx, waits) == "queued" and sagas.get(tx, waits)["queued_after"] == holder
        generation = end(tx, holder)
        assert status(tx, waits) == "forward" and sagas.get(tx, waits)["generation"] > generation
        assert subjects.needs_of(tx, holder) == ()
        assert subjects.busy_among(tx, SubjectKind.INSTANCE, [guest.id]) == set()

    play(url, story)


def test_a_saga_of_two_subjects_waits_for_both_and_keeps_its_place(url: str) -> None:
    def story(tx: Tx) -> None:
        one, two = instance(tx), instance(tx)
        first, second = begin(tx, one), begin(tx, two)
        both = begin(tx, one, two)
        behind = begin(tx, two)
        assert [status(tx, one) for one in (both, behind)] == ["queued", "queued"]
        end(tx, second)
        assert status(tx, both) == "queued", "the other is still in use"
        assert status(tx, behind) == "queued", "nobody overtakes"
        assert sagas.active_of(tx, two) is None, "and nothing is held meanwhile"
        end(tx, first)
        assert (status(tx, both), status(tx, behind)) == ("forward", "queued")
        end(tx, both)
        assert status(tx, behind) == "forward"

    play(url, story)


def test_whose_clock_is_behind_comes_after_whom_it_waits_for_all_the_same(url: str) -> None:
    def story(tx: Tx) -> None:
        one, two = instance(tx), instance(tx)
        first = begin(tx, two)
        both = begin(tx, one, two)
        tx.now_us -= 3600 * 1_000_000
        behind = begin(tx, one)
        assert [status(tx, saga_id) for saga_id in (both, behind)] == ["queued", "queued"]
        end(tx, first)
        assert [status(tx, saga_id) for saga_id in (both, behind)] == ["forward", "queued"]
        end(tx, both)
        assert status(tx, behind) == "forward"

    play(url, story)


def test_who_waits_for_its_turn_is_not_started_again_meanwhile(url: str) -> None:
    def story(tx: Tx) -> None:
        one, two = instance(tx), instance(tx)
        first = begin(tx, two)
        both = begin(tx, one, two)

        def look() -> int:
            lost = Guest(one.id, GuestState.SHUTOFF)
            guest_rows.apply(tx, instances.get(tx, one.id), Remedy.START_AGAIN, lost, "", 0)
            return sagas.count_open(tx)

        assert [look(), look()] == [2, 2]
        end(tx, first)
        end(tx, both)
        assert [look(), look()] == [1, 1]

    play(url, story)


def test_one_that_frees_two_lets_two_go_on(url: str) -> None:
    def story(tx: Tx) -> None:
        one, two = instance(tx), instance(tx)
        both = begin(tx, one, two)
        waits = [begin(tx, one), begin(tx, two)]
        end(tx, both)
        assert [status(tx, saga_id) for saga_id in waits] == ["forward", "forward"]

    play(url, story)


def test_one_more_is_taken_on_the_way_unless_it_is_in_use(url: str) -> None:
    def story(tx: Tx) -> None:
        one, two, three = instance(tx), instance(tx), instance(tx)
        for _ in range(3):
            end(tx, begin(tx, two))
        mine = begin(tx, one)
        other = begin(tx, three)
        with pytest.raises(Conflict, match=f"instance {three.id} is in use: the stop {other} of instance"):
            sagas.hold(tx, mine, three)
        fence = sagas.hold(tx, mine, two)
        assert fence == subjects.fence(tx, [two]) and sagas.hold(tx, mine, two) == sagas.hold(tx, mine, one) == 0
        assert save(tx, mine, "stop_guest", SagaStatus.FORWARD, above=fence) > fence
        assert instances.raise_fence(tx, two.id, fence) is None, "the guests loop keeps its hands off"
        generation = end(tx, mine)
        assert subjects.fence(tx, [one]) == subjects.fence(tx, [two]) == generation

    play(url, story)


def test_no_two_hold_the_same(url: str) -> None:
    def story(tx: Tx) -> None:
        one, two = instance(tx), instance(tx)
        begin(tx, one, two)
        row = {"saga_id": "another", "subject_kind": "instance", "subject_id": two.id, "held": True}
        with pytest.raises(IntegrityError):
            tx.execute(insert(saga_subjects).values(row))
        raise Conflict("enough")  # the transaction is spoilt

    with pytest.raises(Conflict, match="enough"):
        play(url, story)


def test_a_broken_one_that_is_retried_fences_all_it_holds(url: str) -> None:
    def story(tx: Tx) -> None:
        rows.add_host(tx, "h1")
        guest = instance(tx)
        mine = begin(tx, guest, of_host("h1"))
        save(tx, mine, "", SagaStatus.BROKEN)
        waits = begin(tx, of_host("h1"))
        assert status(tx, waits) == "queued"
        sagas.retry(tx, mine)
        assert subjects.fence(tx, [of_host("h1")]) == sagas.get(tx, mine)["generation"]
        assert hosts.facts(tx, "h1").name == "h1"

    play(url, story)
