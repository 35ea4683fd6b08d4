"""What a project may have of networks. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from droveway.domain.network.refusals import OverQuota
from droveway.domain.quota import UNLIMITED, is_over


class NetworkQuotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a project may have where nobody has set another limit; Neutron's names and defaults. -1: no limit."""

    network: int = 100  # networks
    subnet: int = 100  # subnets
    subnetpool: int = -1  # subnet pools
    port: int = 500  # ports, those of routers and DHCP included
    router: int = 10  # routers
    floatingip: int = 50  # floating IPs
    security_group: int = 10  # security groups, the default one included
    security_group_rule: int = 100  # rules of all its groups
    rbac_policy: int = 10  # RBAC policies


NO_NETWORK_LIMITS = NetworkQuotas(**dict.fromkeys(NetworkQuotas.__struct_fields__, UNLIMITED))
RESOURCES = NetworkQuotas.__struct_fields__


def limits(defaults: NetworkQuotas, changes: Mapping[str, int]) -> dict[str, int]:
    return msgspec.structs.asdict(defaults) | {name: limit for name, limit in changes.items() if name in RESOURCES}


def check(resource: str, limit: int, used: int, more: int) -> None:
    """Raises OverQuota, with Neutron's words and the numbers."""
    if is_over(limit, used, more):
        raise OverQuota(
            f"Quota exceeded for resources: ['{resource}']. It has {used}, {more} more were asked for, and {limit} is "
            "the most: delete some first, or ask an administrator for a larger quota."
        )
