"""A guest moves between hosts which do not see one store: its disks go along, whatever breaks on the way, and lie in
one place afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from droveway.domain.faults import Unreachable
from droveway.domain.model import SagaKind, VmState
from droveway.drivers.hypervisor.simulated.fleet import GuestEnd
from droveway.ports.bus import Command, DropFiles
from droveway.ports.replies import Answer
from droveway.store.compute import file_cleanups, instances
from droveway.store.engine.transaction import Tx
from droveway.store.work import sagas
from tests.control.test_sagas import make_image
from tests.control.world import Break, World

VERBS = (
    "CheckDestination",
    "CheckSource",
    "RemoveProbe",
    "PrepareArrival",
    "Admit",
    "BeginCopy",
    "KeepArrival",
    "Release",
    "DropFiles",
)
ENDINGS = {"Release", "DropFiles"}  # a host never refuses them, it only may not answer


class ApartWorld(World):
    is_apart = True

    async def place(self, instance_id: str) -> str:
        return (await self.store.read(instances.get, instance_id))["host"] or ""

    async def until_clean(self) -> None:
        """What was left for later is deleted."""
        async with asyncio.timeout(30):
            while await self.store.read(file_cleanups.some, 10):
                await asyncio.sleep(0.005)

    async def check_disks(self, instance_id: str) -> None:
        """One, where it lives, and nothing of the move is left beside it."""
        place = await self.place(instance_id)
        assert [name for name, store in self.fleet.stores.items() if instance_id in store.disks] == [place]
        store = self.fleet.stores[place]
        assert store.marks == {} and store.past == set()
        assert self.fleet.violations == []

    async def migrate(self, instance_id: str, **params: Any) -> tuple[str, str]:
        saga_id = await self.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, params)
        await self.quiet()
        saga = await self.store.read(sagas.get, saga_id)
        return saga["status"], saga["error"]


@asynccontextmanager
async def apart() -> AsyncIterator[ApartWorld]:
    world = ApartWorld()
    await world.open()
    try:
        yield world
    finally:
        await world.close()


async def test_there_and_back() -> None:
    async with apart() as w:
        instance_id = await w.create()
        first = await w.place(instance_id)
        for asked in ("auto", True):
            w.commands.clear()
            assert await w.migrate(instance_id, block_migration=asked) == ("done", "")
            assert tuple(verb for _, verb in w.commands) == VERBS
            await w.check(instance_id)
            await w.check_disks(instance_id)
        assert await w.place(instance_id) == first


async def test_it_is_asked_for_by_its_name_or_left_open() -> None:
    async with apart() as w:
        instance_id = await w.create()
        status, error = await w.migrate(instance_id, block_migration=False)
        assert status == "undone" and "do not share their instance store" in error
        await w.check_disks(instance_id)
    shared = World()
    await shared.open()
    try:
        instance_id = await shared.create()
        assert await shared.do(instance_id, SagaKind.LIVE_MIGRATION, {"block_migration": True}) == "undone"
    finally:
        await shared.close()


@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize("at", range(1, len(VERBS) + 1))
async def test_broken_at_every_command(at: int, breaks: Break) -> None:
    if breaks in {Break.REFUSED, Break.REFUSED_AFTER_ACTING} and VERBS[at - 1] in ENDINGS:
        return
    async with apart() as w:
        instance_id = await w.create()
        w.commands.clear()
        w.at, w.breaks = at, breaks
        await w.migrate(instance_id)
        w.at = 0
        await w.report()
        await w.until_clean()
        await w.check(instance_id)
        await w.check_disks(instance_id)
        await w.migrate(instance_id)
        await w.check_disks(instance_id)


@pytest.mark.parametrize("gone_at", ["KeepArrival", "Release", "DropFiles"])
async def test_a_source_that_is_away_deletes_its_files_later(gone_at: str) -> None:
    async with apart() as w:
        instance_id = await w.create()
        source = await w.place(instance_id)
        other = "h2" if source == "h1" else "h1"
        w.commands.clear()
        w.gone_from[source] = VERBS.index(gone_at) + 1
        assert (await w.migrate(instance_id))[0] == "done"
        assert await w.place(instance_id) == other
        assert [row["host"] for row in await w.store.read(file_cleanups.of_instance, instance_id)] == [source]
        w.gone_from.clear()
        w.control.nudges.call(file_cleanups.DEFERRED)
        await w.until_clean()
        await w.report()
        await w.check_disks(instance_id)


async def test_a_destination_with_files_of_an_earlier_stay_deletes_them_before_others_come() -> None:
    async with apart() as w:
        instance_id = await w.create()
        source = await w.place(instance_id)
        w.commands.clear()
        w.gone_from[source] = VERBS.index("DropFiles") + 1
        await w.migrate(instance_id)
        w.gone_from.clear()
        assert (await w.migrate(instance_id))[0] == "done"
        assert await w.place(instance_id) == source
        await w.until_clean()
        await w.check_disks(instance_id)
        await w.check(instance_id)


class TwoOfThreeShare(ApartWorld):
    """h1 and h3 see one store, h2 has its own."""

    def store_of(self, host: str) -> str:
        return "one" if host in ("h1", "h3") else host


async def test_what_is_left_for_later_never_takes_the_disk_that_came_to_the_same_store() -> None:
    """It comes back to that store by another host, while the first one has not deleted what it left there."""
    w = TwoOfThreeShare(hosts=("h1", "h2", "h3"))
    await w.open()
    try:
        instance_id = await w.create()
        if await w.place(instance_id) != "h1":
            assert await w.migrate(instance_id, destination="h1") == ("done", "")
        await w.until_clean()
        w.commands.clear()
        w.gone_from["h1"] = VERBS.index("DropFiles") + 1
        assert await w.migrate(instance_id, destination="h2") == ("done", "")
        status, why = await w.migrate(instance_id, destination="h3")
        assert status == "undone" and "h1 has not deleted yet what an earlier stay of the guest has left there" in why
        assert await w.place(instance_id) == "h2"
        w.gone_from.clear()
        assert await w.migrate(instance_id, destination="h3") == ("done", "")
        assert await w.store.read(file_cleanups.of_instance, instance_id) == []
        await w.report()
        assert [name for name, store in w.fleet.stores.items() if instance_id in store.disks] == ["one"]
        await w.check(instance_id)
    finally:
        await w.close()


async def test_a_guest_that_ended_where_it_came_to_stays_there_with_its_disk() -> None:
    """At its source there is only a disk of the past."""

    class Ends(ApartWorld):
        ended = False

        async def quiet(self) -> None:
            async with asyncio.timeout(30):
                while await self.store.read(sagas.count_open):
                    for host in self.fleet.hosts.values():
                        for one in [i for i in host.domains if self.fleet.lives_on.get(i) == host.name]:
                            if self.fleet.stores[host.name].marks and not self.ended:
                                self.ended = True
                                self.fleet.end(host, one, GuestEnd.STOP)
                    await asyncio.sleep(0)

    w = Ends()
    await w.open()
    try:
        instance_id = await w.create()
        source = await w.place(instance_id)
        assert (await w.migrate(instance_id))[0] == "done" and w.ended
        assert await w.place(instance_id) != source
        await w.check_disks(instance_id)
    finally:
        await w.close()


async def test_it_is_not_made_anew_where_a_disk_of_the_past_may_lie() -> None:
    async with apart() as w:
        instance_id = await w.create()
        await w.store.run(file_cleanups.defer, "h9", instance_id, "")
        assert await w.do(instance_id, SagaKind.SHELVE, {"image_id": await make_image(w)}) == "done"
        saga_id = await w.store.run(instances.intend, instance_id, SagaKind.UNSHELVE, {})
        await w.quiet()
        assert "h9 has not deleted yet" in (await w.store.read(sagas.get, saga_id))["error"]
        await w.store.run(file_cleanups.forget, "h9", instance_id)
        assert await w.do(instance_id, SagaKind.UNSHELVE) == "done"


async def test_what_an_earlier_move_left_is_remembered_when_the_next_one_made_nothing_there() -> None:
    """Its mark tells what is to be deleted (seed 768824599)."""
    async with apart() as w:
        instance_id = await w.create()
        other = "h2" if await w.place(instance_id) == "h1" else "h1"
        handle = w.agents[other].handle

        async def drop_nothing(command: Command) -> Answer:
            if isinstance(command.verb, DropFiles):
                raise Unreachable(f"{other} is not connected")
            return await handle(command)

        w.agents[other].handle = drop_nothing  # type: ignore[method-assign]
        await w.store.run(file_cleanups.defer, other, instance_id, "an earlier move")
        status, error = await w.migrate(instance_id)
        assert status == "undone" and "has not deleted yet" in error
        left = await w.store.read(file_cleanups.of_instance, instance_id)
        assert [(row["host"], row["mark"]) for row in left] == [(other, "an earlier move")]


async def test_disks_that_find_no_room_do_not_go() -> None:
    async with apart() as w:
        instance_id = await w.create()
        other = "h2" if await w.place(instance_id) == "h1" else "h1"
        w.agents[other]._hypervisor.prepare_arrival = _full  # type: ignore[method-assign]
        status, error = await w.migrate(instance_id)
        assert status == "undone" and "is full" in error
        await w.check_disks(instance_id)


async def _full(*_: object) -> None:
    from droveway.ports.hypervisor import HypervisorRefused

    raise HypervisorRefused("The instance store is full.")


async def test_files_that_might_be_the_only_ones_go_once_the_guest_is_found_elsewhere() -> None:
    """Its host was declared gone in mid-move, and may have had it."""
    async with apart() as w:
        instance_id = await w.create()
        source = "h2" if await w.place(instance_id) == "h1" else "h1"

        def leave(tx: Tx) -> None:
            instances.set_(tx, instance_id, vm_state=VmState.ERROR.value)
            file_cleanups.defer(tx, source, instance_id, "", when_deleted=True)

        await w.store.run(leave)
        w.commands.clear()
        w.control.nudges.call(file_cleanups.DEFERRED)
        await asyncio.sleep(0.1)
        assert (source, "DropFiles") not in w.commands, "nobody knows where it is"
        await w.store.run(lambda tx: instances.set_(tx, instance_id, vm_state=VmState.ACTIVE.value))
        w.control.nudges.call(file_cleanups.DEFERRED)
        await w.until_clean()
        assert (source, "DropFiles") in w.commands
