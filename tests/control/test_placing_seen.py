"""A claim is made on what was seen when it was decided, whatever the columns have learnt since; and what a transaction
was the first to see is told to those that wait."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, update

from droveway.control.scheduling.placer import Decision, Placer
from droveway.control.scheduling.requests import to_move
from droveway.domain.model import SagaKind
from droveway.domain.placement import HostFacts, PlacementRequest
from droveway.store.compute import instances, migrations
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.schema import hosts as rows
from droveway.store.schema import sagas
from tests.control.hosts import add_host, boot, create, flavor, release
from tests.control.test_placing import ALL_MB, add_group, play


class HearsMeanwhile(Placer):
    """Between the plan and the claim the loop's thread brings news of that host."""

    def _claim(self, tx: Tx, name: str, *more: Any) -> tuple[HostFacts, tuple[Any, ...]] | None:
        with self._lock:
            for facts in hosts.facts_of(tx, [name]):
                self._put(facts)
        return super()._claim(tx, name, *more)


async def test_news_between_the_plan_and_the_claim_are_looked_at() -> None:
    async with play(names="a") as hall:
        hall.placers[0].__class__ = HearsMeanwhile
        assert await hall.place(by=1, ram_mb=ALL_MB) == "a"
        assert await hall.place(by=0) is None


async def test_a_host_that_was_forgotten_and_is_back_is_another_one_whatever_its_number() -> None:
    async with play(names="a") as hall:
        before = await hall.store.read(hosts.facts, "a")

        def come_back(tx: Tx) -> None:
            """As another machine, with as many changes as its namesake had."""
            tx.execute(delete(rows).where(rows.c.name == "a"))
            add_host(tx, "a", ALL_MB // 4)
            tx.execute(update(rows).where(rows.c.name == "a").values(claims=before.claims))

        await hall.store.run(come_back)
        assert await hall.place(by=0, ram_mb=ALL_MB) is None  # nothing has told the columns of it
        await hall.placers[1].refresh()
        facts = hall.placers[1].facts("a")
        assert facts is not None and facts.id > before.id and facts.memory_mb == ALL_MB // 4


async def test_room_that_a_transaction_was_the_first_to_see_wakes_those_that_wait() -> None:
    async with play(names="a", placers=1) as hall:
        placer, halves = hall.placers[0], flavor(ALL_MB // 2)
        placed = [await hall.store.run(create, halves) for _ in range(2)]
        for one in placed:
            placer.kept(await hall.store.run(boot, placer, one))
        refused = await hall.store.run(choose, placer, PlacementRequest(1, ALL_MB // 2, 1))
        assert refused.host is None
        placer.wait_for_capacity("saga", refused)
        for one in placed:
            await hall.store.run(release, one)
        assert await hall.place(by=0, ram_mb=ALL_MB // 2) == "a"  # before anybody has refreshed
        await placer.refresh()
        assert placer.has_capacity("saga")


def choose(tx: Tx, placer: Placer, ask: PlacementRequest) -> Decision:
    return placer.choose(tx, ask)


async def test_no_server_joins_an_affinity_group_while_its_member_is_being_moved() -> None:
    """Where the group will be is not known: on either host the new one might be left alone."""
    async with play(names="ab") as hall:
        group = await hall.store.run(add_group, "affinity")
        mover = await hall.store.run(create, None, group)
        home = (await hall.store.run(boot, hall.placers[0], mover)).host
        goes_to = "b" if home == "a" else "a"

        def depart(tx: Tx) -> str:
            instances.set_idle(tx, mover, vm_state="active")
            tx.execute(delete(sagas).where(sagas.c.subject_id == mover))
            saga_id = instances.intend(tx, mover, SagaKind.LIVE_MIGRATION, {})
            assert hosts.claim(tx, hosts.facts(tx, goes_to))
            migrations.set_(tx, saga_id, destination=goes_to, holds_claim=True)
            return saga_id

        def arrive(tx: Tx, saga_id: str) -> None:
            migrations.set_(tx, saga_id, holds_claim=False)
            instances.set_(tx, mover, host=goes_to)
            hosts.touch(tx, home, goes_to)

        saga_id = await hall.store.run(depart)
        second = await hall.store.run(create, None, group)
        decision = await hall.store.run(boot, hall.placers[0], second)
        assert decision.host is None
        assert f"{home}: affinity: a member of its group is being moved between a and b" in decision.reason
        await hall.store.run(arrive, saga_id)
        assert (await hall.store.run(boot, hall.placers[0], second)).host == goes_to


async def test_a_guest_that_moves_takes_no_cells() -> None:
    """One that holds cells is not moved; another must not be seen to hold some that no row tells of."""
    async with play(names="a") as hall:
        await hall.store.run(add_host, "n", 4096, 8, 2)

        def ask(tx: Tx) -> PlacementRequest:
            made = create(tx, flavor(512, 2, **{"hw:numa_nodes": "2"}))
            instances.set_(tx, made, host="a")
            hosts.touch(tx, "a")
            return to_move(tx, instances.get(tx, made), hosts.source(tx, "a"), None)

        assert (await hall.store.run(ask)).numa is None
