"""What is done to a volume while a guest has it: it grows, its snapshot is of held file systems, it is not moved."""

from __future__ import annotations

from typing import Any

import pytest

from droveway.domain.volume.lifecycle import Verb
from droveway.domain.volume.quota import VolumeQuotas
from droveway.store.volume import making, snapshots, volumes
from droveway.store.volume.making import Asked, NewSnapshot
from tests.control.volume_world import VolumeWorld, with_volumes
from tests.control.world import Break

QUOTAS = VolumeQuotas()
ASKED = Asked("req")


async def attached(w: VolumeWorld) -> tuple[str, str]:
    """A server that runs, and a volume that it has."""
    server, volume_id = await w.boot(), await w.volume(2)
    assert (await w.attach(server, volume_id))[0] == "done"
    w.commands.clear()
    return server, volume_id


def domain(w: VolumeWorld, server: str) -> Any:
    return next(host.domains[server] for host in w.fleet.hosts.values() if server in host.domains)


async def extend(w: VolumeWorld, volume_id: str, size_gb: int) -> None:
    await w.store.run(lambda tx: making.extend(tx, volumes.get(tx, volume_id), size_gb, ASKED, QUOTAS, ""))
    await w.quiet()


async def snapshot(w: VolumeWorld, volume_id: str) -> dict[str, Any]:
    new = NewSnapshot("u", force=True)
    made = await w.store.run(lambda tx: making.create_snapshot(tx, volumes.get(tx, volume_id), new, QUOTAS, ""))
    await w.quiet()
    return dict(await w.store.read(snapshots.get, made["id"]))


async def test_it_grows_and_its_guest_sees_it() -> None:
    async with with_volumes() as w:
        server, volume_id = await attached(w)
        await extend(w, volume_id, 5)
        assert [verb for _, verb in w.commands] == ["ExtendVolume", "GrowDisk"]
        row = await w.row(volume_id)
        assert (row["status"], row["size_gb"], row["fault"]) == ("in-use", 5, "")
        assert domain(w, server).volume_sizes == {volume_id: 5} and w.pool.volumes[volume_id].size_bytes == 5 << 30
        assert await w.has(server) == [volume_id]


async def test_a_guest_that_does_not_take_the_new_size_sees_it_later() -> None:
    async with with_volumes() as w:
        server, volume_id = await attached(w)
        w.at, w.breaks = 2, Break.REFUSED
        await extend(w, volume_id, 5)
        row = await w.row(volume_id)
        assert (row["status"], row["size_gb"]) == ("in-use", 5)
        assert "its server sees that when it starts again: h" in row["fault"]
        assert await w.has(server) == [volume_id]


@pytest.mark.parametrize("at", range(4))
async def test_its_guest_is_held_for_its_snapshot_and_goes_on_whatever_happens(at: int) -> None:
    async with with_volumes() as w:
        server, volume_id = await attached(w)
        w.at, w.breaks = at, Break.REFUSED
        made = await snapshot(w, volume_id)
        assert [verb for _, verb in w.commands][:3] == ["Freeze", "SnapshotVolume", "Thaw"]
        assert made["status"] == ("error" if at == 2 else "available"), made["fault"]
        assert (made["id"] in w.pool.volumes[volume_id].snapshots) is (at != 2)
        assert at == 3 or domain(w, server).frozen_until_s == 0.0
        assert (await w.row(volume_id))["status"] == "in-use" and await w.has(server) == [volume_id]


async def test_it_is_neither_deleted_nor_reverted_nor_moved() -> None:
    async with with_volumes() as w:
        server, volume_id = await attached(w)
        params = {"volume_type_id": None, "backend": "h1@other", "policy": "on-demand"}
        await w.store.run(lambda tx: making.begin(tx, Verb.MIGRATE, volumes.get(tx, volume_id), params, ASKED))
        await w.quiet()
        row = await w.row(volume_id)
        assert (row["status"], row["moving_to"]) == ("in-use", None) and "it is attached" in row["fault"]
        assert await w.has(server) == [volume_id] and w.opened(volume_id)[0] == w.opened(volume_id)[1]
