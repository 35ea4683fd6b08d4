"""A quota is claimed in the transaction that writes the rows: no race exceeds it, on whatever database."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from sqlalchemy import Dialect, func, insert, select, text

from droveway.domain.faults import Forbidden
from droveway.domain.model import Flavor
from droveway.domain.placement import GroupPolicy
from droveway.domain.quota import NO_LIMITS, Quotas
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.compute import instances, quotas, server_groups
from droveway.store.compute.instances import NewInstance
from droveway.store.compute.server_groups import NewGroup
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.schema import instances as rows
from droveway.store.schema import server_groups as group_rows

CLIENTS, TRIES, SERVERS = 50, 3, 37
FLAVOR = Flavor("f", "f", vcpus=2, ram_mb=128, disk_gb=1)
EACH = {"cores": FLAVOR.vcpus, "ram": FLAVOR.ram_mb}
GROUP_LIMIT, MEMBER_LIMIT = 5, 9
EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}


def stores(url: str, count: int) -> list[DiskStore]:
    """As many programs at one database."""
    return [DiskStore(url, SystemClock(), SystemNames()) for _ in range(count)]


async def closed(opened: list[DiskStore]) -> None:
    for store in opened:
        await store.close()


def create(tx: Tx, least: int, most: int, configured: Quotas, group_id: str | None = None) -> int:
    limits = quotas.limits(tx, "p", configured)
    count = quotas.claim_servers(tx, "p", limits, (least, most), EACH)
    if group_id is not None:
        quotas.claim_members(tx, group_id, limits, count)
    new = NewInstance("p", "u", "g", "g", FLAVOR, None, server_group_id=group_id)
    for index in range(count):
        instances.create(tx, msgspec.structs.replace(new, launch_index=index))
    return count


async def raced(opened: list[DiskStore], act: Any, *args: Any) -> list[Any]:
    """What 50 clients got who did the same, again and again, spread over the programs."""
    won = []

    async def client(number: int) -> None:
        for _ in range(TRIES):
            try:
                won.append(await opened[number % len(opened)].run(act, *args))
            except Forbidden as fault:
                assert "Quota exceeded" in fault.reason

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return won


@pytest.mark.parametrize(
    ("least", "most", "limited"),
    [
        (1, 1, Quotas(instances=SERVERS, cores=-1, ram=-1)),
        (1, 1, Quotas(instances=-1, cores=2 * SERVERS + 1, ram=-1)),
        (2, 5, Quotas(instances=-1, cores=-1, ram=128 * SERVERS)),
    ],
    ids=["instances", "cores", "ram"],
)
async def test_fifty_clients_never_get_more_servers_than_the_quota(
    url: str, least: int, most: int, limited: Quotas
) -> None:
    opened = stores(url, 3)
    won = await raced(opened, create, least, most, limited)
    held = await opened[0].read(quotas.usage, "p")
    assert held == quotas.Usage(sum(won), 2 * sum(won), 128 * sum(won))
    assert SERVERS - (least - 1) <= held.instances <= SERVERS  # nothing is lost to the race either
    with pytest.raises(Forbidden):
        await opened[1].run(create, least, most, limited)
    await closed(opened)


async def test_fifty_clients_never_get_more_groups_or_members_than_the_quota(url: str) -> None:
    limited = msgspec.structs.replace(NO_LIMITS, server_groups=GROUP_LIMIT, server_group_members=MEMBER_LIMIT)

    def make(tx: Tx) -> str:
        quotas.claim_group(tx, "p", limited)
        return str(server_groups.create(tx, NewGroup("p", "u", "g", GroupPolicy.AFFINITY))["id"])

    opened = stores(url, 2)
    made = await raced(opened, make)
    assert len(made) == GROUP_LIMIT == await opened[0].read(quotas.groups, "p")
    assert sum(await raced(opened, create, 1, 1, limited, made[0])) == MEMBER_LIMIT
    found = await opened[0].read(server_groups.members, made)
    assert [len(found[group_id]) for group_id in made] == [MEMBER_LIMIT, 0, 0, 0, 0]
    await closed(opened)


async def test_what_was_set_stands_before_the_defaults(url: str) -> None:
    (store,) = opened = stores(url, 1)
    configured = Quotas(instances=3)
    assert (await store.read(quotas.limits, "p", configured))["instances"] == 3
    await store.run(quotas.set_, quotas.DEFAULT_CLASS, {"instances": 5, "ram": 1})
    await store.run(quotas.set_, quotas.scope_of("p"), {"instances": 7})
    await store.run(quotas.set_, quotas.scope_of("p"), {"instances": 8, "cores": -1})
    found = await store.read(quotas.limits, "p", configured)
    assert (found["instances"], found["cores"], found["ram"], found["key_pairs"]) == (8, -1, 1, 100)
    assert (await store.read(quotas.limits, "other", configured))["instances"] == 5
    await store.run(quotas.forget, quotas.scope_of("p"))
    assert await store.read(quotas.limits, "p", configured) == await store.read(quotas.defaults, configured)
    await closed(opened)


async def test_a_group_that_is_deleted_leaves_its_servers(url: str) -> None:
    (store,) = opened = stores(url, 1)
    group = await store.run(server_groups.create, NewGroup("p", "u", "g", GroupPolicy.ANTI_AFFINITY, 2))
    await store.run(create, 2, 2, NO_LIMITS, group["id"])
    await store.run(server_groups.remove, group["id"], "p")
    kept = await store.read(lambda tx: list(tx.execute(select(rows.c.server_group_id, rows.c.deleted))))
    assert kept == [(None, False), (None, False)]
    assert await store.read(lambda tx: tx.execute(select(func.count()).select_from(group_rows)).scalar()) == 0
    await closed(opened)


async def test_the_sums_are_read_from_the_index_alone(url: str) -> None:
    """With rows that are long, reading them would cost as much as everything else of a creation."""

    def plan(tx: Tx, dialect: Dialect) -> str:
        kept = {
            "id": "",
            "number": 0,
            "project_id": "p",
            "user_id": "u",
            "name": "n",
            "hostname": "h",
            "metadata": {},
            "tags": [],
            "reservation_id": "r",
            "flavor": {},
            "flavor_id": "f",
            "vcpus": 1,
            "ram_mb": 1,
            "disk_gb": 1,
            "vm_state": "active",
            "created_at_us": 1,
            "updated_at_us": 1,
        }
        many = [
            {**kept, "id": str(n), "number": n, "deleted": n % 2 == 0, "project_id": f"p{n % 41}"} for n in range(2000)
        ]
        tx.execute(insert(rows), many)
        assert quotas.usage(tx, "p1") == quotas.Usage(25, 25, 25)
        tx.execute(text("ANALYZE instances"))
        query = quotas._HELD.statement.params(of="p1").compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        return "\n".join(str(row) for row in tx.execute(text(f"{EXPLAIN[dialect.name]} {query}")))

    (store,) = opened = stores(url, 1)
    said = await store.run(plan, store.engine.dialect)
    assert "ix_instances_quota" in said, said
    if url.startswith("sqlite"):
        assert "COVERING INDEX" in said, said
    await closed(opened)
