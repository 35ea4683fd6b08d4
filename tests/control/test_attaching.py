"""Volumes that a server gets and gives back: with a guest that runs and with one that does not, and whatever breaks.

A volume is attached once, and is free only when no host is admitted to it any more.
"""

from __future__ import annotations

from typing import Any

import pytest

from droveway.domain.faults import BadRequest, Conflict
from droveway.domain.liveness import State
from droveway.domain.model import SagaKind
from droveway.domain.volume.model import VolumeStatus
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import declared, hosts, services
from droveway.store.volume import volumes
from droveway.store.work import sagas
from tests.control.volume_world import with_volumes
from tests.control.world import Break

ATTACH, DETACH = SagaKind.ATTACH_VOLUME, SagaKind.DETACH_VOLUME


async def test_a_running_server_gets_volumes_keeps_them_and_gives_them_back() -> None:
    async with with_volumes() as world:
        server, one, two = await world.boot(), await world.volume(), await world.volume()
        assert await world.attach(server, one) == ("done", "")
        assert await world.attach(server, two) == ("done", "")
        assert await world.has(server) == [one, two]
        first = await world.attachment(one)
        assert first is not None and first["device"] == "vdb"
        for kind in (SagaKind.HARD_REBOOT, SagaKind.STOP, SagaKind.START, SagaKind.PAUSE):
            assert await world.do(server, kind) == "done"
            assert await world.has(server) == [one, two], kind
        assert await world.do(server, SagaKind.UNPAUSE) == "done"
        assert await world.detach(server, one) == ("done", "")
        assert await world.is_free(one) and await world.has(server) == [two]
        assert await world.attach(server, one) == ("done", ""), "once more"
        assert await world.has(server) == [two, one]
        assert await world.do(server, SagaKind.DELETE) == "done"
        assert await world.is_free(one) and await world.is_free(two)
        await world.check(server)


async def test_a_server_that_is_stopped_or_shelved_has_it_when_it_starts() -> None:
    async with with_volumes() as world:
        server, one, two = await world.boot(), await world.volume(), await world.volume()
        assert await world.do(server, SagaKind.STOP) == "done"
        world.commands.clear()
        assert await world.attach(server, one) == ("done", "")
        assert [verb for _, verb in world.commands] == ["AdmitVolume"], "no guest is given it"
        assert await world.has(server) == [one]
        assert await world.do(server, SagaKind.START) == "done"
        assert await world.has(server) == [one]
        assert await world.do(server, SagaKind.STOP) == "done"
        assert await world.detach(server, one) == ("done", "")
        assert await world.is_free(one)
        assert await world.attach(server, two) == ("done", "")
        assert await world.do(server, SagaKind.START) == "done"
        assert await world.has(server) == [two]


async def test_a_guest_that_runs_though_its_row_says_stopped_is_given_it_and_lets_go_of_it_first() -> None:
    """It was started by a command that was answered with a failure, or by hand: a volume that it has is not free."""
    async with with_volumes() as world:
        server, one, two = await world.boot(), await world.volume(), await world.volume()
        assert await world.attach(server, one) == ("done", "")
        host = (await world.store.read(instances.get, server))["host"] or ""
        disks = world.fleet.hosts[host].domains[server].volumes
        assert await world.do(server, SagaKind.STOP) == "done"
        world.fleet.run(world.fleet.hosts[host], server, 128, (), disks)
        assert await world.attach(server, two) == ("done", "")
        assert await world.detach(server, one) == ("done", "")
        assert list(world.fleet.hosts[host].domains[server].volumes) == [two]


