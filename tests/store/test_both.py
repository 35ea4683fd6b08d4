"""What could differ between the databases and must not: order, case, nulls, long numbers, statements of one dialect."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from droveway.domain import name_pattern
from droveway.domain.certificates import Holder
from droveway.domain.faults import Conflict
from droveway.domain.model import Flavor, Subject, SubjectKind
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.compute import instance_list, instances
from droveway.store.compute.instances import NewInstance
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.fleet import certificates, declared, heartbeats, hosts, joining, services
from droveway.store.identity import accounts
from droveway.store.identity.tables import projects
from droveway.store.image import images
from droveway.store.schema import events as event_rows
from droveway.store.work import events

NAMES = ("b", "a", "B", "_", "Zebra", "zebra", "ä", "Ä", "1", "a b", "a%b", "100%")


@contextlib.asynccontextmanager
async def in_store(url: str) -> AsyncIterator[DiskStore]:
    store = DiskStore(url, SystemClock(), SystemNames())
    try:
        yield store
    finally:
        await store.close()


async def test_text_is_ordered_by_its_bytes(url: str) -> None:
    async with in_store(url) as store:
        await store.run(accounts.seed, "hash")
        for name in NAMES:
            await store.run(accounts.add_project, name)
        found = await store.read(lambda tx: list(tx.execute(select(projects.c.name).order_by("name")).scalars()))
        assert found == sorted([*NAMES, "admin"], key=str.encode)


async def test_a_name_is_found_without_regard_to_the_case_of_a_to_z(url: str) -> None:
    def make(tx: Tx) -> None:
        for name in NAMES:
            instances.create(tx, NewInstance("p", "u", name, "h", Flavor("1", "f", 1, 1, 1), None))

    async with in_store(url) as store:
        await store.run(make)
        for asked, names in (
            ("zebra", {"Zebra", "zebra"}),
            ("^b$", {"b", "B"}),
            ("%", {"a%b", "100%"}),
            ("^_$", {"_"}),
            ("ä", {"ä"}),
            ("^.$", {"b", "a", "B", "_", "ä", "Ä", "1"}),
        ):
            wanted = instance_list.Filters(likes=(("name", name_pattern.like(asked)),))
            assert {row["name"] for row in await store.read(instance_list.find, wanted)} == names, asked


async def test_a_null_sorts_first_and_pages_go_on_behind_it(url: str) -> None:
    def make(tx: Tx) -> None:
        for number, name in enumerate(("b", None, "a", None, "c")):
            images.create(tx, images.NewImage(str(number), "p", name, "private", False, None, None, 0, 0, {}, []))

    async with in_store(url) as store:
        await store.run(make)
        for down, order in ((False, [None, None, "a", "b", "c"]), (True, ["c", "b", "a", None, None])):
            found: list[Any] = []
            marker = None
            while True:
                wanted = images.Filters("p", sort=[("name", down)], limit=2, marker=marker)
                page = await store.read(images.find, wanted)
                found += page
                if not page:
                    break
                marker = page[-1]["id"]
            assert [row["name"] for row in found] == order


async def test_heartbeats_are_stamped_and_evaluated_by_the_database(url: str) -> None:
    async with in_store(url) as store:
        for host in ("h1", "h2"):
            await store.run(heartbeats.join, host, "nova-compute", "nova")
        assert await store.run(heartbeats.record, ["h1/nova-compute", "nobody/nova-compute"]) == 1
        one, two = await store.read(heartbeats.evaluate, 5.0)
        assert (one["report_count"], one["is_alive"], two["report_count"], two["is_alive"]) == (1, True, 0, True)
        assert abs(one["age_us"]) < 2_000_000
        assert abs(one["updated_at_us"] - SystemClock().now_us()) < 2_000_000
        await asyncio.sleep(0.02)
        (late,) = await store.read(heartbeats.evaluate, 0.001, "h1")
        assert not late["is_alive"]


async def test_what_is_known_of_a_host_is_found_by_its_name_in_any_spelling(url: str) -> None:
    """A host that chooses its name gets none of these; and words of an operator are kept beside each other."""

    def make(tx: Tx) -> None:
        hosts.join(tx, "Rack%1", "nova")
        services.register(tx, "Rack%1", "nova-compute", "nova")
        services.register(tx, "store_1@Pool", "droveway-scripts", "internal")
        certificates.claim(tx, Holder("service", "nats-1"), ["broker.example"])
        joining.create(tx, "hash-bound", "h7", 10**9)
        joining.create(tx, "hash-any", None, 10**9)

    async with in_store(url) as store:
        await store.run(make)
        for name in ("rack%1", "STORE_1", "Broker.example", "NATS-1", "H7"):
            with pytest.raises(Conflict, match="already, and this token is for a host that is new here"):
                await store.read(joining.usable, "hash-any", name)
        for name in ("rack11", "storex1", "rack"):
            assert (await store.read(joining.usable, "hash-any", name))["host"] is None
        await store.run(joining.use, "hash-any", "new")
        (service,) = await store.read(services.list_all, "Rack%1")
        for forced_first in (True, False):
            await store.run(
                lambda tx, forced=forced_first: services.set_(tx, service["uuid"], forced_down=forced) and None
            )
            await store.run(declared.declare_gone, "Rack%1", "it burns")
            await store.run(declared.readmit, "Rack%1")
            assert await store.read(declared.words) == [("Rack%1", declared.READMITTED, "it burns")]
            await store.run(declared.wait, "Rack%1", "it is silent")
            await store.run(declared.admit, "Rack%1")
            assert await store.read(declared.words) == []
            assert (await store.read(hosts.get, "Rack%1"))["forced_down"] is forced_first


async def test_the_history_is_numbered_beyond_31_bits(url: str) -> None:
    row = {
        "id": 1 << 40,
        "at_us": 1,
        "kind": "test",
        "subject_kind": "image",
        "subject_id": "far",
        "body": {"text": "a\u0000b ü"},
    }
    async with in_store(url) as store:
        await store.run(lambda tx: tx.execute(insert(event_rows), row) and None)
        (found,) = await store.read(events.of_subject, Subject(SubjectKind.IMAGE, "far"))
        assert (found["id"], found["body"]) == (1 << 40, row["body"])


async def test_a_service_is_registered_once_and_its_heartbeats_are_counted(url: str, tmp_path: Path) -> None:
    async with in_store(url) as store:
        for _ in range(2):
            await store.run(services.register, "h1", "nova-compute", "nova")
        (row,) = await store.read(services.list_all)
        assert (row["host"], row["is_up"], row["report_count"]) == ("h1", False, 0)
        await store.run(services.snapshot, [], [("h1", 1 << 40, 5)])
        assert (await store.read(services.list_all))[0]["report_count"] == 1 << 40
        assert await store.read(services.count_by_state) == {"expected": 1}
