"""What devices and namespaces of ours are called. The kernel takes 15 characters for a device.

`dwb` a network's bridge, `dwt` a port's tap (domain/network_plan.py); `dwv` a network's VXLAN device; `dwd` the DHCP
server's end on the bridge; `dwl` a router leg's end on the bridge; `dwu` and `dwx` the two ends of the cable between a
flat network's bridge and one that the host had before.
"""

from __future__ import annotations

import hashlib

OURS = ("dwb", "dwv", "dwd", "dwl", "dwu", "dwx")  # devices that this driver makes


def short(one: str) -> str:
    return one.replace("-", "")[:11]


def vxlan_of(network_id: str) -> str:
    return f"dwv{short(network_id)}"


def dhcp_device_of(network_id: str) -> str:
    return f"dwd{short(network_id)}"


def leg_device_of(port_id: str) -> str:
    return f"dwl{short(port_id)}"


def cable_of(network_id: str) -> tuple[str, str]:
    return f"dwu{short(network_id)}", f"dwx{short(network_id)}"


def host_tag(host: str) -> str:
    """What tells the namespaces of two hosts apart that share a directory of them."""
    return hashlib.sha256(host.encode()).hexdigest()[:6]


def dhcp_namespace_of(host: str, network_id: str) -> str:
    return f"dwd-{host_tag(host)}-{short(network_id)}"


def router_namespace_of(host: str, router_id: str) -> str:
    return f"dwr-{host_tag(host)}-{short(router_id)}"
