"""What every hypervisor driver guarantees of the disk of a guest that is resized, or moves while it is off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.domain.model import GuestState
from droveway.ports.hypervisor import HypervisorRefused
from tests.drivers.hypervisor_worlds import GIB, LabWorld, SimulatedWorld, World

MARK, OTHER = "saga-1", "saga-2"


@pytest.fixture(params=["simulated", pytest.param("libvirt", marks=pytest.mark.lab)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "simulated":
        return SimulatedWorld(tmp_path)
    lab, image = request.getfixturevalue("lab_hosts")
    return LabWorld(tmp_path, lab, image)


async def size_gb(hypervisor: Any, instance_id: str) -> int:
    (disk,) = (await hypervisor.local_files(instance_id)).disks
    return int(disk.size_bytes // GIB)


def test_what_was_kept_is_the_disk_again_on_whichever_host_of_the_store(world: World) -> None:
    async def story(w: Any) -> None:
        a, b, spec = w.a.hypervisor, w.b.hypervisor, await w.boot(disk_gb=1)
        guest = spec.instance_id
        for verb in (a.keep_disk(guest, MARK), a.grow_root(guest, 2), a.restore_disk(guest, MARK)):
            with pytest.raises(HypervisorRefused, match="stop it first"):
                await verb
        await a.stop(guest, 0.0)
        for _ in range(2):
            await a.keep_disk(guest, MARK)
        for wanted_gb in (3, 3, 2):
            await a.grow_root(guest, wanted_gb)
        assert await size_gb(a, guest) == 3, "a disk is never made smaller"
        await a.release(guest)
        await b.start(spec)
        assert (await b.guest(guest)).state is GuestState.RUNNING
        await b.stop(guest, 0.0)
        await b.release(guest)
        await a.restore_disk(guest, OTHER)
        assert await size_gb(a, guest) == 3, "another one's copy is none of it"
        for _ in range(2):
            await a.restore_disk(guest, MARK)
        assert await size_gb(a, guest) == 1
        await a.start(spec)
        assert (await a.guest(guest)).state is GuestState.RUNNING
        await a.remove(guest)

    world.run(story)


def test_a_copy_that_is_forgotten_is_gone_while_its_guest_runs(world: World) -> None:
    async def story(w: Any) -> None:
        a, spec = w.a.hypervisor, w.spec(1)
        guest = spec.instance_id
        with pytest.raises(HypervisorRefused, match="no disk here"):
            await a.keep_disk(guest, MARK)
        await a.prepare(spec)
        await a.keep_disk(guest, MARK)
        await a.grow_root(guest, 2)
        await a.start(spec)
        for _ in range(2):
            await a.forget_kept(guest, MARK)
        await a.stop(guest, 0.0)
        await a.restore_disk(guest, MARK)
        assert await size_gb(a, guest) == 2
        await a.remove(guest)
        assert not w.has_files(guest)

    world.run(story)
