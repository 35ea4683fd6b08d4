"""Interfaces that a guest gets, and lets go of, while it runs. Blocking functions of a connection, each of which looks
at the guest as it is now before it acts.

What is plugged is in the definition, too, so that an operator's own start of the guest has it. Unplugging is a request:
the guest's operating system answers it when it can, which libvirt's synchronous call waits for 5 s and then forgets, so
it is made asynchronously and looked for here.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import libvirt

from droveway.domain.model import GuestState, Nic
from droveway.domain.network_plan import device_of
from droveway.drivers.hypervisor.libvirt import hardware_xml
from droveway.drivers.hypervisor.libvirt.guest import describe, find
from droveway.drivers.hypervisor.promises import check_not_moving

LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
STOPPED = (GuestState.SHUTOFF, GuestState.ABSENT)


def with_devices(connection: Any, instance_id: str) -> Any | None:
    """The guest's domain, if it runs or is paused. Raises HypervisorRefused in the middle of a move."""
    domain = find(connection, instance_id)
    if domain is None:
        return None
    guest = describe(domain)
    if guest.state in STOPPED:
        return None
    check_not_moving(instance_id, guest.job)
    return domain


def _interface(domain: Any, nic: Nic, flags: int = 0) -> ET.Element | None:
    """The element of that interface: of the guest as it runs, or of its definition."""
    wanted = device_of(nic.port_id)
    for found in ET.fromstring(domain.XMLDesc(flags)).iterfind("devices/interface"):
        target, mac = found.find("target"), found.find("mac")
        name = None if target is None else target.get("dev")
        if name is None:  # a definition may leave it out; ports of two networks may have one MAC address
            if mac is not None and mac.get("address") == nic.mac:
                return found
        elif name == wanted:
            return found
    return None


def _is_defined_with(domain: Any, nic: Nic) -> bool:
    return bool(domain.isPersistent()) and _interface(domain, nic, libvirt.VIR_DOMAIN_XML_INACTIVE) is not None


def plug(connection: Any, instance_id: str, nic: Nic, model: str) -> None:
    domain = with_devices(connection, instance_id)
    if domain is None or _interface(domain, nic) is not None:
        return
    is_in_definition = not domain.isPersistent() or _is_defined_with(domain, nic)
    flags = LIVE if is_in_definition else LIVE | CONFIG
    try:
        domain.attachDeviceFlags(ET.tostring(hardware_xml.interface(nic, model), encoding="unicode"), flags)
    except libvirt.libvirtError:
        if _interface(domain, nic) is None:
            raise


def ask_to_let_go(connection: Any, instance_id: str, nic: Nic) -> None:
    """Said again to a guest that was still booting when it was said first. One that is at it is not asked
    twice: that is an error, and says nothing."""
    domain = with_devices(connection, instance_id)
    there = None if domain is None else _interface(domain, nic)
    alias = None if there is None else there.find("alias")
    if domain is None or alias is None:
        return
    try:
        domain.detachDeviceAlias(alias.get("name", ""), LIVE)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_ERR_DEVICE_MISSING):
            raise


def has_let_go(connection: Any, instance_id: str, nic: Nic) -> bool:
    """Then its definition loses it, too."""
    domain = find(connection, instance_id)
    if domain is None:
        return True
    if describe(domain).state not in STOPPED and _interface(domain, nic) is not None:
        return False
    there = _interface(domain, nic, libvirt.VIR_DOMAIN_XML_INACTIVE) if domain.isPersistent() else None
    if there is not None:
        domain.detachDeviceFlags(ET.tostring(there, encoding="unicode"), CONFIG)
    return True
