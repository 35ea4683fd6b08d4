"""The stories of volumes: carried out, broken at every command, and told with their reasons."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import insert, select

from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.model import ENDED_SAGA, SagaStatus
from droveway.domain.service_kinds import address_of
from droveway.domain.volume.lifecycle import Verb
from droveway.domain.volume.model import BackendSettings
from droveway.domain.volume.quota import VolumeQuotas
from droveway.drivers.clock import SystemNames
from droveway.drivers.storage.simulated import GIB, ImaginedSnapshot, ImaginedVolume
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.volume import making, placements, snapshots, volumes
from droveway.store.volume.making import Asked, NewSnapshot, NewVolume
from droveway.store.volume.rows import VolumeRow
from droveway.store.volume.tables import volume_messages, volume_types
from droveway.store.work import sagas
from tests.control.world import Break, World, world

FAST, SLOW = "h1@fast", "h2@slow"
BOTH = (FAST, SLOW)
QUOTAS = VolumeQuotas()


async def create(w: World, size_gb: int = 1, **more: Any) -> str:
    row = await w.store.run(making.create, NewVolume("p", "u", size_gb, **more), QUOTAS)
    await w.quiet()
    return str(row["id"])


async def row(w: World, volume_id: str) -> VolumeRow:
    return await w.store.read(volumes.get, volume_id)


async def delete(w: World, volume_id: str, **how: bool) -> None:
    await w.store.run(lambda tx: making.delete(tx, volumes.get(tx, volume_id), Asked("req"), **how))
    await w.quiet()


async def check(w: World, *, lied: bool = False) -> None:
    """Rows and backends agree, nothing is left over, and all has ended. `lied`: a backend acted, and said that it had
    not."""
    there = {(pool.name, volume_id) for pool in w.pools.values() for volume_id in pool.volumes}
    held = {(name, one["id"]) for name in w.pools for one in await w.store.read(volumes.on_backend, name)}
    assert there <= held, f"left over: {there - held}"
    for _, volume_id in held - there:
        assert (await row(w, volume_id))["status"] in ("error", "error_deleting"), "lost"
    for volume_id, one in [pair for pool in w.pools.values() for pair in pool.volumes.items()]:
        assert set(one.snapshots) <= set(await w.store.read(snapshots.of_volume, volume_id)), "a snapshot is left over"
    for one in await w.store.read(sagas.listing, limit=100, only_open=False):
        assert SagaStatus(one["status"]) in ENDED_SAGA, one["error"]
    found = {one.kind for one in (await w.control.audit()).findings}
    assert found <= ({"lost snapshot"} if lied else set())


async def test_a_volume_is_made_where_most_is_left_and_deleted() -> None:
    async with world(backends=BOTH) as w:
        w.pools[SLOW].total_gb = 50.0
        await w.look()
        volume_id = await create(w, 3)
        made = await row(w, volume_id)
        assert (made["status"], made["host"], made["fault"]) == ("available", FAST, "")
        assert w.pools[FAST].volumes[volume_id].size_bytes == 3 << 30
        (why,) = await w.store.read(placements.of_volume, volume_id)
        assert why["backend"] == FAST and [one["name"] for one in why["body"]["plan"]["ranked"]] == [FAST, SLOW]
        await check(w)
        await delete(w, volume_id)
        with pytest.raises(NotFound):
            await row(w, volume_id)
        assert w.pools[FAST].volumes == {}
        await check(w)


# -- every story, broken at every command -----------------------------------------------------------------------------
async def make_image(w: World, size_bytes: int = 512) -> str:
    new = images.NewImage(SystemNames().uuid(), "p", "i", "private", False, "bare", "raw", 0, 0, {}, [])
    image_id = str((await w.store.run(images.create, new))["id"])
    whole = {"status": "active", "size_bytes": size_bytes, "sha512": "5" * 128}
    await w.store.run(images.change, image_id, None, whole)
    return image_id


async def snapshot(w: World, volume_id: str) -> str:
    new = NewSnapshot("u")
    made = await w.store.run(lambda tx: making.create_snapshot(tx, volumes.get(tx, volume_id), new, QUOTAS, ""))
    await w.quiet()
    return str(made["id"])


async def begin(w: World, verb: Verb, volume_id: str, params: dict[str, Any]) -> None:
    await w.store.run(lambda tx: making.begin(tx, verb, volumes.get(tx, volume_id), params, Asked("req")))
    await w.quiet()


async def extend(w: World, volume_id: str, size_gb: int) -> None:
    await w.store.run(lambda tx: making.extend(tx, volumes.get(tx, volume_id), size_gb, Asked("req"), QUOTAS, ""))
    await w.quiet()


def messages_of(tx: Tx, volume_id: str) -> list[str]:
    """The sentences that its user reads."""
    found = tx.execute(select(volume_messages.c.sentence).where(volume_messages.c.resource_id == volume_id))
    return list(found.scalars())


def make_type(tx: Tx, name: str, specs: dict[str, str]) -> str:
    type_id = tx.names.uuid()
    tx.execute(
        insert(volume_types).values(id=type_id, name=name, is_public=True, extra_specs=specs, created_at_us=tx.now_us)
    )
    return type_id


Story = Callable[[World, str], Awaitable[object]]


async def _create(w: World, image_id: str) -> None:
    await create(w, image_id=image_id)


async def _upload(w: World, volume_id: str) -> None:
    new = images.NewImage(SystemNames().uuid(), "p", "i", "private", False, "bare", "raw", 0, 0, {}, [])
    image_id = (await w.store.run(images.create, new))["id"]
    await begin(w, Verb.UPLOAD, volume_id, {"image_id": image_id, "disk_format": "raw"})


async def _delete_snapshot(w: World, volume_id: str) -> None:
    (snapshot_id,) = await w.store.read(snapshots.of_volume, volume_id)
    await w.store.run(lambda tx: making.delete_snapshot(tx, snapshots.get(tx, snapshot_id), Asked("req")))
    await w.quiet()


async def _revert(w: World, volume_id: str) -> None:
    (snapshot_id,) = await w.store.read(snapshots.of_volume, volume_id)
    await begin(w, Verb.REVERT, volume_id, {"snapshot_id": snapshot_id})


async def _move(w: World, volume_id: str) -> None:
    is_fast = (await row(w, volume_id))["host"] == FAST
    away = SLOW if is_fast else FAST
    await begin(w, Verb.MIGRATE, volume_id, {"volume_type_id": None, "backend": away, "policy": "on-demand"})


async def _cascade(w: World, volume_id: str) -> None:
    await delete(w, volume_id, cascade=True)


async def _extend(w: World, volume_id: str) -> None:
    await extend(w, volume_id, 3)


STORIES: dict[str, tuple[Story, bool, list[str]]] = {  # what is done, whether to one with a snapshot, its commands
    "create": (_create, False, ["CreateVolume", "FillVolume"]),
    "delete": (delete, False, ["DeleteVolume"]),
    "cascade": (_cascade, True, ["DeleteSnapshot", "DeleteVolume"]),
    "extend": (_extend, False, ["ExtendVolume"]),
    "snapshot": (snapshot, False, ["SnapshotVolume"]),
    "delete snapshot": (_delete_snapshot, True, ["DeleteSnapshot"]),
    "revert": (_revert, True, ["RevertVolume"]),
    "upload": (_upload, False, ["SendVolume", "SendVolume"]),
    "move": (_move, False, ["SendVolume", "SendVolume", "CreateVolume", "FillVolume", "DeleteVolume"]),
}


async def act(w: World, name: str) -> None:
    """Bring a volume to where it may begin, arm the break, do it."""
    story, has_snapshot, _ = STORIES[name]
    at, w.at = w.at, 0
    if name == "create":
        subject = await make_image(w)
    else:
        subject = await create(w, 2)
        if has_snapshot:
            await snapshot(w, subject)
    w.commands.clear()
    w.at = at
    await story(w, subject)


@pytest.mark.parametrize("name", STORIES)
async def test_a_story_commands_what_it_says(name: str) -> None:
    async with world(backends=BOTH) as w:
        await act(w, name)
        assert [verb for _, verb in w.commands] == STORIES[name][2]
        await check(w)
        for pool in w.pools:
            assert {one["status"] for one in await w.store.read(volumes.on_backend, pool)} <= {"available"}


@pytest.mark.parametrize("breaks", Break)
@pytest.mark.parametrize(("name", "at"), [(name, n + 1) for name, s in STORIES.items() for n in range(len(s[2]))])
async def test_a_story_that_is_broken_ends_whole(name: str, at: int, breaks: Break) -> None:
    async with world(backends=BOTH) as w:
        w.at, w.breaks = at, breaks
        await act(w, name)
        await check(w, lied=breaks is Break.REFUSED_AFTER_ACTING)
        refused = breaks in (Break.REFUSED, Break.REFUSED_AFTER_ACTING)
        for pool in w.pools:
            for one in await w.store.read(volumes.on_backend, pool):
                settled = {"available", "error_deleting"} if refused else {"available"}
                assert one["status"] in settled and (refused or not one["fault"]), one


async def test_the_audit_repairs_what_no_row_wants() -> None:
    async with world(backends=BOTH) as w:
        volume_id = await create(w, 2)
        at = str((await row(w, volume_id))["host"])
        away = SLOW if at == FAST else FAST
        w.pools[at].volumes[volume_id].admitted.add("h2")
        w.pools[at].volumes[volume_id].snapshots["0" * 36] = ImaginedSnapshot(GIB, {})
        w.pools[away].volumes[volume_id] = ImaginedVolume(2 * GIB)
        w.pools[away].volumes["f" * 36] = ImaginedVolume(GIB)
        found = (await w.control.audit()).findings
        kinds = ["forgotten admission", "orphaned volume", "snapshots left", "volume left"]
        assert sorted(one.kind for one in found) == kinds
        await w.control.audit.repair([one.key for one in found])
        await w.quiet()
        assert [one.kind for one in (await w.control.audit()).findings] == ["orphaned volume"]
        assert (await row(w, volume_id))["status"] == "available" and volume_id not in w.pools[away].volumes


# -- what goes wrong, each with its sentence --------------------------------------------------------------------------
async def status(w: World, volume_id: str) -> tuple[str, str]:
    found = await row(w, volume_id)
    return found["status"], found["fault"]


async def said(w: World, volume_id: str) -> list[str]:
    return await w.store.read(messages_of, volume_id)


async def test_another_backend_is_tried_when_one_refuses_and_not_for_ever() -> None:
    async with world(backends=BOTH) as w:
        w.pools[FAST].refuses = w.pools[SLOW].refuses = "the pool takes nothing"
        volume_id = await create(w)
        state, fault = await status(w, volume_id)
        assert state == "error" and "No valid backend was found" in fault
        assert f"{FAST}: it refused: h1: the pool takes nothing" in fault and f"{SLOW}: it refused" in fault
        assert (await row(w, volume_id))["host"] is None and [verb for _, verb in w.commands].count("CreateVolume") == 2
        (told,) = await said(w, volume_id)
        assert told == "No valid backend was found: none is in service for it"
        w.pools[FAST].refuses = w.pools[SLOW].refuses = ""
        await check(w)
        w.pools[FAST].refuses = w.pools[SLOW].refuses = "the file system of /srv/pool/h1 is read-only"
        await create(w, requested_backend=FAST)
        assert any(
            one == "the file system of its backend's directory is read-only"
            for one in await w.store.read(lambda tx: list(tx.execute(select(volume_messages.c.sentence)).scalars()))
        )
        w.pools[FAST].refuses = w.pools[SLOW].refuses = ""
        w.pools[FAST].total_gb = 0.0
        other = await create(w)
        assert (await status(w, other))[0] == "available" and (await row(w, other))["host"] == SLOW
        await check(w)


async def test_no_room_is_told_and_nothing_is_promised_twice() -> None:
    async with world(backends=(FAST,)) as w:
        w.pools[FAST].total_gb = 5.0
        w.backends["h1", "cinder-volume@fast"]._settings = BackendSettings(max_over_subscription_ratio=1.0)
        await w.look()
        first, second = await create(w, 4), await create(w, 2)
        assert (await status(w, first))[0] == "available"
        state, fault = await status(w, second)
        assert state == "error" and "2 GiB wanted, 1 of 5 GiB that may be promised are left" in fault
        assert await said(w, second) == ["No valid backend was found: 2 GiB wanted"]
        await extend(w, first, 6)
        assert (await status(w, first))[0] == "available" and "2 GiB wanted, 1 of 5" in (await row(w, first))["fault"]
        assert (await row(w, first))["size_gb"] == 4 and (await row(w, first))["growing_to_gb"] is None
        await extend(w, first, 5)
        assert ((await row(w, first))["size_gb"], (await row(w, first))["fault"]) == (5, "")
        await check(w)


async def test_a_service_that_is_away_is_said_and_what_may_be_left_goes_later() -> None:
    async with world(backends=(FAST,)) as w:
        volume_id = await create(w)
        w.pools[FAST].down = "no route to the pool"
        await snapshot(w, volume_id)
        (snapshot_id,) = await w.store.read(snapshots.of_volume, volume_id)
        made = await w.store.read(snapshots.get, snapshot_id)
        assert made["status"] == "error" and "no route to the pool" in made["fault"]
        other = await create(w)
        left = await row(w, other)
        assert (left["status"], left["host"]) == ("error", FAST), "something of it may be there"
        assert "no route to the pool (asked for" in left["fault"]
        w.pools[FAST].down = ""
        await delete(w, other)
        await delete(w, volume_id, cascade=True)
        assert not w.pools[FAST].volumes and await w.store.read(volumes.on_backend, FAST) == []
        await check(w)


async def test_a_snapshot_with_copies_stays_and_names_them() -> None:
    async with world(backends=(FAST,)) as w:
        volume_id = await create(w, 2)
        snapshot_id = await snapshot(w, volume_id)
        copy = await create(w, 3, snapshot_id=snapshot_id)
        assert w.pools[FAST].volumes[copy].made_of == snapshot_id
        await _delete_snapshot(w, volume_id)
        kept = await w.store.read(snapshots.get, snapshot_id)
        assert kept["status"] == "available" and copy in kept["fault"]
        with pytest.raises(BadRequest, match=f"volumes are made that hang on them: {copy}; delete these first"):
            await delete(w, volume_id, cascade=True)
        assert (await status(w, volume_id))[0] == "available", "nothing has begun"
        assert (await w.store.read(snapshots.get, snapshot_id))["status"] == "available"
        await delete(w, copy)
        await delete(w, volume_id, cascade=True)
        assert not w.pools[FAST].volumes
        await check(w)


async def test_what_it_was_to_be_made_of_is_gone() -> None:
    async with world(backends=(FAST,)) as w:
        source = await create(w)
        made = await w.store.run(making.create, NewVolume("p", "u", 1, source_volume_id=source), QUOTAS)
        await w.store.run(volumes.remove, source)
        await w.quiet()
        state, fault = await status(w, made["id"])
        assert state == "error" and f"Volume {source} could not be found" in fault
        w.pools[FAST].volumes.pop(source, None)
        await check(w)


async def test_a_type_decides_where_and_a_retype_moves_only_when_it_may() -> None:
    async with world(backends=BOTH) as w:
        type_id = await w.store.run(make_type, "slow", {"volume_backend_name": "slow"})
        for pool in (FAST, SLOW):
            _, service = address_of(pool, "cinder-volume")
            agent = w.backends[pool.partition("@")[0], service]
            agent._settings = BackendSettings(volume_backend_name=pool.partition("@")[2])
        w.pools[SLOW].total_gb = 50.0
        await w.look()
        typed = await create(w, volume_type=(type_id, "slow"))
        assert (await row(w, typed))["host"] == SLOW
        plain = await create(w)
        assert (await row(w, plain))["host"] == FAST
        for policy, where in (("never", FAST), ("on-demand", SLOW)):
            params = {"volume_type_id": type_id, "backend": None, "policy": policy}
            await begin(w, Verb.RETYPE, plain, params)
            found = await row(w, plain)
            assert (found["status"], found["host"]) == ("available", where), found["fault"]
            assert ("slow is wanted" in found["fault"]) is (policy == "never")
        assert (await row(w, plain))["volume_type_id"] == type_id
        await check(w)
