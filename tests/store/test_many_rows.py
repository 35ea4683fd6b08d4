"""What is written of many hosts in a few statements is what would be written of each alone; and a write that fails in
the middle of many takes none of them with it."""

from __future__ import annotations

import asyncio

from droveway.domain.faults import NotFound
from droveway.domain.liveness import State
from droveway.domain.model import Subject, SubjectKind
from droveway.domain.service_kinds import SCRIPTS
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts, services
from droveway.store.fleet.services import Verdict
from droveway.store.work import counters, events
from tests.store.test_both import in_store

HOSTS = [f"h{number}" for number in range(700)]  # more than one statement names
BINARIES = dict.fromkeys(HOSTS, ("nova-compute", SCRIPTS))


async def test_many_hosts_join_at_once(url: str) -> None:
    async with in_store(url) as store:
        assert await store.run(hosts.join, "h5", "nova")
        await store.run(services.register, "h5", "nova-compute", "nova")
        assert await store.run(hosts.join_all, HOSTS, "nova") == [host for host in HOSTS if host != "h5"]
        assert await store.run(hosts.join_all, HOSTS, "nova") == []
        for _ in range(2):
            await store.run(services.register_all, BINARIES, "nova")
        rows = await store.read(lambda tx: list(hosts.each(tx)))
        assert sorted(row["id"] for row in rows) == list(range(1, len(HOSTS) + 1))
        assert len({row["uuid"] for row in rows}) == len(HOSTS)
        assert all(row["resources"] is None for row in rows)
        found = await store.read(services.on_hosts)
        assert sorted((row["host"], row["binary"]) for row in found) == sorted(
            (host, one) for host, some in BINARIES.items() for one in some
        )
        verdicts = [Verdict(host, SCRIPTS, State.ALIVE, "heartbeats arrive", 1) for host in HOSTS]
        await store.run(services.record_verdicts, verdicts)
        told = await store.read(lambda tx: events.of_subject(tx, Subject(SubjectKind.SERVICE, f"h7/{SCRIPTS}")))
        assert [one["body"]["became"] for one in told] == ["registered", "up"]


async def test_numbers_in_a_row(url: str) -> None:
    async with in_store(url) as store:
        assert await store.run(counters.next_numbers, "n", 3) == range(1, 4)
        assert await store.run(counters.next_number, "n") == 4
        assert await store.run(counters.next_numbers, "n", 2) == range(5, 7)


async def test_of_many_writes_at_once_each_that_fails_fails_alone(url: str) -> None:
    async with in_store(url) as store:
        calls = 0

        def write(tx: Tx, number: int) -> int:
            nonlocal calls
            calls += 1
            counters.next_number(tx, "kept")
            if number % 10 == 3:
                raise NotFound(f"there is no {number}")
            tx.nudges.append(f"kept {number}")
            return number

        nudged: list[str] = []
        store.on_commit(nudged.append)
        outcomes = await asyncio.gather(*(store.run(write, number) for number in range(40)), return_exceptions=True)
        failed = [number for number, one in enumerate(outcomes) if isinstance(one, NotFound)]
        assert failed == [3, 13, 23, 33]
        assert [one for one in outcomes if not isinstance(one, BaseException)] == [n for n in range(40) if n % 10 != 3]
        assert nudged == [f"kept {number}" for number in range(40) if number % 10 != 3]
        assert await store.run(counters.next_number, "kept") == 40 - len(failed) + 1
        assert calls <= 2 * 40
