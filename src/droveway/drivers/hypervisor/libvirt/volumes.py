"""Volumes that a guest gets, lets go of, and sees grow while it runs; and its file systems, held for a moment. Blocking
functions of a connection, each of which looks at the guest as it is now before it acts (as interfaces.py does).

A volume is found by its serial number, which is its id: its device on this host and the source of its bytes may be
anything.
"""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from typing import Any

import libvirt

from droveway.domain.model import GuestState
from droveway.domain.volume.disks import VolumeDisk
from droveway.drivers.hypervisor.libvirt import volume_xml
from droveway.drivers.hypervisor.libvirt.guest import describe, find
from droveway.drivers.hypervisor.libvirt.interfaces import CONFIG, LIVE, STOPPED, with_devices
from droveway.drivers.hypervisor.libvirt.volume_xml import OwnWays, serial_of
from droveway.drivers.hypervisor.promises import no_such_volume

GIB = 1024**3
AGENT_ANSWERS_WITHIN_S = 1
_NO_AGENT = (
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    libvirt.VIR_ERR_AGENT_UNSYNCED,
    libvirt.VIR_ERR_INTERNAL_ERROR,  # what the agent itself refused
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_INVALID,
    libvirt.VIR_ERR_NO_DOMAIN,
)


def _disk(domain: Any, volume_id: str, flags: int = 0) -> ET.Element | None:
    """The element of that volume: of the guest as it runs, or of its definition."""
    for found in ET.fromstring(domain.XMLDesc(flags)).iterfind("devices/disk"):
        if serial_of(found) == volume_id:
            return found
    return None


def _is_defined_with(domain: Any, volume_id: str) -> bool:
    return bool(domain.isPersistent()) and _disk(domain, volume_id, libvirt.VIR_DOMAIN_XML_INACTIVE) is not None


def attach(connection: Any, instance_id: str, disk: VolumeDisk, ways: OwnWays) -> None:
    domain = with_devices(connection, instance_id)
    if domain is None or _disk(domain, disk.volume_id) is not None:
        return
    xml = ET.tostring(volume_xml.disk(disk, ways), encoding="unicode")
    is_in_definition = not domain.isPersistent() or _is_defined_with(domain, disk.volume_id)
    try:
        domain.attachDeviceFlags(xml, LIVE if is_in_definition else LIVE | CONFIG)
    except libvirt.libvirtError:
        if _disk(domain, disk.volume_id) is None:
            raise


def ask_to_let_go(connection: Any, instance_id: str, volume_id: str) -> None:
    """Said again to a guest that was still booting when it was said first."""
    domain = with_devices(connection, instance_id)
    there = None if domain is None else _disk(domain, volume_id)
    alias = None if there is None else there.find("alias")
    if domain is None or alias is None:
        return
    try:
        domain.detachDeviceAlias(alias.get("name", ""), LIVE)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_ERR_DEVICE_MISSING):
            raise


def has_let_go(connection: Any, instance_id: str, volume_id: str) -> bool:
    """Then its definition loses it, too."""
    domain = find(connection, instance_id)
    if domain is None:
        return True
    if describe(domain).state not in STOPPED and _disk(domain, volume_id) is not None:
        return False
    there = _disk(domain, volume_id, libvirt.VIR_DOMAIN_XML_INACTIVE) if domain.isPersistent() else None
    if there is not None:
        domain.detachDeviceFlags(ET.tostring(there, encoding="unicode"), CONFIG)
    return True


def grow(connection: Any, instance_id: str, volume_id: str, size_gb: int) -> None:
    domain = with_devices(connection, instance_id)
    if domain is None:
        return
    there = _disk(domain, volume_id)
    if there is None:
        raise no_such_volume(instance_id, volume_id)
    target = there.find("target")
    assert target is not None, "every disk of a domain has a target"
    device, size_bytes = target.get("dev", ""), size_gb * GIB
    if domain.blockInfo(device)[0] < size_bytes:
        domain.blockResize(device, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


# -- its file systems -------------------------------------------------------------------------------------------------
def has_agent(domain: Any) -> bool:
    channels = ET.fromstring(domain.XMLDesc()).iterfind("devices/channel/target[@name='org.qemu.guest_agent.0']")
    return any(channel.get("state") == "connected" for channel in channels)


def freeze(connection: Any, instance_id: str) -> bool:
    """Whether they are held. One that is frozen already says so by an error, and holds them."""
    domain = with_devices(connection, instance_id)
    if domain is None or describe(domain).state is not GuestState.RUNNING or not has_agent(domain):
        return False
    try:
        domain.agentSetResponseTimeout(AGENT_ANSWERS_WITHIN_S)
        return bool(domain.fsFreeze() > 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _NO_AGENT:
            raise
    thaw(connection, instance_id)  # it may have frozen some of them, or all and too late
    return False


def thaw(connection: Any, instance_id: str) -> None:
    domain = find(connection, instance_id)
    if domain is None or describe(domain).state in STOPPED or not has_agent(domain):
        return
    with contextlib.suppress(libvirt.libvirtError):
        domain.agentSetResponseTimeout(AGENT_ANSWERS_WITHIN_S)
        domain.fsThaw()
