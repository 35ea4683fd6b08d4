"""What every hypervisor driver guarantees of copies of disks, of disks beside a guest's own, and of what guests use."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from droveway.domain.model import Guest, GuestState, SpareDisk
from droveway.ports.hypervisor import HypervisorRefused
from tests.drivers.hypervisor_worlds import LabWorld, World
from tests.drivers.test_hypervisor_contract import ABSENT_ID, world

__all__ = ["world"]


def test_a_disk_is_copied_whole_while_its_guest_runs_and_when_it_does_not(world: World) -> None:
    async def story(w: World) -> None:
        a, spec = w.a.hypervisor, await w.boot()
        running = Guest(spec.instance_id, GuestState.RUNNING)
        first = await a.copy_disk(spec.instance_id, "copy-1")
        assert await a.copy_disk(spec.instance_id, "copy-1") == first, "said twice it is done once"
        assert await a.guest(spec.instance_id) == running
        assert first.size_bytes > 0 and first.disk_format in ("qcow2", "raw")
        for _ in range(2):
            await a.drop_copy(spec.instance_id, "copy-1")
        await a.pause(spec.instance_id)
        await a.copy_disk(spec.instance_id, "copy-2")
        await a.stop(spec.instance_id, 0.0)
        await a.copy_disk(spec.instance_id, "copy-3")
        if isinstance(w, LabWorld):
            left = sorted(path.name for path in (w.lab.shared / spec.instance_id).glob("*copy-*"))
            assert left == ["copy-copy-3"], "an earlier one goes, and no half stays"
            told = await _qemu_img("info", str(w.lab.shared / spec.instance_id / "copy-copy-3"))
            assert "backing file" not in told and "file format: qcow2" in told
        with pytest.raises(HypervisorRefused, match="no disk here"):
            await a.copy_disk(ABSENT_ID, "copy-1")
        await a.remove(spec.instance_id)
        assert not w.has_files(spec.instance_id)

    world.run(story)


@pytest.mark.lab
def test_a_copy_that_a_dead_client_began_goes_on(world: World) -> None:
    if not isinstance(world, LabWorld):
        return

    async def story(w: World) -> None:
        spec = await w.boot()
        first = await w.client("a")
        begun = asyncio.create_task(first.hypervisor.copy_disk(spec.instance_id, "copy-1"))
        await asyncio.sleep(0.05)
        begun.cancel()
        made = await w.a.hypervisor.copy_disk(spec.instance_id, "copy-1")
        assert made.size_bytes > 0
        await w.a.hypervisor.remove(spec.instance_id)

    world.run(story)


def test_a_guest_begins_from_a_disk_beside_its_own_and_is_rebuilt_with_one(world: World) -> None:
    async def story(w: World) -> None:
        a, spec = w.a.hypervisor, await w.boot()
        for _ in range(2):
            await a.prepare_disk(spec, SpareDisk.RESCUE)
        rescued = msgspec.structs.replace(spec, rescue=True)
        await a.stop(spec.instance_id, 0.0)
        await a.start(rescued)
        if isinstance(w, LabWorld):
            assert _disks_of(w, spec.instance_id) == ["disk.rescue", "disk"]
        with pytest.raises(HypervisorRefused, match="stop it first"):
            await a.drop_disk(spec.instance_id, SpareDisk.RESCUE)
        await a.stop(spec.instance_id, 0.0)
        await a.start(spec)
        for _ in range(2):
            await a.drop_disk(spec.instance_id, SpareDisk.RESCUE)
        await a.stop(spec.instance_id, 0.0)
        with pytest.raises(HypervisorRefused):
            await a.start(rescued)
        await a.prepare_disk(spec, SpareDisk.REBUILD)
        for _ in range(2):
            await a.replace_disk(spec, (), False)
        assert await a.guest(spec.instance_id) == Guest(spec.instance_id, GuestState.SHUTOFF)
        await a.start(spec)
        found = await a.diagnostics(spec.instance_id)
        assert found.state == "running" and found.cpus and found.disks and found.memory_maximum_mb == spec.ram_mb
        await a.stop(spec.instance_id, 0.0)
        with pytest.raises(HypervisorRefused, match="does not run"):
            await a.diagnostics(spec.instance_id)
        await a.remove(spec.instance_id)
        assert not w.has_files(spec.instance_id)

    world.run(story)


def _disks_of(w: LabWorld, instance_id: str) -> list[str]:
    from tests.drivers.hypervisor_worlds import ET, libvirt_of

    with libvirt_of(w.hosts["a"].outside_uri()) as connection:
        domain = ET.fromstring(connection.lookupByUUIDString(instance_id).XMLDesc())
    return [source.get("file", "").rsplit("/", 1)[1] for source in domain.iterfind("devices/disk/source")]


async def _qemu_img(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec("qemu-img", *arguments, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    return told.decode()
