"""Rules of security groups: what may be asked for, and what it means. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from droveway.domain.network.addresses import network
from droveway.domain.network.refusals import (
    SecurityGroupInvalidIcmpValue,
    SecurityGroupInvalidPortRange,
    SecurityGroupInvalidProtocol,
    SecurityGroupInvalidProtocolForPort,
    SecurityGroupMissingIcmpType,
    SecurityGroupRemoteGroupAndRemoteIpPrefix,
    SecurityGroupRuleParameterConflict,
)
from droveway.domain.network_plan import GroupRule, RuleDirection

IPV4, IPV6 = "IPv4", "IPv6"
VERSIONS = {IPV4: 4, IPV6: 6}
PROTOCOLS = {  # IANA's numbers under the names that Neutron takes
    "ah": 51,
    "dccp": 33,
    "egp": 8,
    "esp": 50,
    "gre": 47,
    "icmp": 1,
    "icmpv6": 58,
    "igmp": 2,
    "ipip": 4,
    "ipv6-encap": 41,
    "ipv6-frag": 44,
    "ipv6-icmp": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "ipv6-route": 43,
    "ospf": 89,
    "pgm": 113,
    "rsvp": 46,
    "sctp": 132,
    "tcp": 6,
    "udp": 17,
    "udplite": 136,
    "vrrp": 112,
}
_WITH_PORTS = frozenset(PROTOCOLS[name] for name in ("tcp", "udp", "sctp", "dccp", "udplite"))
ICMP, ICMPV6 = 1, 58
PORT_MAX, ICMP_MAX, ANY = 65535, 255, -1


class RuleSpec(msgspec.Struct, frozen=True):
    """A rule as its caller gives it."""

    direction: str
    ethertype: str = IPV4
    protocol: str | None = None
    port_min: int | None = None
    port_max: int | None = None
    remote_cidr: str | None = None
    remote_group_id: str | None = None
    description: str = ""


class Default(NamedTuple):
    direction: RuleDirection
    ethertype: str
    from_own: bool


# A new group lets everything out; a default group lets its own members in, too.
OUT = (Default(RuleDirection.EGRESS, IPV4, False), Default(RuleDirection.EGRESS, IPV6, False))
OF_DEFAULT_GROUP = (*OUT, Default(RuleDirection.INGRESS, IPV4, True), Default(RuleDirection.INGRESS, IPV6, True))


def defaults(group_id: str, *, is_default: bool) -> list[RuleSpec]:
    return [
        RuleSpec(one.direction, one.ethertype, remote_group_id=group_id if one.from_own else None)
        for one in (OF_DEFAULT_GROUP if is_default else OUT)
    ]


def protocol_number(protocol: str | None, ethertype: str) -> int:
    """-1 for any. ICMP of IPv6 has its own number, whichever name it was given. Raises SecurityGroupInvalidProtocol."""
    if protocol is None:
        return ANY
    number = PROTOCOLS.get(protocol)
    if number is None and protocol.isascii() and protocol.isdigit() and len(protocol) <= 3 and int(protocol) <= 255:
        number = int(protocol)
    if number is None:
        raise SecurityGroupInvalidProtocol(
            f"Security group rule protocol {protocol[:32]} not supported. Only protocol values "
            f"{sorted(PROTOCOLS)} and integer representations [0 to 255] are supported."
        )
    return ICMPV6 if number == ICMP and ethertype == IPV6 else number


def checked(given: RuleSpec) -> RuleSpec:
    """In the spelling in which it is kept. Raises what is wrong with it."""
    protocol = given.protocol.lower() if given.protocol is not None else None
    if protocol in ("any", "-1"):
        protocol = None
    number = protocol_number(protocol, given.ethertype)
    if number == ICMPV6 and given.ethertype == IPV4:
        raise SecurityGroupRuleParameterConflict("Conflicting value ethertype IPv4 for protocol ipv6-icmp.")
    if number in (ICMP, ICMPV6):
        _check_icmp(given)
    elif given.port_min is not None or given.port_max is not None:
        _check_ports(given, number, protocol)
    if given.remote_cidr is not None and given.remote_group_id is not None:
        raise SecurityGroupRemoteGroupAndRemoteIpPrefix("Only remote_ip_prefix or remote_group_id may be provided.")
    cidr = given.remote_cidr
    if cidr is not None:
        found = network("remote_ip_prefix", cidr)
        if found.version != VERSIONS[given.ethertype]:
            raise SecurityGroupRuleParameterConflict(f"Conflicting value ethertype {given.ethertype} for CIDR {cidr}.")
        cidr = str(found)
    return msgspec.structs.replace(given, protocol=protocol, remote_cidr=cidr)


def _check_icmp(given: RuleSpec) -> None:
    for name, value in (("port_range_min", given.port_min), ("port_range_max", given.port_max)):
        if value is not None and not 0 <= value <= ICMP_MAX:
            field = "type" if name == "port_range_min" else "code"
            raise SecurityGroupInvalidIcmpValue(
                f"Invalid value for ICMP {field} ({name}) {value}. It must be 0 to 255."
            )
    if given.port_min is None and given.port_max is not None:
        raise SecurityGroupMissingIcmpType(
            f"ICMP code (port_range_max) {given.port_max} is provided but ICMP type (port_range_min) is missing."
        )


def _check_ports(given: RuleSpec, number: int, protocol: str | None) -> None:
    if number not in _WITH_PORTS:
        raise SecurityGroupInvalidProtocolForPort(
            f"Invalid protocol {protocol} for port range, only supported for tcp, udp, sctp, dccp and udplite."
        )
    low, high = given.port_min, given.port_max
    if low is None or high is None or not 1 <= low <= high <= PORT_MAX:
        raise SecurityGroupInvalidPortRange(
            f"For TCP/UDP protocols, port_range_min must be <= port_range_max, and both from 1 to {PORT_MAX}: "
            f"port_range_min is {low}, port_range_max is {high}."
        )


def meaning(rule: RuleSpec) -> str:
    """What it lets through, in one spelling: two rules of a group with the same are the same rule."""
    number = protocol_number(rule.protocol, rule.ethertype)
    remote = rule.remote_group_id or _anybody_is_nobody_named(rule.remote_cidr)
    ends = "-".join("" if end is None else str(end) for end in (rule.port_min, rule.port_max))
    return f"{rule.direction} {rule.ethertype} {number} {ends} {remote}"


def _anybody_is_nobody_named(cidr: str | None) -> str:
    return "" if cidr in (None, "0.0.0.0/0", "::/0") else str(cidr)


def planned(rule: RuleSpec) -> GroupRule:
    """As hosts are told it."""
    return GroupRule(
        RuleDirection(rule.direction),
        VERSIONS[rule.ethertype],
        protocol_number(rule.protocol, rule.ethertype),
        ANY if rule.port_min is None else rule.port_min,
        ANY if rule.port_max is None else rule.port_max,
        _anybody_is_nobody_named(rule.remote_cidr),
        rule.remote_group_id or "",
    )
