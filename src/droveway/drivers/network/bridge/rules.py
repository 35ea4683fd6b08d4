"""The nftables rules of a host, of its plan; and the commands that lead from one ruleset to another. Pure.

Two tables, because connection tracking does not see the port of a bridge, and the bridge family has no connection
tracking. In the bridge family each port is given a mark, and what it sends is checked: MAC, IP, ARP, ND, DHCP. In the
inet family, which bridged packets pass too, the mark chooses the chain of the groups: that of the source in prerouting,
that of the destination in forward. Each network has a connection tracking zone of its own.

The original direction of a connection meets the groups with every packet. What is refused there gets a bit in the
connection's mark (1: by egress rules, 2: by ingress rules), and answers pass while no bit is set: so a rule that is
taken away ends its connections, and one that comes back lets them go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from droveway.domain.network_plan import (
    METADATA,
    METADATA6,
    HostNetworks,
    NotInForce,
    PlannedNetwork,
    PlannedPort,
    RuleDirection,
    SecurityGroup,
    bridge_of,
    link_local,
)
from droveway.drivers.network.bridge import groups
from droveway.drivers.network.bridge.names import vxlan_of
from droveway.drivers.network.bridge.spans import Span, disjoint, span

BRIDGE, INET = "bridge droveway", "inet droveway"
CUT = "cut"  # the counter of packets whose connection lost its rule
VXLAN_PORT = 4789
ZONES = (1 << 16) - 1
_ND = "nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit"
_MLD = "mld-listener-query, mld-listener-report, mld2-listener-report"
_CUT = "ct state established ct direction original counter name cut"


class Elements(NamedTuple):
    """A set or map: how it is declared, and what is in it (a map: `key : value`)."""

    declared: str
    held: frozenset[str]


class Ruleset(NamedTuple):
    """By `FAMILY TABLE NAME`. `hooks`: what makes a chain one that packets come to."""

    sets: dict[str, Elements]
    chains: dict[str, tuple[str, ...]]
    hooks: dict[str, str]


NOTHING = Ruleset({}, {}, {})
HOOKS = {
    f"{BRIDGE} prerouting": "filter hook prerouting priority -300; policy accept;",
    f"{BRIDGE} forward": "filter hook forward priority -200; policy accept;",
    f"{BRIDGE} input": "filter hook input priority -200; policy accept;",
    f"{INET} zones": "filter hook prerouting priority -300; policy accept;",
    f"{INET} egress": "filter hook prerouting priority -150; policy accept;",
    f"{INET} ingress": "filter hook forward priority 0; policy accept;",
    f"{INET} input": "filter hook input priority -10; policy accept;",
}
CHAINS: dict[str, tuple[str, ...]] = {
    f"{BRIDGE} prerouting": (
        "meta mark set 0",
        # Whose metadata is asked for, the address of who asks says: that of its port alone, whatever else it may use.
        f'ip daddr {METADATA} iifname "dwt*" iifname . ip saddr != @own4 counter drop',
        f'ip6 daddr {METADATA6} iifname "dwt*" iifname . ip6 saddr != @own6 counter drop',
        "meta mark set iifname map @ports",
        "meta mark != 0 goto sent",
        "iifname . ether saddr @elsewhere counter drop",
        'iifname != "dwt*" accept',
        "iifname @open accept",
        "counter drop",
    ),
    f"{BRIDGE} forward": (
        "meta mark set 0",
        "meta mark set oifname map @ports",
        # Frames for a MAC that the bridge has not learned go to every port: to the others they are no concern, and
        # their groups would judge another one's connection.
        "meta mark != 0 ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 oifname . ether daddr != @macs drop",
        "meta mark != 0 accept",
        "oifname . ether saddr @elsewhere drop",
        "oifname . ether daddr @elsewhere drop",
        "udp dport { 67, 547 } oifname @served drop",
        'oifname != "dwt*" accept',
        "oifname @open accept",
        "counter drop",
    ),
    f"{BRIDGE} input": ('iifname "dw*" counter drop', "iifname @uplinks counter drop"),
    f"{BRIDGE} sent": (
        # Nearly all packets end here: a look into a set of ranges costs many times one into a set of addresses.
        "ip protocol tcp iifname . ether saddr . ip saddr @addresses4 accept",
        "ip6 nexthdr tcp iifname . ether saddr . ip6 saddr @addresses6 accept",
        "iifname . ether saddr != @macs counter drop",
        "ether type vmap { arp : goto sent_arp, ip : goto sent_ip4, ip6 : goto sent_ip6 }",
        "ether type 0x8035 accept",  # RARP: by it a hypervisor says where a guest has arrived
        "counter drop",
    ),
    f"{BRIDGE} sent_arp": (
        "arp htype 1 arp ptype ip iifname . arp saddr ether . arp saddr ip @addresses4 accept",
        "arp htype 1 arp ptype ip iifname . arp saddr ether . arp saddr ip @ranges4 accept",
        "arp operation request arp saddr ip 0.0.0.0 iifname . arp saddr ether @macs accept",
        "counter drop",
    ),
    f"{BRIDGE} sent_ip4": (
        "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept",
        "udp sport 67 counter drop",
        "iifname . ether saddr . ip saddr @addresses4 accept",
        "iifname . ether saddr . ip saddr @ranges4 accept",
        "counter drop",
    ),
    f"{BRIDGE} sent_ip6": (
        "icmpv6 type { nd-router-advert, nd-redirect } counter drop",
        "udp sport 547 counter drop",
        "icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets6 counter drop",
        "ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . @th,64,128 @targets6 accept",
        "ip6 saddr :: icmpv6 type { nd-router-solicit, mld-listener-report, mld2-listener-report } accept",
        "iifname . ether saddr . ip6 saddr @addresses6 accept",
        "iifname . ether saddr . ip6 saddr @ranges6 accept",
        "counter drop",
    ),
    f"{INET} zones": ("ct zone set iifname map @zones",),
    f"{INET} egress": ('iifname != "dwb*" accept', "meta mark vmap @egress_of"),
    f"{INET} ingress": ('iifname != "dwb*" accept', "meta mark vmap @ingress_of"),
    f"{INET} tracked": (
        "ct state invalid counter drop",
        "ct direction reply ct mark & 0x00000003 != 0 counter drop",
        "ct direction reply ct state established accept",
        "ct state related accept",
    ),
    f"{INET} begin_in": (
        f"icmpv6 type {{ {_ND}, nd-router-advert, {_MLD} }} accept",
        "udp sport . udp dport { 67 . 68, 547 . 546 } accept",
        "goto tracked",
    ),
    f"{INET} begin_out": (
        f"icmpv6 type {{ {_ND}, {_MLD} }} accept",
        "udp sport . udp dport { 68 . 67, 546 . 547 } accept",
        "goto tracked",
    ),
    f"{INET} ok_in": ("ct mark & 0x00000002 != 0 ct mark set ct mark & 0xfffffffd", "accept"),
    f"{INET} ok_out": ("ct mark & 0x00000001 != 0 ct mark set ct mark & 0xfffffffe", "accept"),
    f"{INET} end_in": (f"{_CUT} ct mark set ct mark | 0x00000002", "counter drop"),
    f"{INET} end_out": (f"{_CUT} ct mark set ct mark | 0x00000001", "counter drop"),
}
DECLARED = {
    f"{BRIDGE} ports": "type ifname : mark;",
    f"{BRIDGE} open": "type ifname;",
    f"{BRIDGE} uplinks": "type ifname;",
    f"{BRIDGE} served": "type ifname;",  # uplinks of networks whose DHCP is answered on each host
    f"{BRIDGE} elsewhere": "type ifname . ether_addr;",  # an uplink, and whom it must lead nobody to
    f"{BRIDGE} macs": "type ifname . ether_addr;",
    f"{BRIDGE} addresses4": "type ifname . ether_addr . ipv4_addr;",
    f"{BRIDGE} addresses6": "type ifname . ether_addr . ipv6_addr;",
    f"{BRIDGE} ranges4": "type ifname . ether_addr . ipv4_addr; flags interval;",  # of allowed address pairs
    f"{BRIDGE} ranges6": "type ifname . ether_addr . ipv6_addr; flags interval;",
    f"{BRIDGE} own4": "type ifname . ipv4_addr;",
    f"{BRIDGE} own6": "type ifname . ipv6_addr;",
    f"{BRIDGE} targets6": "typeof iifname . @th,64,128; flags interval;",
    f"{INET} zones": "typeof iifname : ct zone;",
    f"{INET} egress_of": "type mark : verdict;",
    f"{INET} ingress_of": "type mark : verdict;",
    f"{INET} known4": "type ipv4_addr;",
    f"{INET} known6": "type ipv6_addr;",
}


class _PortElements(NamedTuple):
    by_set: tuple[tuple[str, tuple[str, ...]], ...]


def ruleset(plan: HostNetworks, physical: Mapping[str, str]) -> tuple[Ruleset, tuple[NotInForce, ...]]:
    """All of it, and the ports that are none: those pass nothing. `physical`: the device of each physical network."""
    held: dict[str, set[str]] = {name: set() for name in DECLARED}
    chains, failed = dict(CHAINS), []
    by_id = {group.id: group for group in plan.groups}
    _add_networks(held, plan.networks, physical)
    marks = _numbers((port.id for port in plan.ports), 1 << 32)
    known = {network.id for network in plan.networks}
    for port in plan.ports:
        try:
            if port.network_id not in known:
                raise ValueError(f"its network {port.network_id} is not in the plan of this host")
            for name, elements in _of_port(port, marks[port.id]).by_set:
                held[name].update(elements)
            if port.is_up and port.has_security:
                _add_chains(chains, held, port, marks[port.id], by_id)
        except (ValueError, KeyError) as error:
            failed.append(NotInForce("port", port.id, _why(error)))
            _take_out(held, port, marks[port.id])
    sets = {name: Elements(declared, frozenset(held[name])) for name, declared in DECLARED.items()}
    for group_id in sorted({rule.remote_group_id for group in plan.groups for rule in group.rules} - {""}):
        # A group that is named and not told of has no members: its rules let nobody in.
        members = by_id[group_id].members if group_id in by_id else ()
        for version in (4, 6):
            own = frozenset(one for one in members if (":" in one) == (version == 6))
            declared = f"type ipv{version}_addr; flags interval;"
            sets[f"{INET} {groups.set_of(group_id, version)}"] = Elements(declared, _ranges(own))
    chains[f"{INET} input"] = _input(plan)
    sets.update(_known(plan))
    return Ruleset(sets, chains, HOOKS), tuple(failed)


def _why(error: ValueError | KeyError) -> str:
    return f"there is no security group {error.args[0]} in the plan" if isinstance(error, KeyError) else str(error)


def _numbers(names: Iterable[str], most: int) -> dict[str, int]:
    """A number from 1 for each name, which stays the same whatever others come and go, but for rare collisions."""
    found: dict[str, int] = {}
    taken: set[int] = set()
    for name in sorted(names):
        number = _drawn(name) % (most - 1) + 1
        while number in taken:
            number = number % (most - 1) + 1
        taken.add(number)
        found[name] = number
    return found


@lru_cache(maxsize=16_384)
def _drawn(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])


def zones(networks: Iterable[PlannedNetwork]) -> dict[str, int]:
    """The connection tracking zone of each network."""
    return _numbers((network.id for network in networks), ZONES + 1)


def _add_networks(held: dict[str, set[str]], networks: Iterable[PlannedNetwork], physical: Mapping[str, str]) -> None:
    networks = tuple(networks)
    for network_id, zone in zones(networks).items():
        held[f"{INET} zones"].add(f'"{bridge_of(network_id)}" : {zone}')
    for network in networks:
        uplink = vxlan_of(network.id) if network.vni else physical.get(network.physical_network, "")
        if not uplink:
            continue
        held[f"{BRIDGE} uplinks"].add(f'"{uplink}"')
        if network.dhcp_mac:
            held[f"{BRIDGE} elsewhere"].add(f'"{uplink}" . {network.dhcp_mac}')
        if any(subnet.dhcp_address and subnet.has_dhcp for subnet in network.subnets):
            held[f"{BRIDGE} served"].add(f'"{uplink}"')


@lru_cache(maxsize=8192)
def _of_port(port: PlannedPort, mark: int) -> _PortElements:
    """Its elements in the sets of the bridge family. Raises ValueError."""
    if not port.is_up:
        return _PortElements(())
    device = f'"{port.device}"'
    if not port.has_security:
        return _PortElements(((f"{BRIDGE} open", (device,)), *_own(port, device)))
    if not port.mac:
        raise ValueError("it has no MAC address")
    by_mac: dict[str, list[Span]] = {port.mac: [span(ip.address) for ip in port.fixed_ips]}
    for pair in port.pairs:
        by_mac.setdefault(pair.mac or port.mac, []).append(span(pair.cidr))
    addresses: dict[str, list[str]] = {"addresses4": [], "addresses6": [], "ranges4": [], "ranges6": []}
    targets: list[Span] = []
    for mac, given in by_mac.items():
        for one in disjoint([*given, span(link_local(mac))]):
            kind = "addresses" if one.is_one else "ranges"
            addresses[f"{kind}{one.version}"].append(f"{device} . {mac} . {one.short}")
            targets += [one] if one.version == 6 else []
    return _PortElements(
        (
            (f"{BRIDGE} ports", (f"{device} : {mark:#010x}",)),
            (f"{BRIDGE} macs", tuple(f"{device} . {mac}" for mac in by_mac)),
            *((f"{BRIDGE} {name}", tuple(held)) for name, held in addresses.items()),
            *_own(port, device),
            (f"{BRIDGE} targets6", tuple(f"{device} . {_hex(one)}" for one in disjoint(targets))),
        )
    )


def _own(port: PlannedPort, device: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The addresses by which the metadata service knows it."""
    four = [f"{device} . {ip.address}" for ip in port.fixed_ips if span(ip.address).version == 4]
    six = [f"{device} . {span(link_local(port.mac)).short}"] if port.mac else []
    return (f"{BRIDGE} own4", tuple(four)), (f"{BRIDGE} own6", tuple(six))


