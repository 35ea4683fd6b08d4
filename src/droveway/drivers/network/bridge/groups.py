"""A security group as nftables rules: few, whatever the number of its own. Pure.

A packet meets every rule of a chain one after the other, but a set in one step. So rules of one protocol are merged:
their ports where the remote is the same, and remote networks with their ports as elements of one set. Elements of such
a set may not overlap; networks are disjoint or nested, so those of one depth of nesting go into one set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from droveway.domain.network_plan import GroupRule, RuleDirection, SecurityGroup
from droveway.drivers.network.bridge.spans import Span, disjoint, layers, span

Range = tuple[int, int]
PORT_MAX = 65_535
ICMP, ICMPV6 = 1, 58
WITH_PORTS = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
SIDES = {RuleDirection.INGRESS: "saddr", RuleDirection.EGRESS: "daddr"}  # the remote one
ALLOWED = {RuleDirection.INGRESS: "goto ok_in", RuleDirection.EGRESS: "goto ok_out"}
FAMILIES = {4: "ip", 6: "ip6"}


def set_of(group_id: str, version: int) -> str:
    """The name of the set of a group's addresses."""
    return f"m{version}_{group_id}"


@lru_cache(maxsize=4096)
def rules(group: SecurityGroup) -> dict[RuleDirection, tuple[str, ...]]:
    """What the chains of that group let through. Raises ValueError when a rule is none."""
    return {direction: tuple(_rules(group, direction)) for direction in RuleDirection}


def _rules(group: SecurityGroup, direction: RuleDirection) -> list[str]:
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
    return found


def _of_remotes(version: int, protocol: int, same: Iterable[GroupRule], side: str) -> Iterator[str]:
    """Matches of rules of one version and protocol, whose remote is a network or anybody."""
    by_remote: dict[Span | None, list[GroupRule]] = {}
    for rule in same:
        by_remote.setdefault(_remote(rule, version), []).append(rule)
    anybody = by_remote.pop(None, [])
    if anybody:
        yield from _without_remote(protocol, anybody, "")
    if protocol in WITH_PORTS:
        ports = {remote: merged(map(_ports, its)) for remote, its in by_remote.items() if remote is not None}
        whole = [remote for remote, ranges in ports.items() if ranges == [(0, PORT_MAX)]]
        if whole:
            yield f"{side} {_remotes(whole)} meta l4proto {protocol}"
        for layer in layers(remote for remote in ports if ports[remote] != [(0, PORT_MAX)]):
            yield from _concatenated(side, WITH_PORTS[protocol], {remote: ports[remote] for remote in layer})
        return
    by_match: dict[str, list[Span]] = {}
    for remote, its in by_remote.items():
        assert remote is not None, "those of anybody were taken out"
        for match in _without_remote(protocol, its, ""):
            by_match.setdefault(match, []).append(remote)
    for match, remotes in by_match.items():
        yield f"{side} {_remotes(remotes)} {match}"


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


def _concatenated(side: str, word: str, layer: Mapping[Span, list[Range]]) -> Iterator[str]:
    elements = [f"{remote.text} . {_span(one)}" for remote, ranges in layer.items() for one in ranges]
    if len(elements) == 1:
        remote, _, ports = elements[0].partition(" . ")
        yield f"{side} {remote} {word} dport {ports}"
    elif elements:
        yield f"{side} . {word} dport {_listed(elements)}"


def _remote(rule: GroupRule, version: int) -> Span | None:
    """None: anybody."""
    if not rule.remote_cidr:
        return None
    found = span(rule.remote_cidr)
    if found.version != version:
        raise ValueError(f"the remote {found.text} of a rule is not of IP version {version}")
    return None if found.is_everything else found


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


def _remotes(spans: Iterable[Span]) -> str:
    return _listed(one.text for one in disjoint(spans))


def _span(one: Range) -> str:
    return str(one[0]) if one[0] == one[1] else f"{one[0]}-{one[1]}"


def _listed(words: Iterable[str]) -> str:
    each = list(words)
    return each[0] if len(each) == 1 else f"{{ {', '.join(each)} }}"
