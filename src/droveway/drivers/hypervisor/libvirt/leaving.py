"""What a guest that leaves is on its next host: its XML without what is this host's own, and which disks go along."""

from __future__ import annotations

import os.path
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

import libvirt

from droveway.domain.model import LocalFiles, MigrationEndpoint
from droveway.domain.volume.disks import NbdSource, VolumeDisk
from droveway.drivers.hypervisor.libvirt.ceph_keys import secret_of
from droveway.drivers.hypervisor.libvirt.volume_xml import serial_of
from droveway.ports.hypervisor import HypervisorRefused

_LIVE = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE
_PLACES = (  # where a file of the instance store is named
    ("devices/disk/source", "file"),
    ("devices/disk/backingStore//source", "file"),
    ("devices/console/log", "file"),
    ("devices/serial/log", "file"),
)


def xml_there(domain: Any, here: str, to: MigrationEndpoint, volumes: Sequence[VolumeDisk] = ()) -> dict[str, str]:
    """The parameters of a migration that say how its XML differs there: the other host's CPUs are other ones, its store
    may lie elsewhere, it comes to a Ceph cluster as another user, and to an export at another port. Both paths are
    absolute; an empty one of the other host is as here. `volumes`: as they are there."""
    there = to.instances_path or here
    found: dict[str, str] = {}
    root = ET.fromstring(domain.XMLDesc(_LIVE))
    opens_otherwise = _opened_there(root, to.ceph, volumes)
    if _changed(root, here, there) or opens_otherwise:
        found[libvirt.VIR_MIGRATE_PARAM_DEST_XML] = ET.tostring(root, encoding="unicode")
    if there != here or opens_otherwise:  # as it is started there later
        kept = ET.fromstring(domain.XMLDesc(_LIVE | libvirt.VIR_DOMAIN_XML_INACTIVE))
        _opened_there(kept, to.ceph, volumes)
        _changed(kept, here, there)
        found[libvirt.VIR_MIGRATE_PARAM_PERSIST_XML] = ET.tostring(kept, encoding="unicode")
    return found


def _opened_there(root: ET.Element, ceph: str, volumes: Sequence[VolumeDisk]) -> bool:
    """Whether a disk is opened otherwise there."""
    ports = {one.volume_id: str(one.source.port) for one in volumes if isinstance(one.source, NbdSource)}
    changed = _as_user(root, ceph)
    for disk in root.iterfind("devices/disk"):
        host, port = disk.find("source[@protocol='nbd']/host"), ports.get(serial_of(disk), "")
        if host is not None and port and host.get("port") != port:
            host.set("port", port)
            changed = True
    return changed


def _as_user(root: ET.Element, ceph: str) -> bool:
    """Whether a disk in a Ceph cluster is opened as another user there. `ceph`: FSID/USER of the other host."""
    fsid, _, user = ceph.partition("/")
    changed = False
    for auth in root.iterfind("devices/disk/source[@protocol='rbd']/auth"):
        secret = auth.find("secret")
        if user and secret is not None and auth.get("username") != user:
            auth.set("username", user)
            secret.set("uuid", secret_of(fsid, user))
            changed = True
    return changed


def _changed(root: ET.Element, here: str, there: str) -> bool:
    tuning = root.find("cputune")
    if tuning is not None:
        root.remove(tuning)
    if here == there:
        return tuning is not None
    for path, attribute in _PLACES:
        for element in root.iterfind(path):
            element.set(attribute, _moved(element.get(attribute, ""), here, there))
    nvram = root.find("os/nvram")
    if nvram is not None and nvram.text:
        nvram.text = _moved(nvram.text, here, there)
    return True


def _moved(path: str, here: str, there: str) -> str:
    """Its name below the store stays."""
    return there.rstrip("/") + path[len(here.rstrip("/")) :] if path.startswith(here.rstrip("/") + "/") else path


def targets(domain: Any, files: LocalFiles) -> list[str]:
    """The devices of those disks. Raises HypervisorRefused for one that the guest has not."""
    devices = {
        os.path.basename(source.get("file", "")): target.get("dev", "")
        for disk in ET.fromstring(domain.XMLDesc(_LIVE)).iterfind("devices/disk")
        if (source := disk.find("source")) is not None and (target := disk.find("target")) is not None
    }
    if missing := [disk.name for disk in files.disks if disk.name not in devices]:
        raise HypervisorRefused(f"The guest has no disk {missing[0]} that could be copied.")
    return [devices[disk.name] for disk in files.disks]
