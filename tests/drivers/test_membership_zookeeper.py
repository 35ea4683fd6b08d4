"""What only ZooKeeper can do to its members: ensembles, sessions that expire, znodes that somebody deletes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import SessionExpiredError

from droveway.drivers.clock import SystemClock
from droveway.drivers.membership import zookeeper
from droveway.drivers.membership.zookeeper import ZookeeperServiceGroup
from droveway.ports.membership import EVERY_SERVICE, Unknown
from droveway.process.membership import service_group
from lab import servers
from lab.servers import Server
from tests.drivers.membership_worlds import Observing, World, ZookeeperWorld, zookeeper_settings

pytestmark = [pytest.mark.servers, pytest.mark.skipif(servers.obstacle("zookeeper") is not None, reason="no ZooKeeper")]
SOON_S = 30.0
MEMBERS = ("a/nova-compute", "b/nova-compute", "c/nova-compute")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers.zookeeper(tmp_path_factory.mktemp("three"), nodes=3, tick_ms=100) as server:
        yield server


@pytest.fixture
def world(three: Server) -> World:
    for i, node in enumerate(three.nodes):
        if node._popen is None:
            three.start(i)
    return ZookeeperWorld(zookeeper_settings(three.address)).serve(three)


@pytest.mark.parametrize("which", ["leader", "follower"])
async def test_one_server_of_three_is_killed_and_nothing_happens(world: World, which: str) -> None:
    async with world.opened() as seen, contextlib.AsyncExitStack() as stack:
        joined = [await stack.enter_async_context(world.opened()) for _ in MEMBERS]
        for end, member in zip(joined, MEMBERS, strict=True):
            await end.end.join(EVERY_SERVICE, member)
        for member in MEMBERS:
            await seen.until(member, "present", within_s=SOON_S)
        leader = world.server.leader()
        async with seen.watching(*MEMBERS) as states:
            world.server.kill(leader if which == "leader" else (leader + 1) % 3)
            await asyncio.sleep(1.5 * seen.end.guarantees.detection_s)
            for member in MEMBERS:
                await seen.until(member, "present", within_s=SOON_S)
        for member in MEMBERS:
            assert "absent" not in states[member], states


async def test_two_of_three_are_killed_and_nothing_may_be_said(world: World) -> None:
    async with world.opened() as seen, world.opened() as joins:
        await joins.end.join(EVERY_SERVICE, MEMBERS[0])
        await seen.until(MEMBERS[0], "present", within_s=SOON_S)
        async with seen.watching(MEMBERS[0]) as states:
            world.server.kill(0)
            world.server.kill(1)
            await seen.until(MEMBERS[0], "unknown", within_s=SOON_S)
            await asyncio.sleep(seen.end.guarantees.detection_s)
            assert await seen.look(MEMBERS[0]) == "unknown"
            world.server.start(0)
            await seen.until(MEMBERS[0], "present", within_s=SOON_S)
        assert "absent" not in states[MEMBERS[0]], states


async def test_all_three_down_at_the_start(world: World) -> None:
    world.server.kill()
    began = time.monotonic()
    async with world.opened() as seen:
        assert time.monotonic() - began < 0.5
        with pytest.raises(Unknown, match="does not answer"):
            await seen.end.get_all(EVERY_SERVICE)
        assert seen.connections[0][0] is False
        assert "no ZooKeeper server answers at 127.0.0.1" in seen.connections[0][1]
        await seen.end.join(EVERY_SERVICE, MEMBERS[0])
        world.server.start()
        await seen.until(MEMBERS[0], "present", within_s=SOON_S)


async def test_a_wrong_address_is_said_and_never_up() -> None:
    (nobody,) = servers.free_ports(1)
    for address in (f"127.0.0.1:{nobody}", "no-such-host.invalid:2181"):
        end = service_group(zookeeper_settings(address), SystemClock())
        assert end is not None
        seen = Observing(end)
        await end.open(lambda _group, _member: None, seen.note)
        with pytest.raises(Unknown):
            await end.service_is_up(EVERY_SERVICE, "a")
        assert not any(is_up for is_up, _ in seen.connections)
        assert address in seen.connections[-1][1]
        await end.close()


def _expire(server: Server, end: ZookeeperServiceGroup) -> None:
    """What a server does to a session: it ends, and its client learns of it. A second connection to the same session
    closes it."""
    session = end._client.client_id
    thief = KazooClient(server.address, client_id=session)
    thief.start()
    thief.stop()
    thief.close()


@pytest.mark.alone  # the session is ended by somebody else while requests are on their way
async def test_an_expired_session_is_made_again(world: World) -> None:
    async with world.opened() as seen, world.opened() as joins:
        assert isinstance(joins.end, ZookeeperServiceGroup)
        for member in MEMBERS:
            await joins.end.join(EVERY_SERVICE, member)
            await seen.until(member, "present", within_s=SOON_S)
        before = joins.end._client.client_id[0]
        await asyncio.to_thread(_expire, world.server, joins.end)
        for member in MEMBERS:
            await seen.until(member, "present", within_s=SOON_S)
        async with asyncio.timeout(30):
            while (after := joins.end._client.client_id) is None or after[0] == before:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)  # until all is told
        for member in MEMBERS:
            await seen.until(member, "present", within_s=SOON_S)
        # The observer's own session, too.
        assert isinstance(seen.end, ZookeeperServiceGroup)
        async with seen.watching(*MEMBERS) as states:
            await asyncio.to_thread(_expire, world.server, seen.end)
            await asyncio.sleep(1.0)
        assert not any("absent" in seen_states for seen_states in states.values()), states
        await joins.end.leave(EVERY_SERVICE, MEMBERS[0])  # its watches live again
        await seen.until(MEMBERS[0], "absent", within_s=SOON_S)


class _MixedUp(deque[Any]):
    """Requests on their way under other numbers: the next answer is none that kazoo expects, as when a session ends."""

    def append(self, request: Any) -> None:
        super().append((*request[:2], -99))


def _cannot_connect(end: ZookeeperServiceGroup) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("xids do not match")

    end._client._connection._connect = refuse


@pytest.mark.parametrize("is_connected", [True, False])
async def test_a_connection_whose_thread_has_ended_is_made_anew(world: World, is_connected: bool) -> None:
    """While it is connected, and while it tries to: then nobody is told of the end."""
    async with world.opened() as seen, world.opened() as joins:
        assert isinstance(joins.end, ZookeeperServiceGroup)
        await joins.end.join(EVERY_SERVICE, MEMBERS[0])
        await seen.until(MEMBERS[0], "present", within_s=SOON_S)
        old = joins.end._client
        thread = old._connection._connection_routine
        if is_connected:
            old._pending = _MixedUp()
            await joins.end.join(EVERY_SERVICE, MEMBERS[1])
        else:
            _cannot_connect(joins.end)
            world.server.kill()
        await asyncio.to_thread(thread.join, SOON_S)
        assert not thread.is_alive()
        if not is_connected:
            world.server.start()
        async with asyncio.timeout(SOON_S):
            while joins.end._client is old:
                await asyncio.sleep(0.02)
        await joins.end.join(EVERY_SERVICE, MEMBERS[1])
        for member in MEMBERS[:2]:
            await seen.until(member, "present", within_s=SOON_S)
        async with asyncio.timeout(SOON_S):
            while await joins.look(MEMBERS[1]) != "present":
                await asyncio.sleep(0.02)
        await joins.end.leave(EVERY_SERVICE, MEMBERS[0])
        await seen.until(MEMBERS[0], "absent", within_s=SOON_S)


async def test_a_connection_that_does_not_end_is_left_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zookeeper, "ENDS_S", 0.2)
    async with world.opened() as seen:
        assert isinstance(seen.end, ZookeeperServiceGroup)
        await seen.end.get_all(EVERY_SERVICE)
        client, held = seen.end._client, threading.Event()
        stop = client.stop
        client.stop = lambda: held.wait(SOON_S) and stop()
        began = time.monotonic()
        await seen.end.close()
        assert time.monotonic() - began < SOON_S / 2
        held.set()
        assert await asyncio.to_thread(client._connection.connection_closed.wait, SOON_S)


async def test_a_znode_deleted_by_hand_comes_back(world: World) -> None:
    assert isinstance(world, ZookeeperWorld)
    async with world.opened() as seen, world.opened() as joins:
        await joins.end.join(EVERY_SERVICE, MEMBERS[0])
        await seen.until(MEMBERS[0], "present", within_s=SOON_S)
        with world.client() as by_hand:
            for _ in range(3):
                by_hand.delete(f"/servicegroups/{EVERY_SERVICE}", recursive=True)
                await asyncio.sleep(0.3)
                await seen.until(MEMBERS[0], "present", within_s=SOON_S)


async def test_it_is_closed_while_what_it_asks_fails(tmp_path: Path) -> None:
    """The session ends in that moment; whoever closes does not wait for ever."""

    async def fails(_: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise SessionExpiredError from None

    with servers.zookeeper(tmp_path, tick_ms=200) as server:
        world = ZookeeperWorld(zookeeper_settings(server.address)).serve(server)
        async with world.opened() as seen:
            assert isinstance(seen.end, ZookeeperServiceGroup)
            seen.end._register = fails  # type: ignore[method-assign,assignment]
            joining = asyncio.create_task(seen.end.join(EVERY_SERVICE, MEMBERS[0]))
            await asyncio.sleep(0.2)
            await asyncio.wait_for(seen.end.close(), 10)
            joining.cancel()


async def test_only_names_are_read_and_only_when_they_change(tmp_path: Path) -> None:
    """1,000 members in one session: one read of the names for all who asks; what is asked again costs nothing."""

    with servers.zookeeper(tmp_path, tick_ms=200) as server:
        world = ZookeeperWorld(zookeeper_settings(server.address)).serve(server)
        async with world.opened() as seen, world.opened() as joins:
            members = [f"host{i:04}/nova-compute" for i in range(1000)]
            await asyncio.gather(*(joins.end.join(EVERY_SERVICE, member) for member in members))
            async with asyncio.timeout(30):  # the news of a change may be on its way while the joins are answered
                while len(await seen.end.get_all(EVERY_SERVICE)) < 1000:
                    await asyncio.sleep(0.01)
            began = time.perf_counter()
            await seen.end.get_all(EVERY_SERVICE)
            again_ms = (time.perf_counter() - began) * 1000
            print(f"1,000 members: asked again {again_ms:.2f} ms")
            assert again_ms < 5
            await joins.end.close()  # all go at once
            began = time.perf_counter()
            async with asyncio.timeout(30):
                while await seen.end.get_all(EVERY_SERVICE):
                    await asyncio.sleep(0.005)
