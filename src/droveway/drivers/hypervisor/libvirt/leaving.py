"""What a guest that leaves is on its next host: its XML without what is this host's own, and which disks go along."""

from __future__ import annotations

import os.path
import xml.etree.ElementTree as ET
from typing import Any

import libvirt

from droveway.domain.model import LocalFiles
from droveway.ports.hypervisor import HypervisorRefused

_LIVE = libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE
_PLACES = (  # where a file of the instance store is named
    ("devices/disk/source", "file"),
    ("devices/disk/backingStore//source", "file"),
    ("devices/console/log", "file"),
    ("devices/serial/log", "file"),
)


def xml_there(domain: Any, here: str, there: str) -> dict[str, str]:
    """The parameters of a migration that say how its XML differs there: the other host's CPUs are other ones, and its
    store may lie elsewhere. Both paths are absolute; an empty `there` is as here."""
    is_elsewhere = there not in ("", here)
    found: dict[str, str] = {}
    root = ET.fromstring(domain.XMLDesc(_LIVE))
    if _changed(root, here, there if is_elsewhere else here):
        found[libvirt.VIR_MIGRATE_PARAM_DEST_XML] = ET.tostring(root, encoding="unicode")
    if is_elsewhere:  # as it is started there later
        kept = ET.fromstring(domain.XMLDesc(_LIVE | libvirt.VIR_DOMAIN_XML_INACTIVE))
        _changed(kept, here, there)
        found[libvirt.VIR_MIGRATE_PARAM_PERSIST_XML] = ET.tostring(kept, encoding="unicode")
    return found


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
