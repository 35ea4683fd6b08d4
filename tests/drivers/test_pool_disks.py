"""Root disks in a pool, as their driver asks a cluster for them; this one keeps names and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from droveway.domain.model import GuestSpec, ImageRef
from droveway.drivers.clock import SystemClock
from droveway.drivers.hypervisor.libvirt.pool_disks import PoolDisks, PoolSettings
from droveway.drivers.images.shared_path import SharedPathImages
from droveway.drivers.storage.rbd.cluster import Cluster, RbdImage, RbdSettings
from droveway.drivers.storage.rbd.image_cache import BASE, image_name

G = "6f0c2f0e-0000-4000-8000-000000000001"
OLD, NEW = (ImageRef(f"image-{digit}", "raw", 512, digit * 128, "/nowhere") for digit in "12")


class Names:
    """As much of a cluster as disks are made with."""

    def __init__(self) -> None:
        self.found: dict[str, RbdImage] = {}

    async def look(self, image: str) -> RbdImage | None:
        return self.found.get(image)

    async def images(self) -> list[str]:
        return sorted(self.found)

    async def purge(self) -> None:
        """It keeps no trash."""

    async def clone(self, parent: str, snapshot: str, image: str) -> None:
        assert snapshot == BASE
        self.found[image] = RbdImage(512, parent=parent)

    async def resize(self, image: str, size_bytes: int) -> None:
        self.found[image] = self.found[image]._replace(size_bytes=size_bytes)

    async def rename(self, image: str, name: str) -> None:
        assert name not in self.found
        self.found[name] = self.found.pop(image)

    async def remove(self, image: str) -> None:
        self.found.pop(image, None)


def pool_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Names, PoolDisks]:
    cluster = Names()
    settings = PoolSettings("h1", RbdSettings("conf", "user", "pool"), "conf", "keyring", directory)
    pool = PoolDisks(settings, cast(Cluster, cluster), SharedPathImages("h1"), SystemClock())
    monkeypatch.setattr(pool, "_fsid", "fsid")
    return cluster, pool


async def test_a_disk_beside_gives_way_to_one_of_another_image_and_a_root_disk_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, pool = pool_in(tmp_path, monkeypatch)

    async def cached(image: ImageRef, *_: Any) -> tuple[tuple[str, str], int]:
        return (image_name(image), BASE), 512

    monkeypatch.setattr(pool._cache, "make", cached)
    for image in (OLD, NEW):
        spec = GuestSpec(G, "g", 1, 128, 1, image, root_pool="fsid/pool")
        await pool.make(spec, None)
        for _ in range(2):
            await pool.make(spec, None, "rebuild")
    parents = {name: found.parent for name, found in cluster.found.items()}
    assert parents == {f"{G}_disk": image_name(OLD), f"{G}_disk.rebuild": image_name(NEW)}
    cluster.found[f"{G}_disk"] = cluster.found[f"{G}_disk"]._replace(size_bytes=512)  # as a host that ended has left it
    await pool.make(GuestSpec(G, "g", 1, 128, 1, OLD, root_pool="fsid/pool"), None)
    assert cluster.found[f"{G}_disk"].size_bytes == 1 << 30


async def test_disks_of_a_pool_are_listed_by_their_instance_and_all_of_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another host had half made goes with them; images, test objects and what is not ours stay."""
    cluster, pool = pool_in(tmp_path, monkeypatch)
    other = G.replace("6f0c", "7f0c")
    its = {f"{G}_disk", f"{G}_disk.rescue", f"new-h2+{G}_disk", f"new-h+2+{G}_disk.rebuild"}
    kept = {f"{other}_disk", "image-0-raw", "new-h1+image-1-raw", f"probe-{G}", f"probe-{G}_disk", "somebody's_disk"}
    cluster.found = dict.fromkeys(its | kept, RbdImage(512))
    assert await pool.listing() == ("fsid/pool", (G, other))
    await pool.remove_all(G)
    assert set(cluster.found) == kept
