"""The network namespaces of a host, of its plan: a DHCP server a network, and the routers whose place is here. Pure.

The DHCP server of a network is on every host that has a port of it, under one MAC and one address. Its router
advertisements tell the prefix, the MTU and how to get an address, and that it is no router; the router's own tell where
the way out is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from droveway.domain.network_plan import (
    METADATA,
    METADATA6,
    HostNetworks,
    Ipv6Mode,
    PlannedNetwork,
    PlannedPort,
    PlannedRouter,
    PlannedSubnet,
    RouterLeg,
    bridge_of,
)
from droveway.drivers.network.bridge import names

DHCP_DEVICE = "dhcp0"
LEASE = "1d"
LEASES_MAX = 65_536
ANYWHERE = "0.0.0.0/0"
RA_MODES = {Ipv6Mode.SLAAC: "ra-only", Ipv6Mode.STATELESS: "ra-stateless", Ipv6Mode.STATEFUL: "static"}


class Leg(NamedTuple):
    """A cable from a bridge of the host (`outer`) into the namespace (`inner`)."""

    bridge: str
    outer: str
    inner: str
    mac: str
    mtu_bytes: int
    cidrs: tuple[str, ...]


class Dnsmasq(NamedTuple):
    """A process of it. `files`: what it reads again on SIGHUP."""

    arguments: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()


class Namespace(NamedTuple):
    """`kind` and `id`: of the thing of the plan that it is for. `floating`: addresses that take their connections
    along when they go."""

    kind: str
    id: str
    name: str
    legs: tuple[Leg, ...]
    rules: str
    dnsmasq: Dnsmasq | None = None
    routes: frozenset[tuple[str, str]] = frozenset()  # destination, next hop
    forwards: bool = False
    floating: frozenset[str] = frozenset()


# -- DHCP and metadata ------------------------------------------------------------------------------------------------
_SERVER_RULES = f"""
add table inet droveway
delete table inet droveway
table inet droveway {{
  set callers4 {{ type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1m; }}
  set callers6 {{ type ipv6_addr; size 65535; flags dynamic,timeout; timeout 1m; }}
  chain input {{
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    udp dport {{ 67, 547 }} accept
    tcp dport 80 add @callers4 {{ ip saddr limit rate over 50/second burst 200 packets }} counter drop
    tcp dport 80 add @callers6 {{ ip6 saddr limit rate over 50/second burst 200 packets }} counter drop
    tcp dport 80 ip daddr {METADATA} accept
    tcp dport 80 ip6 daddr {METADATA6} accept
    icmp type echo-request accept
    meta l4proto ipv6-icmp accept
  }}
  chain forward {{ type filter hook forward priority 0; policy drop; }}
}}
"""


def is_served(network: PlannedNetwork) -> bool:
    return bool(network.dhcp_mac) and any(subnet.dhcp_address for subnet in network.subnets)


def of_network(network: PlannedNetwork, ports: Iterable[PlannedPort], host: str) -> Namespace:
    """Raises ValueError when an address of it is none."""
    served = [subnet for subnet in network.subnets if subnet.dhcp_address]
    cidrs = [f"{subnet.dhcp_address}/{ipaddress.ip_network(subnet.cidr).prefixlen}" for subnet in served]
    leg = Leg(
        bridge_of(network.id),
        names.dhcp_device_of(network.id),
        DHCP_DEVICE,
        network.dhcp_mac,
        network.mtu_bytes,
        (*cidrs, f"{METADATA}/32", f"{METADATA6}/64"),
    )
    dhcp = [subnet for subnet in served if subnet.has_dhcp]
    name = names.dhcp_namespace_of(host, network.id)
    return Namespace("network", network.id, name, (leg,), _SERVER_RULES, _server(network, dhcp, tuple(ports)))


def _server(network: PlannedNetwork, subnets: list[PlannedSubnet], ports: tuple[PlannedPort, ...]) -> Dnsmasq | None:
    ranges = [one for subnet in subnets for one in _range(subnet)]
    if not ranges:
        return None
    arguments = (
        "--no-ping",
        "--dhcp-authoritative",
        f"--dhcp-lease-max={LEASES_MAX}",
        f"--interface={DHCP_DEVICE}",
        *ranges,
        *_advertises(DHCP_DEVICE, network, subnets, "0"),
    )
    options = "".join(f"{line}\n" for subnet in subnets for line in _options(network, subnet))
    hosts = "".join(f"{line}\n" for port in ports for line in _host(port, {subnet.id: subnet for subnet in subnets}))
    return Dnsmasq(arguments, (("hosts", hosts), ("options", options)))


def _advertises(device: str, network: PlannedNetwork, subnets: list[PlannedSubnet], lifetime: str) -> tuple[str, ...]:
    if not any(subnet.ipv6_mode in RA_MODES for subnet in subnets):
        return ()
    return ("--enable-ra", f"--ra-param={device},mtu:{network.mtu_bytes},0,{lifetime}")


def _tag(subnet: PlannedSubnet) -> str:
    return f"s{names.short(subnet.id)}"


def _range(subnet: PlannedSubnet) -> Iterator[str]:
    cidr = ipaddress.ip_network(subnet.cidr)
    front = f"--dhcp-range=set:{_tag(subnet)},{cidr.network_address}"
    if cidr.version == 4:
        yield f"{front},static,{cidr.netmask},{LEASE}"
    elif subnet.ipv6_mode in RA_MODES:
        yield f"{front},{RA_MODES[subnet.ipv6_mode]},{cidr.prefixlen},{LEASE}"


def _options(network: PlannedNetwork, subnet: PlannedSubnet) -> Iterator[str]:
    tag = f"tag:{_tag(subnet)}"
    dns = [ipaddress.ip_address(one) for one in subnet.dns]
    if ipaddress.ip_network(subnet.cidr).version == 6:
        if dns:
            yield f"{tag},option6:dns-server,{','.join(f'[{one}]' for one in dns)}"
        return
    gateway = ipaddress.ip_address(subnet.gateway) if subnet.gateway else None
    yield f"{tag},option:router{f',{gateway}' if gateway else ''}"
    if dns:
        yield f"{tag},option:dns-server,{','.join(map(str, dns))}"
    yield f"{tag},option:mtu,{network.mtu_bytes}"
    # Who heeds option 121 heeds option 3 no more: so the way out stands here too.
    routes = [(f"{METADATA}/32", subnet.dhcp_address), *subnet.routes]
    if gateway and ANYWHERE not in [destination for destination, _ in routes]:
        routes.append((ANYWHERE, str(gateway)))
    words = [
        f"{ipaddress.ip_network(to, strict=False)},{ipaddress.ip_address(via)}" for to, via in routes if ":" not in to
    ]
    yield f"{tag},option:classless-static-route,{','.join(words)}"


def _host(port: PlannedPort, subnets: Mapping[str, PlannedSubnet]) -> Iterator[str]:
    """A line an address, because dnsmasq takes one IPv4 address a line."""
    name = f",{port.hostname}" if port.hostname else ""
    for ip in port.fixed_ips:
        subnet, address = subnets.get(ip.subnet_id), ipaddress.ip_address(ip.address)
        if subnet is None:
            continue
        if address.version == 4:
            yield f"{port.mac},set:{_tag(subnet)},{address}{name}"
        elif subnet.ipv6_mode is Ipv6Mode.STATEFUL:
            yield f"{port.mac},set:{_tag(subnet)},[{address}]{name}"


# -- routers ----------------------------------------------------------------------------------------------------------
def of_router(router: PlannedRouter, plan: HostNetworks, host: str) -> Namespace:
    """Raises ValueError when an address of it is none, or one of its networks is not in the plan."""
    networks = {network.id: network for network in plan.networks}
    inner = [_leg(leg, networks, "in") for leg in router.legs]
    outer = [] if router.gateway is None else [_leg(router.gateway.leg, networks, "out")]
    floating = [(ipaddress.IPv4Address(public), ipaddress.IPv4Address(fixed)) for public, fixed in router.floating]
    if outer:
        cidrs = dict.fromkeys((*outer[0].cidrs, *(f"{public}/32" for public, _ in floating)))
        outer = [outer[0]._replace(cidrs=tuple(cidrs))]
    hops = () if router.gateway is None else router.gateway.next_hops
    routes = {("default" if ":" not in hop else "default6", hop) for hop in hops}
    routes |= {
        (str(ipaddress.ip_network(to, strict=False)), str(ipaddress.ip_address(hop))) for to, hop in router.routes
    }
    return Namespace(
        "router",
        router.id,
        names.router_namespace_of(host, router.id),
        (*inner, *outer),
        _router_rules(router, outer[0] if outer else None, plan),
        _advertiser(router, networks),
        frozenset(routes),
        forwards=True,
        floating=frozenset(str(public) for public, _ in floating),
    )


def _leg(leg: RouterLeg, networks: Mapping[str, PlannedNetwork], front: str) -> Leg:
    network = networks.get(leg.network_id)
    if network is None:
        raise ValueError(f"its network {leg.network_id} is not in the plan of this host")
    inner = f"{front}{names.short(leg.port_id)}"
    outer = names.leg_device_of(leg.port_id)
    cidrs = tuple(str(ipaddress.ip_interface(cidr)) for cidr in leg.cidrs)
    return Leg(bridge_of(network.id), outer, inner, leg.mac, network.mtu_bytes, cidrs)


def _advertiser(router: PlannedRouter, networks: Mapping[str, PlannedNetwork]) -> Dnsmasq | None:
    arguments: list[str] = []
    for leg in router.legs:
        network, device = networks[leg.network_id], f"in{names.short(leg.port_id)}"
        own = {str(ipaddress.ip_interface(cidr).network) for cidr in leg.cidrs}
        subnets = [one for one in network.subnets if one.cidr in own and ":" in one.cidr and one.ipv6_mode in RA_MODES]
        arguments += [f"--interface={device}"] if subnets else []
        arguments += [line for subnet in subnets for line in _range(subnet)]
        arguments += _advertises(device, network, subnets, "1800")
    return Dnsmasq(tuple(dict.fromkeys(arguments))) if arguments else None


def _router_rules(router: PlannedRouter, outer: Leg | None, plan: HostNetworks) -> str:
    floating = {str(public): str(ipaddress.ip_address(fixed)) for public, fixed in router.floating} if outer else {}
    nat = [
        *_map("to_fixed", floating),
        *_map("to_floating", {fixed: public for public, fixed in floating.items()}),
        "chain prerouting { type nat hook prerouting priority dstnat; dnat to ip daddr map @to_fixed; }",
        "chain postrouting { type nat hook postrouting priority srcnat;",
        *_source_nat(router, outer),
        "}",
    ]
    hosts = sorted({one for one in (*plan.known_hosts, plan.tunnel_address) if one})
    kept = [f"{'ip6' if ':' in one else 'ip'} daddr {one} counter drop" for one in hosts]
    filters = [
        "chain input { type filter hook input priority 0; policy drop;",
        "ct state established,related accept",
        "icmp type echo-request accept",
        "udp dport 547 drop",
        "meta l4proto ipv6-icmp accept",
        "}",
        "chain forward { type filter hook forward priority 0; policy accept;",
        *kept,  # no way leads from guests to the hosts themselves
        "}",
    ]
    lines = [
        "add table ip droveway",
        "delete table ip droveway",
        "add table inet droveway",
        "delete table inet droveway",
    ]
    return "\n".join([*lines, "table ip droveway {", *nat, "}", "table inet droveway {", *filters, "}", ""])


def _map(name: str, held: Mapping[str, str]) -> list[str]:
    elements = ", ".join(f"{key} : {value}" for key, value in sorted(held.items()))
    return [f"map {name} {{ type ipv4_addr : ipv4_addr;", *([f"elements = {{ {elements} }}"] if held else []), "}"]


def _source_nat(router: PlannedRouter, outer: Leg | None) -> Iterator[str]:
    """Who has a floating address goes out by it, the others by the router's. A guest that calls a floating address of
    its own network gets the answer back through the router: else it would come from an address that it did not call."""
    if outer is None or router.gateway is None:
        return
    own = next((ipaddress.ip_interface(cidr).ip for cidr in router.gateway.leg.cidrs if ":" not in cidr), None)
    yield f'oifname "{outer.inner}" snat to ip saddr map @to_floating'
    if own is not None:
        if router.gateway.has_snat:
            yield f'iifname "in*" oifname "{outer.inner}" snat to {own}'
        yield 'iifname "in*" oifname "in*" ct status dnat snat to ip saddr map @to_floating'
        yield f'iifname "in*" oifname "in*" ct status dnat snat to {own}'
