"""The table [network] of the configuration file: whether there are networks, and what a project may have of them."""

from __future__ import annotations

import re

import msgspec

from droveway.domain.network.quota import NetworkQuotas
from droveway.domain.quota import LIMIT_MAX, UNLIMITED

DRIVERS = ("bridge", "simulated")
MTU_MIN, MTU_MAX = 1330, 65535  # 1280, which IPv6 needs, and what VXLAN takes
PHYSICAL_MAX = 64
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class NetworkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How control and the APIs know it; what a host has stands under [[host]]."""

    driver: str = ""  # bridge | simulated; empty: there are no networks, and no endpoint for them
    mtu_bytes: int = 1500  # of the links between the hosts; VXLAN takes 50 of it
    physical_networks: tuple[str, ...] = ("physnet1",)  # names of what flat networks are on
    quota: NetworkQuotas = NetworkQuotas()  # of each project; `openstack quota set` changes them for one


def numbers(network: NetworkConfig) -> list[tuple[str, float, float, float, str]]:
    return [
        ("network.mtu_bytes", network.mtu_bytes, MTU_MIN, MTU_MAX, "bytes, such as 1500"),
        *(
            (f"network.quota.{name}", limit, UNLIMITED, LIMIT_MAX, "where -1 is no limit, such as 10")
            for name, limit in msgspec.structs.asdict(network.quota).items()
        ),
    ]


def problems(network: NetworkConfig) -> list[str]:
    """Every sentence that is wrong with it beyond its numbers."""
    found = []
    if network.driver not in ("", *DRIVERS):
        found.append(f"network.driver = {network.driver!r} must be {' or '.join(DRIVERS)}, or empty for no networks")
    if len(network.physical_networks) > PHYSICAL_MAX:
        found.append(f"network.physical_networks has {len(network.physical_networks)} names; {PHYSICAL_MAX} are taken")
    found += [
        f"network.physical_networks: {name[:128]!r} must be 1 to 64 of the characters a-z A-Z 0-9 . - _"
        for name in network.physical_networks
        if not _NAME.fullmatch(name)
    ]
    return found
