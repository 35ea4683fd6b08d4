"""Volumes as libvirt's XML: each kind of source, opened by what the host itself has and by nothing that it was told."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from droveway.domain.model import GuestSpec
from droveway.domain.volume import devices, qos
from droveway.domain.volume.disks import (
    DiskFormat,
    DiskSource,
    FileSource,
    IscsiSource,
    NbdSource,
    RbdSource,
    VolumeDisk,
)
from droveway.drivers.hypervisor.libvirt import ceph_keys, hardware_xml
from droveway.drivers.hypervisor.libvirt.volume_xml import CephAccess, OwnWays, disk
from droveway.ports.hypervisor import HypervisorRefused

ID, FSID = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000002"
OTHER = "11111111-0000-4000-8000-000000000009"
ACCESS = CephAccess("h1", "33333333-0000-4000-8000-000000000003", (("10.0.0.1", "6789"), ("10.0.0.2", "6790")))
WAYS = OwnWays({"fast": "/srv/fast"}, {FSID: ACCESS})


def volume(source: DiskSource, **more: Any) -> VolumeDisk:
    return VolumeDisk(ID, "a", source, "vdb", 1, **more)


def test_a_disk_states_its_format_its_serial_number_and_what_a_failed_write_does() -> None:
    limits = {"total_iops_sec": 500, "read_bytes_sec": 1000}
    found = disk(volume(FileSource("fast", "name"), limits=limits, read_only=True), WAYS, boot_order=2)
    driver = found.find("driver")
    assert driver is not None and driver.attrib == {
        "name": "qemu",
        "type": "raw",
        "cache": "none",
        "discard": "unmap",
        "error_policy": "stop",
        "rerror_policy": "report",
    }
    assert (found.get("type"), found.findtext("serial")) == ("file", ID)
    assert found.find("source").attrib == {"file": "/srv/fast/name"}  # type: ignore[union-attr]
    assert {one.tag: one.text for one in found.find("iotune") or ()} == {name: str(n) for name, n in limits.items()}
    assert found.find("readonly") is not None and found.find("boot").get("order") == "2"  # type: ignore[union-attr]
    assert (
        disk(volume(FileSource("fast", "n"), disk_format=DiskFormat.QCOW2), WAYS).find("driver").get("type") == "qcow2"
    )  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (
            RbdSource(FSID, "vms", "volume-1"),
            '<source protocol="rbd" name="vms/volume-1"><host name="10.0.0.1" port="6789" />'
            '<host name="10.0.0.2" port="6790" /><auth username="h1"><secret type="ceph" '
            'uuid="33333333-0000-4000-8000-000000000003" /></auth></source>',
        ),
        (
            NbdSource("10.0.0.9", 10809, "volume-1"),
            '<source protocol="nbd" name="volume-1" tls="yes" tlsHostname="10.0.0.9"><host name="10.0.0.9" '
            'port="10809" /><reconnect delay="30" /></source>',
        ),
        (
            IscsiSource("10.0.0.9", 3260, "iqn.2026-01.org.example:v1", 1),
            '<source protocol="iscsi" name="iqn.2026-01.org.example:v1/1"><host name="10.0.0.9" port="3260" />'
            "</source>",
        ),
    ],
    ids=["rbd", "nbd", "iscsi"],
)
def test_a_source_is_opened_by_what_the_host_itself_has(source: DiskSource, wanted: str) -> None:
    found = disk(volume(source), WAYS)
    assert found.get("type") == "network"
    assert ET.tostring(found.find("source"), encoding="unicode") == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (FileSource("slow", "n"), "no directory of backend slow.*its backend_paths name fast"),
        (RbdSource("44444444-0000-4000-8000-000000000004", "p", "i"), "Ceph cluster 4444.*this host knows 2222"),
    ],
)
def test_what_the_host_has_no_way_to_open_is_refused(source: DiskSource, why: str) -> None:
    with pytest.raises(HypervisorRefused, match=why):
        WAYS.check(volume(source))


@pytest.mark.parametrize(
    "told",
    [
        {"type": "file", "backend": "fast", "name": "../../etc/shadow"},
        {"type": "file", "backend": "..", "name": "a/b"},
        {"type": "rbd", "fsid": FSID, "pool": "p:conf=/x", "image": "i"},
        {"type": "nbd", "address": "h,x=1", "port": 1, "export": "e"},
        {"type": "nbd", "address": "h", "port": 70000, "export": "e"},
        {"type": "iscsi", "address": "h", "port": 1, "target": "x", "lun": 0},
        {"type": "file", "backend": "fast", "name": "a\n"},
    ],
)
def test_what_ends_an_option_or_leaves_a_directory_is_no_source(told: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(told, DiskSource)  # type: ignore[arg-type]


def test_the_disks_of_the_host_take_the_letters_that_are_left() -> None:
    spec = GuestSpec(ID, "g", 1, 128, 1, ephemeral_gb=1, swap_mb=1, config_drive=True)
    source = FileSource("fast", "n")
    root = volume(source, boot_index=0)

    def targets(spec: GuestSpec) -> list[tuple[str, str]]:
        found = hardware_xml.disks(spec, "/i", WAYS)
        return [
            (
                one.find("target").get("dev", ""),
                (one.find("boot").get("order", "") if one.find("boot") is not None else ""),
            )  # type: ignore[union-attr]
            for one in found
            if one.tag == "disk"
        ]

    assert targets(spec) == [("vda", ""), ("vdb", ""), ("vdc", ""), ("vdd", "")], "as ever without volumes"
    with_one = replace(spec, volumes=(replace(volume(source), device="vde"),))
    assert targets(with_one) == [("vda", ""), ("vdb", ""), ("vdc", ""), ("vde", ""), ("vdd", "")]
    begun = replace(spec, volumes=(replace(root, device="vda"), replace(volume(source), volume_id=OTHER, device="vdd")))
    assert targets(begun) == [("vdb", ""), ("vdc", ""), ("vda", "1"), ("vdd", ""), ("vde", "")]
    rescued = replace(begun, rescue=True)
    assert targets(rescued)[0] == ("vdb", "1") and ("vda", "2") in targets(rescued), "from the rescue disk first"
    assert len({device for device, _ in targets(rescued)}) == len(targets(rescued))


def test_a_volume_gets_the_first_letter_that_nobody_has() -> None:
    assert devices.next_device("virtio", (), 1, config_drive=False) == "vdb"
    assert devices.next_device("virtio", ("vdb",), 1, config_drive=True) == "vdc"
    assert devices.next_device("scsi", ("sdb", "sdc"), 1, config_drive=True) == "sde", "d is the config drive's"
    assert devices.next_device("virtio", ("vda",), 0, config_drive=False) == "vdb", "it begins from a volume"


def test_limits_of_a_type_are_libvirts_names_and_some_are_meant_for_each_gib() -> None:
    specs = {"total_iops_sec": "500", "read_bytes_sec_per_gb": "1000", "write_iops_sec": "x", "minIOPS": "7"}
    assert qos.limits("front-end", specs, 3) == {"total_iops_sec": 500, "read_bytes_sec": 3000}
    assert qos.limits("back-end", specs, 3) == {} and qos.limits(None, None, 1) == {}


KEY = base64.b64encode(b"a key").decode()


@pytest.mark.parametrize(
    "hosts",
    [
        "10.0.0.1,10.0.0.2:6790",
        "v1:10.0.0.1:6789 v1:10.0.0.2:6790",
        "[v2:10.0.0.1:3300,v1:10.0.0.1:6789],10.0.0.2:6790",
    ],
)
def test_a_host_comes_to_ceph_by_its_own_files(tmp_path: Path, hosts: str) -> None:
    conf, keyring = tmp_path / "ceph.conf", tmp_path / "keyring"
    conf.write_text(f"[global]\n\tfsid = {FSID}\n\tmon_host = {hosts}\n[client]\nrbd cache = true\n")
    keyring.write_text(f'[client.h1]\n\tkey = {KEY}\n\tcaps mon = "profile rbd"\n')
    fsid, access, key = ceph_keys.read(str(conf), "h1", str(keyring))
    assert (fsid, access.user, key) == (FSID, "h1", b"a key")
    assert access.monitors == (("10.0.0.1", "6789"), ("10.0.0.2", "6790"))
    for user, broken, why in (("h2", None, "has no key of"), ("h1", "[global]\n", "names no fsid"), ("h1", "", "fsid")):
        if broken is not None:
            conf.write_text(broken)
        with pytest.raises(HypervisorRefused, match=why):
            ceph_keys.read(str(conf), user, str(keyring))
