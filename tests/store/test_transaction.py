"""The door to the store: what was answered is kept, what failed leaves nothing, and it is bounded."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text

from droveway.domain.faults import Busy, Conflict, WrongConfiguration
from droveway.domain.model import of_host
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.engine.transaction import QUEUE_MAX, DiskStore, Tx, open_engine
from droveway.store.schema import metadata
from droveway.store.upgrade import HEAD, REVISIONS, bring_up_to_date
from droveway.store.work import counters, events
from tests.store import databases


def note(tx: Tx, subject: str) -> None:
    events.record(tx, "test", of_host(subject), {})
    tx.nudges.append(subject)


def note_and_fail(tx: Tx, subject: str) -> None:
    note(tx, subject)
    raise Conflict("no")


def test_the_migrated_schema_is_the_declared_one(url: str) -> None:
    engine = open_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert REVISIONS[-1] == HEAD


def test_upgrading_twice_changes_nothing(url: str) -> None:
    bring_up_to_date(url)


def test_a_database_from_a_newer_version_does_not_start(url: str) -> None:
    engine = open_engine(url)
    with engine.connect().execution_options(writes=True) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.commit()
    with pytest.raises(WrongConfiguration, match="newer droveway"):
        bring_up_to_date(url)


def test_a_read_only_database_does_not_start(tmp_path: Path) -> None:
    path = databases.fresh("sqlite", tmp_path).removeprefix("sqlite:///")
    with pytest.raises(WrongConfiguration, match="cannot be opened for writing"):
        DiskStore(f"sqlite:///file:{path}?mode=ro&uri=true", SystemClock(), SystemNames())


def test_writes_that_wait_together_fail_alone(url: str) -> None:
    async def story() -> list[str]:
        store = DiskStore(url, SystemClock(), SystemNames())
        told: list[str] = []
        store.on_commit(told.append)
        gate = threading.Event()
        first = asyncio.ensure_future(store.run(lambda tx: gate.wait(60)))
        await asyncio.sleep(0.05)
        rest = [store.run(note_and_fail if i % 3 == 0 else note, str(i)) for i in range(9)]
        waiting = [asyncio.ensure_future(w) for w in rest]
        await asyncio.sleep(0.05)
        gate.set()
        results = await asyncio.gather(first, *waiting, return_exceptions=True)
        assert [isinstance(r, Conflict) for r in results[1:]] == [i % 3 == 0 for i in range(9)]
        kept = [str(i) for i in range(9) if i % 3]
        found = await store.read(
            lambda tx: [e["subject_id"] for e in tx.execute(select(metadata.tables["events"])).mappings()]
        )
        assert found == kept == told
        await store.close()
        return found

    asyncio.run(story())


async def test_what_was_answered_is_there_after_the_end(url: str) -> None:
    async def read() -> int:
        store = DiskStore(url, SystemClock(), SystemNames())
        value = await store.run(counters.next_number, "n")
        await store.close()
        return value

    store = DiskStore(url, SystemClock(), SystemNames())
    assert [await store.run(counters.next_number, "n") for _ in range(3)] == [1, 2, 3]
    await store.close()
    assert await read() == 4


async def test_a_full_queue_is_busy_and_not_a_wait(url: str) -> None:
    store = DiskStore(url, SystemClock(), SystemNames())
    gate = threading.Event()
    first = asyncio.ensure_future(store.run(lambda tx: gate.wait(60)))
    await asyncio.sleep(0.05)
    waiting = [asyncio.ensure_future(store.run(counters.next_number, "n")) for _ in range(QUEUE_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="try again"):
        await store.run(counters.next_number, "n")
    gate.set()
    await asyncio.gather(first, *waiting)
    await store.close()


async def test_a_reader_sees_a_snapshot_while_a_write_is_open(url: str) -> None:
    store = DiskStore(url, SystemClock(), SystemNames())
    gate = threading.Event()

    def slow(tx: Tx) -> None:
        note(tx, "late")
        gate.wait(60)

    writing = asyncio.ensure_future(store.run(slow))
    await asyncio.sleep(0.05)
    assert await store.read(events.of_subject, of_host("late")) == []
    gate.set()
    await writing
    assert len(await store.read(events.of_subject, of_host("late"))) == 1
    await store.close()