@pytest.mark.matrix
@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize("at", [1, 2])
async def test_whatever_breaks_at_an_attachment_it_is_whole_or_not_there(breaks: Break, at: int) -> None:
    async with with_volumes() as world:
        server, one = await world.boot(), await world.volume()
        world.commands.clear()
        world.at, world.breaks = at, breaks
        status, error = await world.attach(server, one)
        world.at = 0
        refused = breaks in {Break.REFUSED, Break.REFUSED_AFTER_ACTING}
        assert (status, bool(error)) == (("undone", True) if refused else ("done", False))
        assert await world.has(server) == ([] if refused else [one])
        if refused:
            assert await world.is_free(one)
        assert world.commands[0][1] == "AdmitVolume"
        await world.check(server)


@pytest.mark.matrix
@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize("at", [1, 2])
async def test_whatever_breaks_at_a_detachment_it_is_gone_or_whole(breaks: Break, at: int) -> None:
    async with with_volumes() as world:
        server, one = await world.boot(), await world.volume()
        assert await world.attach(server, one) == ("done", "")
        world.commands.clear()
        world.at, world.breaks = at, breaks
        status, _ = await world.detach(server, one)
        world.at = 0
        refused = at == 1 and breaks in {Break.REFUSED, Break.REFUSED_AFTER_ACTING}
        assert status == ("undone" if refused else "done")
        assert await world.has(server) == ([one] if refused else [])
        if not refused:
            await until_free(world, one)
        await world.check(server)


def declare(tx: Tx, host: str) -> None:
    services.record_verdicts(tx, [services.Verdict(host, hosts.COMPUTE, State.DEAD, "it is dead", tx.now_us)])
    declared.declare_gone(tx, host, "burnt")


async def until_free(world: Any, volume_id: str) -> None:
    await world.quiet()
    assert await world.is_free(volume_id)


async def test_a_guest_that_does_not_let_go_keeps_its_volume_and_the_reason_is_said() -> None:
    async with with_volumes() as world:
        server, one = await world.boot(), await world.volume()
        assert await world.attach(server, one) == ("done", "")
        world.fleet.keeps_nics.add(server)
        status, error = await world.detach(server, one)
        assert status == "undone" and f"has not let go of volume {one} within 20 s" in error
        assert await world.has(server) == [one]
        world.fleet.keeps_nics.clear()
        assert await world.detach(server, one) == ("done", "")
        world.fleet.keeps_nics.add(server)
        world.commands.clear()
        world.at, world.breaks = 2, Break.REFUSED_AFTER_ACTING
        assert await world.attach(server, one) == ("done", ""), "what it keeps when that is undone it has"
        assert await world.has(server) == [one]


async def test_a_volume_is_attached_once() -> None:
    async with with_volumes() as world:
        here, there, one = await world.boot(), await world.boot(), await world.volume()
        first = await world.store.run(world.intend_attach, here, one)
        for server in (here, there):
            with pytest.raises(BadRequest, match="Invalid volume"):
                await world.store.run(world.intend_attach, server, one)
        assert await world.ended(first) == ("done", "")
        with pytest.raises(BadRequest):
            await world.store.run(world.intend_attach, there, one)
        assert await world.has(here) == [one] and await world.has(there) == []


async def test_several_wait_for_their_turn_and_a_deletion_waits_for_none() -> None:
    async with with_volumes() as world:
        server = await world.boot()
        several = [await world.volume() for _ in range(3)]
        ids = [await world.store.run(world.intend_attach, server, one) for one in several]
        await world.quiet()
        assert [(await world.store.read(sagas.get, one))["status"] for one in ids] == ["done"] * 3
        assert await world.has(server) == several
        devices = [(await world.attachment(one))["device"] for one in several]  # type: ignore[index]
        assert devices == ["vdb", "vdc", "vdd"]
        more = [await world.volume() for _ in range(3)]
        ids = [await world.store.run(world.intend_attach, server, one) for one in more]
        with pytest.raises(Conflict, match="while its attach_volume is under way"):
            await world.store.run(instances.intend, server, SagaKind.STOP, {})
        await world.store.run(instances.intend, server, SagaKind.DELETE, {})
        with pytest.raises(Conflict, match="task_state deleting"):
            await world.store.run(world.intend_attach, server, await world.volume())
        await world.quiet()
        for one in (*several, *more):
            assert await world.is_free(one)


