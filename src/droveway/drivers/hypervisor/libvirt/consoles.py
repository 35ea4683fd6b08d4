"""Clients of the consoles of libvirt guests (their XML: console_xml.py)."""

from __future__ import annotations

import os
from typing import Any

from droveway.domain.consoles import ConsoleKind
from droveway.drivers.hypervisor.libvirt import console_xml
from droveway.drivers.hypervisor.libvirt import guest as acts
from droveway.ports.hypervisor import HypervisorRefused


def make_directory(host_root: str) -> None:
    """Where libvirtd makes the sockets of serial lines. Raises HypervisorRefused."""
    try:
        os.makedirs(host_root + console_xml.CONSOLES, mode=0o700, exist_ok=True)
    except OSError as error:
        raise HypervisorRefused(f"{console_xml.CONSOLES} cannot be made: {error.strerror}.") from None


def path_of(connection: Any, instance_id: str, kind: ConsoleKind) -> str:
    """The socket of that console of a guest that runs. Raises HypervisorRefused."""
    domain = acts.find(connection, instance_id)
    if domain is None or not acts.is_active(connection, instance_id):
        raise HypervisorRefused(f"Guest {instance_id} does not run on this host, so it has no console here.")
    path = console_xml.socket_in(domain.XMLDesc(), kind)
    if not path:
        raise HypervisorRefused(
            f"Guest {instance_id} has no {kind} console: its image says hw_video_model=none, or an older release began "
            "it; then a hard reboot gives it one."
        )
    return path
