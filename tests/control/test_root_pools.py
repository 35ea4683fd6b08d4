"""Servers whose root disks lie in a pool of Ceph: their hosts share nothing but that. Through their lives, whatever
breaks, and with what is promised of the pool counted once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from droveway.domain.model import Flavor, SagaKind
from droveway.store.compute import file_cleanups, instances
from droveway.store.compute.instances import NewInstance
from droveway.store.fleet import root_pools
from droveway.store.work import sagas
from tests.control.test_sagas import params_of
from tests.control.world import Break, World

POOL, STRANGER = "sim/vms", "00000000-0000-4000-8000-000000000001"
MOVE = ("CheckDestination", "CheckSource", "RemoveProbe", "Admit", "BeginCopy", "Release", "DropFiles")
BOOT = ("Prepare", "Start")
REFUSES = {Break.REFUSED, Break.REFUSED_AFTER_ACTING}


class PoolWorld(World):
    is_apart = True
    root_pool = POOL

    async def row(self, instance_id: str) -> Any:
        return await self.store.read(instances.get, instance_id, None, deleted=True)

    async def migrate(self, instance_id: str) -> tuple[str, str]:
        saga_id = await self.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})
        await self.quiet()
        saga = await self.store.read(sagas.get, saga_id)
        return saga["status"], saga["error"]

    async def check_pool(self, instance_id: str) -> None:
        """Its root disk is there as long as it lives, and is nobody's file; nothing of a move is left."""
        row = await self.row(instance_id)
        lives = row["host"] is not None
        assert (row["root_pool"] or "", self.fleet.roots.pool_of(instance_id)) == ((POOL, POOL) if lives else ("", ""))
        left = await self.store.read(file_cleanups.instance_ids)
        places = [name for name, store in self.fleet.stores.items() if instance_id in store.disks]
        assert places == ([row["host"]] if lives else []) or left
        assert self.fleet.roots.probes == {} and self.fleet.violations == []


@asynccontextmanager
async def pooled() -> AsyncIterator[PoolWorld]:
    world = PoolWorld()
    await world.open()
    try:
        yield world
    finally:
        await world.close()


async def test_it_lives_moves_is_rebuilt_shelved_and_goes() -> None:
    async with pooled() as w:
        instance_id = await w.create()
        assert (await w.row(instance_id))["root_pool"] == POOL
        await w.check_pool(instance_id)
        first = (await w.row(instance_id))["host"]
        for _ in range(2):
            w.commands.clear()
            assert await w.migrate(instance_id) == ("done", "")
            assert tuple(verb for _, verb in w.commands) == MOVE, "no disk goes along"
            await w.check_pool(instance_id)
        assert (await w.row(instance_id))["host"] == first
        for kind in (SagaKind.STOP, SagaKind.START, SagaKind.REBUILD, SagaKind.RESCUE, SagaKind.UNRESCUE):
            assert await w.do(instance_id, kind, await params_of(w, kind)) == "done", kind
            await w.check_pool(instance_id)
        for kind in (SagaKind.SHELVE, SagaKind.UNSHELVE):
            assert await w.do(instance_id, kind, await params_of(w, kind)) == "done", kind
            await w.check_pool(instance_id)
        assert await w.do(instance_id, SagaKind.DELETE) == "done"
        await w.check_pool(instance_id)
        await w.check(instance_id)


@pytest.mark.matrix
@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize("at", range(1, len(MOVE) + 1))
async def test_a_move_broken_at_every_command(at: int, breaks: Break) -> None:
    if breaks in REFUSES and MOVE[at - 1] in {"Release", "DropFiles"}:
        return  # a host never refuses them
    async with pooled() as w:
        instance_id = await w.create()
        w.commands.clear()
        w.at, w.breaks = at, breaks
        await w.migrate(instance_id)
        w.at = 0
        await w.report()
        await w.check_pool(instance_id)
        await w.check(instance_id)
        assert (await w.migrate(instance_id))[0] == "done"
        await w.check_pool(instance_id)


@pytest.mark.matrix
@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize("at", range(1, len(BOOT) + 1))
async def test_a_boot_broken_at_every_command_leaves_no_disk_but_its_own(at: int, breaks: Break) -> None:
    async with pooled() as w:
        w.at, w.breaks = at, breaks
        instance_id = await w.create()
        w.at = 0
        await w.report()
        await w.check_pool(instance_id)
        await w.check(instance_id)
        assert await w.do(instance_id, SagaKind.DELETE) == "done"
        await w.check_pool(instance_id)


@pytest.mark.matrix
@pytest.mark.parametrize("breaks", Break)
async def test_a_deletion_broken_takes_the_disk_along(breaks: Break) -> None:
    async with pooled() as w:
        instance_id = await w.create()
        w.commands.clear()
        w.at, w.breaks = 1, breaks
        await w.do(instance_id, SagaKind.DELETE)
        w.at = 0
        await w.report()
        await w.check_pool(instance_id)


