"""The guarantees of ports/membership.py, held by every driver against its real server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from droveway.config.membership import MembershipSettings
from droveway.domain.faults import BadRequest
from droveway.ports.membership import EVERY_SERVICE, Unknown
from lab import servers
from tests.drivers import membership_worlds as worlds
from tests.drivers.membership_worlds import World

pytestmark = pytest.mark.servers
WITH_SERVER = ("memcached", "etcd", "zookeeper")
DRIVERS = ("simulated", "db", *WITH_SERVER)
ODD = (
    "höst ö/nova-compute",
    "a.b-c_d~e/nova-compute",
    "%2e%2e/nova-compute",
    "日本\t\n/nova-compute",
    "../nova-compute",
    "x" * 240 + "/nova-compute",
    "a//nova-compute",
    "h@backend#pool/nova-compute",
)
THREADS_MAX = 24  # of the process, with one end open: grpc's own pool is the largest


@pytest.fixture(scope="module", params=DRIVERS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server for all tests of one driver."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "simulated":
        yield worlds.SimulatedWorld()
        return
    if request.param == "db":
        db = worlds.DbWorld(MembershipSettings("db", **worlds.QUICK), directory / "d.sqlite")
        yield db
        db.close()
        return
    if reason := servers.obstacle(request.param):
        pytest.skip(reason)
    make: dict[str, tuple[type[World], Callable[[str], MembershipSettings]]] = {
        "memcached": (worlds.MemcachedWorld, worlds.memcached_settings),
        "etcd": (worlds.EtcdWorld, worlds.etcd_settings),
        "zookeeper": (worlds.ZookeeperWorld, worlds.zookeeper_settings),
    }
    kind, settings = make[request.param]
    start: dict[str, Any] = {"zookeeper": {"tick_ms": 100}}
    with getattr(servers, request.param)(directory, **start.get(request.param, {})) as server:
        yield kind(settings(server.address)).serve(server)


_names = iter(range(1_000_000))


def fresh(host: str) -> str:
    return f"{host}{next(_names)}/nova-compute"


@contextlib.asynccontextmanager
async def tell(world: World) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await world.all_die()


async def test_a_member_is_seen_and_so_is_its_death(world: World) -> None:
    async with tell(world):
        dead, lives = fresh("dead"), fresh("lives")
        async with world.opened() as seen:
            bound_s = seen.end.guarantees.detection_s + world.slack_s
            assert await seen.end.get_all(EVERY_SERVICE) is not None
            doomed, _ = await asyncio.gather(world.member(dead), world.member(lives))
            for member in (dead, lives):
                await seen.until(member, "present", within_s=bound_s)
                assert await seen.end.service_is_up(EVERY_SERVICE, member)
            async with seen.watching(lives) as states:
                await doomed.kill()
                took_s = await seen.until(dead, "absent", within_s=bound_s)
                everybody = await seen.end.get_all(EVERY_SERVICE)
                assert dead not in everybody or not everybody[dead].is_present
                assert everybody[lives].is_present
                await asyncio.sleep(0.2)
            assert "absent" not in states[lives]
            print(f"{world.name}: death seen after {took_s:.2f} s, declared {seen.end.guarantees.detection_s:.2f} s")
            if seen.end.guarantees.pushes:
                assert seen.changes.count((EVERY_SERVICE, dead)) >= 2
            assert await seen.end.get_one(EVERY_SERVICE, fresh("never")) is None


async def test_while_the_server_is_away_nobody_is_dead(world: World) -> None:
    async with tell(world):
        member = fresh("h")
        async with world.opened() as seen:
            bound_s = seen.end.guarantees.detection_s
            await world.member(member)
            await seen.until(member, "present", within_s=bound_s + world.slack_s)
            async with seen.watching(member) as states:
                world.stop()
                await seen.until(member, "unknown", within_s=bound_s)
                with pytest.raises(Unknown):
                    await seen.end.get_all(EVERY_SERVICE)
                await asyncio.sleep(world.outage_s)
                world.start()
                await seen.until(member, "present", within_s=2 * bound_s + 5)
                await asyncio.sleep(0.5)
            assert states[member][-1] == "present"
            assert "absent" not in states[member], states
            assert [is_up for is_up, _ in seen.connections][-2:] == [False, True], seen.connections


async def test_a_server_that_stands_still_kills_nobody(world: World) -> None:
    """The server wakes, every session has run out by its clock, and it may say so before anybody can beat."""
    async with tell(world):
        member, dead = fresh("h"), fresh("dead")
        async with world.opened() as seen:
            bound_s = seen.end.guarantees.detection_s
            doomed, _ = await asyncio.gather(world.member(dead), world.member(member))
            for one in (member, dead):
                await seen.until(one, "present", within_s=bound_s + world.slack_s)
            async with seen.watching(member) as states:
                world.freeze()
                await asyncio.sleep(world.outage_s)
                await doomed.kill()
                world.thaw()
                await seen.until(member, "present", within_s=2 * bound_s + 5)
                # The grace ends: who really died meanwhile is seen after all.
                await seen.until(dead, "absent", within_s=3 * bound_s + 5)
            assert "absent" not in states[member], states


@pytest.mark.parametrize("world", WITH_SERVER, indirect=True)
async def test_a_server_that_lost_its_data_is_joined_and_watched_anew(world: World) -> None:
    """Whatever an end remembers of a server (a session, a lease, the last change it has seen) the server may forget.
    The members of the others are rows of the store, which does not lose them alone, or a dictionary."""
    async with tell(world):
        member, dies = fresh("h"), fresh("dies")
        async with world.opened() as seen:
            bound_s = seen.end.guarantees.detection_s
            doomed, _ = await asyncio.gather(world.member(dies), world.member(member))
            for one in (member, dies):
                await seen.until(one, "present", within_s=bound_s + world.slack_s)
            async with seen.watching(member) as states:
                for _ in range(2):  # so that more has been seen than a server without data will ever say
                    await asyncio.to_thread(world.lose_data)
                    async with world.opened() as stranger:  # who has no grace to give: they are there by themselves
                        for one in (member, dies):
                            await stranger.until(one, "present", within_s=2 * bound_s + 5)
                    for one in (member, dies):
                        await seen.until(one, "present", within_s=2 * bound_s + 5)
                await doomed.kill()
                await seen.until(dies, "absent", within_s=2 * bound_s + 5)
            assert "absent" not in states[member], states
            assert seen.connections[-1][0], seen.connections


async def test_a_server_that_is_away_at_the_start(world: World) -> None:
    async with tell(world):
        member, end = fresh("h"), world.end()
        world.stop()
        try:
            async with world.opened(end) as seen:
                began = time.monotonic()
                await seen.end.join(EVERY_SERVICE, member)
                assert time.monotonic() - began < 2.0
                assert await seen.look(member) in {"unknown", "absent"}  # a database can be read that takes no beats
                async with asyncio.timeout(30):
                    while not any(not is_up for is_up, _ in seen.connections):
                        await asyncio.sleep(worlds.LOOK_S)
                world.start()
                await seen.until(member, "present", "held", within_s=seen.end.guarantees.detection_s + 10)
        finally:
            _be_up(world)


def _be_up(world: World) -> None:
    if isinstance(world, worlds.DbWorld):
        if world._lock.in_transaction:
            world.start()
    elif not isinstance(world, worlds.SimulatedWorld) and world.server.nodes[0]._popen is None:
        world.start()


@pytest.mark.alone  # the next process is there before the lease of the one before runs out
async def test_a_name_that_is_still_held_after_a_restart(world: World) -> None:
    async with tell(world):
        member = fresh("h")
        async with world.opened() as seen:
            bound_s = seen.end.guarantees.detection_s + world.slack_s
            before = await world.member(member)
            await seen.until(member, "present", within_s=bound_s)
            await before.kill()
            killed_s = time.monotonic()
            after = await world.member(member)
            if isinstance(after, worlds.Killable) and world.taken_over:
                await after.says(world.taken_over)
            # The old session runs out under the eyes of everybody, and the new one stays.
            await asyncio.sleep(max(0.0, killed_s + seen.end.guarantees.detection_s - time.monotonic()))
            await seen.until(member, "present", within_s=1.5)
            async with seen.watching(member) as states:
                await asyncio.sleep(0.5)
            assert states[member] == ["present"]


async def test_odd_names_and_leaving(world: World) -> None:
    async with tell(world), world.opened() as seen, world.opened() as joins:
        bound_s = seen.end.guarantees.detection_s + world.slack_s
        for member in ODD:
            await joins.end.join(EVERY_SERVICE, member)
        for member in ODD:
            await seen.until(member, "present", within_s=bound_s)
        everybody = await seen.end.get_all(EVERY_SERVICE)
        assert {m for m in everybody if everybody[m].is_present} >= set(ODD)
        assert all(everybody[m].member == m for m in ODD)
        await joins.end.join(EVERY_SERVICE, "brief/nova-compute")
        await joins.end.leave(EVERY_SERVICE, "brief/nova-compute")
        await joins.end.leave(EVERY_SERVICE, ODD[0])
        await seen.until(ODD[0], "absent", within_s=bound_s)
        await seen.until("brief/nova-compute", "absent", within_s=bound_s)
        assert await seen.look(ODD[1]) == "present"
        for impossible in ("", "x" * 300, "\ud800/nova-compute"):
            with pytest.raises(BadRequest):
                await joins.end.join(EVERY_SERVICE, impossible)
            with pytest.raises(BadRequest):
                await joins.end.get_all(impossible)


async def test_garbage_in_the_namespace_is_ignored(world: World) -> None:
    async with tell(world):
        member, group = "h1", "scheduler"
        async with world.opened() as seen, world.opened() as joins:
            bound_s = seen.end.guarantees.detection_s + world.slack_s
            await world.strew_garbage(group)
            await seen.end.get_all(group)
            await joins.end.join(group, member)
            await seen.until(member, "present", within_s=bound_s, group=group)
            await world.strew_garbage(group)
            await asyncio.sleep(0.3)
            everybody = await seen.end.get_all(group)
            assert {m for m in everybody if everybody[m].is_present} == {member}
            assert await seen.look(member, group) == "present"


async def test_threads_are_bounded_and_end(world: World) -> None:
    async with tell(world):

        async def once() -> int:
            async with world.opened() as seen:
                await seen.end.join(EVERY_SERVICE, fresh("h"))
                await seen.end.get_all(EVERY_SERVICE)
                return len(os.listdir("/proc/self/task"))

        first = await once()
        assert first <= THREADS_MAX
        for _ in range(5):
            assert await once() <= first + 3  # the loop's own pool may still be filling


def test_the_lab_says_what_each_server_needs(tmp_path: Path) -> None:
    for name in ("zookeeper", "etcd", "memcached", "nats"):
        assert servers.packages(name)
    with pytest.raises(servers.ServerFailed, match="there is no server consul"):
        servers.obstacle("consul")
