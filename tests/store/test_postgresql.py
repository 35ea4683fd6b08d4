"""What a server can do to those who use it: refuse, be away, stop, come back, lose an answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from droveway.domain.faults import Busy, WrongConfiguration
from droveway.domain.model import of_host
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store import schema as s
from droveway.store.engine import databases as engines
from droveway.store.engine.transaction import DiskStore, Tx, open_store
from droveway.store.upgrade import bring_up_to_date
from droveway.store.work import counters, events
from lab import postgresql
from tests.store import databases
from tests.store.cut import Cut, Way

pytestmark = pytest.mark.servers


@pytest.fixture
def url() -> str:
    return databases.fresh("postgresql", Path())


def opened(url: str) -> DiskStore:
    return DiskStore(url, SystemClock(), SystemNames())


@contextlib.asynccontextmanager
async def in_store(url: str) -> AsyncIterator[DiskStore]:
    store = opened(url)
    try:
        yield store
    finally:
        await store.close()


def note(tx: Tx, subject: str) -> int:
    events.record(tx, "test", of_host(subject), {})
    return counters.next_number(tx, "n")


def subjects(tx: Tx) -> list[str]:
    return list(tx.execute(select(s.events.c.subject_id).order_by(s.events.c.id)).scalars())


@pytest.mark.parametrize(
    ("user", "password", "name", "reason"),
    [
        ("droveway", "wrong", "postgres", "password authentication failed.*percent-encoded"),
        ("nobody", "wrong", "postgres", "password authentication failed"),
        (postgresql.USER, postgresql.PASSWORD, "absent", '"absent" does not exist; create it: createdb'),
    ],
)
def test_a_server_that_refuses_us_is_said_once_and_without_the_password(
    user: str, password: str, name: str, reason: str
) -> None:
    url = databases.server().url(name, user=user, password=password)
    for use in (bring_up_to_date, opened):
        with pytest.raises(WrongConfiguration, match=reason) as told:
            use(url)
        assert "wrong" not in told.value.reason
        assert "se:cr" not in told.value.reason
        assert "\n" not in told.value.reason


def test_a_user_who_owns_nothing_is_told_what_is_missing() -> None:
    url = databases.empty()
    server = databases.server()
    server.say("CREATE ROLE guest LOGIN PASSWORD 'x'")
    with pytest.raises(WrongConfiguration, match="permission denied for schema public; make the user the owner"):
        bring_up_to_date(server.url(url.rpartition("/")[2], user="guest", password="x"))


def test_another_encoding_does_not_start() -> None:
    server = databases.server()
    server.say("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    bring_up_to_date(server.url("latin"))
    with pytest.raises(WrongConfiguration, match="encoded in LATIN1; create it with ENCODING 'UTF8'"):
        opened(server.url("latin"))


def test_several_that_upgrade_together_do_it_once() -> None:
    url = databases.empty()
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(bring_up_to_date, [url] * 3)) == [None] * 3


async def test_a_server_that_is_away_at_the_start_is_waited_for() -> None:
    with postgresql.server() as server:
        url = server.create("late")
        server.kill()
        said: list[str] = []
        opening = asyncio.create_task(open_store(url, SystemClock(), SystemNames(), said.append))
        await asyncio.sleep(1.0)
        assert not opening.done()
        (reason,) = said
        assert "cannot be used yet" in reason
        assert "tried again" in reason
        assert "se:cr" not in reason
        await asyncio.to_thread(server.start)
        store = await opening
        assert await store.run(note, "a") == 1
        await store.close()


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("together", [1, 5])
async def test_a_commit_whose_answer_was_lost_is_done_once(url: str, cut: Cut, together: int) -> None:
    way = Way(databases.server().port)
    through = url.replace(f":{databases.server().port}/", f":{way.port}/")
    async with in_store(through) as store:
        assert await store.run(note, "first") == 1
        gate = threading.Event()
        held = asyncio.create_task(store.run(lambda tx: gate.wait(60)))
        await asyncio.sleep(0.05)
        writes = [asyncio.create_task(store.run(note, str(i))) for i in range(together)]
        await asyncio.sleep(0.05)
        gate.set()
        await held
        way.cut = cut
        answered = await asyncio.gather(*writes)
        assert way.cuts == 1
        assert sorted(answered) == list(range(2, together + 2))
        assert sorted(await store.read(subjects)) == sorted(["first", *map(str, range(together))])
    way.close()


async def test_a_write_that_met_a_stranger_is_run_again(url: str) -> None:
    tries = []

    def raise_it(tx: Tx) -> int:
        value = tx.execute(select(s.counters.c.value)).scalar_one()
        if not tries:
            databases.server().say("UPDATE counters SET value = value + 10", url.rpartition("/")[2])
        tries.append(value)
        tx.execute(update(s.counters).values(value=value + 1))
        return int(value + 1)

    async with in_store(url) as store:
        await store.run(counters.next_number, "n")
        assert await store.run(raise_it) == 12
        assert tries == [1, 11]


async def test_a_writer_that_sleeps_holds_the_others_up_for_seconds_only(url: str) -> None:
    slept = []

    def sleep(tx: Tx) -> int:
        value = note(tx, "sleeper")
        if not slept:
            slept.append(1)
            time.sleep(12.0)
        return value

    async with in_store(url) as store:
        other = opened(url)
        sleeping = asyncio.create_task(store.run(sleep))
        await asyncio.sleep(0.2)
        began_s = time.monotonic()
        assert await other.run(note, "other") == 1
        assert time.monotonic() - began_s < 5.0
        assert await sleeping == 2  # it was ended, and has been run again
        assert await store.read(subjects) == ["other", "sleeper"]
        await other.close()


async def test_a_statement_that_takes_too_long_spoils_nothing_else(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(tx: Tx) -> None:
        tx.execute(select(func.pg_sleep(30)))

    monkeypatch.setitem(postgresql_settings(), "statement_timeout", "300ms")
    async with in_store(url) as store:
        gate = threading.Event()
        held = asyncio.create_task(store.run(lambda tx: gate.wait(60)))
        await asyncio.sleep(0.05)
        writes = [asyncio.create_task(store.run(fn, *more)) for fn, *more in ((note, "a"), (slow,), (note, "b"))]
        await asyncio.sleep(0.05)
        gate.set()
        first, failed, second = await asyncio.gather(*writes, return_exceptions=True)
        assert await held
        assert (first, second) == (1, 2)
        assert isinstance(failed, Busy)
        assert "statement timeout" in failed.reason


def postgresql_settings() -> dict[str, str]:
    from droveway.store.engine import postgresql as module

    return module._SETTINGS


class Load:
    """Writers that note which of their writes were said to be kept, and which not."""

    def __init__(self, store: DiskStore) -> None:
        self.store = store
        self.kept: list[str] = []
        self.refused: list[str] = []
        self.unknown: list[str] = []
        self.slowest_s = 0.0
        self.is_over = False

    async def write(self, name: str) -> None:
        number = 0
        while not self.is_over:
            number += 1
            subject, began_s = f"{name}/{number}", time.monotonic()
            try:
                await self.store.run(note, subject)
                self.kept.append(subject)
            except Busy as busy:
                (self.unknown if "whether it did" in busy.reason else self.refused).append(subject)
                await asyncio.sleep(0.02)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)

    async def during(self, trouble: Callable[[], Any]) -> list[str]:
        """What the database holds after that trouble."""
        writers = [asyncio.create_task(self.write(str(i))) for i in range(8)]
        await asyncio.sleep(0.5)
        await asyncio.to_thread(trouble)
        before = len(self.kept)
        deadline_s = time.monotonic() + 60.0
        while len(self.kept) < before + 50 and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)
        self.is_over = True
        await asyncio.gather(*writers)
        return await self.store.read(subjects)

    def check(self, found: list[str]) -> None:
        counted = Counter(found)
        assert max(counted.values()) == 1, "nothing doubled"
        assert set(self.kept) <= set(found), "nothing lost"
        assert not set(self.refused) & set(found), "what was refused was not done"
        assert self.unknown == []
        assert len(self.kept) > 100


@pytest.mark.parametrize("how", ["stop", "kill", "freeze"])
async def test_a_server_that_goes_and_comes_back_under_load_loses_and_doubles_nothing(how: str) -> None:
    with postgresql.server(is_safe=how == "kill") as server:
        url = server.create("load")
        bring_up_to_date(url)

        away_s = 0.0

        def trouble() -> None:
            nonlocal away_s
            for _ in range(1 if how == "freeze" else 3):
                began_s = time.monotonic()
                getattr(server, how)()
                time.sleep(20.0 if how == "freeze" else 0.5)
                server.thaw() if how == "freeze" else server.start()
                away_s = max(away_s, time.monotonic() - began_s)
                time.sleep(0.5)

        async with in_store(url) as store:
            load = Load(store)
            load.check(await load.during(trouble))
            assert load.slowest_s < away_s + 10.0  # connections are made anew, on a busy machine


def test_only_the_first_of_many_looks_for_a_server_that_is_away(url: str) -> None:
    async def story() -> None:
        with postgresql.server() as server:
            url = server.create("gone")
            bring_up_to_date(url)
            store = opened(url)
            assert await store.run(note, "a") == 1
            assert await store.read(subjects) == ["a"]
            server.kill()
            began_s = time.monotonic()
            told = await asyncio.gather(
                *(store.run(note, "b") for _ in range(200)),
                *(store.read(subjects) for _ in range(200)),
                return_exceptions=True,
            )
            assert all(isinstance(error, Busy) for error in told)
            assert time.monotonic() - began_s < 3.0
            server.start()
            await asyncio.sleep(engines.PAUSE_MAX_S)
            assert await store.run(note, "c") == 2
            assert await store.read(subjects) == ["a", "c"]
            await store.close()

    asyncio.run(story())