async def test_a_host_that_was_away_at_the_deletion_deletes_the_disk_when_it_is_back() -> None:
    async with pooled() as w:
        instance_id = await w.create()
        host = (await w.row(instance_id))["host"]
        w.gone_from[host] = len(w.commands) + 1
        assert await w.do(instance_id, SagaKind.DELETE) == "done"
        assert w.fleet.roots.pool_of(instance_id) == POOL
        w.gone_from.clear()
        await w.report()
        assert w.fleet.roots.pool_of(instance_id) == "" and w.fleet.violations == []


async def test_a_root_disk_that_is_left_is_found_named_and_removed_and_one_of_nobody_stays() -> None:
    async with pooled() as w:
        instance_id = await w.create()
        assert w._control is not None
        audit = w._control.audit
        assert (await audit()).findings == []
        await w.do(instance_id, SagaKind.DELETE)
        w.fleet.roots.there |= {instance_id: (POOL, 1), STRANGER: (POOL, 1)}
        found = (await audit()).findings
        assert [(one.kind, one.where) for one in found] == [("orphaned root disk", "h1"), ("root disk left", "h1")]
        assert all(POOL in one.reason for one in found)
        done = await audit.repair([one.key for one in found])
        assert [one.kind for one in done.done] == ["root disk left"]
        assert [one.finding.kind for one in done.left] == ["orphaned root disk"]
        assert w.fleet.roots.listing(POOL) == (STRANGER,)
        row = await w.row(instance_id)
        assert (row["host"], row["root_pool"]) == (None, None)


async def test_a_root_disk_that_is_gone_is_found_and_a_pool_that_nobody_answers_for_is_named() -> None:
    async with pooled() as w:
        instance_id = await w.create()
        assert w._control is not None
        w.fleet.roots.delete(instance_id)
        found = await w._control.audit()
        assert [(one.kind, one.subject) for one in found.findings] == [("lost root disk", instance_id)]
        for host in w.fleet.hosts.values():
            host.hypervisor_is_up = False
        assert f"pool {POOL}" in [one.host for one in (await w._control.audit()).not_looked_at]


async def test_two_hosts_are_asked_for_their_pool_once_in_a_while() -> None:
    """A move within HOLDS_S of another one between these hosts writes no test object."""
    async with pooled() as w:
        instance_id = await w.create()
        written = []
        write = w.fleet.roots.note_probe

        def noted(pool: str, name: str, at_s: float) -> None:
            written.append(name)
            write(pool, name, at_s)

        w.fleet.roots.note_probe = noted  # type: ignore[method-assign]
        for wanted in (1, 1):
            assert await w.migrate(instance_id) == ("done", "")
            assert len(written) == wanted
            await w.check_pool(instance_id)


async def test_what_is_promised_of_the_pool_counts_once() -> None:
    """Hosts of 1000 GiB each that are one pool of 1000 GiB: a claim on either is one on both."""
    large = Flavor("9", "large", 1, 128, 400)
    async with pooled() as w:
        ids = []
        for _ in range(3):
            ids.append(await w.store.run(instances.create, NewInstance("p", "u", "g", "g", large, None)))
            await w.quiet()
        rows = [await w.row(instance_id) for instance_id in ids]
        assert [row["vm_state"] for row in rows] == ["active", "active", "error"], "two fit, on whichever host"
        assert "disk" in rows[2]["fault"]["message"]
        assert {one.name: one.disk_gb_used for one in await w.facts()} == {"h1": 800, "h2": 800}
        assert await w.store.read(root_pools.all_used_gb) == {POOL: 800}
        moving = await w.migrate(ids[0])
        assert moving == ("done", ""), "one that moves needs no room twice"
        assert {one.disk_gb_used for one in await w.facts()} == {800}


async def test_a_host_that_does_not_see_the_pool_is_no_destination() -> None:
    async with pooled() as w:
        instance_id = await w.create()
        source = (await w.row(instance_id))["host"]
        other = next(host for name, host in w.fleet.hosts.items() if name != source)
        probes = w.fleet.roots.probes
        w.fleet.roots.probes = Blind(probes)
        status, error = await w.migrate(instance_id)
        assert status == "undone" and f"do not see the same pool of root disks ({POOL})" in error
        w.fleet.roots.probes = probes
        await w.check_pool(instance_id)
        other.resources = replace(other.resources, root_pool="sim/other")
        await w.report()
        status, error = await w.migrate(instance_id)
        assert status == "undone" and "root disk" in error


class Blind(dict[tuple[str, str], float]):
    """A pool of the same name in which nobody finds what another has written."""

    def __contains__(self, key: object) -> bool:
        return False
