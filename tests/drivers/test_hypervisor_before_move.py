"""What every hypervisor driver says of a guest before it moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.domain.model import GuestState
from droveway.domain.move_checks import Check, first_failed
from tests.drivers.hypervisor_worlds import GIB, LabWorld, SimulatedWorld, World

MIB = 1024**2


@pytest.fixture(params=["simulated", pytest.param("libvirt", marks=pytest.mark.lab)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "simulated":
        return SimulatedWorld(tmp_path)
    lab, image = request.getfixturevalue("lab_hosts")
    return LabWorld(tmp_path, lab, image)


def test_each_check_has_an_answer_and_a_device_of_its_host_is_named(world: World) -> None:
    async def story(w: Any) -> None:
        a, b, spec = w.a.hypervisor, w.b.hypervisor, await w.boot()
        guest = spec.instance_id
        arriving = await b.check_incoming(spec, (await a.resources()).cpu_xml)
        assert {Check.NOT_THERE, Check.NUMA, Check.MACHINE, Check.CPU} <= {one.name for one in arriving}
        assert all(one.passed for one in arriving)
        there = await a.check_incoming(spec, "")
        assert [one.name for one in there if not one.passed] == [Check.NOT_THERE]
        leaving = await a.check_outgoing(guest)
        assert [one.name for one in leaving] == [Check.GUEST, Check.IO_ERROR, Check.DEVICES]
        assert all(one.passed for one in leaving)
        w.bind_device(spec)
        failed = first_failed(await a.check_outgoing(guest))
        assert failed is not None and failed.name == Check.DEVICES and "shared memory pond" in failed.reason
        await a.pause(guest)
        failed = first_failed(await a.check_outgoing(guest))
        assert failed is not None and failed.name == Check.GUEST
        failed = first_failed(await b.check_outgoing(guest))
        assert failed is not None and failed.name == Check.GUEST
        await a.remove(guest)

    world.run(story)


def test_how_fast_a_guest_writes_to_its_memory_is_measured_and_kept(world: World) -> None:
    async def story(w: Any) -> None:
        a, b, spec = w.a.hypervisor, w.b.hypervisor, await w.boot()
        guest = spec.instance_id
        assert await b.loads((guest,)) == {}
        before = (await a.loads((guest, "00000000-0000-4000-8000-000000000000")))[guest]
        assert before.dirty_bytes_per_s is None
        assert 0 < before.used_bytes <= before.memory_bytes == spec.ram_mb * MIB
        measured = (await a.loads((guest,), 1))[guest]
        assert measured.dirty_bytes_per_s is not None and measured.dirty_bytes_per_s < spec.ram_mb * MIB
        assert measured.measured_ago_s < 5.0
        assert (await a.guest(guest)).state is GuestState.RUNNING
        again = (await a.loads((guest,)))[guest]
        assert again.dirty_bytes_per_s == measured.dirty_bytes_per_s
        assert again.measured_ago_s >= measured.measured_ago_s
        await a.stop(guest, 0.0)
        assert await a.loads((guest,), 1) == {}
        await a.remove(guest)

    world.run(story)


def test_cpus_of_one_make_have_a_model_in_common_which_each_of_them_runs(world: World) -> None:
    """Where guests are emulated there is none to be had in common, and none needed."""

    async def story(w: Any) -> None:
        a, b = w.a.hypervisor, w.b.hypervisor
        cpus = [(await one.resources()).cpu_xml for one in (a, b)]
        found = await a.cpu_baseline(cpus)
        assert found or (await a.resources()).hypervisor_type == "QEMU"
        for one in (a, b):
            assert (await one.compare_cpu(found)).passed

    world.run(story)


def test_headroom_counts_what_disks_may_grow_to(world: World) -> None:
    async def story(w: Any) -> None:
        a = w.a.hypervisor
        free, least = await a.store_room_bytes(over_commits=True), await a.store_room_bytes(over_commits=False)
        assert least <= free + GIB, "what is free is counted to the byte, the other in GiB"
        spec = await w.boot(disk_gb=2)
        assert await a.store_room_bytes(over_commits=False) <= least - GIB
        await a.remove(spec.instance_id)

    world.run(story)