async def test_a_backend_that_is_away_lets_nobody_else_have_the_volume() -> None:
    async with with_volumes() as world:
        server, one, two = await world.boot(), await world.volume(), await world.volume()
        assert await world.attach(server, one) == ("done", "")
        world.pool.down = "nobody answers"
        status, error = await world.attach(server, two)
        assert status == "undone" and "nobody answers" in error
        assert (await world.row(two))["status"] != VolumeStatus.IN_USE
        saga = await world.store.run(lambda tx: instances.intend(tx, server, SagaKind.DELETE, {}))
        assert await world.ended(saga) == ("done", "")
        assert (await world.row(one))["status"] == VolumeStatus.DETACHING, "its host may be admitted still"
        other = await world.boot()
        with pytest.raises(BadRequest):
            await world.store.run(world.intend_attach, other, one)
        world.pool.down = ""
        await world.quiet()
        assert await world.is_free(one) and await world.is_free(two)


async def test_what_a_host_that_was_declared_gone_has_open_is_cut_off_first() -> None:
    async with with_volumes(hosts=("h1", "h2")) as world:
        server, one = await world.boot(), await world.volume()
        host = (await world.store.read(instances.get, server))["host"]
        if host == "h2":
            assert await world.do(server, SagaKind.LIVE_MIGRATION) == "done"
            host = "h1"
        assert await world.attach(server, one) == ("done", "")
        world.gone_from = {host: 0}
        await world.store.run(declare, host)
        await world.control.admission.look()
        assert await world.detach(server, one) == ("done", "")
        assert await world.is_free(one), "its guest has it open no longer, wherever that is"


async def test_what_fails_is_told_and_nothing_is_left() -> None:
    async with with_volumes() as world:
        server, one = await world.boot(), await world.volume()
        await world.store.run(lambda tx: volumes.set_(tx, one, status="error", fault="it broke"))
        with pytest.raises(BadRequest, match="error"):
            await world.store.run(world.intend_attach, server, one)
        await world.store.run(lambda tx: volumes.set_(tx, one, status="available", host=None))
        status, error = await world.attach(server, one)
        assert status == "undone" and "lies on no backend" in error
        assert (await world.row(one))["status"] == VolumeStatus.AVAILABLE and await world.attachment(one) is None


async def test_a_server_begins_from_a_volume_and_leaves_it_or_takes_it_along() -> None:
    async with with_volumes() as world:
        root, more = await world.volume(), await world.volume()
        server = await world.boot(more, root=root)
        assert await world.has(server) == [root, more]
        row = await world.store.read(instances.get, server)
        assert row["vm_state"] == "active" and row["disk_gb"] == 0, "its host gives it no disk"
        attached = await world.attachment(root)
        assert attached is not None and attached["device"] == "vda"
        status, error = await world.detach(server, root)
        assert status == "undone" and "root disk" in error
        for kind in (SagaKind.HARD_REBOOT, SagaKind.STOP, SagaKind.START):
            assert await world.do(server, kind) == "done"
            assert await world.has(server) == [root, more], kind
        assert await world.do(server, SagaKind.DELETE) == "done"
        assert await world.is_free(root) and await world.is_free(more)


@pytest.mark.matrix
@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize("at", range(1, 5))
async def test_whatever_breaks_at_a_boot_from_volumes_it_runs_or_nothing_is_left(breaks: Break, at: int) -> None:
    async with with_volumes() as world:
        root, more = await world.volume(), await world.volume()
        world.at, world.breaks = at, breaks
        server = await world.boot(more, root=root)
        world.at = 0
        row = await world.store.read(instances.get, server)
        assert row["vm_state"] == "active", row["fault"]
        assert await world.has(server) == [root, more]
        await world.check(server)
        assert await world.do(server, SagaKind.DELETE) == "done"
        assert await world.is_free(root) and await world.is_free(more)
