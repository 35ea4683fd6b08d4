"""Volumes in a simulated world: imagined backends on some of its hosts, what holds of them at any time, and at rest.

Not every world has them. Those that have draw what is about volumes from a stream of their own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from droveway.domain import service_kinds
from droveway.domain.service_kinds import VOLUME
from droveway.domain.volume.disks import SimulatedSource, VolumeDisk
from droveway.domain.volume.model import BackendSettings, SnapshotStatus, VolumeStatus
from droveway.drivers.hypervisor.simulated.fleet_parts import Openings
from droveway.drivers.storage.simulated import SimulatedPool
from droveway.simulation.once_bad import before_volumes
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.volume.rows import AttachmentRow, SnapshotRow, VolumeRow
from droveway.store.volume.tables import snapshots, volume_attachments, volumes

if TYPE_CHECKING:
    from droveway.simulation.machines import DiskFences
    from droveway.simulation.world import World

SHARE = 0.16  # of the seeds: one of them costs nearly twice as much
BACKENDS, POOL_GB = 2, 14.0
STEP_S, SLOW_S, SLOW = 0.2, 6.0, 0.03  # what a backend takes for a deed, and for some of them
SETTINGS = BackendSettings(max_over_subscription_ratio=1.0)
THERE = frozenset({VolumeStatus.AVAILABLE, VolumeStatus.RESERVED, VolumeStatus.IN_USE})
AT_REST = THERE | {VolumeStatus.ERROR, VolumeStatus.ERROR_DELETING, VolumeStatus.ERROR_EXTENDING}
MAY_BE_LOST = frozenset({VolumeStatus.ERROR, VolumeStatus.ERROR_DELETING})
_VOLUMES, _SNAPSHOTS = Prepared(select(volumes)), Prepared(select(snapshots))
_ATTACHMENTS = Prepared(select(volume_attachments))
_PROMISED = Prepared(
    select(volumes.c.host, func.sum(volumes.c.size_gb)).where(volumes.c.host.is_not(None)).group_by(volumes.c.host)
)


def are_played(seed: int) -> bool:
    """Seeds that were bad before there were volumes tell what they told then."""
    return seed not in before_volumes() and random.Random(f"are there volumes in {seed}").random() < SHARE


class PoolOpenings(Openings):
    """What simulated hypervisors meet when they open the volumes of these pools, by the names of their backends."""

    def __init__(self, pools: dict[str, SimulatedPool]) -> None:
        self._pools = pools

    def _pool(self, disk: VolumeDisk) -> SimulatedPool | None:
        return self._pools.get(disk.source.backend) if isinstance(disk.source, SimulatedSource) else None

    def why_not(self, host: str, disk: VolumeDisk) -> str:
        pool = self._pool(disk)
        volume = None if pool is None else pool.volumes.get(disk.volume_id)
        if volume is None or host not in volume.admitted:
            return "this host was not admitted to it"
        let_to = disk.source.host if isinstance(disk.source, SimulatedSource) else ""
        return "" if let_to in ("", host) else f"that is how {let_to} opens it"

    def opened(self, host: str, disk: VolumeDisk) -> None:
        pool = self._pool(disk)
        if pool is not None:
            pool.open_by(disk.volume_id, host)

    def closed(self, host: str, disk: VolumeDisk) -> None:
        pool = self._pool(disk)
        if pool is not None:
            pool.closed_by(disk.volume_id, host)


class GuestVolumes:
    """Those of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rng = random.Random(f"volumes of {world.seed}")
        self.pools: dict[str, SimulatedPool] = {}  # by HOST@BACKEND
        self.fences: dict[str, DiskFences] = {}  # likewise
        self._by_backend: dict[str, SimulatedPool] = {}
        world.fleet.openings = PoolOpenings(self._by_backend)

    def add_host(self, name: str, fences: DiskFences) -> tuple[str, ...]:
        """The services of the backends that it has."""
        number = len(self.pools)
        if number >= BACKENDS:
            return ()
        backend = f"b{number}"
        pool = self.pools[f"{name}@{backend}"] = self._by_backend[backend] = SimulatedPool(backend, POOL_GB)
        self.fences[f"{name}@{backend}"] = fences
        pool.pause, pool.cut = self._pause, self._cut_off
        return (f"{VOLUME}@{backend}",)

    async def _pause(self) -> None:
        await asyncio.sleep(self.rng.random() * (SLOW_S if self.rng.random() < SLOW else STEP_S))

    def _cut_off(self, volume_id: str, host: str) -> None:
        """Its guest there reads and writes it no longer."""
        for domain in self._world.fleet.hosts[host].domains.values():
            domain.volumes.pop(volume_id, None)

    # -- faults -------------------------------------------------------------------------------------------------------
    def any_pool(self) -> SimulatedPool:
        return self.pools[self.rng.choice(list(self.pools))]

    def mend(self) -> None:
        for pool in self.pools.values():
            pool.down = pool.refuses = ""
            pool.hangs.set()

    # -- what holds at any time ---------------------------------------------------------------------------------------
    def look(self) -> list[str]:
        broken = [reason for pool in self.pools.values() for reason in pool.violations]
        return broken + self._world.database.look(self._look)

    def _look(self, tx: Tx) -> list[str]:
        found = [
            f"{total} GiB of backend {name} are promised, and it has {POOL_GB:g}"
            for name, total in tx.execute(_PROMISED)
            if total > POOL_GB
        ]
        return found + list(self._lost(VolumeSnapshot(tx)))

    def _lost(self, seen: VolumeSnapshot) -> Iterator[str]:
        """What is shown as there lies on its backend."""
        for row in seen.volumes.values():
            if row["status"] in THERE and row["id"] not in self._on(row["host"]):
                yield f"volume {row['id']} is {row['status']} on {row['host']}, and does not lie there"
        for one in seen.snapshots.values():
            if one["status"] == SnapshotStatus.AVAILABLE:
                of = seen.volumes.get(one["volume_id"])
                there = None if of is None else self._on(of["host"]).get(of["id"])
                if there is None or one["id"] not in there.snapshots:
                    yield f"snapshot {one['id']} of {one['volume_id']} is available and is not there"

    def _on(self, backend: str | None) -> dict[str, Any]:
        return dict(self.pools[backend].volumes) if backend in self.pools else {}

    # -- what holds at rest -------------------------------------------------------------------------------------------
    def at_rest(self) -> list[str]:
        seen = self._world.database.look(VolumeSnapshot)
        return [*self._rows(seen), *self._left_over(seen), *self._exports(seen), *self._guests(seen)]

    def _rows(self, seen: VolumeSnapshot) -> Iterator[str]:
        for row in seen.volumes.values():
            attached = row["id"] in seen.attached
            if row["status"] not in AT_REST or ((row["status"] == VolumeStatus.AVAILABLE) and attached):
                yield f"volume {row['id']} rests as {row['status']}, attached: {attached}"
            if row["moving_to"] is not None or row["growing_to_gb"] is not None:
                yield f"volume {row['id']} still claims room: {row['moving_to']} {row['growing_to_gb']}"
            there = self._on(row["host"]).get(row["id"])
            if there is not None and row["status"] in THERE and there.size_bytes != row["size_gb"] << 30:
                yield f"volume {row['id']} has {there.size_bytes} bytes, and its row says {row['size_gb']} GiB"
        for one in seen.snapshots.values():
            if one["status"] not in (SnapshotStatus.AVAILABLE, SnapshotStatus.ERROR, SnapshotStatus.ERROR_DELETING):
                yield f"snapshot {one['id']} rests as {one['status']}"

    def _left_over(self, seen: VolumeSnapshot) -> Iterator[str]:
        for name, pool in self.pools.items():
            for volume_id, there in pool.volumes.items():
                row = seen.volumes.get(volume_id)
                if row is None or row["host"] != name:
                    yield f"volume {volume_id} lies on {name}, and its row says {row and row['host']}"
                for snapshot_id in there.snapshots:
                    if snapshot_id not in seen.snapshots:
                        yield f"snapshot {snapshot_id} of {volume_id} lies on {name} and has no row"

    def _exports(self, seen: VolumeSnapshot) -> Iterator[str]:
        """A host is admitted to what its server has, and to nothing else. The row may name a host that has left: its
        backend had no longer answered when a guest moved away, and the next move asks it again."""
        for name, pool in self.pools.items():
            for volume_id, there in pool.volumes.items():
                row = seen.attached.get(volume_id)
                wanted = set() if row is None else {host for host in (row["host"], row["to_host"]) if host}
                least = {row["host"]} - {None} if row is not None else set()
                if not least <= there.admitted <= wanted or not there.open_by <= wanted:
                    yield (
                        f"volume {volume_id} on {name} admits {sorted(there.admitted)}, is open on "
                        f"{sorted(there.open_by)}, and its row says {sorted(wanted)}"
                    )

    def _guests(self, seen: VolumeSnapshot) -> Iterator[str]:
        """Every attachment is a server's that has it."""
        lives_on = self._world.fleet.lives_on
        for volume_id, row in seen.attached.items():
            host = lives_on.get(row["instance_id"] or "")
            if host is not None:
                domain = self._world.fleet.hosts[host].domains[row["instance_id"] or ""]
                if volume_id not in domain.volumes:
                    yield f"volume {volume_id} is attached to {row['instance_id']}, which runs on {host} without it"
        for instance_id, host in lives_on.items():
            for volume_id in self._world.fleet.hosts[host].domains[instance_id].volumes:
                row_of = seen.attached.get(volume_id)
                if row_of is None or row_of["instance_id"] != instance_id:
                    yield f"guest {instance_id} has volume {volume_id}, and no row says so"


class VolumeSnapshot:
    """What the store says of volumes, read at one moment."""

    def __init__(self, tx: Tx) -> None:
        self.volumes = {row["id"]: row for row in results.every(VolumeRow, tx.execute(_VOLUMES))}
        self.snapshots = {row["id"]: row for row in results.every(SnapshotRow, tx.execute(_SNAPSHOTS))}
        self.attached = {row["volume_id"]: row for row in results.every(AttachmentRow, tx.execute(_ATTACHMENTS))}


def backend_of(host: str, service: str) -> str:
    """As it stands in rows."""
    return service_kinds.row_of(host, service)[0]
