"""Config drives as cloud-init reads them; the same documents make the same drive, once and for all."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from droveway.domain.guest_data import Document, GuestFacts, GuestKey, GuestNic, documents
from droveway.domain.model import GuestSpec
from droveway.domain.network_plan import FixedIp, Ipv6Mode, PlannedNetwork, PlannedPort, PlannedSubnet
from droveway.drivers.hypervisor.libvirt import config_drive
from droveway.drivers.hypervisor.libvirt.instance_files import InstanceFiles
from droveway.drivers.images.shared_path import SharedPathImages
from droveway.ports.hypervisor import HypervisorRefused
from lab import cloudinit
from tests.drivers.test_instance_files import on_hosts, spec

pytestmark = pytest.mark.slow

NET, MAC = "6f1f2a35-0000-4f0e-9d53-2d0f4c6d7b11", "fa:16:3e:01:02:03"
SUBNETS = (
    PlannedSubnet("s4", "10.1.0.0/24", "10.1.0.1", ("10.1.0.2",), (("192.168.7.0/24", "10.1.0.9"),)),
    PlannedSubnet("s6", "fd00:1::/64", "fd00:1::1", ipv6_mode=Ipv6Mode.SLAAC),
    PlannedSubnet("still", "10.2.0.0/23", "10.2.0.1", ("9.9.9.9",), (("192.168.8.0/24", "10.2.0.9"),), has_dhcp=False),
)
PORT = PlannedPort(
    "0a1b2c3d-4e5f-4000-8000-000000000001",
    NET,
    MAC,
    (FixedIp("s4", "10.1.0.7"), FixedIp("s6", "fd00:1::f816:3eff:fe01:203"), FixedIp("still", "10.2.0.7")),
)
FACTS = GuestFacts(
    instance_id="6f1f2a35-8a1a-4f0e-9d53-2d0f4c6d7b11",
    number=26,
    name="g1",
    hostname="g1",
    project_id="p",
    zone="nova",
    flavor_name="tiny",
    reservation_id="r-1",
    launch_index=1,
    metadata={"role": "web"},
    key=GuestKey("mine", "ssh", "ssh-ed25519 AAAA me"),
    user_data=b"#!/bin/sh\necho \x00\xff hello\n",
    nics=(GuestNic(PORT, PlannedNetwork(NET, 1450, 7, subnets=SUBNETS), tag="front"),),
    group_names=("default",),
)


def with_drive(guest: GuestSpec) -> GuestSpec:
    return replace(guest, config_drive=True)


def extracted(drive: Path, to: Path) -> Path:
    program = ("xorriso", "-osirrox", "on", "-indev", str(drive), "-extract", "/", str(to))
    subprocess.run(program, check=True, capture_output=True)
    return to


def label_of(drive: Path) -> bytes:
    return subprocess.run(("blkid", "-o", "value", "-s", "LABEL", str(drive)), check=True, capture_output=True).stdout


def test_what_cloud_init_reads_is_what_the_rows_say(tmp_path: Path) -> None:
    async def story(files: InstanceFiles) -> None:
        guest = with_drive(spec(None))
        await files.prepare(guest, None, documents(FACTS))
        drive = tmp_path / "store" / guest.instance_id / config_drive.NAME
        assert stat.S_IMODE(drive.stat().st_mode) == 0o400, "user data may be secret"
        assert label_of(drive) == b"config-2\n"
        assert sorted(path.name for path in drive.parent.iterdir()) == ["disk", "disk.config"], "nothing half made"
        found = cloudinit.read(extracted(drive, tmp_path / "seen"), {MAC: "eth0"})
        meta = found["metadata"]
        assert (meta["instance-id"], meta["hostname"], meta["launch_index"]) == (FACTS.instance_id, "g1", 1)
        assert (meta["availability_zone"], meta["project_id"], meta["meta"]) == ("nova", "p", {"role": "web"})
        assert meta["public_keys"] == {"mine": "ssh-ed25519 AAAA me"}
        assert meta["devices"] == [{"type": "nic", "bus": "none", "address": "none", "mac": MAC, "tags": ["front"]}]
        assert base64.b64decode(found["userdata"]) == FACTS.user_data
        ec2 = found["ec2-metadata"]
        assert (ec2["instance-id"], ec2["local-ipv4"]) == ("i-0000001a", "10.1.0.7")
        assert ec2["public-keys"] == {"0": {"_name": "0=mine", "openssh-key": "ssh-ed25519 AAAA me"}}
        (nic, *dns) = found["network_config"]["config"]
        assert (nic["name"], nic["mac_address"], nic["mtu"]) == ("eth0", MAC, 1450)
        dhcp, slaac, still = nic["subnets"]
        assert (dhcp["type"], slaac["type"]) == ("dhcp4", "ipv6_slaac")
        assert (still["type"], still["address"], still["netmask"]) == ("static", "10.2.0.7", "255.255.254.0")
        ways = [(route["network"], route["netmask"], route["gateway"]) for route in still["routes"]]
        assert ways == [("0.0.0.0", "0.0.0.0", "10.2.0.1"), ("192.168.8.0", "255.255.255.0", "10.2.0.9")]
        assert sorted(each["address"] for each in dns) == ["10.1.0.2", "9.9.9.9"]

    on_hosts(tmp_path, 1, story)


def test_the_same_documents_make_the_same_bytes_on_any_host_and_a_drive_never_changes(tmp_path: Path) -> None:
    def digest(path: Path) -> str:
        return hashlib.sha256(path.read_bytes()).hexdigest()

    async def story(files: InstanceFiles) -> None:
        one, two = with_drive(spec(None)), with_drive(spec(None))
        other = InstanceFiles(str(tmp_path / "elsewhere"), "h9", SharedPathImages("h9"))
        await files.prepare(one, None, documents(FACTS))
        await asyncio.sleep(1.1)  # a drive knows seconds: its times are not those of its making
        await other.prepare(two, None, documents(FACTS))
        other.close()
        drive = tmp_path / "store" / one.instance_id / config_drive.NAME
        again = tmp_path / "elsewhere" / two.instance_id / config_drive.NAME
        assert digest(drive) == digest(again)
        before = digest(drive)
        await files.prepare(one, None, documents(replace(FACTS, name="another")))
        assert digest(drive) == before, "prepared twice"

    on_hosts(tmp_path, 1, story)


@pytest.mark.parametrize("path", ["/etc/passwd", "../../out", "a/../../out"])
def test_a_path_out_of_the_drive_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(HypervisorRefused, match="no path on a config drive"):
        config_drive.write_tree(tmp_path / "tree", (Document((path,), b"x"),))
    assert not (tmp_path / "out").exists()


def test_a_guest_without_anything_is_told_what_there_is(tmp_path: Path) -> None:
    bare = documents(replace(FACTS, key=None, user_data=None, nics=(), metadata={}, group_names=()))
    config_drive.write_tree(tmp_path / "tree", bare)
    found = cloudinit.read(tmp_path / "tree")
    assert found["userdata"] == "" and "public_keys" not in found["metadata"] and "meta" not in found["metadata"]
    assert json.loads((tmp_path / "tree/openstack/latest/network_data.json").read_text()) == {
        "links": [],
        "networks": [],
        "services": [],
    }
    assert "secret" not in repr(Document(("user_data",), b"secret")), "no log has it"


def test_a_host_without_the_program_says_which_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "qemu-img").symlink_to(shutil.which("qemu-img") or "")

    async def story(files: InstanceFiles) -> None:
        guest = with_drive(spec(None))
        monkeypatch.setenv("PATH", str(tools))
        with pytest.raises(HypervisorRefused, match="install xorriso"):
            await files.prepare(guest, None, documents(FACTS))
        monkeypatch.undo()
        await files.prepare(guest, None, documents(FACTS))
        assert files.has_drive(guest.instance_id)

    on_hosts(tmp_path, 1, story)
