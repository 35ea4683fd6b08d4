"""What security groups let through, as they say it themselves. Pure: simulation and tests ask it, drivers do it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from droveway.domain.network_plan import GroupRule, PlannedPort, RuleDirection, SecurityGroup

ICMP, ICMPV6, TCP = 1, 58, 6


def lets_through(
    port: PlannedPort,
    groups: Mapping[str, SecurityGroup],
    direction: RuleDirection,
    remote: str,
    protocol: int,
    number: int = -1,
) -> bool:
    """Whether a new connection with that remote address may begin. `number`: the port of the destination."""
    if not port.is_up:
        return False
    if not port.has_security:
        return True
    address = ipaddress.ip_address(remote)
    rules = [rule for group_id in port.groups if group_id in groups for rule in groups[group_id].rules]
    return any(
        rule.direction is direction
        and rule.version == address.version
        and _is_of_protocol(rule, protocol, number)
        and _is_remote(rule, address, groups)
        for rule in rules
    )


def _is_of_protocol(rule: GroupRule, protocol: int, number: int) -> bool:
    own = ICMPV6 if (rule.version, rule.protocol) == (6, ICMP) else rule.protocol
    if own not in (-1, protocol):
        return False
    if rule.port_min < 0 or own in (-1, ICMP, ICMPV6):
        return True
    return rule.port_min <= number <= (rule.port_max if rule.port_max >= 0 else rule.port_min)


def _is_remote(
    rule: GroupRule, address: ipaddress.IPv4Address | ipaddress.IPv6Address, groups: Mapping[str, SecurityGroup]
) -> bool:
    if rule.remote_group_id:
        members: Iterable[str] = groups[rule.remote_group_id].members if rule.remote_group_id in groups else ()
        return any(address in ipaddress.ip_network(one) for one in members)
    return not rule.remote_cidr or address in ipaddress.ip_network(rule.remote_cidr, strict=False)
