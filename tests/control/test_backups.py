"""The stories of backups: carried out, broken at every command, with a store that goes away."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from droveway.agents.backup import BackupAgent
from droveway.agents.backup_chunks import BackupChunks
from droveway.agents.fences import MemoryFences
from droveway.control.engine.saga import ControlSettings
from droveway.domain.faults import NotFound
from droveway.domain.model import ENDED_SAGA, SagaStatus
from droveway.domain.service_kinds import BACKUP
from droveway.domain.volume.model import VolumeSpec
from droveway.domain.volume.quota import VolumeQuotas
from droveway.drivers.backups.simulated import SimulatedBackups
from droveway.drivers.storage.simulated import SimulatedStorage
from droveway.store.volume import backups, making, volumes
from droveway.store.volume.backups import NewBackup
from droveway.store.volume.making import Asked, NewVolume
from droveway.store.volume.rows import BackupRow
from droveway.store.work import sagas
from tests.control.world import SETTINGS, Break, NoBus, World

FAST = "h1@fast"
QUOTAS = VolumeQuotas()
QUICK = msgspec.structs.replace(SETTINGS, patience_s=0.3)
DATA = bytes(range(256)) * 4096  # a chunk


class BackupWorld(World):
    def __init__(self, settings: ControlSettings) -> None:
        super().__init__(settings, backends=(FAST,))
        self.objects = SimulatedBackups()

    def backup_chunks(self, host: str) -> BackupChunks:
        return BackupChunks(self.objects, self.clock, host)

    async def open(self) -> None:
        async def inline(call: Callable[[], None]) -> None:
            call()

        chunks = self.backup_chunks("h2")
        self.backends["h2", BACKUP] = BackupAgent(
            "h2", "boot", "here", chunks, NoBus(), MemoryFences(), self.clock, inline
        )
        await super().open()

    async def volume(self) -> str:
        row = await self.store.run(making.create, NewVolume("p", "u", 1), QUOTAS)
        await self.quiet()
        await self.write(row["id"], 0, DATA)
        return str(row["id"])

    async def write(self, volume_id: str, offset_bytes: int, data: bytes) -> None:
        await (await SimulatedStorage(self.pools[FAST]).writer(VolumeSpec(volume_id, 1))).write(offset_bytes, data)

    async def read(self, volume_id: str, offset_bytes: int, length_bytes: int) -> bytes:
        reader = await SimulatedStorage(self.pools[FAST]).reader(VolumeSpec(volume_id, 1))
        return await reader.read(offset_bytes, length_bytes)

    async def back_up(self, volume_id: str, *, incremental: bool = False) -> BackupRow:
        new = NewBackup("u", incremental=incremental)
        row = await self.store.run(lambda tx: backups.create(tx, volumes.get(tx, volume_id), new, QUOTAS))
        await self.quiet()
        return await self.backup(row["id"])

    async def backup(self, backup_id: str) -> BackupRow:
        return await self.store.read(backups.get, backup_id)

    async def restore(self, backup_id: str, volume_id: str | None = None) -> str:
        def write(tx: object) -> str:
            row = backups.get(tx, backup_id)  # type: ignore[arg-type]
            if volume_id is None:
                volume = making.create(tx, NewVolume("p", "u", 1), QUOTAS)  # type: ignore[arg-type]
            else:
                volume = volumes.get(tx, volume_id)  # type: ignore[arg-type]
            backups.restore(tx, row, volume, Asked("req"), is_new=volume_id is None)  # type: ignore[arg-type]
            return volume["id"]

        restored = await self.store.run(write)
        await self.quiet()
        return restored

    async def delete(self, backup_id: str) -> None:
        await self.store.run(lambda tx: backups.begin_deletion(tx, backups.get(tx, backup_id), Asked("req")))
        await self.quiet()

    async def status(self, volume_id: str) -> str:
        return (await self.store.read(volumes.get, volume_id))["status"]


@contextlib.asynccontextmanager
async def world(settings: ControlSettings = SETTINGS) -> AsyncIterator[BackupWorld]:
    one = BackupWorld(settings)
    await one.open()
    try:
        yield one
    finally:
        await one.close()


async def test_a_backup_is_made_continued_restored_and_deleted() -> None:
    async with world() as w:
        volume_id = await w.volume()
        first = await w.back_up(volume_id)
        assert (first["status"], first["host"], first["object_count"], first["fault"]) == ("available", "h2", 1, "")
        await w.write(volume_id, 3 << 20, DATA[::-1])
        second = await w.back_up(volume_id, incremental=True)
        assert (second["status"], second["object_count"], second["parent_id"]) == ("available", 2, first["id"])
        assert await w.status(volume_id) == "available"
        restored = await w.restore(second["id"])
        assert await w.status(restored) == "available"
        assert await w.read(restored, 3 << 20, len(DATA)) == DATA[::-1]
        await w.restore(first["id"], volume_id)
        assert not any(await w.read(volume_id, 3 << 20, len(DATA)))
        assert await w.status(volume_id) == "available"
        for backup_id in (second["id"], first["id"]):
            await w.delete(backup_id)
            with pytest.raises(NotFound):
                await w.backup(backup_id)
        assert w.objects.objects == {}
        assert [one.snapshots for one in w.pools[FAST].volumes.values()] == [{}, {}]


Story = Callable[[BackupWorld, str, str], Awaitable[object]]
STORIES: dict[str, tuple[Story, list[str]]] = {
    "back up": (lambda w, volume_id, _: w.back_up(volume_id, incremental=True), ["BackupVolume"]),
    "restore": (lambda w, volume_id, backup_id: w.restore(backup_id, volume_id), ["RestoreBackup"]),
    "restore anew": (lambda w, _, backup_id: w.restore(backup_id), ["CreateVolume", "RestoreBackup"]),
    "delete": (lambda w, _, backup_id: w.delete(backup_id), ["DeleteBackup", "ForgetBackup"]),
}


@pytest.mark.parametrize("breaks", [None, *Break])
@pytest.mark.parametrize(("name", "at"), [(name, n + 1) for name, s in STORIES.items() for n in range(len(s[1]))])
async def test_a_story_that_is_broken_ends_whole(name: str, at: int, breaks: Break | None) -> None:
    async with world() as w:
        volume_id = await w.volume()
        made = await w.back_up(volume_id)
        story, commands = STORIES[name]
        w.commands.clear()
        w.at, w.breaks = at, breaks
        await story(w, volume_id, made["id"])
        if breaks is None:
            assert [verb for _, verb in w.commands] == commands
        for one in await w.store.read(sagas.listing, limit=100, only_open=False):
            assert SagaStatus(one["status"]) in ENDED_SAGA, one["error"]
        refused = breaks in (Break.REFUSED, Break.REFUSED_AFTER_ACTING)
        for row in await w.store.read(volumes.on_backend, FAST):
            assert row["status"] in (("available", "error_restoring", "error") if refused else ("available",)), row
        left = {name.partition("/")[2] for name in w.objects.objects if name.startswith("backups/")}
        for backup_id in await w.store.read(backups.of_volume, volume_id):
            row = await w.backup(backup_id)
            assert row["status"] in (("available", "error", "error_deleting") if refused else ("available",)), row
            assert row["status"] != "available" or backup_id in left, "listed, and not there"


async def test_a_store_that_goes_away_leaves_an_error_with_its_sentence_and_the_next_try_goes_on() -> None:
    async with world(QUICK) as w:
        volume_id = await w.volume()
        for number in range(1, 6):
            await w.write(volume_id, number << 20, bytes([number]) * (1 << 20))
        w.objects.puts_left = 4
        failed = await w.back_up(volume_id)
        assert failed["status"] == "error" and "the store of backups does not answer" in failed["fault"]
        assert await w.status(volume_id) == "available"
        assert not [name for name in w.objects.objects if name.startswith("backups/")]
        stored = [name for name in w.objects.objects if name.startswith("chunks/")]
        w.objects.down, w.objects.puts_left = "", 1 << 62
        again = await w.back_up(volume_id)
        assert (again["status"], again["object_count"]) == ("available", 6)
        assert len(stored) >= 2 and set(stored) <= set(w.objects.objects)
        await w.delete(failed["id"])
        await w.delete(again["id"])
        assert w.objects.objects == {}


async def test_a_volume_goes_with_what_its_backups_have_left_there() -> None:
    async with world() as w:
        volume_id = await w.volume()
        made = await w.back_up(volume_id)
        await w.store.run(lambda tx: making.delete(tx, volumes.get(tx, volume_id), Asked("req")))
        await w.quiet()
        assert w.pools[FAST].volumes == {}
        restored = await w.restore(made["id"])
        assert await w.read(restored, 0, len(DATA)) == DATA
        await w.delete(made["id"])
        assert w.objects.objects == {}
