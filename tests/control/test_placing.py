"""Claims: whatever the columns of a placer believe, and however many placers there are, no host is held beyond what it
has, and no group rule is broken."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert

from droveway.control.engine.nudges import Nudges
from droveway.control.scheduling import placer as placing
from droveway.control.scheduling.placer import Placer
from droveway.domain.model import SagaKind
from droveway.domain.placement import HeldCell, PlacementRequest, PlacementSettings
from droveway.drivers.clock import SystemClock
from droveway.store.compute import instances, migrations
from droveway.store.engine.transaction import MemoryStore, Tx
from droveway.store.fleet import hosts, services
from droveway.store.schema import hosts as rows
from droveway.store.schema import sagas, server_groups
from tests.control.hosts import add_host, beyond, boot, create, flavor, memory_store, release

ALL_MB = 4096  # of each host


class Failed(Exception):
    """The transaction is not kept."""


class PlacingHarness:
    """Some hosts in a store, and placers of several controls."""

    def __init__(self, names: str, placers: int) -> None:
        self.names, self.store = names, memory_store()
        self.placers = [Placer(self.store, SystemClock(), Nudges(), PlacementSettings(), 1.0) for _ in range(placers)]

    async def open(self) -> None:
        for name in self.names:
            await self.store.run(add_host, name)
        for placer in self.placers:
            await placer.load()

    async def place(self, by: int = 0, ram_mb: int = 1024, group: str | None = None) -> str | None:
        """A new instance, placed by that placer; its host."""
        instance_id = await self.store.run(create, flavor(ram_mb), group)
        decision = await self.store.run(boot, self.placers[by], instance_id)
        self.placers[by].kept(decision)
        return decision.host

    async def check(self) -> None:
        facts = await self.store.read(hosts.facts_of_all)
        assert not [one for one in facts if beyond(one)]
        for placer in self.placers:
            await placer.refresh()
            await placer.refresh()  # a claim that the store does not show might be under way at the first reading
            assert [placer.facts(one.name) for one in facts] == facts


@contextlib.asynccontextmanager
async def play(names: str = "abc", placers: int = 2) -> AsyncIterator[PlacingHarness]:
    hall = PlacingHarness(names, placers)
    await hall.open()
    yield hall
    await hall.check()
    await hall.store.close()


async def test_two_placers_fill_all_hosts_and_none_beyond() -> None:
    async with play() as hall:
        found = [await hall.place(by=turn % 2) for turn in range(14)]
        assert sorted(filter(None, found)) == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
        assert found[12:] == [None, None]


async def test_the_loser_of_a_race_reads_that_host_again_and_takes_it_if_it_still_fits() -> None:
    async with play(names="a") as hall:
        await hall.place(by=0)
        instance_id = await hall.store.run(create)
        decision = await hall.store.run(boot, hall.placers[1], instance_id)
        assert decision.host == "a" and decision.races == ("a: something was changed there at the same moment",)


async def test_the_loser_of_a_race_takes_the_next_of_its_plan() -> None:
    async with play(names="ab") as hall:
        first = await hall.place(by=0, ram_mb=ALL_MB)
        instance_id = await hall.store.run(create)
        while True:  # the ties of equal hosts are broken by chance: until it is the host that is full now
            plan = hall.placers[1].plan(PlacementRequest(1, 1024, 1), 1)
            assert {choice.name for choice in plan.ranked} == {"a", "b"}
            decision = await hall.store.run(boot, hall.placers[1], instance_id)
            assert decision.host != first
            if decision.races:
                break
            await hall.store.run(release, instance_id)
        assert "memory" in decision.races[1]


async def test_room_that_was_given_back_a_moment_ago_is_found() -> None:
    """The columns say that nothing is free: before it is said aloud, what has changed is looked at again."""
    async with play(names="a") as hall:
        instance_id = await hall.store.run(create, flavor(ALL_MB))
        hall.placers[0].kept(await hall.store.run(boot, hall.placers[0], instance_id))
        assert await hall.place(by=1) is None
        await hall.store.run(release, instance_id)
        assert await hall.place(by=1) == "a"


async def test_a_claim_that_was_not_kept_does_not_hide_a_later_one_with_the_same_number() -> None:
    async with play(names="a") as hall:
        one, other = await hall.store.run(create, flavor(512)), await hall.store.run(create, flavor(ALL_MB - 512))

        def not_kept(tx: Tx) -> None:
            assert boot(tx, hall.placers[0], one).host == "a"
            raise Failed

        with pytest.raises(Failed):
            await hall.store.run(not_kept)
        assert (await hall.store.run(boot, hall.placers[1], other)).host == "a"
        numbers = [placer._numbers["a"] for placer in hall.placers]
        assert numbers[0] == numbers[1]  # and they mean two different claims by it
        assert await hall.place(by=0) is None
        assert await hall.place(by=0, ram_mb=512) == "a"


async def test_a_transaction_that_is_run_again_counts_once() -> None:
    async with play(names="a", placers=1) as hall:
        instance_id = await hall.store.run(create)

        def run_twice(tx: Tx) -> None:
            savepoint = tx._connection.begin_nested()
            boot(tx, hall.placers[0], instance_id)
            savepoint.rollback()
            hall.placers[0].kept(boot(tx, hall.placers[0], instance_id))

        await hall.store.run(run_twice)
        facts = hall.placers[0].facts("a")
        assert facts is not None and facts.ram_mb_used == 1024


async def test_a_claim_that_may_be_under_way_is_counted_until_the_store_has_not_shown_it_twice() -> None:
    async with play(names="a", placers=1) as hall:
        placer = hall.placers[0]
        with pytest.raises(Failed):
            await hall.store.run(_not_kept, placer, 1024)
        used = []
        for _ in range(2):
            await placer.refresh()
            facts = placer.facts("a")
            assert facts is not None
            used.append(facts.ram_mb_used)
        assert used == [1024, 0]


@pytest.mark.parametrize("what", [{"disabled": True, "disabled_reason": "it is cleaned"}, {"forced_down": True}])
async def test_a_host_that_was_closed_a_moment_ago_is_not_taken(what: dict[str, Any]) -> None:
    async with play(names="ab", placers=1) as hall:
        service = (await hall.store.read(services.list_all, "a"))[0]

        def close(tx: Tx) -> None:
            services.set_(tx, service["uuid"], **what)

        await hall.store.run(close)
        for _ in range(4):
            assert await hall.place() == "b"
        assert await hall.place() is None


async def test_a_host_that_is_forgotten_is_dropped() -> None:
    async with play(names="ab") as hall:

        def forget(tx: Tx) -> None:
            tx.execute(delete(rows).where(rows.c.name == "a"))

        await hall.store.run(forget)
        assert [await hall.place(by=turn % 2) for turn in range(3)] == ["b"] * 3
        for placer in hall.placers:
            await placer.refresh()
            assert placer.facts("a") is None


def add_group(tx: Tx, policy: str, most: int | None = None) -> str:
    group_id = tx.names.uuid()
    tx.execute(
        insert(server_groups).values(
            id=group_id, project_id="p", user_id="u", name="g", policy=policy, max_server_per_host=most, created_at_us=0
        )
    )
    return group_id


@pytest.mark.parametrize(
    ("policy", "most", "expected"),
    [
        ("anti-affinity", None, ["a", "b", "c", None]),
        ("anti-affinity", 2, [*"aabbcc", None]),
    ],
)
async def test_members_stay_apart_whichever_placer_places_them(
    policy: str, most: int | None, expected: list[str | None]
) -> None:
    async with play() as hall:
        group = await hall.store.run(add_group, policy, most)
        found = [await hall.place(by=turn % 2, ram_mb=512, group=group) for turn in range(len(expected))]
        assert sorted(filter(None, found)) == expected[:-1] and found[-1] is None


async def test_members_stay_together_whichever_placer_places_them() -> None:
    async with play() as hall:
        group = await hall.store.run(add_group, "affinity")
        found = [await hall.place(by=turn % 2, group=group) for turn in range(5)]
        assert len(set(found[:4])) == 1 and found[4] is None


async def test_a_member_that_is_about_to_arrive_counts() -> None:
    """A live migration's claim is a member's place, too."""
    async with play() as hall:
        group = await hall.store.run(add_group, "anti-affinity")
        mover = await hall.store.run(create, None, group)
        home = (await hall.store.run(boot, hall.placers[0], mover)).host

        def depart(tx: Tx) -> str:
            saga_id = instances.intend(tx, mover, SagaKind.LIVE_MIGRATION, {})
            goes_to = "b" if home == "a" else "a"
            assert hosts.claim(tx, hosts.facts(tx, goes_to))
            migrations.set_(tx, saga_id, destination=goes_to, holds_claim=True)
            return goes_to

        def runs(tx: Tx) -> None:
            instances.set_idle(tx, mover, vm_state="active")
            tx.execute(delete(sagas).where(sagas.c.subject_id == mover))

        await hall.store.run(runs)
        goes_to = await hall.store.run(depart)
        assert await hall.place(group=group) not in {home, goes_to, None}
        assert await hall.place(group=group) is None


async def test_pinned_guests_share_no_cpu_whichever_placer_places_them() -> None:
    async with play(names="") as hall:
        await hall.store.run(add_host, "n", 4096, 8, 2)
        for placer in hall.placers:
            await placer.refresh()
        cells: list[HeldCell] = []
        wanted = flavor(512, 2, **{"hw:cpu_policy": "dedicated"})
        for turn in range(5):
            instance_id = await hall.store.run(create, wanted)
            decision = await hall.store.run(boot, hall.placers[turn % 2], instance_id)
            hall.placers[turn % 2].kept(decision)
            assert (decision.host == "n") is (turn < 4), decision.reason
            cells += decision.cells
        cpus = [cpu for cell in cells for cpu in cell.cpus]
        assert sorted(cpus) == list(range(8))
        row = (await hall.store.read(instances.on_hosts, ("n",)))[0]
        assert instances.cells_of(row)


async def test_a_host_on_which_guests_failed_comes_last_for_some_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with play(names="ab", placers=1) as hall:
        hall.placers[0].failed("a")
        assert [await hall.place() for _ in range(4)] == ["b"] * 4
        monkeypatch.setattr(placing, "FAILED_KEPT_S", 0.0)
        await hall.placers[0].refresh()
        assert await hall.place() == "a"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["place", "place", "place", "not kept", "release", "refresh", "touch"]),
        st.integers(0, 1),
        st.sampled_from([512, 1024, 2048]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
async def test_never_beyond_and_always_right_in_the_end(steps: list[tuple[str, int, int]]) -> None:
    async with play(names="ab") as hall:
        placed: list[str] = []
        for what, by, ram_mb in steps:
            placer, store = hall.placers[by], hall.store
            if what == "refresh":
                await placer.refresh()
            elif what == "touch":
                await store.run(hosts.touch, "a", "b")
            elif what == "release" and placed:
                await store.run(release, placed.pop())
            elif what == "place":
                placed += await _placed(store, placer, ram_mb)
            elif what == "not kept":
                with pytest.raises(Failed):
                    await store.run(_not_kept, placer, ram_mb)
            assert not [one for one in await store.read(hosts.facts_of_all) if beyond(one)]


async def _placed(store: MemoryStore, placer: Placer, ram_mb: int) -> list[str]:
    instance_id = await store.run(create, flavor(ram_mb))
    decision = await store.run(boot, placer, instance_id)
    if ram_mb != 512:  # that placer is never told that these were kept
        placer.kept(decision)
    return [instance_id] if decision.host is not None else []


def _not_kept(tx: Tx, placer: Placer, ram_mb: int) -> None:
    boot(tx, placer, create(tx, flavor(ram_mb)))
    raise Failed
