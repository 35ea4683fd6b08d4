"""Every saga, failed at every command in every way: it ends done or undone, and the world agrees with the rows.

The hosts are simulated ones behind real agents; the bus between them and control breaks exactly where it is told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from droveway.control.sagas import STORIES
from droveway.control.sagas.volumes import STORIES_OF_VOLUMES
from droveway.domain.faults import Conflict
from droveway.domain.model import Flavor, SagaKind, of_saga
from droveway.domain.resize import sizes_of
from droveway.drivers.clock import SystemNames
from droveway.drivers.hypervisor.simulated.fleet import Durations
from droveway.store.compute import instances, migrations
from droveway.store.compute.instances import NewInstance
from droveway.store.image import images
from droveway.store.work import events, sagas
from tests.control.world import SETTINGS, TINY, Break, Bug, World, world

BEFORE = {
    SagaKind.START: SagaKind.STOP,
    SagaKind.UNPAUSE: SagaKind.PAUSE,
    SagaKind.RESUME: SagaKind.SUSPEND,
    SagaKind.UNRESCUE: SagaKind.RESCUE,
    SagaKind.UNSHELVE: SagaKind.SHELVE,
    SagaKind.RESTORE: SagaKind.SOFT_DELETE,
    SagaKind.CONFIRM_RESIZE: SagaKind.RESIZE_SERVER,
    SagaKind.REVERT_RESIZE: SagaKind.RESIZE_SERVER,
}
LARGER = msgspec.to_builtins(sizes_of(Flavor("2", "larger", 2, 256, 2), begins_from_volume=False))
PARAMS = {SagaKind.RESET_STATE: {"state": "active"}, SagaKind.RESIZE_SERVER: {"becomes": LARGER}}


MAKES_IMAGE, TAKES_IMAGE = {SagaKind.CREATE_IMAGE, SagaKind.SHELVE}, {SagaKind.REBUILD, SagaKind.RESCUE}


async def make_image(w: World) -> str:
    """A queued one."""
    new = images.NewImage(SystemNames().uuid(), "p", "i", "private", False, "bare", "qcow2", 0, 0, {}, [])
    return str((await w.store.run(images.create, new))["id"])


async def params_of(w: World, kind: SagaKind) -> dict[str, Any]:
    if kind in MAKES_IMAGE:
        return {"image_id": await make_image(w)}
    if kind in TAKES_IMAGE:
        image_id = await make_image(w)
        whole = {"status": "active", "size_bytes": 512, "sha512": "5" * 128}
        await w.store.run(images.change, image_id, None, whole)
        return {"image_id": image_id}
    return PARAMS.get(kind, {})


async def act(w: World, kind: SagaKind) -> str:
    """Bring an instance to where `kind` may begin, arm the break, do it; the instance."""
    if kind is SagaKind.BOOT:
        w.commands.clear()
        return await w.create()
    at, w.at = w.at, 0
    instance_id = await w.create()
    if kind in BEFORE:
        await w.do(instance_id, BEFORE[kind], await params_of(w, BEFORE[kind]))
    w.commands.clear()
    w.at = at
    params = await params_of(w, kind)
    await w.do(instance_id, kind, params)
    return instance_id


def commands_of(kind: SagaKind) -> list[str]:
    """What that saga commands when nothing goes wrong."""

    async def story() -> list[str]:
        async with world() as w:
            instance_id = await act(w, kind)
            await w.check(instance_id)
            return [verb for _, verb in w.commands]

    return asyncio.run(story())


EXPECTED = {
    SagaKind.BOOT: ["Prepare", "Start"],
    SagaKind.DELETE: ["Remove"],
    SagaKind.STOP: ["Stop"],
    SagaKind.START: ["Start"],
    SagaKind.HARD_REBOOT: ["PowerCycle"],
    SagaKind.SOFT_REBOOT: ["PowerCycle"],
    SagaKind.PAUSE: ["Pause"],
    SagaKind.UNPAUSE: ["Unpause"],
    SagaKind.SUSPEND: ["Suspend"],
    SagaKind.RESUME: ["Start"],
    SagaKind.TRIGGER_CRASH_DUMP: ["InjectNmi"],
    SagaKind.RESET_STATE: [],
    SagaKind.CREATE_IMAGE: ["CopyDisk", "SendCopy", "SendCopy", "DropCopy"],
    SagaKind.REBUILD: ["PrepareDisk", "ReplaceDisk", "Start"],
    SagaKind.RESCUE: ["PrepareDisk", "PowerCycle"],
    SagaKind.UNRESCUE: ["PowerCycle", "DropDisk"],
    SagaKind.SHELVE: ["Stop", "CopyDisk", "SendCopy", "SendCopy", "DropCopy", "Remove"],
    SagaKind.UNSHELVE: ["Prepare", "Start"],
    SagaKind.SOFT_DELETE: ["Stop"],
    SagaKind.RESTORE: ["Start"],
    SagaKind.COLD_MIGRATION: ["CheckDestination", "RemoveProbe", "Stop", "KeepDisk", "Start", "Release"],
    SagaKind.RESIZE_SERVER: ["CheckDestination", "RemoveProbe", "Stop", "KeepDisk", "GrowRoot", "Start", "Release"],
    SagaKind.CONFIRM_RESIZE: ["ForgetKept"],
    SagaKind.REVERT_RESIZE: ["Stop", "RestoreDisk", "Start", "Release"],
    SagaKind.LIVE_MIGRATION: ["CheckDestination", "CheckSource", "RemoveProbe", "Admit", "BeginCopy", "Release"],
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_way_forward(kind: SagaKind) -> None:
    assert commands_of(kind) == EXPECTED[kind]


@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize(("kind", "at"), [(k, n + 1) for k, verbs in EXPECTED.items() for n in range(len(verbs))])
async def test_broken_at_every_command(kind: SagaKind, at: int, breaks: Break) -> None:
    if breaks in {Break.REFUSED, Break.REFUSED_AFTER_ACTING} and EXPECTED[kind][at - 1] in {"Remove", "Release"}:
        return  # these end what is left: a host never refuses them, it only may not answer
    async with world() as w:
        w.at, w.breaks = at, breaks
        instance_id = await act(w, kind)
        w.at = 0
        for image in await w.store.read(images.find, images.Filters("p")):
            assert image["status"] == "active", "whole, or gone"
        if kind is not SagaKind.DELETE:
            await w.report()  # a host that acted and then refused is found out by its next report
        await w.check(instance_id)


@pytest.mark.parametrize("number", range(1, 11))
@pytest.mark.parametrize("kind", [SagaKind.BOOT, SagaKind.DELETE, SagaKind.LIVE_MIGRATION])
async def test_a_store_that_fails_once_is_waited_out(kind: SagaKind, number: int) -> None:
    async with world() as w:
        if kind is SagaKind.BOOT:
            instance_id = await w.store.run(instances.create, NewInstance("p", "u", "g", "g", TINY, None))
        else:
            instance_id = await w.create()
            await w.store.run(instances.intend, instance_id, kind, {})
        w.store.fail_at = w.store.writes + number
        await w.quiet()
        await w.check(instance_id)
        one = (await w.store.read(sagas.listing, limit=1, only_open=False))[0]
        assert one["status"] == "done"


async def test_a_broken_saga_holds_its_instance_until_it_is_retried() -> None:
    async with world() as w:
        instance_id = await w.create()
        w.at, w.breaks = 5, Bug.BUG
        saga_id = await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})
        async with asyncio.timeout(30):
            while (await w.store.read(sagas.get, saga_id))["status"] != "broken":
                await asyncio.sleep(0.005)
        with pytest.raises(Conflict, match="live_migration is broken"):
            await w.store.run(instances.intend, instance_id, SagaKind.STOP, {})
        assert w.on_notice is not None
        for agent in w.agents.values():  # the guests loop looks, and keeps its hands off
            w.on_notice(await agent.reports.full())
        await asyncio.sleep(0.05)
        assert (await w.store.read(instances.get, instance_id))["vm_state"] == "active"
        await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})  # waits behind it
        await w.store.run(sagas.retry, saga_id)
        await w.quiet()
        await w.check(instance_id)
        assert (await w.store.read(instances.get, instance_id, None, deleted=True))["deleted"]


@pytest.mark.parametrize("host", ["the source", "the destination"])
async def test_a_host_that_is_gone_does_not_hold_a_guest_that_runs_elsewhere(host: str) -> None:
    async with world() as w:
        instance_id = await w.create()
        source = (await w.store.read(instances.get, instance_id))["host"]
        other = "h2" if source == "h1" else "h1"
        gone = source if host == "the source" else other
        # The source is gone once the guest has switched, the destination in the middle of being told of it.
        w.gone_from = {gone: 6 if host == "the source" else 4}
        w.commands.clear()
        saga_id = await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})
        await w.quiet()
        row = await w.store.read(instances.get, instance_id)
        assert row["task_state"] is None and row["host"] != gone
        told = [t for e in await w.store.read(events.of_subject, of_saga(saga_id)) for t in e["body"]["ticks"]]
        assert any(t["mark"] == "~" and "left for later" in t["text"] for t in told)
        assert await w.runs_on(instance_id) == [row["host"]]


async def _boots_after_trouble(retry_s: float, is_over: Callable[[World, str], Awaitable[None]]) -> None:
    patient = msgspec.structs.replace(SETTINGS, patience_s=60.0, retry_s=retry_s, retry_max_s=30.0)
    async with world(patient) as w:
        w.trouble = "the broker is away"
        instance_id = await w.store.run(instances.create, NewInstance("p", "u", "g", "g", TINY, None))
        await is_over(w, instance_id)
        assert (await w.store.read(instances.get, instance_id))["host"] and not w.commands
        w.trouble = ""
        await w.quiet()
        assert (await w.store.read(instances.get, instance_id))["vm_state"] == "active"


def test_what_waits_for_a_host_goes_on_at_once_when_the_broker_is_back() -> None:
    async def is_over(w: World, instance_id: str) -> None:
        await asyncio.sleep(0.5)

    asyncio.run(_boots_after_trouble(30.0, is_over))


def test_a_connection_that_blinks_costs_no_more_than_the_shortest_pause() -> None:
    async def is_over(w: World, instance_id: str) -> None:
        while not (await w.store.read(instances.get, instance_id))["host"]:
            await asyncio.sleep(0.002)  # and nobody has looked whether the broker is there

    asyncio.run(_boots_after_trouble(0.2, is_over))


async def test_a_disk_that_takes_long_is_waited_for() -> None:
    async with world() as w:
        w.fleet.durations = Durations(prepare=(3.5, 3.5))
        instance_id = await w.create()
        await w.check(instance_id)
        assert [verb for _, verb in w.commands] == ["Prepare", "Prepare", "Start"]
        assert (await w.store.read(instances.get, instance_id))["vm_state"] == "active"


async def test_a_saga_that_is_cancelled_before_its_pivot_is_undone() -> None:
    async with world() as w:
        instance_id = await w.create()
        saga_id = await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})
        await w.store.run(sagas.cancel, saga_id, "somebody thought better of it")
        await w.quiet()
        saga = await w.store.read(sagas.get, saga_id)
        assert saga["status"] == "undone" and "thought better" in saga["error"]
        assert (await w.store.read(migrations.find))[0]["status"] == "cancelled"
        await w.check(instance_id)


async def test_a_delete_waits_for_the_saga_it_cancels() -> None:
    async with world() as w:
        instance_id = await w.create()
        await w.store.run(instances.intend, instance_id, SagaKind.LIVE_MIGRATION, {})
        first = await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})
        again = await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})
        await w.quiet()
        assert (await w.store.read(sagas.get, first))["status"] == "done"
        assert again == first or (await w.store.read(sagas.get, again))["status"] == "done"
        await w.check(instance_id)


async def test_the_ticks_tell_what_happened_and_why() -> None:
    async with world() as w:
        w.at, w.breaks = 2, Break.REFUSED
        await act(w, SagaKind.BOOT)
        _, saga = await w.store.read(sagas.listing, limit=2, only_open=False)  # the last one tried h2
        told = [
            (t["mark"], t["step"])
            for e in await w.store.read(events.of_subject, of_saga(saga["id"]))
            for t in e["body"]["ticks"]
        ]
        assert told == [
            ("+", "create_ports"),
            ("+", "find_volumes"),
            ("+", "choose_host"),
            ("+", "bind_ports"),
            ("+", "take_along"),
            ("+", "prepare_guest"),
            ("!", "start_guest"),
            ("-", "prepare_guest"),
            ("-", "choose_host"),
        ]
        assert "broken on purpose" in saga["error"]


def test_every_saga_has_its_cases() -> None:
    elsewhere = {SagaKind.ATTACH_INTERFACE, SagaKind.DETACH_INTERFACE}  # test_interfaces.py: they need networks
    elsewhere |= {SagaKind.ATTACH_VOLUME, SagaKind.DETACH_VOLUME, SagaKind.FREE_VOLUME}  # test_attaching.py
    elsewhere |= {SagaKind.CREATE_BACKUP, SagaKind.SHELVE_OFFLOAD}  # those of CREATE_IMAGE; the end of SHELVE
    elsewhere |= {SagaKind(story.kind) for story in STORIES_OF_VOLUMES}  # test_volumes.py
    assert set(STORIES) == set(SagaKind) == EXPECTED.keys() | elsewhere
