"""Routers get a place, and another one when their host is down; at once, and once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import insert, update

from droveway.control.engine.nudges import Nudges
from droveway.control.loops.router_places import RouterPlaces
from droveway.domain.network.quota import NO_NETWORK_LIMITS
from droveway.domain.service_kinds import NETWORK
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.engine.transaction import MemoryStore, Tx
from droveway.store.fleet import services
from droveway.store.network import changes, routers
from droveway.store.network.routers import NewRouter
from droveway.store.network.tables import host_networks
from droveway.store.schema import services as service_table
from droveway.store.work import events
from tests.store import databases

SOON_S = 5.0


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    made = databases.with_schema(MemoryStore(SystemClock(), SystemNames()))
    yield made
    await made.close()


def carriers(tx: Tx, *names: str) -> None:
    """Hosts whose agents are up, and no others are."""
    services.register_all(tx, dict.fromkeys(names, (NETWORK,)), "")
    tx.execute(update(service_table).values(is_up=service_table.c.host.in_(names)))
    tx.nudges.append(events.SERVICES_CHANGED)


def force_down(tx: Tx, host: str, *, forced_down: bool) -> None:
    (row,) = services.list_all(tx, host, NETWORK)
    services.force_down(tx, row["uuid"], forced_down=forced_down)


async def places(store: MemoryStore, ids: list[str]) -> list[str]:
    return [(await store.read(routers.row_of, one))["host"] for one in ids]


async def until(store: MemoryStore, ids: list[str], wanted: list[str]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SOON_S):
            while await places(store, ids) != wanted:
                await asyncio.sleep(0.01)
    assert await places(store, ids) == wanted


async def test_routers_are_placed_and_moved(store: MemoryStore) -> None:
    nudges = Nudges()
    store.on_commit(nudges.call)
    loops = [
        asyncio.create_task(RouterPlaces(store, nudges, SystemClock(), lambda _: True).run()) for _ in range(2)
    ]  # of two controls
    try:
        made = [(await store.run(routers.create, NewRouter("red"), NO_NETWORK_LIMITS, "red"))["id"] for _ in range(2)]
        made.sort()
        assert await places(store, made) == ["", ""]
        await store.run(carriers, "h1")
        await until(store, made, ["h1", "h1"])
        before = await store.read(changes.revision)
        await store.run(carriers, "h2", "h3")
        await until(store, made, ["h2", "h3"])
        assert await store.read(changes.revision) == before + 1
        await store.run(carriers, "h1", "h2", "h3")
        await asyncio.sleep(0.05)
        assert await places(store, made) == ["h2", "h3"]
    finally:
        for loop in loops:
            loop.cancel()


async def test_a_host_that_is_there_keeps_its_routers_when_its_agent_has_ended(store: MemoryStore) -> None:
    nudges = Nudges()
    store.on_commit(nudges.call)
    silent: set[str] = set()
    places_loop = RouterPlaces(store, nudges, SystemClock(), lambda host: host not in silent)
    loop = asyncio.create_task(places_loop.run())

    def agent_is(tx: Tx, state: str, host: str = "h1") -> None:
        is_that = service_table.c.host == host
        tx.execute(update(service_table).where(is_that).values(is_up=state == "alive", state=state))
        tx.nudges.append(events.SERVICES_CHANGED)

    try:
        made = (await store.run(routers.create, NewRouter("red"), NO_NETWORK_LIMITS, "red"))["id"]
        await store.run(carriers, "h1")
        await until(store, [made], ["h1"])
        await store.run(carriers, "h1", "h2")
        for state in ("dead", "stopped", "hung"):
            await store.run(agent_is, state)
            await asyncio.sleep(0.1)
            assert await places(store, [made]) == ["h1"], state
        await store.run(agent_is, "host gone")
        await until(store, [made], ["h2"])
        await store.run(carriers, "h1", "h2")
        await store.run(lambda tx: tx.execute(update(routers.routers).values(host="h1")))
        await store.run(agent_is, "dead")
        await store.run(force_down, "h1", forced_down=True)
        await until(store, [made], ["h2"])
        await store.run(force_down, "h1", forced_down=False)
        await store.run(carriers, "h1", "h2")
        silent.add("h2")
        for state, wanted in (("alive", "h2"), ("dead", "h1")):  # its heart has ended, too
            await store.run(agent_is, state, "h2")
            await asyncio.sleep(0.05)
            assert await places(store, [made]) == [wanted]
    finally:
        loop.cancel()


async def test_only_what_concerns_routers_has_them_looked_at(store: MemoryStore) -> None:
    called: list[str] = []
    store.on_commit(called.append)
    await store.run(changes.changed)
    assert changes.ROUTERS not in called
    await store.run(routers.create, NewRouter("red"), NO_NETWORK_LIMITS, "red")
    assert changes.ROUTERS in called


async def test_what_hosts_have_is_heeded(store: MemoryStore) -> None:
    from droveway.store.network import networks, router_places
    from droveway.store.network.networks import NewNetwork

    def make(tx: Tx) -> str:
        carriers(tx, "h1", "h2")
        tx.execute(insert(host_networks), {"host": "h2", **HAS_OUT})
        new = NewNetwork("admin", 1500, external=True, physical_network="out")
        outside = networks.create(tx, new, NO_NETWORK_LIMITS)["id"]
        router = routers.create(tx, NewRouter("red"), NO_NETWORK_LIMITS, "red")["id"]
        changes.touch(tx, routers.routers, router, external_network_id=outside)
        return router

    router = await store.run(make)
    assert await store.run(router_places.settle) == [(router, "", "h2")]
    assert await store.run(router_places.settle) == []


HAS_OUT = {
    "tunnel_address": "192.0.2.2",
    "physical_networks": ["out"],
    "revision": 0,
    "failed": [],
    "applied_at_us": 0,
}
