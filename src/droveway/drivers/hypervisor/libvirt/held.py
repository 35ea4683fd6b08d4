"""Guests that are held: paused in memory, or with their memory on the host's disk. Blocking functions of a connection,
each of which looks at the guest as it is now before it acts.

What is saved is libvirt's managed save: it lies with the host, and an operator's own start of the guest goes on from
it, too. A file of ours beside the disk could outlive such a start, and would be stale then: a guest that went on from
it would write what it remembers over what has happened since.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import libvirt

from droveway.domain.model import GuestState
from droveway.drivers.hypervisor.libvirt.guest import describe, find, resume
from droveway.drivers.hypervisor.promises import check_alive, check_not_moving
from droveway.ports.hypervisor import HypervisorRefused


def pause(connection: Any, instance_id: str) -> None:
    domain = _alive(connection, instance_id)
    if describe(domain).state is GuestState.RUNNING:
        domain.suspend()


def unpause(connection: Any, instance_id: str) -> None:
    domain = _alive(connection, instance_id)
    if describe(domain).state is GuestState.PAUSED:
        resume(domain)


def suspend(connection: Any, instance_id: str) -> None:
    """To a guest that was paused it is a running one that goes on from there. Where the call breaks, libvirt drops the
    half and lets the guest run on."""
    domain = find(connection, instance_id)
    if domain is not None and describe(domain).saved:
        return
    domain = _alive(connection, instance_id)
    domain.managedSave(libvirt.VIR_DOMAIN_SAVE_RUNNING)


def check_not_begun_from(connection: Any, instance_id: str, path: str) -> None:
    """Refused while it lives and that file is one of its disks."""
    domain = find(connection, instance_id)
    if domain is None or describe(domain).state in (GuestState.SHUTOFF, GuestState.ABSENT):
        return
    used = {one.get("file") for one in ET.fromstring(domain.XMLDesc()).iterfind("devices/disk/source")}
    if path in used:
        raise HypervisorRefused(f"Guest {instance_id} runs from that disk: stop it first.")


def inject_nmi(connection: Any, instance_id: str) -> None:
    _alive(connection, instance_id).injectNMI()


def _alive(connection: Any, instance_id: str) -> Any:
    """The domain of a guest that runs or is paused, and stays here. Raises HypervisorRefused."""
    domain = find(connection, instance_id)
    state = GuestState.ABSENT if domain is None else describe(domain).state
    check_alive(instance_id, state)
    check_not_moving(instance_id, describe(domain).job)
    return domain
