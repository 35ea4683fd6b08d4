"""What every hypervisor driver guarantees of the volumes of a guest."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from droveway.domain.guest_data import Document
from droveway.domain.model import GuestState
from droveway.domain.volume.disks import DiskFormat, FileSource, NbdSource, SimulatedSource, VolumeDisk
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.drivers.hypervisor.simulated.fleet import Openings
from droveway.pki import disk_identity, x509
from droveway.ports.hypervisor import HypervisorRefused
from tests.drivers.hypervisor_worlds import BOOTS_S, Client, LabWorld, SimulatedWorld, World, until

LETS_GO_S = 30.0
NOW_US, DAY_US = SystemClock().now_us(), 24 * 3600 * 1_000_000


class Closed(Openings):
    def why_not(self, host: str, disk: VolumeDisk) -> str:
        return "it is not admitted"


@pytest.fixture(params=["simulated", pytest.param("libvirt", marks=pytest.mark.lab)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "simulated":
        return SimulatedWorld(tmp_path)
    lab, image = request.getfixturevalue("lab_hosts")
    return LabWorld(tmp_path, lab, image)


def test_volumes_come_grow_move_and_go_while_the_guest_runs(world: World) -> None:
    async def story(w: World) -> None:
        a, b = w.a.hypervisor, w.b.hypervisor
        one, two = w.volume(), replace(w.volume(DiskFormat.QCOW2, limits={"total_iops_sec": 500}), device="vdc")
        spec = w.spec()
        await a.attach_disk(spec.instance_id, one)
        assert (await a.guest(spec.instance_id)).state is GuestState.ABSENT, "nothing to do for one that does not run"
        await a.detach_disk(spec.instance_id, one.volume_id, 1.0)
        await a.grow_disk(spec.instance_id, one.volume_id, 2)
        await a.prepare(spec)
        await a.start(spec)
        with pytest.raises(HypervisorRefused, match=f"has no volume {one.volume_id}"):
            await a.grow_disk(spec.instance_id, one.volume_id, 2)
        for _ in range(2):
            await a.attach_disk(spec.instance_id, one)
        await a.attach_disk(spec.instance_id, two)
        there = [("vdb", one.volume_id), ("vdc", two.volume_id)]
        assert w.volumes_of("a", spec.instance_id) == there
        w.grow(one, 2)
        for _ in range(2):
            await a.grow_disk(spec.instance_id, one.volume_id, 2)
        assert w.size_seen("a", spec.instance_id, one) == 2
        await w.until_booted(spec)
        await w.move(spec)
        assert w.volumes_of("b", spec.instance_id) == there, "a move takes them along"
        await a.release(spec.instance_id)
        for _ in range(2):
            await b.detach_disk(spec.instance_id, one.volume_id, LETS_GO_S)
        assert w.volumes_of("b", spec.instance_id) == there[1:]
        await b.stop(spec.instance_id, 0.0)
        await b.detach_disk(spec.instance_id, two.volume_id, 1.0)
        await b.start(replace(spec, volumes=(replace(one, size_gb=2), two)))
        assert w.volumes_of("b", spec.instance_id) == there, "those of its spec, each at its device"
        await b.remove(spec.instance_id)

    world.run(story)


def test_a_guest_begins_from_a_volume_and_its_host_makes_no_disk_of_it(world: World) -> None:
    async def story(w: World) -> None:
        image = w.image()
        data = b"" if isinstance(w, SimulatedWorld) else raw_of(w, Path(image.path))
        root = replace(w.volume(data=data), device="vda", boot_index=0)
        spec = replace(w.spec(), image=None, disk_gb=0, ephemeral_gb=1, volumes=(root,))
        await w.a.hypervisor.prepare(spec)
        await w.a.hypervisor.start(spec)
        await w.until_booted(spec)
        assert w.volumes_of("a", spec.instance_id) == [("vda", root.volume_id)]
        await w.a.hypervisor.stop(spec.instance_id, 0.0)
        await w.a.hypervisor.start(spec)
        await w.a.hypervisor.remove(spec.instance_id)
        assert not w.has_files(spec.instance_id)

    world.run(story)


def raw_of(world: World, image: Path) -> bytes:
    path = world.tmp_path / "root.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(image), str(path)], check=True)
    return path.read_bytes()


def test_a_guest_that_does_not_let_go_keeps_its_volume(world: World) -> None:
    async def story(w: World) -> None:
        one = w.volume()
        spec = replace(w.deaf(), volumes=(one,))
        await w.a.hypervisor.prepare(spec)
        await w.a.hypervisor.start(spec)
        with pytest.raises(HypervisorRefused, match=f"has not let go of volume {one.volume_id} within 1 s"):
            await w.a.hypervisor.detach_disk(spec.instance_id, one.volume_id, 1.0)
        assert w.volumes_of("a", spec.instance_id) == [("vdb", one.volume_id)]
        assert (await w.a.hypervisor.guest(spec.instance_id)).state is GuestState.RUNNING
        await w.a.hypervisor.remove(spec.instance_id)

    world.run(story)


def test_a_volume_that_this_host_cannot_open_is_refused_and_the_guest_has_what_it_had(world: World) -> None:
    async def story(w: World) -> None:
        one = w.volume()
        if isinstance(w, SimulatedWorld):
            w.fleet.openings, why = Closed(), "it is not admitted"
        else:
            one, why = replace(one, source=FileSource("elsewhere", "x")), "no directory of backend elsewhere"
        spec = w.spec()
        await w.a.hypervisor.prepare(spec)
        await w.a.hypervisor.start(spec)
        with pytest.raises(HypervisorRefused, match=why):
            await w.a.hypervisor.attach_disk(spec.instance_id, one)
        assert w.volumes_of("a", spec.instance_id) == []
        await w.a.hypervisor.stop(spec.instance_id, 0.0)
        with pytest.raises(HypervisorRefused, match=why):
            await w.a.hypervisor.start(replace(spec, volumes=(one,)))
        assert (await w.a.hypervisor.guest(spec.instance_id)).state in (GuestState.SHUTOFF, GuestState.ABSENT)
        await w.a.hypervisor.remove(spec.instance_id)

    world.run(story)


@pytest.mark.lab
def test_what_a_guest_wrote_is_never_taken_for_a_header(
    lab_hosts: tuple[object, object], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A raw volume that begins as a qcow2 with a backing file: the guest has its own bytes, of the volume's size."""
    lab, image = request.getfixturevalue("lab_hosts")
    secret, header = tmp_path / "secret", tmp_path / "header"
    secret.write_bytes(b"s" * 4096)
    backed = ("create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(header), "5G")
    subprocess.run(["qemu-img", *backed], check=True)

    async def story(w: World) -> None:
        one = w.volume(data=header.read_bytes())
        spec = w.spec()
        await w.a.hypervisor.prepare(spec)
        await w.a.hypervisor.start(spec)
        await w.a.hypervisor.attach_disk(spec.instance_id, one)
        assert w.size_seen("a", spec.instance_id, one) == 1
        with pytest.raises(HypervisorRefused, match="imagined backend"):
            imagined = replace(w.volume(), source=SimulatedSource("b", one.volume_id), device="vdd")
            await w.a.hypervisor.attach_disk(spec.instance_id, imagined)
        await w.a.hypervisor.remove(spec.instance_id)

    LabWorld(tmp_path, lab, image).run(story)


def test_a_guests_file_systems_are_held_for_a_moment(world: World) -> None:
    async def story(w: World) -> None:
        a = w.a.hypervisor
        spec = await w.boot()
        assert await a.freeze(spec.instance_id) is isinstance(w, SimulatedWorld), "one without an agent holds none"
        for _ in range(2):
            await a.thaw(spec.instance_id)
        await a.remove(spec.instance_id)
        assert await a.freeze(spec.instance_id) is False

    world.run(story)


FILLER = b"#!/bin/sh\ndd if=/dev/urandom of=/dev/vdb bs=1M count=24; echo ALL $?\n"
WRITER = b"""#!/bin/sh
i=0
while true; do
  i=$((i+1))
  printf 'tick %06d\\n' $i | dd of=/dev/vdb bs=12 seek=$i conv=notrunc,fsync 2>/dev/null && echo "WROTE $i"
done
"""


@pytest.mark.lab
def test_a_guest_that_writes_its_volume_meanwhile_moves_and_loses_nothing(
    lab_hosts: tuple[object, object], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab, image = request.getfixturevalue("lab_hosts")
    told = (
        Document(("openstack/latest/meta_data.json",), b'{"hostname":"writer"}'),
        Document(("openstack/latest/user_data", "ec2/latest/user-data"), WRITER),
    )

    async def story(w: World) -> None:
        one = w.volume()
        spec = replace(w.spec(), config_drive=True, volumes=(one,))
        await w.a.hypervisor.prepare(spec, None, told)
        await w.a.hypervisor.start(spec)
        wrote = 0

        async def writes_on(client: Client) -> None:
            nonlocal wrote
            before = wrote

            async def has_written() -> bool:
                nonlocal wrote
                said = re.findall(r"^WROTE (\d+)\r?$", await client.hypervisor.console(spec.instance_id, None), re.M)
                wrote = int(said[-1]) if said else 0
                return wrote > before + 5

            await until(has_written, within_s=BOOTS_S)

        await writes_on(w.a)
        await w.move(spec)
        await w.a.hypervisor.release(spec.instance_id)
        await writes_on(w.b)
        await w.b.hypervisor.stop(spec.instance_id, 0.0)
        data = (lab.shared / "volumes" / one.volume_id).read_bytes()[: 12 * (wrote + 1)]
        ticks = [data[12 * number : 12 * number + 12] for number in range(1, wrote + 1)]
        assert ticks == [b"tick %06d\n" % number for number in range(1, wrote + 1)], "what was answered for is there"
        await w.b.hypervisor.remove(spec.instance_id)

    LabWorld(tmp_path, lab, image).run(story)


@pytest.mark.full
@pytest.mark.lab
def test_a_guest_whose_pool_is_full_waits_and_goes_on_when_there_is_room(
    lab_hosts: tuple[object, object], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab, image = request.getfixturevalue("lab_hosts")
    small = lab.shared / "volumes"
    small.mkdir(exist_ok=True)
    told = (
        Document(("openstack/latest/meta_data.json",), b'{"hostname":"writer"}'),
        Document(("openstack/latest/user_data",), FILLER),
    )

    async def story(w: World) -> None:
        run = w.hosts["a"].run  # type: ignore[attr-defined]
        assert run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)).returncode == 0
        try:
            one = w.volume()
            path = w.hosts["a"].outside(str(small)) / one.volume_id  # type: ignore[attr-defined]
            path.touch()
            os.truncate(path, 1 << 30)
            spec = replace(w.spec(), config_drive=True, volumes=(one,))
            a = w.a.hypervisor
            await a.prepare(spec, None, told)
            await a.start(spec)

            async def is_stalled() -> bool:
                return (await a.guest(spec.instance_id)).state is GuestState.PAUSED

            await until(is_stalled, within_s=BOOTS_S)
            await a.resume_stalled()  # type: ignore[attr-defined]
            await until(is_stalled)
            assert "ALL" not in await a.console(spec.instance_id, None)
            assert run("mount", "-o", "remount,size=64m", str(small)).returncode == 0
            await a.resume_stalled()  # type: ignore[attr-defined]

            async def has_written() -> bool:
                return "ALL 0" in await a.console(spec.instance_id, None)

            await until(has_written)
            await a.remove(spec.instance_id)
        finally:
            run("umount", "-l", str(small))

    LabWorld(tmp_path, lab, image).run(story)


@pytest.mark.full
@pytest.mark.lab
@pytest.mark.skipif(shutil.which("nbdkit") is None, reason="nbdkit is not installed")
def test_a_guest_opens_a_served_volume_by_its_hosts_own_certificate_and_outlives_its_server(
    lab_hosts: tuple[object, object], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    lab, image = request.getfixturevalue("lab_hosts")
    export = SystemNames().uuid()
    host, server = lab.host("h1"), lab.host("h2")
    cloud_key, cloud_ca = x509.make_authority("cloud", NOW_US, NOW_US + DAY_US, DAY_US)
    own_ca = disk_identity.ensure(host.state / "pki" / "droveway-disks", "h1", cloud_ca, NOW_US)
    key, tls = x509.make_key(), tmp_path / "tls"
    signed = x509.sign(
        x509.authority(cloud_key, cloud_ca),
        x509.public_key(x509.request(key, "h2")),
        "7",
        "h2",
        "droveway://hosts/h2",
        (server.address,),
        NOW_US - DAY_US,
        NOW_US + DAY_US,
    )
    tls.mkdir()
    for name, text in (("ca-cert.pem", own_ca), ("server-cert.pem", signed), ("server-key.pem", key)):
        (tls / name).write_text(text)
    data = tmp_path / "data"
    data.touch()
    os.truncate(data, 1 << 30)
    words = ("nbdkit", "-f", "-i", server.address, "-p", "10809", "-e", export, "--tls=require")
    words += (f"--tls-certificates={tls}", "--tls-verify-peer", "file", str(data))

    async def story(w: World) -> None:
        serving = await asyncio.create_subprocess_exec(*server.command(*words))
        one = replace(w.volume(), source=NbdSource(server.address, 10809, export))
        told = (
            Document(("openstack/latest/meta_data.json",), b'{"hostname":"writer"}'),
            Document(("openstack/latest/user_data",), FILLER),
        )
        try:
            spec = replace(w.spec(), config_drive=True, volumes=(one,))
            a = w.a.hypervisor
            await a.prepare(spec, None, told)
            await a.start(spec)

            async def has_written() -> bool:
                await a.resume_stalled()  # type: ignore[attr-defined]
                return "ALL 0" in await a.console(spec.instance_id, None)

            async def writes() -> bool:
                return data.stat().st_blocks > 0

            await until(writes, within_s=BOOTS_S)
            await end(server, "nbdkit")
            await serving.wait()
            serving = await asyncio.create_subprocess_exec(*server.command(*words))
            await until(has_written, within_s=BOOTS_S)
            await a.remove(spec.instance_id)
        finally:
            await end(server, "nbdkit")
            await serving.wait()

    LabWorld(tmp_path, lab, image).run(story)


async def end(host: Any, program: str) -> None:
    """In that host's own process namespace alone."""
    found = f'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = {program} ] && kill -9 "${{p#/proc/}}"; done'
    await asyncio.to_thread(host.run, "sh", "-c", found)