def _hex(one: Span) -> str:
    return f"{one.first:#034x}" if one.is_one else f"{one.first:#034x}-{one.last:#034x}"


def _add_chains(
    chains: dict[str, tuple[str, ...]],
    held: dict[str, set[str]],
    port: PlannedPort,
    mark: int,
    by_id: Mapping[str, SecurityGroup],
) -> None:
    """Raises KeyError with a group that is not there, ValueError."""
    name, made = _chains_of(tuple(by_id[group_id] for group_id in sorted(set(port.groups))))
    chains.update(made)
    held[f"{INET} ingress_of"].add(f"{mark:#010x} : goto in_{name}")
    held[f"{INET} egress_of"].add(f"{mark:#010x} : goto out_{name}")


@lru_cache(maxsize=4096)
def _chains_of(some: tuple[SecurityGroup, ...]) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Of ports that are in these groups, which share them; and the end of their names. Raises ValueError."""
    name = hashlib.sha256("/".join(group.id for group in some).encode()).hexdigest()[:16]
    made: dict[str, tuple[str, ...]] = {}
    for direction, end in ((RuleDirection.INGRESS, "in"), (RuleDirection.EGRESS, "out")):
        made |= {f"{INET} g{end}_{group.id}": groups.rules(group)[direction] for group in some}
        jumps = (f"jump g{end}_{group.id}" for group in some)
        made[f"{INET} {end}_{name}"] = (f"jump begin_{end}", *jumps, f"goto end_{end}")
    return name, made


def _take_out(held: dict[str, set[str]], port: PlannedPort, mark: int) -> None:
    """Of a port that failed nothing stays, so nothing of it passes."""
    fronts = (f'"{port.device}"', f"{mark:#010x} ")
    for elements in held.values():
        elements.difference_update([one for one in elements if one.startswith(fronts)])


@lru_cache(maxsize=4096)
def _ranges(members: frozenset[str]) -> frozenset[str]:
    """The same addresses, none of them twice: elements of such a set may not overlap."""
    return frozenset(one.short for one in disjoint(map(span, members)))


def _known(plan: HostNetworks) -> dict[str, Elements]:
    return {
        f"{INET} known{version}": Elements(
            DECLARED[f"{INET} known{version}"],
            frozenset(one for one in plan.known_hosts if one and (":" in one) == (version == 6)),
        )
        for version in (4, 6)
    }


def _input(plan: HostNetworks) -> tuple[str, ...]:
    """Guests reach nothing of the host itself; tunnels are those of known hosts."""
    rules = ['iifname "dw*" counter drop']
    if plan.tunnel_address:
        version = 6 if ":" in plan.tunnel_address else 4
        family = groups.FAMILIES[version]
        here = f"{family} daddr {plan.tunnel_address} udp dport {VXLAN_PORT}"
        rules.append(f"{here} {family} saddr != @known{version} counter drop")
    return tuple(rules)


# -- from one to another ----------------------------------------------------------------------------------------------
def whole(new: Ruleset) -> str:
    """The commands that make it, whatever is there: in one transaction, so no packet meets a half of it."""
    tables = "".join(f"add table {table}\ndelete table {table}\nadd table {table}\n" for table in (BRIDGE, INET))
    return f"{tables}add counter {INET} {CUT}\n{change(NOTHING, new)}"


def change(old: Ruleset, new: Ruleset) -> str:
    """The commands that lead from one to the other; empty when they are the same."""
    made: list[str] = []
    gone: list[str] = []
    for name, elements in new.sets.items():
        before = old.sets.get(name)
        if before is None:
            made.append(f"add {_kind(elements)} {name} {{ {elements.declared} }}")
    made += [f"add chain {name}{_hook(new, name)}" for name in new.chains if name not in old.chains]
    for name, elements in new.sets.items():
        there = old.sets[name].held if name in old.sets else frozenset()
        less, more = there - elements.held, elements.held - there
        is_map = _kind(elements) == "map"
        if less:
            keys = (one.rpartition(" : ")[0] for one in less) if is_map else less
            (gone if not more else made).append(f"delete element {name} {{ {', '.join(sorted(keys))} }}")
        if more:
            made.append(f"add element {name} {{ {', '.join(sorted(more))} }}")
    for name, rules in new.chains.items():
        if old.chains.get(name) != rules:
            if name in old.chains:
                made.append(f"flush chain {name}")
            made += [f"add rule {name} {rule}" for rule in rules]
    left = [name for name in old.chains if name not in new.chains]
    gone += [f"flush chain {name}" for name in left] + [f"delete chain {name}" for name in left]
    gone += [f"delete {_kind(elements)} {name}" for name, elements in old.sets.items() if name not in new.sets]
    return "".join(f"{line}\n" for line in made + gone)


def _kind(elements: Elements) -> str:
    return "map" if " : " in elements.declared else "set"


def _hook(rules: Ruleset, name: str) -> str:
    return f" {{ type {rules.hooks[name]} }}" if name in rules.hooks else ""
