"""Tracked connections of a port as text, in the words of `conntrack -o save`. What another host sends is data: a line
that is not about that port, or has another form, is left out. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from droveway.domain.network_plan import HostNetworks, PlannedPort, RuleDirection
from droveway.domain.network_rules import lets_through

LINES_MAX = 20_000
BYTES_MAX = 2 * 1024 * 1024
_LINE = re.compile(r"-A( --?[a-z][a-z-]*( [A-Za-z0-9_.:,]+)?)+")
_ENDS = re.compile(r" -[sdrq] ([0-9a-f.:]+)")
_ZONE = re.compile(r" -w \d+")


def of_port(lines: Iterable[str], addresses: Collection[str]) -> str:
    """Those of these addresses, the first LINES_MAX of them, without their zone: that is the host's own."""
    kept: list[str] = []
    size = 0
    for line in lines:
        one = _ZONE.sub("", " ".join(line.split()))
        if _LINE.fullmatch(one) is None or not set(_ENDS.findall(one)) & set(addresses):
            continue
        size += len(one) + 1
        if len(kept) == LINES_MAX or size > BYTES_MAX:
            break
        kept.append(one)
    return "".join(f"{line}\n" for line in kept)


def in_zone(saved: str, addresses: Collection[str], zone: int) -> str:
    """To be loaded: those of these addresses, in that zone."""
    own = of_port(saved.splitlines(), addresses)
    return "".join(f"{line} -w {zone}\n" for line in own.splitlines())


# -- those that were cut ----------------------------------------------------------------------------------------------
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "dccp": 33}
BITS = {1: RuleDirection.EGRESS, 2: RuleDirection.INGRESS}  # of a connection's mark: whose rules refused it (rules.py)
_FLOW = re.compile(r"-w (\d+) -s (\S+) -d (\S+) .*-p (\w+) --sport (\d+) --dport (\d+)")


class Flow(NamedTuple):
    """A connection as it began, and its line."""

    zone: int
    source: str
    destination: str
    protocol: str
    source_port: int
    port: int
    line: str

    @property
    def words(self) -> tuple[str, ...]:
        """That name it alone, for conntrack."""
        ends = ("-s", self.source, "-d", self.destination, "--sport", str(self.source_port), "--dport", str(self.port))
        return ("-p", self.protocol, "-w", str(self.zone), *ends)


def flows(text: str) -> list[Flow]:
    """Of protocols with ports."""
    found = []
    for line in text.splitlines():
        match = _FLOW.search(line)
        if match is not None and match[4] in PROTOCOLS:
            zone, source, destination, protocol, *ports = match.groups()
            found.append(Flow(int(zone), source, destination, protocol, int(ports[0]), int(ports[1]), line))
    return found


def let_through_again(
    refused: Mapping[Flow, set[RuleDirection]], plan: HostNetworks, zones: Mapping[str, int]
) -> list[Flow]:
    """Those that every side which refused them would let begin now."""
    groups = {group.id: group for group in plan.groups}
    ports = {(zones[port.network_id], ip.address): port for port in plan.ports for ip in port.fixed_ips}

    def is_allowed(flow: Flow, direction: RuleDirection) -> bool:
        own, remote = flow.source, flow.destination
        if direction is RuleDirection.INGRESS:
            own, remote = remote, own
        port: PlannedPort | None = ports.get((flow.zone, own))
        protocol = PROTOCOLS[flow.protocol]
        return port is not None and lets_through(port, groups, direction, remote, protocol, flow.port)

    return [flow for flow, directions in refused.items() if all(is_allowed(flow, one) for one in directions)]
