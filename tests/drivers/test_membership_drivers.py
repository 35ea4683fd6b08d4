"""What only one of the drivers db, memcached, etcd and simulated can do to its members; and how they are chosen."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from sqlalchemy.dialects import postgresql

from droveway.config.membership import EtcdConfig, MembershipSettings, MemcachedConfig, ZookeeperConfig, problems
from droveway.domain.faults import BadRequest, WrongConfiguration
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.drivers.membership import names
from droveway.drivers.membership.db import DbServiceGroup
from droveway.drivers.membership.etcd import EtcdServiceGroup
from droveway.drivers.membership.etcd_wire import EtcdConnection, decode, number, text
from droveway.drivers.membership.memcached import SHARDS, MemcachedServiceGroup, _counter, _index
from droveway.drivers.membership.memcached_wire import MemcachedConnection
from droveway.drivers.membership.simulated import SimulatedServer, SimulatedServiceGroup
from droveway.ports.membership import EVERY_SERVICE, Presence, Unknown
from droveway.process.membership import service_group
from droveway.simulation.loop import SimClock, SimLoop
from droveway.store.engine.transaction import DiskStore
from droveway.store.fleet import heartbeats, services
from lab import servers
from tests.drivers.membership_worlds import QUICK, DbWorld, MemcachedWorld, World, etcd_settings, memcached_settings

HOUR_US = 3600 * 1_000_000
H1 = "h1/nova-compute"
SOON_S = 30.0


COLUMNS = "uuid, host, binary, topic, zone, disabled, forced_down, is_up, reason, report_count, created_at_us"


def needs(name: str) -> Callable[[Any], Any]:
    reason = servers.obstacle(name)
    return lambda test: pytest.mark.servers(pytest.mark.skipif(reason is not None, reason=reason or "")(test))


# -- db ---------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("empty") / "d.sqlite"
    DbWorld(MembershipSettings("db"), path).close()
    return path


@pytest.fixture
def db(tmp_path: Path, empty: Path) -> Iterator[DbWorld]:
    made = DbWorld(MembershipSettings("db", **QUICK), shutil.copy(empty, tmp_path / "d.sqlite"))
    yield made
    made.close()


def tell(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


async def presence(end: Any, member: str = H1) -> Presence:
    found = await end.get_one(EVERY_SERVICE, member)
    assert found is not None
    return msgspec.convert(found, Presence)


def test_db_the_trial_of_the_article(db: DbWorld) -> None:
    """Move the stored heartbeat back one hour: down, until its next beat. One hour ahead: down as well."""

    async def story() -> None:
        async with db.opened() as seen:
            end = seen.end
            assert isinstance(end, DbServiceGroup)
            store: Any = end._store
            await store.run(heartbeats.join, "h1", "nova-compute", "nova")
            end.beat(H1)
            async with asyncio.timeout(30):
                while (await presence(end)).beats != 1:
                    await asyncio.sleep(0.02)
            for shift, words in (
                (-HOUR_US, "3600.* s ago .*; down after"),
                (HOUR_US, "s in the future .*; down after"),
            ):
                db.sql("UPDATE services SET updated_at_us = updated_at_us + ?", shift)
                before = await presence(end)
                assert not before.is_present
                assert pytest.approx(3600, abs=5) == float(before.reason.split(" s ")[0].split()[-1])
                assert words.split(" ")[-1] in before.reason
                end.beat(H1)
                await seen.until(H1, "present", within_s=SOON_S)
                after = await presence(end)
                assert after.beats == before.beats + 1
                assert abs(after.seen_at_us - before.seen_at_us) > HOUR_US / 2
                assert not seen.connections

    tell(story)


def test_db_a_service_that_never_reported_is_up_while_it_is_young(db: DbWorld) -> None:
    async def story() -> None:
        async with db.opened() as seen:
            store: Any = seen.end._store  # type: ignore[attr-defined]
            await store.run(heartbeats.join, "h1", "nova-compute", "nova")
            found = await presence(seen.end)
            assert (found.is_present, found.beats, found.seen_at_us) == (True, 0, 0)
            assert "registered" in found.reason
            await seen.until(H1, "absent", within_s=SOON_S)
            assert await seen.look("h1", group="compute") == "absent"
            assert list(await seen.end.get_all("compute")) == ["h1"]
            assert await seen.end.get_all("scheduler") == {}
            with pytest.raises(BadRequest, match="HOST/BINARY"):
                await seen.end.join("compute", "h1/nova-scheduler")
            with pytest.raises(BadRequest, match="HOST/BINARY"):
                await seen.end.join(EVERY_SERVICE, "h1")

    tell(story)


def test_db_the_beats_of_one_flush_are_one_statement(db: DbWorld) -> None:
    async def story() -> None:
        store = DiskStore(db.database, SystemClock(), SystemNames())
        many = [f"h{i}/nova-compute" for i in range(2000)]
        db.sql("BEGIN")
        for member in many:
            host = member.partition("/")[0]
            values = "?1, ?1, 'nova-compute', 'compute', 'nova', 0, 0, 0, '', 0, 0"
            db.sql(f"INSERT INTO services ({COLUMNS}) VALUES ({values})", host)
        db.sql("COMMIT")
        statements: list[str] = []
        await store.run(lambda _tx: None)  # now there is a connection
        store._writer._connection.connection.driver_connection.set_trace_callback(statements.append)  # type: ignore[union-attr]
        assert await store.run(heartbeats.record, many) == 2000
        assert len([s for s in statements if s.startswith("UPDATE")]) == 1
        assert len(statements) == 3  # begin, update, commit
        assert await store.run(heartbeats.record, [*many[:10], "a host deleted while it beats/nova-compute"]) == 10
        rows = await store.read(services.list_all)
        assert sorted(row["report_count"] for row in rows) == [1] * 1990 + [2] * 10
        await store.close()

    tell(story)


async def test_db_keeps_no_service_of_an_unknown_kind(db: DbWorld) -> None:
    async with db.opened() as seen:
        with pytest.raises(BadRequest, match=r"no kind of service here; there is .*nova-compute"):
            await seen.end.join(EVERY_SERVICE, "h1/nova-nothing")
        assert db.sql("SELECT count(*) FROM services WHERE binary = 'nova-nothing'") == [(0,)]


def test_db_says_enter_report_state_first_after_the_initial_delay(db: DbWorld) -> None:
    async def story() -> None:
        db.settings = MembershipSettings("db", initial_delay=0.5, **QUICK)
        with structlog.testing.capture_logs() as said:
            async with db.opened() as seen:
                await seen.end.join(EVERY_SERVICE, H1)
                await asyncio.sleep(0.3)
                assert not said
                assert (await presence(seen.end)).beats == 0
                await asyncio.sleep(0.6)
                found = await presence(seen.end)
        lines = [line for line in said if line["event"] == "enter report_state"]
        assert 2 <= len(lines) <= 5
        assert {line["log_level"] for line in lines} == {"debug"}
        assert found.beats >= 2

    tell(story)


def test_db_a_database_that_cannot_be_read_is_unknown(db: DbWorld) -> None:
    class Stalls:
        """A store whose reads do not come back."""

        def __init__(self, store: Any) -> None:
            self._store, self.stalls = store, False
            self.run, self.close = store.run, store.close

        async def read(self, *args: Any) -> Any:
            while self.stalls:
                await asyncio.sleep(0.01)
            return await self._store.read(*args)

    async def story() -> None:
        stalling: Any = Stalls(DiskStore(db.database, SystemClock(), SystemNames()))
        end = service_group(db.settings, SystemClock(), stalling)
        async with db.opened(end) as seen:
            await seen.end.join(EVERY_SERVICE, H1)
            await seen.until(H1, "present", within_s=SOON_S)
            stalling.stalls = True
            with pytest.raises(Unknown, match="does not answer"):
                await seen.end.get_all(EVERY_SERVICE)
            stalling.stalls = False
            async with seen.watching(H1) as states:
                await seen.until(H1, "present", within_s=SOON_S)
            assert "absent" not in states[H1]

    tell(story)


def test_db_speaks_postgresql_too() -> None:
    statement = str(heartbeats._RECORD.statement.compile(dialect=postgresql.dialect()))
    assert "clock_timestamp()" in statement
    assert "= ANY(" in statement
    assert "julianday" not in str(heartbeats._EVALUATED.compile(dialect=postgresql.dialect()))


# -- memcached --------------------------------------------------------------------------------------------------------
@needs("memcached")
async def test_memcached_eviction_and_a_restart_declare_nobody_dead(tmp_path: Path) -> None:
    with servers.memcached(tmp_path) as server:
        world = MemcachedWorld(memcached_settings(server.address)).serve(server)
        async with world.opened() as seen, world.opened() as joins:
            await joins.end.join(EVERY_SERVICE, H1)
            await seen.until(H1, "present", within_s=SOON_S)
            by_hand = MemcachedConnection(world.server.address, 1.0)
            async with seen.watching(H1) as states:
                for _ in range(6):  # evicted, and evicted again: as often as it comes back
                    await by_hand.delete(_counter(EVERY_SERVICE, H1))
                    for shard in range(SHARDS):
                        await by_hand.delete(_index("servicegroups", EVERY_SERVICE, shard))
                    await asyncio.sleep(0.2)
                world.server.kill()
                world.server.start()  # so quickly that it may not even be seen to be away
                await seen.until(H1, "present", within_s=SOON_S)
                await asyncio.sleep(1.5 * seen.end.guarantees.detection_s)
            by_hand.close()
            assert "absent" not in states[H1], states
            async with world.opened() as late:  # the index has been written anew: a newcomer knows it too
                await late.until(H1, "present", within_s=SOON_S)
                await joins.end.leave(EVERY_SERVICE, H1)
                await late.until(H1, "absent", within_s=SOON_S)


def test_memcached_that_answers_oddly_is_away() -> None:
    """Closed in the middle of an answer, no protocol at all, silence: each is an error within the deadline."""

    async def story() -> None:
        said = [
            b"VALUE x 0 100 1\r\nshort",
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"VALUE\r\nEND\r\n",
            b"\xff" * 100,
            b"",
            None,
        ]
        answers = iter(said)

        async def odd(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if (answer := next(answers)) is None:
                await asyncio.sleep(0.5)
            else:
                writer.write(answer)
            writer.close()

        server = await asyncio.start_server(odd, "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = MemcachedConnection(address, 0.3)
        for _ in said:
            with pytest.raises(OSError):
                await client.get(["x"])
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.6)  # until the silent one has closed as well

    tell(story)


# -- etcd -------------------------------------------------------------------------------------------------------------
@needs("etcd")
async def test_etcd_a_lost_lease_is_made_again_and_is_one_for_all(tmp_path: Path) -> None:
    with servers.etcd(tmp_path) as server:
        world = World(etcd_settings(server.address)).serve(server)
        address = server.address
        async with world.opened() as seen, world.opened() as joins:
            assert isinstance(joins.end, EtcdServiceGroup)
            members = [f"h/{binary}" for binary in ("nova-compute", "cinder-volume", "x")]
            for member in members:
                await joins.end.join(EVERY_SERVICE, member)
                await seen.until(member, "present", within_s=SOON_S)
            by_hand, lease = EtcdConnection(address, 1.0), joins.end._lease
            await by_hand.revoke(lease)  # all of them go together
            for member in members:
                await seen.until(member, "present", within_s=SOON_S)
            async with asyncio.timeout(30):
                while joins.end._lease in {0, lease}:
                    await asyncio.sleep(0.02)
            await by_hand.delete(b"/servicegroups/services/h%2Fx")
            await asyncio.sleep(0.1)
            await seen.until("h/x", "present", within_s=SOON_S)
            await by_hand.close()
        async with world.opened() as seen:  # closed: gone at once, by the lease
            assert await seen.end.get_all(EVERY_SERVICE) == {}


def test_etcd_messages() -> None:
    assert decode(number(1, 300) + text(2, b"key") + number(3, -1)) == {1: [300], 2: [b"key"], 3: [(1 << 64) - 1]}
    for garbage in (b"\x08", b"\xff" * 4, b"\x0b\x01", b"\x09" + b"x" * 8):
        with pytest.raises(ValueError):
            decode(garbage)


# -- simulated --------------------------------------------------------------------------------------------------------
def test_simulated_under_simulated_time() -> None:
    loop = SimLoop()
    clock = SimClock(loop, random.Random(1))
    server = SimulatedServer(clock, session_timeout_s=3.0, may_forget=True)
    changes: list[tuple[float, str]] = []

    async def story() -> None:
        seen, joins = SimulatedServiceGroup(server), SimulatedServiceGroup(server)
        assert seen.guarantees.may_forget
        for end in (seen, joins):
            await end.open(
                lambda _group, member: changes.append((clock.monotonic_s(), member)), lambda _up, _rate_limited: None
            )
        await seen.get_all("compute")
        await joins.join("compute", "h1")
        await clock.sleep(10)
        assert await seen.service_is_up("compute", "h1")
        server.forget("compute", "h1")
        assert not await seen.service_is_up("compute", "h1")  # which is why absence alone is no proof
        await clock.sleep(1)
        assert await seen.service_is_up("compute", "h1")
        server.go_away()
        await clock.sleep(100)
        with pytest.raises(Unknown):
            await seen.get_one("compute", "h1")
        server.come_back()
        assert await seen.service_is_up("compute", "h1")
        await clock.sleep(10)
        await joins.crash()
        died_s = clock.monotonic_s()
        while await seen.service_is_up("compute", "h1"):
            await clock.sleep(0.01)
        assert clock.monotonic_s() - died_s <= seen.guarantees.detection_s
        await seen.close()

    loop.run_until_complete(story())
    assert [member for _, member in changes] == ["h1"] * len(changes)
    assert not loop.troubles


# -- names and settings -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["h", "h/b", ".", "..", "a.b", "%2F", "%", "ö", "a b", "x" * 255, "/", "../x", "a%2Fb/c"]
)
def test_names_come_back_as_they_were(name: str) -> None:
    encoded = names.encode(name)
    assert "/" not in encoded
    assert encoded not in {".", ".."}
    assert encoded.isascii()
    assert names.decode(encoded) == name


@pytest.mark.parametrize("junk", ["", "%zz", "%ff", "%2f", "a b", "ö", ".", "..", "x" * 256, "%41"])
def test_what_no_name_became_is_none(junk: str) -> None:
    assert names.decode(junk) is None


def test_settings_are_checked_in_reasons() -> None:
    def said(**options: Any) -> str:
        return "; ".join(problems(MembershipSettings(**options)))

    assert said() == said(servicegroup_driver="db") == ""
    assert "known are bus, db, zookeeper, memcached, etcd, and zk and mc" in said(servicegroup_driver="consul")
    assert "zookeeper.address is missing" in said(servicegroup_driver="zk")
    three = ZookeeperConfig("a:2181,b:2181, c:2181")
    assert said(servicegroup_driver="zk", zookeeper=three) == ""
    assert "'b' must be HOST:PORT" in said(servicegroup_driver="zk", zookeeper=ZookeeperConfig("a:1,b"))
    assert "must be one server" in said(servicegroup_driver="mc", memcached=MemcachedConfig("a:1,b:2"))
    assert "etcd.lease = 0 must be above 0" in said(servicegroup_driver="etcd", etcd=EtcdConfig("a:1", lease=0))
    assert "must be smaller than service_down_time = 60" in said(servicegroup_driver="db", report_interval=60.0)
    assert "begin with a slash" in said(zookeeper=ZookeeperConfig(sg_prefix="x"))
    db = MembershipSettings("db")
    assert (db.report_interval_s, db.service_down_time_s) == (10, 60)
    assert MembershipSettings("mc").driver == "memcached"
    with pytest.raises(WrongConfiguration, match="is no driver"):
        service_group(MembershipSettings("nothing"), SystemClock())
    assert service_group(MembershipSettings(), SystemClock()) is None
    assert service_group(db, SystemClock()) is None
    made = service_group(MembershipSettings("mc", memcached=MemcachedConfig("localhost:11211")), SystemClock())
    assert isinstance(made, MemcachedServiceGroup)
    assert math.isclose(made.guarantees.detection_s, 70.2)
