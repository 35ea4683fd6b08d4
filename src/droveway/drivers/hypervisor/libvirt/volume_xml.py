"""A volume of a guest as libvirt's XML.

Everything in it is the same on every host that opens the volume, but for what a host's own configuration says: where a
directory of a backend is, as whom to come to a Ceph cluster and where that is. The format is always stated: libvirt
would otherwise guess it from what a guest wrote.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import PurePath

import msgspec

from droveway.domain.model import GuestSpec
from droveway.domain.volume.disks import (
    DiskSource,
    FileSource,
    IscsiSource,
    NbdSource,
    RbdSource,
    VolumeDisk,
)
from droveway.ports.hypervisor import HypervisorRefused

RECONNECT_S = 30  # how long the guest waits for an export whose server is started again
RBD_PORT = "6789"


class CephAccess(msgspec.Struct, frozen=True):
    """As whom this host comes to a Ceph cluster, and where that is."""

    user: str
    secret: str  # the UUID of libvirt's secret that holds its key
    monitors: tuple[tuple[str, str], ...]  # host, port


class OwnWays(msgspec.Struct, frozen=True):
    """What this host's own configuration has for opening volumes. `directories`: by backend; `ceph`: by cluster."""

    directories: Mapping[str, str] = {}
    ceph: Mapping[str, CephAccess] = {}
    tls: bool = True  # off only where a test has no certificates

    def check(self, disk: VolumeDisk) -> None:
        """Refused, with the reason, when this host has no way to open it."""
        _source(disk, self)


def disk(volume: VolumeDisk, ways: OwnWays, boot_order: int = 0) -> ET.Element:
    """One <disk>. `boot_order`: 1 is begun from first; 0: it is not begun from by its own word."""
    source = _source(volume, ways)
    kind = "file" if isinstance(volume.source, FileSource) else "network"
    found = _opened(kind, volume.disk_format.value, waits_to_read=isinstance(volume.source, NbdSource))
    found.append(source)
    ET.SubElement(found, "target", dev=volume.device, bus=volume.bus)
    ET.SubElement(found, "serial").text = volume.volume_id
    if volume.limits:
        limits = ET.SubElement(found, "iotune")
        for name, number in sorted(volume.limits.items()):
            ET.SubElement(limits, name).text = str(number)
    if volume.read_only:
        ET.SubElement(found, "readonly")
    if boot_order:
        ET.SubElement(found, "boot", order=str(boot_order))
    return found


def root_disk(spec: GuestSpec, name: str, ways: OwnWays) -> ET.Element:
    """Of a guest whose root disk lies in a pool of Ceph; `name`: as its file would be called. Its target is to come."""
    fsid, _, pool = spec.root_pool.partition("/")
    access = ways.ceph.get(fsid)
    if access is None:
        raise HypervisorRefused(
            f"The root disk of guest {spec.instance_id} lies in the Ceph cluster {fsid}; this host knows "
            f"{', '.join(sorted(ways.ceph)) or 'none'}: see its ceph_conf."
        )
    found = _opened("network", "raw")
    found.append(_in_pool(access, f"{pool}/{spec.instance_id}_{name}"))
    return found


def _opened(kind: str, disk_format: str, *, waits_to_read: bool = False) -> ET.Element:
    """A guest whose write finds no room waits, and goes on when there is some; `waits_to_read`: likewise where it reads
    and the server is away, which libvirt does not let QEMU bridge."""
    found = ET.Element("disk", type=kind, device="disk")
    how = {"cache": "none", "discard": "unmap", "error_policy": "stop"}
    how["rerror_policy"] = "stop" if waits_to_read else "report"
    ET.SubElement(found, "driver", {"name": "qemu", "type": disk_format, **how})
    return found


def _source(volume: VolumeDisk, ways: OwnWays) -> ET.Element:
    source: DiskSource = volume.source
    match source:
        case FileSource(backend, name):
            return ET.Element("source", file=str(_directory(volume, ways, backend) / name))
        case RbdSource(fsid, pool, image):
            return _rbd(volume, ways, fsid, f"{pool}/{image}")
        case NbdSource(address, port, export):
            found = ET.Element("source", protocol="nbd", name=export)
            if ways.tls:
                found.set("tls", "yes")
                found.set("tlsHostname", address)
            ET.SubElement(found, "host", name=address, port=str(port))
            ET.SubElement(found, "reconnect", delay=str(RECONNECT_S))
            return found
        case IscsiSource(address, port, target, lun):
            found = ET.Element("source", protocol="iscsi", name=f"{target}/{lun}")
            ET.SubElement(found, "host", name=address, port=str(port))
            return found
    raise HypervisorRefused(f"Volume {volume.volume_id} lies on an imagined backend; a real guest cannot open it.")


def _directory(volume: VolumeDisk, ways: OwnWays, backend: str) -> PurePath:
    directory = ways.directories.get(backend)
    if directory is None:
        known = ", ".join(sorted(ways.directories)) or "none"
        raise HypervisorRefused(
            f"This host has no directory of backend {backend}, where volume {volume.volume_id} lies: its backend_paths "
            f"name {known}."
        )
    return PurePath(directory)


def _rbd(volume: VolumeDisk, ways: OwnWays, fsid: str, name: str) -> ET.Element:
    access = ways.ceph.get(fsid)
    if access is None:
        known = ", ".join(sorted(ways.ceph)) or "none"
        raise HypervisorRefused(
            f"Volume {volume.volume_id} lies in the Ceph cluster {fsid}; this host knows {known}: see its ceph_conf."
        )
    return _in_pool(access, name)


def _in_pool(access: CephAccess, name: str) -> ET.Element:
    found = ET.Element("source", protocol="rbd", name=name)
    for host, port in access.monitors:
        ET.SubElement(found, "host", name=host, port=port)
    auth = ET.SubElement(found, "auth", username=access.user)
    ET.SubElement(auth, "secret", type="ceph", uuid=access.secret)
    return found


def serial_of(element: ET.Element) -> str:
    """Of a <disk>; empty where it has none."""
    return element.findtext("serial", "")
