"""The stories of volumes: carried out, broken at every command, and told with their reasons."""

from __future__ import annotations

from typing import Any

import pytest

from droveway.domain.faults import NotFound
from droveway.domain.model import ENDED_SAGA, SagaStatus
from droveway.domain.volume.quota import VolumeQuotas
from droveway.store.volume import making, placements, volumes
from droveway.store.volume.making import Asked, NewVolume
from droveway.store.volume.rows import VolumeRow
from droveway.store.work import sagas
from tests.control.world import World, world

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


async def check(w: World) -> None:
    """Rows and backends agree, nothing is left over, and all has ended."""
    there = {(pool.name, volume_id) for pool in w.pools.values() for volume_id in pool.volumes}
    held = {(name, one["id"]) for name in w.pools for one in await w.store.read(volumes.on_backend, name)}
    assert there <= held, f"left over: {there - held}"
    for _, volume_id in held - there:
        assert (await row(w, volume_id))["status"] == "error", "lost"
    for one in await w.store.read(sagas.listing, limit=100, only_open=False):
        assert SagaStatus(one["status"]) in ENDED_SAGA, one["error"]


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
