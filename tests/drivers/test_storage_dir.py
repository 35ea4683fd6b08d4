"""Of the directory alone: is it there, is it the right one, and what is left of a copy that was cut off."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from droveway.domain.volume.disks import DiskFormat
from droveway.domain.volume.model import Clone, FromVolume, VolumeSpec
from droveway.drivers.storage.child import Programs
from droveway.drivers.storage.dir.marker import NAME
from droveway.ports.storage import StorageDown, StorageRefused
from lab import processes
from tests.drivers.storage_world import GIB, S1, TICKET, V1, V2
from tests.drivers.storage_worlds import DirWorld, can_mount_xfs, play

ONE = VolumeSpec(V1, 1)


def test_a_directory_that_is_missing_is_trouble_and_no_empty_pool(tmp_path: Path) -> None:
    async def story(world: DirWorld) -> None:
        await world.storage.create(ONE)
        away = world.root.rename(tmp_path / "away")
        world.root.mkdir()  # as what a mount lay over
        pool = await world.storage.pool()
        assert (pool.total_gb, pool.free_gb) == (0, 0)
        assert pool.trouble == (
            f"{world.root} is not the directory that backend fast had (there is no {NAME} in it): see that it is "
            "mounted."
        )
        for verb in (world.storage.create(VolumeSpec(V2, 1)), world.storage.delete(V2)):
            with pytest.raises(StorageRefused, match="see that it is mounted"):
                await verb
        with pytest.raises(StorageRefused, match="see that it is mounted"):
            await world.restart()
        assert list(world.root.iterdir()) == []
        world.root.rmdir()
        assert "is not there" in (await world.storage.pool()).trouble
        away.rename(world.root)
        await world.restart()
        assert (await world.storage.pool()).trouble == ""
        assert [one.volume_id for one in await world.storage.inventory()] == [V1]

    play("dir", tmp_path, story)


def test_a_directory_of_another_backend_or_of_another_time_is_refused(tmp_path: Path) -> None:
    async def story(world: DirWorld) -> None:
        await world.storage.close()
        marker = (world.root / NAME).read_text()
        for text, sentence in (
            (marker.replace("fast", "slow"), "that of backend slow, not of fast"),
            (marker.replace('"id": "', '"id": "0'), "another directory than backend fast had"),
            ("{}", "is damaged"),
        ):
            (world.root / NAME).write_text(text)
            with pytest.raises(StorageRefused, match=sentence):
                await world.make().open()
        (world.root / NAME).write_text(marker)
        with pytest.raises(StorageRefused, match="is not mounted, as is_mount of backend fast says"):
            await world.make(is_mount=True).open()

    play("dir", tmp_path, story)


def test_one_service_serves_it(tmp_path: Path) -> None:
    async def story(world: DirWorld) -> None:
        second = world.make()
        with pytest.raises(StorageRefused, match="is served by another volume service already"):
            await second.open()
        assert "already" in (await second.pool()).trouble
        await world.storage.close()
        await second.open()
        await second.close()

    play("dir", tmp_path, story)


def test_what_it_is_asked_for_in_vain_has_a_sentence(tmp_path: Path) -> None:
    async def story(world: DirWorld) -> None:
        with pytest.raises(StorageRefused, match="are raw, not qcow2"):
            await world.storage.create(VolumeSpec(V1, 1, DiskFormat.QCOW2))
        with pytest.raises(StorageRefused, match="is not an id"):
            await world.storage.delete("../etc")
        with pytest.raises(StorageRefused, match=f"Volume {V1} is not in backend fast"):
            await world.storage.extend(ONE)
        with pytest.raises(StorageRefused, match="File too large"):
            await world.storage.create(VolumeSpec(V1, 1 << 30))

    play("dir", tmp_path, story)


@pytest.mark.skipif(not can_mount_xfs(), reason="mounts a file system: needs root and mkfs.xfs")
def test_it_declares_what_its_file_system_can(tmp_path: Path) -> None:
    async def story(world: DirWorld) -> None:
        assert world.storage.guarantees.clone is Clone.INSTANT
        await world.storage.create(ONE)
        await world.put(ONE, 0, b"x" * (64 << 20))
        free_gb = (await world.storage.pool()).free_gb
        await world.storage.snapshot(V1, S1)
        await world.storage.create(VolumeSpec(V2, 1), FromVolume(V1))
        assert free_gb - (await world.storage.pool()).free_gb < 32 / 1024, "no bytes were copied"

    play("dir-xfs", tmp_path, story)


@pytest.mark.skipif(not can_mount_xfs(), reason="mounts a file system: needs root and mkfs.xfs")
def test_a_full_directory_says_so_and_keeps_nothing_half(tmp_path: Path) -> None:
    async def story(world: DirWorld) -> None:
        await world.storage.create(VolumeSpec(V1, 3))
        free_bytes = shutil.disk_usage(world.root).free
        with (world.root / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free_bytes - (16 << 20))
        image = world.image("image", b"\1" * (64 << 20))
        with pytest.raises(StorageRefused, match=r"[Nn]o (room|space)|full"):
            await world.storage.fill(VolumeSpec(V1, 3), image, TICKET)
        assert {path.name for path in world.root.glob(".new*")} <= {f".new-{V1}"}
        (world.root / "ballast").unlink()
        await world.storage.fill(VolumeSpec(V1, 3), image, TICKET)
        assert await world.bytes_of(VolumeSpec(V1, 3), 0, 2) == b"\1\1"
        assert list(world.root.glob(".new*")) == []

    play("dir-xfs", tmp_path, story)


def test_a_verb_that_is_cancelled_leaves_no_program_behind(tmp_path: Path) -> None:
    async def story(world: DirWorld) -> None:
        programs = Programs()
        task = asyncio.create_task(programs.run("coreutils", "sleep", "600.25"))
        while not _sleepers("600.25"):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert _sleepers("600.25") == []
        with pytest.raises(StorageDown, match="did not end within"):
            await programs.run("coreutils", "sleep", "600.25", within_s=0.05)
        assert _sleepers("600.25") == []
        with pytest.raises(StorageRefused, match="missing-program is not installed on this host: install its-package"):
            await programs.run("its-package", "missing-program")

    play("dir", tmp_path, story)


def test_a_service_that_is_killed_takes_its_programs_along(tmp_path: Path) -> None:
    code = (
        "import asyncio; from droveway.drivers.storage.child import Programs;"
        "asyncio.run(Programs().run('coreutils', 'sleep', '600.5'))"
    )
    service = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert processes.wait_for(lambda: bool(_sleepers("600.5")), 60)
    finally:
        service.send_signal(signal.SIGKILL)
        service.wait()
    assert processes.wait_for(lambda: not _sleepers("600.5"), 30)


def test_what_was_half_made_is_swept(tmp_path: Path) -> None:
    async def story(world: DirWorld) -> None:
        await world.storage.create(ONE)
        (world.root / ".new-half").write_bytes(b"x")
        await world.restart()
        assert not (world.root / ".new-half").exists()
        assert (world.root / f"volume-{V1}").stat().st_size == GIB
        assert shutil.disk_usage(world.root).used > 0

    play("dir", tmp_path, story)


def _sleepers(argument: str) -> list[processes.Process]:
    return [one for one in processes.everyone() if one.command() == ["sleep", argument]]
