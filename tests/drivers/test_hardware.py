"""What images and flavors wish for, on real hosts: guests start with it, and move with it."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from droveway.domain.hardware import BIOS, UEFI, Hardware
from droveway.domain.model import GuestSpec, GuestState
from tests.drivers.hypervisor_worlds import LabWorld, libvirt_of

pytestmark = pytest.mark.lab
# But shares of the processor, for which the hosts of a lab have no control group.
EVERYTHING = Hardware(
    sockets=1,
    cores=2,
    threads=1,
    disk_limits={"read_bytes_sec": 100_000_000, "write_iops_sec": 100_000},
    rng=True,
    rng_bytes=1000,
    watchdog="none",
    guest_agent=True,
    hpet=True,
    hides_hypervisor=True,
    windows=True,
    pmu=False,
)


@pytest.fixture
def world(lab_hosts: Any, tmp_path: Path) -> LabWorld:
    return LabWorld(tmp_path, *lab_hosts)


def xml_of(w: LabWorld, spec: GuestSpec) -> ET.Element:
    with libvirt_of(w.hosts["a"].outside_uri()) as connection:
        return ET.fromstring(connection.lookupByUUIDString(spec.instance_id).XMLDesc())


def filesystem_of(path: Path) -> str:
    found = subprocess.run(["blkid", "-po", "value", "-s", "TYPE", str(path)], capture_output=True, check=False)
    return found.stdout.decode().strip()


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("bus", "firmware", "machine"),
    [
        ("virtio", BIOS, ""),
        ("scsi", BIOS, ""),
        ("sata", BIOS, "q35"),
        ("ide", BIOS, ""),
        ("virtio", UEFI, ""),
        ("virtio", UEFI, "q35"),
    ],
)
def test_a_guest_starts_and_moves_with_what_it_wished_for(
    world: LabWorld, bus: str, firmware: str, machine: str
) -> None:
    if firmware == UEFI and not Path("/usr/share/OVMF").exists():
        pytest.skip("ovmf is not installed")
    hardware = replace(EVERYTHING, disk_bus=bus, firmware=firmware)

    async def story(w: LabWorld) -> None:
        spec = replace(w.spec(), vcpus=2, hardware=hardware, ephemeral_gb=1, swap_mb=64, machine_type=machine)
        await w.a.hypervisor.prepare(spec)
        await w.a.hypervisor.start(spec)
        directory = w.lab.shared / spec.instance_id
        found = xml_of(w, spec)
        disks = [
            (disk.find("target").get("bus"), Path(disk.find("source").get("file")).name)  # type: ignore[union-attr, arg-type]
            for disk in found.findall("devices/disk")
        ]
        assert disks == [(bus, "disk"), (bus, "disk.eph0"), (bus, "disk.swap")]
        assert [filesystem_of(directory / name) for name in ("disk.eph0", "disk.swap")] == ["ext4", "swap"]
        assert (found.find("os/loader") is not None) == (firmware == UEFI)
        if firmware == BIOS:
            await w.until_booted(spec)
        await w.move(spec)
        assert (await w.b.hypervisor.guest(spec.instance_id)).state is GuestState.RUNNING
        await w.b.hypervisor.remove(spec.instance_id)
        assert not directory.exists()

    world.run(story)


def test_the_variables_of_a_uefi_guest_outlive_a_definition_that_is_forgotten(world: LabWorld) -> None:
    """It may run on another host, which has the same file."""
    if not Path("/usr/share/OVMF").exists():
        pytest.skip("ovmf is not installed")

    async def story(w: LabWorld) -> None:
        spec = replace(w.spec(), hardware=Hardware(firmware=UEFI))
        variables = w.lab.shared / spec.instance_id / "nvram.fd"
        await w.a.hypervisor.prepare(spec)
        await w.a.hypervisor.start(spec)
        await w.a.hypervisor.stop(spec.instance_id, 0.0)
        variables.write_bytes(variables.read_bytes() + b"!")
        for forget in (w.a.hypervisor.release, w.a.hypervisor.dismiss):
            await forget(spec.instance_id)
            assert (await w.a.hypervisor.guest(spec.instance_id)).state is GuestState.ABSENT
            assert variables.read_bytes().endswith(b"!")
        await w.b.hypervisor.remove(spec.instance_id)
        assert not variables.parent.exists()

    world.run(story)
