"""What every hypervisor driver guarantees of a guest that moves between two hosts which do not see one store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from droveway.domain.guest_data import Document
from droveway.domain.model import Guest, GuestJob, GuestSpec, GuestState, LocalFiles
from droveway.ports.hypervisor import HypervisorRefused
from tests.drivers.hypervisor_worlds import LabWorld, SimulatedWorld, World, until

DOCUMENTS = (Document(("openstack/latest/meta_data.json",), b'{"hostname": "g"}'),)
MARK, OTHER = "saga-1", "saga-2"


@pytest.fixture(params=["simulated", pytest.param("libvirt", marks=pytest.mark.lab)])
def apart(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "simulated":
        return SimulatedWorld(tmp_path, apart=True)
    lab, image = request.getfixturevalue("lab_hosts")
    return LabWorld(tmp_path, lab, image, apart=True)


async def arrive(source: Any, destination: Any, spec: GuestSpec) -> Guest:
    """The whole way, each verb said twice that may be."""
    files = await source.hypervisor.local_files(spec.instance_id)
    for _ in range(2):
        await destination.hypervisor.prepare_arrival(spec, files, MARK, 1, None)
    await destination.hypervisor.admit(spec)
    await source.hypervisor.begin_migration(spec, destination.hypervisor.endpoint(), LocalFiles(files.disks))
    left: Guest = await source.until_moved(spec.instance_id)
    assert left.state is not GuestState.RUNNING, left.copy_error
    for _ in range(2):
        await destination.hypervisor.keep_arrival(spec.instance_id)
        await source.hypervisor.release(spec.instance_id)
        await source.hypervisor.drop_files(spec.instance_id, "")
    return left


async def says(hypervisor: Any, instance_id: str, holds: Callable[[str], bool]) -> None:
    async def told() -> bool:
        return holds(await hypervisor.console(instance_id, None))

    await until(told, within_s=150.0)


def play(world: World, story: Callable[[Any, GuestSpec], Awaitable[None]], **wanted: Any) -> None:
    async def told(w: Any) -> None:
        spec = replace(w.spec(), **wanted)
        await w.a.hypervisor.prepare(spec, None, DOCUMENTS)
        await story(w, spec)

    world.run(told)


def test_a_guest_takes_its_disks_along_there_and_back(apart: World) -> None:
    async def story(w: Any, spec: GuestSpec) -> None:
        a, b, guest = w.a.hypervisor, w.b.hypervisor, spec.instance_id
        await a.start(spec)
        await w.until_booted(spec)
        files = await a.local_files(guest)
        assert files.is_on_base and files.drive, "only what differs from the image is copied"
        await arrive(w.a, w.b, spec)
        running = Guest(guest, GuestState.RUNNING)
        assert (
            replace(await b.guest(guest), progress=None) == running
            and (await a.guest(guest)).state is GuestState.ABSENT
        )
        assert (guest in await a.files(), guest in await b.files()) == (False, True)
        assert await b.local_files(guest) == replace(files, disks=(await b.local_files(guest)).disks)
        assert [(one.name, one.size_bytes, one.base) for one in (await b.local_files(guest)).disks] == [
            (one.name, one.size_bytes, one.base) for one in files.disks
        ]
        await b.stop(guest, 0.0)
        await b.start(spec)
        await says(b, guest, lambda text: "BOOTED" in text)
        await arrive(w.b, w.a, spec)
        assert replace(await a.guest(guest), progress=None) == running
        assert (guest in await a.files(), guest in await b.files()) == (True, False)
        await a.remove(guest)

    play(apart, story, config_drive=True, ephemeral_gb=0, swap_mb=8)


def test_files_without_the_mark_are_nobody_s_to_take(apart: World) -> None:
    async def story(w: Any, spec: GuestSpec) -> None:
        a, b, guest = w.a.hypervisor, w.b.hypervisor, spec.instance_id
        files = await a.local_files(guest)
        with pytest.raises(HypervisorRefused, match="This host has files of guest"):
            await a.prepare_arrival(spec, files, MARK, 1, None)
        await a.drop_files(guest, MARK)
        assert guest in await a.files(), "its own bear no mark"
        await b.prepare_arrival(spec, files, OTHER, 1, None)  # an earlier move has left them
        await b.drop_files(guest, MARK)
        await b.drop_files(guest, "")
        assert guest in await b.files()
        await b.prepare_arrival(spec, files, MARK, 1, None)
        await b.drop_files(guest, OTHER)
        assert guest in await b.files()
        await b.drop_files(guest, MARK)
        assert guest not in await b.files()
        await a.start(spec)
        with pytest.raises(HypervisorRefused, match="is on this host"):
            await a.drop_files(guest, "")
        await a.remove(guest)

    play(apart, story)


def test_a_copy_that_is_aborted_leaves_the_guest_and_its_disks(apart: World) -> None:
    async def story(w: Any, spec: GuestSpec) -> None:
        a, b, guest = w.a.hypervisor, w.b.hypervisor, spec.instance_id
        await a.start(spec)
        await w.until_booted(spec)
        files = await a.local_files(guest)
        await b.prepare_arrival(spec, files, MARK, 1, None)
        await b.admit(spec)
        w.slow_copies(spec)
        await a.begin_migration(spec, b.endpoint(), LocalFiles(files.disks))
        assert (await a.guest(guest)).job is GuestJob.OUTGOING
        await a.abort_migration(guest)
        await b.dismiss(guest)
        await b.drop_files(guest, MARK)
        found = await a.guest(guest)
        assert (found.state, found.job) == (GuestState.RUNNING, GuestJob.NONE)
        assert (guest in await a.files(), guest in await b.files()) == (True, False)
        await a.remove(guest)

    play(apart, story)
