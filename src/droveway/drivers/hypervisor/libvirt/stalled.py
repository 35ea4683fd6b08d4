"""Guests that their hypervisor has paused because a disk failed a write: its pool is full, or its server away.

QEMU keeps what failed and tries it again when the guest is resumed; where it fails again, the guest is paused again. So
a guest goes on by itself soon after there is room, and has seen no error.
"""

from __future__ import annotations

from typing import Any

import libvirt

from droveway.domain.model import GuestJob
from droveway.drivers.hypervisor.libvirt.guest import describe, is_ours, of_name, resume


def is_stalled(domain: Any) -> bool:
    state, reason = domain.state()
    return bool((state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR))


def resume_all(connection: Any) -> tuple[str, ...]:
    """Those that were stalled. Blocks."""
    found = []
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED):
        instance_id = of_name(domain.name())
        if instance_id is None or not is_ours(domain):
            continue
        try:
            if is_stalled(domain) and describe(domain).job is GuestJob.NONE:
                found.append(instance_id)
                resume(domain)
        except libvirt.libvirtError:
            continue  # it ended meanwhile, or is told so by the next look
    return tuple(found)
