"""Two controls place at the same time on one database: every place is given once, and all of them are."""

from __future__ import annotations

import asyncio
from collections import Counter

from droveway.control.engine.nudges import Nudges
from droveway.control.scheduling.placer import Decision, Placer
from droveway.domain.placement import GroupPolicy, GroupRequest, PlacementSettings
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.compute import group_members, instances, migrations, server_groups
from droveway.store.compute.server_groups import NewGroup
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.fleet import hosts
from tests.control.hosts import add_host, beyond, boot, create, flavor

HOSTS, EACH, ASKED = [f"h{number}" for number in range(5)], 4, 30  # guests that fit on each host, and that are wanted


def place(tx: Tx, placer: Placer) -> Decision:
    return boot(tx, placer, create(tx, flavor()))


async def test_two_controls_never_promise_more_than_there_is(url: str) -> None:
    stores = [DiskStore(url, SystemClock(), SystemNames()) for _ in range(2)]
    for name in HOSTS:
        await stores[0].run(add_host, name)
    placers = [Placer(store, SystemClock(), Nudges(), PlacementSettings(), 1.0) for store in stores]
    for placer in placers:
        await placer.load()

    async def ask(number: int) -> Decision:
        decision = await stores[number % 2].run(place, placers[number % 2])
        placers[number % 2].kept(decision)
        return decision

    decisions = await asyncio.gather(*(ask(number) for number in range(ASKED)))
    found = Counter(decision.host for decision in decisions)
    assert found == Counter(dict.fromkeys(HOSTS, EACH)) + Counter({None: ASKED - EACH * len(HOSTS)})
    assert any(decision.races for decision in decisions)  # they did meet
    facts = await stores[0].read(hosts.facts_of_all)
    assert not [one for one in facts if beyond(one)]
    for store, placer in zip(stores, placers, strict=True):
        await placer.refresh()
        assert [placer.facts(one.name) for one in facts] == facts
        await store.close()


async def test_where_a_group_is_while_its_member_is_being_moved(url: str) -> None:
    def depart(tx: Tx) -> GroupRequest | None:
        for name in ("h1", "h2"):
            add_host(tx, name)
        group = server_groups.create(tx, NewGroup("p", "u", "g", GroupPolicy.AFFINITY))["id"]
        mover = create(tx, flavor(), group)
        instances.set_(tx, mover, host="h1")
        migrations.create(tx, instances.get(tx, mover), "saga", {})
        migrations.set_(tx, "saga", destination="h2", holds_claim=True)
        assert group_members.ask(tx, group, but=mover) == GroupRequest(group, GroupPolicy.AFFINITY)
        return group_members.ask(tx, group, but="")

    store = DiskStore(url, SystemClock(), SystemNames())
    asked = await store.run(depart)
    assert asked is not None
    assert (asked.on_hosts, asked.moving) == ({"h1": 1, "h2": 1}, ("h1", "h2"))
    await store.close()
