"""What is read again before anything was written is not made again; what was written is seen by the next who asks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from droveway.api.http import answers
from droveway.api.http.answers import Answers
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.compute import instances, server_attributes
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.schema import counters as counters_table
from droveway.store.work import counters
from tests.api.test_actions import running
from tests.api.world import NOVA, in_world, make_image, make_server
from tests.store import databases


class Asked:
    """As much of a request as an answer is kept by."""

    raw_path, raw_query, version = "/servers", b"", 1

    class caller:  # noqa: N801
        is_admin, project_id = False, "p"


async def test_the_same_is_made_once_until_something_is_written(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        server_id = await running(world, token)
        reads, read = 0, world.store.read

        async def counted(fn: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal reads
            reads += 1
            return await read(fn, *args, **kwargs)

        world.store.read = counted  # type: ignore[method-assign]
        for path in (f"{NOVA}/servers/{server_id}", f"{NOVA}/servers", f"{NOVA}/servers/detail?limit=5"):
            reads = 0
            first = await world.ask("GET", path, token=token)
            again = await world.ask("GET", path, token=token)
            assert (first.status_code, again.content, reads) == (200, first.content, 1)
            change = {"metadata": {"n": path[-3:]}}
            reply = await world.ask("PUT", f"{NOVA}/servers/{server_id}/metadata", token=token, json=change)
            assert reply.status_code == 200
            assert reads == 1
            await world.ask("GET", path, token=token)
            assert reads == 2
        shown = (await world.ask("GET", f"{NOVA}/servers/{server_id}", token=token)).json()["server"]
        assert shown["metadata"] == {"n": "t=5"}


async def test_nobody_gets_what_another_is_shown(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice, bob, admin = await world.token("alice", "red"), await world.token("bob", "blue"), await world.token()
        server_id = await running(world, alice)
        path = f"{NOVA}/servers/{server_id}"
        as_admin = (await world.ask("GET", path, token=admin)).json()["server"]
        as_owner = (await world.ask("GET", path, token=alice)).json()["server"]
        assert "OS-EXT-SRV-ATTR:host" in as_admin and "OS-EXT-SRV-ATTR:host" not in as_owner
        assert (await world.ask("GET", path, token=bob)).status_code == 404
        assert "locked" in (await world.ask("GET", path, token=alice, version="2.9")).json()["server"]
        lists = [await world.ask("GET", f"{NOVA}/servers", token=one) for one in (alice, bob, admin)]
        assert [len(one.json()["servers"]) for one in lists] == [1, 0, 0]
        everywhere = await world.ask("GET", f"{NOVA}/servers?all_tenants=1", token=admin)
        assert len(everywhere.json()["servers"]) == 1
        await make_server(world, bob, await make_image(world, bob), "b1")
        assert len((await world.ask("GET", f"{NOVA}/servers", token=bob)).json()["servers"]) == 1


async def test_what_was_answered_as_written_is_read(tmp_path: Path) -> None:
    """Readers without end beside a writer, on a store with threads of its own."""
    store = DiskStore(databases.fresh("sqlite", tmp_path), SystemClock(), SystemNames(), is_alone=True)
    try:
        kept, written, is_over = Answers(store), 0, False

        def read(tx: Tx) -> bytes:
            return str(_count(tx)).encode()

        async def look() -> None:
            while not is_over:
                least = written
                assert int(await kept.of(Asked, read)) >= least  # type: ignore[arg-type]
                await asyncio.sleep(0)

        readers = [asyncio.create_task(look()) for _ in range(4)]
        for _ in range(100):
            written = await store.run(counters.next_number, "n")
        is_over = True
        await asyncio.gather(*readers)
        assert int(await kept.of(Asked, read)) == written  # type: ignore[arg-type]
    finally:
        await store.close()


async def test_what_another_process_has_written_is_read(tmp_path: Path) -> None:
    """An API apart from its control, on one file."""
    url = databases.fresh("sqlite", tmp_path)
    control, api = (DiskStore(url, SystemClock(), SystemNames()) for _ in range(2))
    try:
        kept = Answers(api)
        for number in range(1, 3):
            assert await control.run(counters.next_number, "n") == number
            assert int(await kept.of(Asked, lambda tx: str(_count(tx)).encode())) == number  # type: ignore[arg-type]
    finally:
        await control.close()
        await api.close()


def _count(tx: Tx) -> int:
    number = select(counters_table.c.value).where(counters_table.c.name == "n")
    return int(tx.execute(number).scalar() or 0)


async def test_lists_of_nothing_are_bounded_by_what_they_are_kept_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every filter has its own answer, of a few bytes, and nobody need commit anything."""
    monkeypatch.setattr(answers, "KEPT_BYTES", 20_000)
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        for number in range(30):
            path = f"{NOVA}/servers?name={number:04}{'x' * 200}"
            assert (await world.ask("GET", path, token=token)).json() == {"servers": []}
        kept = world.api.answers._kept
        assert 0 < len(kept) < 30
        assert sum(len(path) + len(query) + len(body) for (path, query, *_), body in kept.items()) <= 20_000


async def test_what_is_kept_is_bounded_and_nothing_is_where_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token("alice", "red")
        server_id = await running(world, token)
        monkeypatch.setattr(answers, "KEPT_BYTES", 10)
        assert (await world.ask("GET", f"{NOVA}/servers/{server_id}", token=token)).status_code == 200
        assert not world.api.answers._kept
        monkeypatch.setattr(answers, "KEPT_BYTES", 1 << 20)
        world.store.commits = None
        for name in ("one", "two"):
            await world.store._run(lambda tx, to=name: server_attributes.change(tx, server_id, name=to))
            world.store.commits = None
            shown = (await world.ask("GET", f"{NOVA}/servers/{server_id}", token=token)).json()["server"]
            assert shown["name"] == name
        assert not world.api.answers._kept
        row = await world.store.read(instances.get, server_id)
        assert row["name"] == "two"
