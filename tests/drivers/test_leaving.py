"""What a guest that leaves is told of its disks at the next host: as whom it opens them there, and at which port."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import libvirt
import pytest

from droveway.domain.model import GuestSpec, MigrationEndpoint
from droveway.domain.volume.disks import NbdSource, VolumeDisk
from droveway.drivers.hypervisor.libvirt import domain_xml
from droveway.drivers.hypervisor.libvirt.ceph_keys import secret_of
from droveway.drivers.hypervisor.libvirt.copies import _stream
from droveway.drivers.hypervisor.libvirt.leaving import xml_there
from droveway.drivers.hypervisor.libvirt.volume_xml import CephAccess, OwnWays
from droveway.ports.hypervisor import HypervisorRefused

FSID, GUEST, VOLUME = (f"{number:08x}-0000-4000-8000-00000000cccc" for number in (1, 2, 3))
PLACE = "/srv/instances"
WAYS = OwnWays(ceph={FSID: CephAccess("h1", secret_of(FSID, "h1"), (("10.0.0.1", "6789"),))})


def served(port: int) -> VolumeDisk:
    return VolumeDisk(VOLUME, VOLUME, NbdSource("10.0.0.9", port, "volume-x"), "vdb", 1)


SPEC = GuestSpec(GUEST, "g", 1, 128, 1, root_pool=f"{FSID}/vms", volumes=(served(50100),))


class Domain:
    def __init__(self, spec: GuestSpec = SPEC) -> None:
        self.xml = domain_xml.domain_xml(spec, f"{PLACE}/{GUEST}", use_kvm=False, ways=WAYS)

    def XMLDesc(self, flags: int) -> str:  # noqa: N802
        return self.xml


def there(*, ceph: str = f"{FSID}/h2", port: int = 50101) -> dict[str, str]:
    to = MigrationEndpoint("h2", "qemu+tcp://h2/system", "tcp://h2", PLACE, ceph)
    return xml_there(Domain(), PLACE, to, (served(port),))


def test_the_root_disk_is_opened_in_its_pool_as_this_host() -> None:
    disks = ET.fromstring(Domain().xml).findall("devices/disk")
    source, driver = disks[0].find("source"), disks[0].find("driver")
    assert source is not None and driver is not None
    assert (source.get("protocol"), source.get("name")) == ("rbd", f"vms/{GUEST}_disk")
    assert (driver.get("type"), driver.get("cache"), driver.get("error_policy")) == ("raw", "none", "stop")
    assert source.find("auth").get("username") == "h1"  # type: ignore[union-attr]
    with pytest.raises(HypervisorRefused, match=f"lies in the Ceph cluster {FSID}; this host knows none"):
        domain_xml.domain_xml(SPEC, PLACE, use_kvm=False)


def test_it_comes_as_the_next_host_and_to_its_port_now_and_later() -> None:
    found = there()
    for parameter in (libvirt.VIR_MIGRATE_PARAM_DEST_XML, libvirt.VIR_MIGRATE_PARAM_PERSIST_XML):
        root = ET.fromstring(found[parameter])
        (auth,) = root.iterfind("devices/disk/source[@protocol='rbd']/auth")
        (secret,) = auth.iterfind("secret")
        (host,) = root.iterfind("devices/disk/source[@protocol='nbd']/host")
        assert (auth.get("username"), secret.get("uuid")) == ("h2", secret_of(FSID, "h2"))
        assert host.get("port") == "50101"


def test_what_is_the_same_there_is_said_by_nobody() -> None:
    assert there(ceph=f"{FSID}/h1", port=50100) == {}
    assert there(ceph="", port=50100) == {}, "one that opens none: it has refused the guest before"


def test_by_tls_both_or_neither_to_the_name_of_the_host() -> None:
    found: dict[str, object] = {}
    assert _stream("tcp://10.0.0.2", "h2", found) == 0
    assert found == {libvirt.VIR_MIGRATE_PARAM_URI: "tcp://10.0.0.2"}
    found.clear()
    assert _stream("tls://10.0.0.2:49152", "h2", found) == libvirt.VIR_MIGRATE_TLS
    assert found == {
        libvirt.VIR_MIGRATE_PARAM_URI: "tcp://10.0.0.2:49152",
        libvirt.VIR_MIGRATE_PARAM_TLS_DESTINATION: "h2",
    }
