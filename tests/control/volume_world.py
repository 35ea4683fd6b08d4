"""A world with the service of one imagined backend, whose volumes simulated guests open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from droveway.control.engine.saga import ControlSettings
from droveway.domain.model import ENDED_SAGA, SagaKind, VmState, of_instance
from droveway.domain.volume.disks import SimulatedSource, VolumeDisk
from droveway.domain.volume.model import VolumeSpec, VolumeStatus
from droveway.drivers.hypervisor.simulated.fleet import Openings
from droveway.drivers.storage.simulated import SimulatedPool, SimulatedStorage
from droveway.store.compute import instances, server_volumes
from droveway.store.engine.transaction import Tx
from droveway.store.volume import attachments, volumes
from droveway.store.volume.attachments import NewAttachment
from droveway.store.volume.rows import AttachmentRow, VolumeRow
from droveway.store.work import sagas
from tests.control.world import SETTINGS, TINY, World

PROJECT, BACKEND, ON = "p", "b", "h2"
VOLUME_HOST = f"{ON}@{BACKEND}"


class PoolOpenings(Openings):
    """What simulated hypervisors meet when they open the volumes of these pools."""

    def __init__(self, *pools: SimulatedPool) -> None:
        self._pools = {pool.name.rpartition("@")[2]: pool for pool in pools}
        self.cut: list[tuple[str, str]] = []

    def _pool(self, disk: VolumeDisk) -> SimulatedPool | None:
        return self._pools.get(disk.source.backend) if isinstance(disk.source, SimulatedSource) else None

    def why_not(self, host: str, disk: VolumeDisk) -> str:
        pool = self._pool(disk)
        volume = None if pool is None else pool.volumes.get(disk.volume_id)
        if volume is None or host not in volume.admitted:
            return "this host was not admitted to it"
        assert isinstance(disk.source, SimulatedSource), "it has a pool"
        return "" if disk.source.host in ("", host) else f"that is how {disk.source.host} opens it"

    def opened(self, host: str, disk: VolumeDisk) -> None:
        pool = self._pool(disk)
        if pool is not None:
            pool.open_by(disk.volume_id, host)

    def closed(self, host: str, disk: VolumeDisk) -> None:
        pool = self._pool(disk)
        if pool is not None:
            pool.closed_by(disk.volume_id, host)


class VolumeWorld(World):
    def __init__(self, settings: ControlSettings = SETTINGS, hosts: Sequence[str] = ("h1", "h2")) -> None:
        super().__init__(settings, hosts, (VOLUME_HOST,))
        self.pool = self.pools[VOLUME_HOST]
        self.fleet.openings = PoolOpenings(self.pool)

    # -- acts ---------------------------------------------------------------------------------------------------------
    async def volume(self, size_gb: int = 1) -> str:
        """One that is there and free."""

        def write(tx: Tx) -> str:
            row = _row(tx, size_gb)
            volumes.insert_row(tx, row)
            return row["id"]

        volume_id = await self.store.run(write)
        await SimulatedStorage(self.pool).create(VolumeSpec(volume_id, size_gb))
        return volume_id

    async def boot(self, *volume_ids: str, root: str = "", goes: bool = False) -> str:
        """A server with those volumes; from `root`, if that is one."""

        def write(tx: Tx) -> str:
            return instances.create(
                tx,
                instances.NewInstance(
                    PROJECT,
                    "u",
                    "g",
                    "g",
                    TINY,
                    None,
                    volumes=tuple(
                        NewAttachment(one, boot_index=0 if one == root else -1, delete_on_termination=goes)
                        for one in ((root,) if root else ()) + volume_ids
                    ),
                ),
            )

        server = await self.store.run(write)
        async with asyncio.timeout(30):
            while await self.store.read(sagas.active_of, of_instance(server)) is not None:
                await asyncio.sleep(0.002)
        return server

    def intend_attach(self, tx: Tx, server: str, volume_id: str) -> str:
        row = instances.get(tx, server)
        attachment_id = server_volumes.reserve(tx, row, NewAttachment(volume_id))
        params = {"volume_id": volume_id, "attachment_id": attachment_id}
        return instances.intend(tx, server, SagaKind.ATTACH_VOLUME, params)

    async def attach(self, server: str, volume_id: str) -> tuple[str, str]:
        return await self.ended(await self.store.run(self.intend_attach, server, volume_id))

    async def detach(self, server: str, volume_id: str) -> tuple[str, str]:
        def write(tx: Tx) -> str:
            row = attachments.of_volume(tx, volume_id)
            assert row is not None
            params = {"volume_id": volume_id, "attachment_id": row["id"]}
            return instances.intend(tx, server, SagaKind.DETACH_VOLUME, params)

        return await self.ended(await self.store.run(write))

    async def ended(self, saga_id: str) -> tuple[str, str]:
        async with asyncio.timeout(30):
            while (saga := await self.store.read(sagas.get, saga_id))["status"] not in ENDED_SAGA:
                await asyncio.sleep(0.002)
        if not self.pool.down:
            await self.quiet()
        return saga["status"], saga["error"]

    # -- checks -------------------------------------------------------------------------------------------------------
    async def row(self, volume_id: str) -> VolumeRow:
        return await self.store.read(volumes.get, volume_id)

    async def attachment(self, volume_id: str) -> AttachmentRow | None:
        return await self.store.read(attachments.of_volume, volume_id)

    def opened(self, volume_id: str) -> tuple[list[str], list[str]]:
        """The hosts that are admitted to it, and those whose guest has it open."""
        volume = self.pool.volumes[volume_id]
        return sorted(volume.admitted), sorted(volume.open_by)

    async def has(self, server: str) -> list[str]:
        """The volumes of the server, which rows, guest and backend tell alike; each is where the server is."""
        row = await self.store.read(instances.get, server)
        there = await self.store.read(attachments.of_instance, server)
        ids = [one["volume_id"] for one in there]
        runs = row["vm_state"] in {VmState.ACTIVE, VmState.PAUSED}
        for one in there:
            assert (one["host"], one["to_host"], one["status"]) == (row["host"], None, "attached")
            assert (await self.row(one["volume_id"]))["status"] == VolumeStatus.IN_USE
            where = [row["host"]] if row["host"] else []
            assert self.opened(one["volume_id"]) == (where, where if runs else [])
        if runs:
            domain = self.fleet.hosts[row["host"] or ""].domains[server]
            assert sorted(domain.volumes) == sorted(ids)
            assert {disk.device for disk in domain.volumes.values()} == {one["device"] for one in there}
        return ids

    async def is_free(self, volume_id: str) -> bool:
        row, attached = await self.row(volume_id), await self.attachment(volume_id)
        return (row["status"], attached, self.opened(volume_id)) == (VolumeStatus.AVAILABLE, None, ([], []))


def _row(tx: Tx, size_gb: int) -> VolumeRow:
    return VolumeRow(
        id=tx.names.uuid(),
        project_id=PROJECT,
        user_id="u",
        name=None,
        description=None,
        created_at_us=tx.now_us,
        updated_at_us=None,
        size_gb=size_gb,
        status=VolumeStatus.AVAILABLE.value,
        previous_status=None,
        migration_status=None,
        zone="nova",
        host=VOLUME_HOST,
        moving_to=None,
        volume_type_id=None,
        snapshot_id=None,
        source_volume_id=None,
        image_id=None,
        disk_format="raw",
        bootable=False,
        read_only=False,
        metadata={},
        image_metadata={},
        hints=None,
        growing_to_gb=None,
        fault="",
        launched_at_us=None,
        fence=0,
    )


@contextlib.asynccontextmanager
async def with_volumes(
    settings: ControlSettings = SETTINGS, hosts: Sequence[str] = ("h1", "h2")
) -> AsyncIterator[VolumeWorld]:
    one = VolumeWorld(settings, hosts)
    await one.open()
    try:
        yield one
    finally:
        await one.close()
