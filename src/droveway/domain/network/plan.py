"""Facts about networks into what one host must make true of them. Pure.

`Facts` holds what concerns that host, and may hold more: what is of other hosts is told of where its own guests must
reach it, or be reached by it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from droveway.domain.network.rules import RuleSpec, planned
from droveway.domain.network_plan import (
    AddressPair,
    FixedIp,
    HostNetworks,
    Ipv6Mode,
    PlannedNetwork,
    PlannedPort,
    PlannedRouter,
    PlannedSubnet,
    RemotePort,
    RouterGateway,
    RouterLeg,
    SecurityGroup,
)

DHCP_OWNER, GATEWAY_OWNER, INTERFACE_OWNER = "network:dhcp", "network:router_gateway", "network:router_interface"
SERVICE_OWNER = "network:"
_NO_HOSTNAME = re.compile(r"[^A-Za-z0-9-]+")
HOSTNAME_MAX = 63


class PortFact(msgspec.Struct, frozen=True):
    """`hosts`: where it is bound; the second only while its guest moves there. `addresses`: (subnet, address)."""

    id: str
    network_id: str
    project_id: str
    mac: str
    hosts: tuple[str, ...]
    device_id: str
    device_owner: str
    addresses: tuple[tuple[str, str], ...] = ()
    groups: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    has_security: bool = True
    is_up: bool = True

    @property
    def is_of_guest(self) -> bool:
        return not self.device_owner.startswith(SERVICE_OWNER)


class NetworkFact(msgspec.Struct, frozen=True):
    id: str
    mtu_bytes: int
    vni: int | None
    physical_network: str | None
    is_up: bool = True


class SubnetFact(msgspec.Struct, frozen=True):
    id: str
    network_id: str
    cidr: str
    gateway: str | None
    dns: tuple[str, ...]
    routes: tuple[tuple[str, str], ...]
    has_dhcp: bool
    mode: str | None


class RouterFact(msgspec.Struct, frozen=True):
    """`floating`: (floating address, fixed address)."""

    id: str
    host: str
    has_snat: bool
    routes: tuple[tuple[str, str], ...]
    is_up: bool = True
    floating: tuple[tuple[str, str], ...] = ()


class InterfaceFact(msgspec.Struct, frozen=True):
    """Of a port that is a guest's: the name that DHCP tells it, its place among the others, and the digest of what else
    the guest is told of itself."""

    hostname: str = ""
    place: int = 0
    tag: str = ""
    data_digest: str = ""


class Facts(msgspec.Struct, frozen=True):
    """`ports`: all of the networks that are here. `rules` by group; `members`: addresses and ranges of the ports in the
    groups that rules name. `tunnels`: the tunnel address of each host. `interfaces` by port, `group_names` by
    group."""

    revision: int
    networks: Sequence[NetworkFact] = ()
    subnets: Sequence[SubnetFact] = ()
    ports: Sequence[PortFact] = ()
    routers: Sequence[RouterFact] = ()
    rules: Mapping[str, Sequence[RuleSpec]] = {}
    members: Mapping[str, Sequence[str]] = {}
    tunnels: Mapping[str, str] = {}
    interfaces: Mapping[str, InterfaceFact] = {}
    group_names: Mapping[str, str] = {}


NO_INTERFACE = InterfaceFact()


def of_host(facts: Facts, host: str) -> HostNetworks:
    """Everything in the order of ids, so that the same facts are the same plan."""
    mine = [port for port in facts.ports if host in port.hosts and port.is_of_guest]
    routers = sorted((router for router in facts.routers if router.host == host), key=lambda one: one.id)
    carried = {router.id for router in routers}
    here = {port.network_id for port in mine} | {port.network_id for port in facts.ports if port.device_id in carried}
    others = sorted(address for name, address in facts.tunnels.items() if name != host and address)
    places = {router.id: router.host for router in facts.routers}
    return HostNetworks(
        facts.revision,
        facts.tunnels.get(host, ""),
        tuple(others),
        tuple(network_of(facts, one, host, places) for one in _sorted(facts.networks) if one.id in here),
        tuple(_port_in(facts, port, host) for port in sorted(mine, key=lambda one: one.id)),
        tuple(_groups(facts, mine)),
        tuple(router_of(facts, router) for router in routers if router.is_up),
    )


def of_instance(facts: Facts, instance_id: str) -> tuple[tuple[PlannedPort, PlannedNetwork], ...]:
    """Its ports in the order of `facts`, each with its network as far as a guest is told of it: without other hosts."""
    networks = {one.id: network_of(facts, one, "", {}) for one in facts.networks}
    mine = (port for port in facts.ports if port.device_id == instance_id)
    return tuple((_port_in(facts, port, ""), networks[port.network_id]) for port in mine)


def _sorted(networks: Iterable[NetworkFact]) -> list[NetworkFact]:
    return sorted(networks, key=lambda one: one.id)


def _port_in(facts: Facts, port: PortFact, host: str) -> PlannedPort:
    network_up = next(one.is_up for one in facts.networks if one.id == port.network_id)
    return port_of(port, facts.interfaces.get(port.id, NO_INTERFACE), host, network_up=network_up)


def port_of(port: PortFact, interface: InterfaceFact, host: str, *, network_up: bool) -> PlannedPort:
    """As `host` is told of it."""
    return PlannedPort(
        port.id,
        port.network_id,
        port.mac,
        tuple(FixedIp(subnet_id, address) for subnet_id, address in port.addresses),
        tuple(sorted(port.groups)) if port.has_security else (),
        tuple(AddressPair(cidr, mac) for cidr, mac in port.pairs),
        port.has_security,
        port.is_up and network_up,
        port.device_id,
        port.project_id,
        hostname(interface.hostname),
        len(port.hosts) > 1 and port.hosts[0] == host,
        interface.place,
        interface.tag,
        interface.data_digest,
    )


def hostname(name: str) -> str:
    """What DHCP may tell: letters, digits and hyphens alone."""
    return _NO_HOSTNAME.sub("-", name)[:HOSTNAME_MAX].strip("-")


def _groups(facts: Facts, mine: Iterable[PortFact]) -> Iterator[SecurityGroup]:
    """Those of the ports here, and those that their rules name, of which the members alone count."""
    own = {group for port in mine if port.has_security for group in port.groups}
    named = {rule.remote_group_id for group in own for rule in facts.rules.get(group, ()) if rule.remote_group_id}
    for group in sorted(own | named):
        rules = tuple(planned(rule) for rule in facts.rules.get(group, ())) if group in own else ()
        members = tuple(sorted(set(facts.members.get(group, ())))) if group in named else ()
        yield SecurityGroup(group, rules, members, facts.group_names.get(group, "") if group in own else "")


# -- networks ---------------------------------------------------------------------------------------------------------
def network_of(facts: Facts, network: NetworkFact, host: str, places: Mapping[str, str]) -> PlannedNetwork:
    """As `host` is told of it. `places`: the host of each router."""
    ports = [port for port in facts.ports if port.network_id == network.id]
    dhcp = next((port for port in ports if port.device_owner == DHCP_OWNER), None)
    served = {} if dhcp is None else dict(dhcp.addresses)
    subnets = sorted((one for one in facts.subnets if one.network_id == network.id), key=lambda one: one.id)
    remote = sorted(_remote(facts, ports, host, places), key=lambda one: (one.tunnel_address, one.mac))
    is_tunnelled = network.vni is not None
    return PlannedNetwork(
        network.id,
        network.mtu_bytes,
        network.vni or 0,
        network.physical_network or "",
        tuple(_subnet(one, served) for one in subnets),
        tuple(sorted({one.tunnel_address for one in remote})) if is_tunnelled else (),
        tuple(remote) if is_tunnelled else (),
        "" if dhcp is None else dhcp.mac,
    )


def _subnet(subnet: SubnetFact, served: Mapping[str, str]) -> PlannedSubnet:
    return PlannedSubnet(
        subnet.id,
        subnet.cidr,
        subnet.gateway or "",
        subnet.dns,
        subnet.routes,
        subnet.has_dhcp,
        served.get(subnet.id, "") if subnet.has_dhcp else "",
        Ipv6Mode(subnet.mode or ""),
    )


def _remote(facts: Facts, ports: Iterable[PortFact], host: str, places: Mapping[str, str]) -> Iterator[RemotePort]:
    """Ports that other hosts carry: of guests where these run, of routers where those are. DHCP is everywhere. The host
    to which a guest moves is told of it too: others there talk to it meanwhile."""
    for port in ports:
        at = port.hosts[0] if port.is_of_guest and port.hosts else places.get(port.device_id, "")
        tunnel = facts.tunnels.get(at, "")
        if at not in ("", host) and tunnel and port.device_owner != DHCP_OWNER:
            yield RemotePort(port.mac, tuple(address for _, address in port.addresses), tunnel)


# -- routers ----------------------------------------------------------------------------------------------------------
def router_of(facts: Facts, router: RouterFact) -> PlannedRouter:
    ports = sorted((port for port in facts.ports if port.device_id == router.id), key=lambda one: one.id)
    ranges = {subnet.id: subnet for subnet in facts.subnets}
    inside = tuple(_leg(port, ranges) for port in ports if port.device_owner == INTERFACE_OWNER)
    outside = next((port for port in ports if port.device_owner == GATEWAY_OWNER), None)
    gateway = None
    if outside is not None:
        hops = (ranges[subnet_id].gateway for subnet_id, _ in outside.addresses if subnet_id in ranges)
        gateway = RouterGateway(_leg(outside, ranges), tuple(hop for hop in hops if hop), router.has_snat)
    return PlannedRouter(router.id, inside, gateway, router.routes, tuple(sorted(router.floating)))


def _leg(port: PortFact, ranges: Mapping[str, SubnetFact]) -> RouterLeg:
    cidrs = (
        f"{address}/{ipaddress.ip_network(ranges[subnet_id].cidr).prefixlen}"
        for subnet_id, address in port.addresses
        if subnet_id in ranges
    )
    return RouterLeg(port.id, port.network_id, port.mac, tuple(cidrs))
