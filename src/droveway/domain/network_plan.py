"""What a host's network agent makes true: every network, port, group and router that concerns the host, whole.

Control makes one `HostNetworks` of the rows for each host; the agent compares it with what the kernel has and changes
what differs. It is a state and no list of changes, so a lost message and a reboot are mended by the next one. Addresses
are text as `ipaddress` writes it; a CIDR has its prefix length. What ends in a file or a rule of a host has a type that
holds neither a line's end nor a comma, so a decoder refuses it before anybody writes it down.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from droveway.domain.wire import LIST, Count, Number, Reason, ShortText

Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,64}\Z")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{0,64}\Z")]  # of a physical network; empty: none
Label = Annotated[str, msgspec.Meta(pattern=r"^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)?\Z")]  # or empty
Mac = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2}(:[0-9a-f]{2}){5})?\Z")]  # or empty
Address = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f:.]{0,45}\Z")]  # or empty
Cidr = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f:.]{2,45}(/[0-9]{1,3})?)?\Z")]  # or empty

DEVICE_PREFIX = "dwt"  # of every tap of a port; what bears it and is in no plan passes nothing
BRIDGE_PREFIX = "dwb"  # of every bridge of a network
VXLAN_OVERHEAD_BYTES = 50
METADATA, METADATA6 = "169.254.169.254", "fe80::a9fe:a9fe"  # where guests ask for what they are told of themselves


def device_of(port_id: str) -> str:
    """The tap device of a port, at most 15 characters: as the kernel wants it."""
    return DEVICE_PREFIX + port_id.replace("-", "")[:11]


def bridge_of(network_id: str) -> str:
    """The bridge of a network on every host that has it."""
    return BRIDGE_PREFIX + network_id.replace("-", "")[:11]


def link_local(mac: str) -> str:
    """The IPv6 address that a device of that MAC gives itself."""
    octets = [int(one, 16) for one in mac.split(":")]
    words = (octets[0] ^ 2) << 8 | octets[1], octets[2] << 8 | 0xFF, 0xFE00 | octets[3], octets[4] << 8 | octets[5]
    return "fe80::" + ":".join(f"{word:x}" for word in words)


class RuleDirection(StrEnum):
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

    direction: RuleDirection
    version: int  # 4 | 6
    protocol: int = -1
    port_min: int = -1
    port_max: int = -1
    remote_cidr: Cidr = ""  # empty, and no remote group: anybody
    remote_group_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{0,64}\Z")] = ""


class SecurityGroup(msgspec.Struct, frozen=True, cache_hash=True):
    """`members`: addresses and ranges of all ports that are in it, wherever they are; filled where a rule names it as
    remote. `name`: guests are told it."""

    id: Id
    rules: Annotated[tuple[GroupRule, ...], LIST] = ()
    members: Annotated[tuple[Cidr, ...], LIST] = ()
    name: ShortText = ""


class FixedIp(msgspec.Struct, frozen=True):
    subnet_id: Id
    address: Address


class AddressPair(msgspec.Struct, frozen=True):
    """A further address or CIDR that the port may send from; `mac` empty: with its own."""

    cidr: Cidr
    mac: Mac = ""


class PlannedPort(msgspec.Struct, frozen=True, cache_hash=True):
    """A port of a guest on this host. Its device need not be there yet: its rules are in force before it comes."""

    id: Id
    network_id: Id
    mac: Mac
    fixed_ips: Annotated[tuple[FixedIp, ...], LIST] = ()
    groups: Annotated[tuple[Id, ...], LIST] = ()
    pairs: Annotated[tuple[AddressPair, ...], LIST] = ()
    has_security: bool = True  # False: neither rules nor checks of what it sends
    is_up: bool = True  # admin_state_up; False: nothing passes
    instance_id: ShortText = ""
    project_id: ShortText = ""
    hostname: Label = ""  # told by DHCP
    is_leaving: bool = False  # it is bound elsewhere too, while its guest moves
    place: Count = 0  # among the interfaces of its guest
    tag: ShortText = ""
    data_digest: ShortText = ""  # of what its guest is told of itself; empty: nothing

    @property
    def device(self) -> str:
        return device_of(self.id)


class PlannedSubnet(msgspec.Struct, frozen=True):
    id: Id
    cidr: Cidr
    gateway: Address = ""
    dns: Annotated[tuple[Address, ...], LIST] = ()
    routes: Annotated[tuple[tuple[Cidr, Address], ...], LIST] = ()  # destination CIDR, next hop
    has_dhcp: bool = True
    dhcp_address: Address = ""  # of the DHCP and metadata server, the same on every host; empty where there is none
    ipv6_mode: Ipv6Mode = Ipv6Mode.NONE


class RemotePort(msgspec.Struct, frozen=True):
    """A port of the network on another host: frames to it go to that host's tunnel address."""

    mac: Mac
    addresses: Annotated[tuple[Address, ...], LIST]
    tunnel_address: Address


class PlannedNetwork(msgspec.Struct, frozen=True):
    """`vni` above 0: VXLAN with that number; else flat on the physical network of that name."""

    id: Id
    mtu_bytes: Count
    vni: Number = 0
    physical_network: Name = ""
    subnets: Annotated[tuple[PlannedSubnet, ...], LIST] = ()
    tunnel_addresses: Annotated[tuple[Address, ...], LIST] = ()  # of the other hosts that have ports of it
    remote_ports: Annotated[tuple[RemotePort, ...], LIST] = ()
    dhcp_mac: Mac = ""


class RouterLeg(msgspec.Struct, frozen=True):
    """`cidrs`: its addresses with the prefix lengths of their subnets."""

    port_id: Id
    network_id: Id
    mac: Mac
    cidrs: Annotated[tuple[Cidr, ...], LIST]


class RouterGateway(msgspec.Struct, frozen=True):
    leg: RouterLeg
    next_hops: Annotated[tuple[Address, ...], LIST] = ()  # the gateways of the external subnets
    has_snat: bool = True


class PlannedRouter(msgspec.Struct, frozen=True):
    """A router whose place is this host. `floating`: (floating address, fixed address)."""

    id: Id
    legs: Annotated[tuple[RouterLeg, ...], LIST] = ()
    gateway: RouterGateway | None = None
    routes: Annotated[tuple[tuple[Cidr, Address], ...], LIST] = ()
    floating: Annotated[tuple[tuple[Address, Address], ...], LIST] = ()


class HostNetworks(msgspec.Struct, frozen=True):
    """All of it. `revision` rises with every change of a row that it was made of; `known_hosts`: the tunnel addresses
    from which VXLAN is accepted. `told_in_boot`: of what a host keeps, in which of its boots it was told."""

    revision: Number
    tunnel_address: Address
    known_hosts: Annotated[tuple[Address, ...], LIST] = ()
    networks: Annotated[tuple[PlannedNetwork, ...], LIST] = ()
    ports: Annotated[tuple[PlannedPort, ...], LIST] = ()
    groups: Annotated[tuple[SecurityGroup, ...], LIST] = ()
    routers: Annotated[tuple[PlannedRouter, ...], LIST] = ()
    told_in_boot: ShortText = ""


class NotInForce(msgspec.Struct, frozen=True):
    """A thing of the plan that could not be made, and why."""

    kind: ShortText  # network | port | router
    id: Id
    reason: Reason
