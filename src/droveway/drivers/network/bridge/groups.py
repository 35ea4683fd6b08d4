"""A security group as nftables rules: few, whatever the number of its own. Pure.

A packet meets every rule of a chain one after the other, but a set in one step. So rules of one protocol are merged:
their ports where the remote is the same, and remote networks with their ports as elements of one set. Elements of such
a set may not overlap; networks are disjoint or nested, so those of one depth of nesting go into one set.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from droveway.domain.network_plan import Direction, GroupRule, SecurityGroup

Cidr = ipaddress.IPv4Network | ipaddress.IPv6Network
Range = tuple[int, int]
PORT_MAX = 65_535
ICMP, ICMPV6 = 1, 58
WITH_PORTS = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
SIDES = {Direction.INGRESS: "saddr", Direction.EGRESS: "daddr"}  # the remote one
ALLOWED = {Direction.INGRESS: "goto ok_in", Direction.EGRESS: "goto ok_out"}
FAMILIES = {4: "ip", 6: "ip6"}


def set_of(group_id: str, version: int) -> str:
    """The name of the set of a group's addresses."""
    return f"m{version}_{group_id}"


@lru_cache(maxsize=4096)
def rules(group: SecurityGroup, direction: Direction) -> tuple[str, ...]:
    """What a chain of that group and direction lets through. Raises ValueError when a rule is none."""
    found: list[str] = []
    by_kind: dict[tuple[int, int, str], list[GroupRule]] = {}
    for rule in group.rules:
        if rule.direction is direction:
            if rule.version not in FAMILIES:
                raise ValueError(f"security group {group.id} has a rule of IP version {rule.version}")
            protocol = ICMPV6 if (rule.version, rule.protocol) == (6, ICMP) else rule.protocol
            by_kind.setdefault((rule.version, protocol, rule.remote_group_id), []).append(rule)
    for (version, protocol, remote_group), same in by_kind.items():
        side = f"{FAMILIES[version]} {SIDES[direction]}"
        if remote_group:
            front = f"{side} @{set_of(remote_group, version)}"
            matches = list(_without_remote(protocol, same, ""))
        else:
            front = f"meta nfproto ipv{version}"
            matches = list(_of_remotes(version, protocol, same, side))
        found += [" ".join(f"{front} {match} {ALLOWED[direction]}".split()) for match in matches]
    return tuple(found)


def _of_remotes(version: int, protocol: int, same: Iterable[GroupRule], side: str) -> Iterator[str]:
    """Matches of rules of one version and protocol, whose remote is a network or anybody."""
    by_remote: dict[Cidr | None, list[GroupRule]] = {}
    for rule in same:
        by_remote.setdefault(_remote(rule, version), []).append(rule)
    anybody = by_remote.pop(None, [])
    if anybody:
        yield from _without_remote(protocol, anybody, "")
    if protocol in WITH_PORTS:
        whole = [cidr for cidr, its in by_remote.items() if any(_ports(rule) == (0, PORT_MAX) for rule in its)]
        if whole:
            yield f"{side} {_listed(map(str, _collapsed(whole)))} meta l4proto {protocol}"
        parts = {cidr: merged(map(_ports, its)) for cidr, its in by_remote.items() if cidr not in whole}
        for layer in layers(parts):
            yield from _concatenated(side, WITH_PORTS[protocol], layer)
        return
    by_match: dict[str, list[Cidr]] = {}
    for cidr, its in by_remote.items():
        assert cidr is not None, "those of anybody were taken out"
        for match in _without_remote(protocol, its, ""):
            by_match.setdefault(match, []).append(cidr)
    for match, cidrs in by_match.items():
        yield f"{side} {_listed(map(str, _collapsed(cidrs)))} {match}"


def _without_remote(protocol: int, same: Iterable[GroupRule], side: str) -> Iterator[str]:
    if protocol < 0:
        yield side
    elif protocol in WITH_PORTS:
        ranges = merged(map(_ports, same))
        if ranges == [(0, PORT_MAX)]:
            yield f"{side} meta l4proto {protocol}"
        else:
            yield f"{side} {WITH_PORTS[protocol]} dport {_listed(map(_span, ranges))}"
    elif protocol in (ICMP, ICMPV6):
        word = "icmp" if protocol == ICMP else "icmpv6"
        for kind, code in dict.fromkeys((rule.port_min, rule.port_max) for rule in same):
            if kind < 0:
                yield f"{side} meta l4proto {protocol}"
            else:
                yield f"{side} {word} type {kind}" + (f" {word} code {code}" if code >= 0 else "")
    else:
        yield f"{side} meta l4proto {protocol}"


def _concatenated(side: str, word: str, layer: Mapping[Cidr, list[Range]]) -> Iterator[str]:
    elements = [f"{cidr} . {_span(one)}" for cidr, ranges in layer.items() for one in ranges]
    if len(elements) == 1:
        cidr, _, ports = elements[0].partition(" . ")
        yield f"{side} {cidr} {word} dport {ports}"
    elif elements:
        yield f"{side} . {word} dport {_listed(elements)}"


def _remote(rule: GroupRule, version: int) -> Cidr | None:
    """None: anybody."""
    if not rule.remote_cidr:
        return None
    cidr = ipaddress.ip_network(rule.remote_cidr, strict=False)
    if cidr.version != version:
        raise ValueError(f"the remote {cidr} of a rule is not of IP version {version}")
    return cidr if cidr.prefixlen else None


def _ports(rule: GroupRule) -> Range:
    """Both ends belong to it."""
    if rule.port_min < 0 and rule.port_max < 0:
        return 0, PORT_MAX
    least, most = max(rule.port_min, 0), rule.port_max if rule.port_max >= 0 else max(rule.port_min, 0)
    if not least <= most <= PORT_MAX:
        raise ValueError(f"a rule has the ports {rule.port_min} to {rule.port_max}")
    return least, most


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same numbers in as few ranges as can be, in order."""
    found: list[Range] = []
    for least, most in sorted(ranges):
        if found and least <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], most))
        else:
            found.append((least, most))
    return found


def layers(by_cidr: Mapping[Cidr | None, list[Range]]) -> list[dict[Cidr, list[Range]]]:
    """By how many others of them each is inside: within one layer none overlaps another."""
    found: list[dict[Cidr, list[Range]]] = []
    around: list[Cidr] = []
    cidrs = [cidr for cidr in by_cidr if cidr is not None]
    for cidr in sorted(cidrs, key=lambda one: (int(one.network_address), one.prefixlen)):
        while around and int(around[-1].broadcast_address) < int(cidr.network_address):
            around.pop()
        if len(found) <= len(around):
            found.append({})
        found[len(around)][cidr] = by_cidr[cidr]
        around.append(cidr)
    return found


def _collapsed(cidrs: Iterable[Cidr | None]) -> list[Cidr]:
    return list(ipaddress.collapse_addresses(cidr for cidr in cidrs if cidr is not None))  # type: ignore[type-var]


def _span(one: Range) -> str:
    return str(one[0]) if one[0] == one[1] else f"{one[0]}-{one[1]}"


def _listed(words: Iterable[str]) -> str:
    each = list(words)
    return each[0] if len(each) == 1 else f"{{ {', '.join(each)} }}"
