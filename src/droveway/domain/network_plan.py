"""What a host's network agent makes true: every network, port, group and router that concerns the host, whole.

Control makes one `HostNetworks` of the rows for each host; the agent compares it with what the kernel has and changes
what differs. It is a state and no list of changes, so a lost message, a restart and a reboot are mended by the next one.
Addresses are text as `ipaddress` writes it; a CIDR has its prefix length.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from droveway.domain.wire import LIST, Count, Number, Reason, Word

DEVICE_PREFIX = "dwt"  # of every tap of a port; what bears it and is in no plan passes nothing
BRIDGE_PREFIX = "dwb"  # of every bridge of a network
VXLAN_OVERHEAD_BYTES = 50


def device_of(port_id: str) -> str:
    """The tap device of a port, at most 15 characters: as the kernel wants it."""
    return DEVICE_PREFIX + port_id.replace("-", "")[:11]


def bridge_of(network_id: str) -> str:
    """The bridge of a network on every host that has it."""
    return BRIDGE_PREFIX + network_id.replace("-", "")[:11]


class Direction(StrEnum):
    INGRESS = "ingress"  # towards the guest
    EGRESS = "egress"


class Ipv6Mode(StrEnum):
    """How guests get their IPv6 address: the values of ipv6_address_mode and ipv6_ra_mode."""

    NONE = ""
    SLAAC = "slaac"
    STATEFUL = "dhcpv6-stateful"
    STATELESS = "dhcpv6-stateless"


class GroupRule(msgspec.Struct, frozen=True):
    """What is let through. `protocol`: a number, -1 for any. For ICMP the range is type and code; -1: any."""

    direction: Direction
    version: int  # 4 | 6
    protocol: int = -1
    port_min: int = -1
    port_max: int = -1
    remote_cidr: Word = ""  # empty, and no remote group: anybody
    remote_group_id: Word = ""


class SecurityGroup(msgspec.Struct, frozen=True):
    """`members`: addresses of all ports that are in it, wherever they are; filled where a rule names it as remote."""

    id: Word
    rules: Annotated[tuple[GroupRule, ...], LIST] = ()
    members: Annotated[tuple[Word, ...], LIST] = ()


class FixedIp(msgspec.Struct, frozen=True):
    subnet_id: Word
    address: Word


class AddressPair(msgspec.Struct, frozen=True):
    """A further address or CIDR that the port may send from; `mac` empty: with its own."""

    cidr: Word
    mac: Word = ""


class PlannedPort(msgspec.Struct, frozen=True):
    """A port of a guest on this host. Its device need not be there yet: its rules are in force before it comes."""

    id: Word
    network_id: Word
    mac: Word
    fixed_ips: Annotated[tuple[FixedIp, ...], LIST] = ()
    groups: Annotated[tuple[Word, ...], LIST] = ()
    pairs: Annotated[tuple[AddressPair, ...], LIST] = ()
    has_security: bool = True  # False: neither rules nor checks of what it sends
    is_up: bool = True  # admin_state_up; False: nothing passes
    instance_id: Word = ""
    project_id: Word = ""
    hostname: Word = ""  # told by DHCP: letters, digits and hyphens alone
    is_leaving: bool = False  # it is bound elsewhere too, while its guest moves

    @property
    def device(self) -> str:
        return device_of(self.id)


class PlannedSubnet(msgspec.Struct, frozen=True):
    id: Word
    cidr: Word
    gateway: Word = ""
    dns: Annotated[tuple[Word, ...], LIST] = ()
    routes: Annotated[tuple[tuple[Word, Word], ...], LIST] = ()  # destination CIDR, next hop
    has_dhcp: bool = True
    dhcp_address: Word = ""  # of the DHCP and metadata server, the same on every host; empty where there is none
    ipv6_mode: Ipv6Mode = Ipv6Mode.NONE


class RemotePort(msgspec.Struct, frozen=True):
    """A port of the network on another host: frames to it go to that host's tunnel address."""

    mac: Word
    addresses: Annotated[tuple[Word, ...], LIST]
    tunnel_address: Word


class PlannedNetwork(msgspec.Struct, frozen=True):
    """`vni` above 0: VXLAN with that number; else flat on the physical network of that name."""

    id: Word
    mtu_bytes: Count
    vni: Number = 0
    physical_network: Word = ""
    subnets: Annotated[tuple[PlannedSubnet, ...], LIST] = ()
    tunnel_addresses: Annotated[tuple[Word, ...], LIST] = ()  # of the other hosts that have ports of it
    remote_ports: Annotated[tuple[RemotePort, ...], LIST] = ()
    dhcp_mac: Word = ""


class RouterLeg(msgspec.Struct, frozen=True):
    """`cidrs`: its addresses with the prefix lengths of their subnets."""

    port_id: Word
    network_id: Word
    mac: Word
    cidrs: Annotated[tuple[Word, ...], LIST]


class RouterGateway(msgspec.Struct, frozen=True):
    leg: RouterLeg
    next_hops: Annotated[tuple[Word, ...], LIST] = ()  # the gateways of the external subnets
    has_snat: bool = True


class PlannedRouter(msgspec.Struct, frozen=True):
    """A router whose place is this host. `floating`: (floating address, fixed address)."""

    id: Word
    legs: Annotated[tuple[RouterLeg, ...], LIST] = ()
    gateway: RouterGateway | None = None
    routes: Annotated[tuple[tuple[Word, Word], ...], LIST] = ()
    floating: Annotated[tuple[tuple[Word, Word], ...], LIST] = ()


class HostNetworks(msgspec.Struct, frozen=True):
    """All of it. `revision` rises with every change of a row that it was made of; `known_hosts`: the tunnel addresses
    from which VXLAN is accepted."""

    revision: Number
    tunnel_address: Word
    known_hosts: Annotated[tuple[Word, ...], LIST] = ()
    networks: Annotated[tuple[PlannedNetwork, ...], LIST] = ()
    ports: Annotated[tuple[PlannedPort, ...], LIST] = ()
    groups: Annotated[tuple[SecurityGroup, ...], LIST] = ()
    routers: Annotated[tuple[PlannedRouter, ...], LIST] = ()


class NotInForce(msgspec.Struct, frozen=True):
    """A thing of the plan that could not be made, and why."""

    kind: Word  # network | port | router
    id: Word
    reason: Reason
