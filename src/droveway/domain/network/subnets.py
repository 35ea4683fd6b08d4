"""What a subnet may be: its range, gateway, pools, name servers, routes and modes. Pure; a refusal names what is in
the way."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Sequence

import msgspec

from droveway.domain.network.addresses import (
    Interval,
    IPv4,
    IPv6,
    Network,
    address,
    interval_of,
    network,
    overlap,
    text_of,
    usable,
    without,
)
from droveway.domain.network.refusals import (
    GatewayConflictWithAllocationPools,
    InvalidAllocationPool,
    InvalidCIDR,
    InvalidInput,
    OutOfBoundsAllocationPool,
    OverlappingAllocationPools,
)
from droveway.domain.network_plan import Ipv6Mode

DNS_MAX, ROUTES_MAX, POOLS_MAX = 5, 20, 64  # Neutron's bounds; pools have none there
_SELF_MADE = (Ipv6Mode.SLAAC, Ipv6Mode.STATELESS)  # a guest makes its own address, of its MAC

Pools = list[tuple[str, str]]  # first and last address


class SubnetSpec(msgspec.Struct, frozen=True):
    """A subnet that may be made."""

    ip_version: int
    cidr: str
    gateway: str | None
    pools: Pools
    dns: list[str]
    routes: list[tuple[str, str]]
    enable_dhcp: bool
    ipv6_address_mode: str | None
    ipv6_ra_mode: str | None


class Asked(msgspec.Struct, frozen=True):
    """What a caller says of a subnet. `gateway`: None for none, empty for the usual one; `pools` None for the usual."""

    ip_version: int
    cidr: str
    gateway: str | None = ""
    pools: Sequence[tuple[str, str]] | None = None
    dns: Sequence[str] = ()
    routes: Sequence[tuple[str, str]] = ()
    enable_dhcp: bool = True
    ipv6_address_mode: str | None = None
    ipv6_ra_mode: str | None = None


def makes_own_address(mode: str | None) -> bool:
    return mode in _SELF_MADE


def checked(asked: Asked) -> SubnetSpec:
    """Raises what is wrong with it."""
    cidr = _range(asked)
    check_modes(asked)
    gateway = _gateway(asked, cidr)
    pools = usual_pools(cidr, gateway) if asked.pools is None else checked_pools(cidr, asked.pools, gateway)
    return SubnetSpec(
        asked.ip_version,
        str(cidr),
        gateway,
        pools,
        checked_dns(asked.dns),
        checked_routes(asked.routes, asked.ip_version),
        asked.enable_dhcp,
        asked.ipv6_address_mode,
        asked.ipv6_ra_mode,
    )


def _range(asked: Asked) -> Network:
    cidr = network("cidr", asked.cidr)
    if cidr.version != asked.ip_version:
        raise InvalidInput(
            f"Invalid input for operation: cidr '{cidr}' is of IP version {cidr.version}, and ip_version is "
            f"{asked.ip_version}."
        )
    if cidr.prefixlen == 0:
        raise InvalidInput("Invalid input for operation: 0 is not allowed as CIDR prefix length.")
    if cidr.is_multicast or cidr.is_loopback:
        raise InvalidCIDR(f"Invalid CIDR {cidr}: no host can have an address of it; choose a unicast range.")
    if asked.enable_dhcp and cidr.version == IPv4 and cidr.prefixlen > 30:
        raise InvalidInput(
            f"Invalid input for operation: Invalid CIDR {cidr} given as IP prefix: a subnet with DHCP has at least 4 "
            "addresses."
        )
    if asked.enable_dhcp and cidr.version == IPv6 and cidr.prefixlen > 126:
        raise InvalidInput(
            f"Invalid input for operation: Invalid CIDR {cidr} given as IP prefix: a subnet with DHCP has at least 4 "
            "addresses."
        )
    return cidr


def check_modes(asked: Asked) -> None:
    """Of IPv6: how guests get their addresses, and who advertises."""
    modes = {"ipv6_ra_mode": asked.ipv6_ra_mode, "ipv6_address_mode": asked.ipv6_address_mode}
    given = {name: mode for name, mode in modes.items() if mode is not None}
    if not given:
        return
    if asked.ip_version != IPv6:
        raise InvalidInput(f"Invalid input for operation: {' and '.join(given)} are not valid when ip_version is 4.")
    if not asked.enable_dhcp:
        raise InvalidInput(
            "Invalid input for operation: ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is False."
        )
    if len(set(given.values())) > 1:
        raise InvalidInput(
            f"Invalid input for operation: ipv6_ra_mode set to '{asked.ipv6_ra_mode}' with ipv6_address_mode set to "
            f"'{asked.ipv6_address_mode}' is not valid: where both are set, they are the same."
        )
    cidr = network("cidr", asked.cidr)
    if makes_own_address(next(iter(given.values()))) and cidr.prefixlen != 64:
        raise InvalidInput(
            f"Invalid input for operation: Invalid CIDR {cidr} for IPv6 address mode: guests that make their own "
            "addresses need a prefix length of 64."
        )


def _gateway(asked: Asked, cidr: Network) -> str | None:
    if asked.gateway is None:
        return None
    if asked.gateway == "":
        first, last = usable(cidr)
        return text_of(first, cidr.version) if first <= last else None
    return checked_gateway(cidr, asked.gateway)


def checked_gateway(cidr: Network, given: str) -> str:
    """An address of the subnet that a router may have. IPv6 may have a link-local one."""
    found = address("gateway_ip", given)
    first, last = int(cidr.network_address), int(cidr.broadcast_address)
    may_be_edge = cidr.version == IPv6 or cidr.num_addresses <= 2
    is_inside = first <= int(found) <= last and (may_be_edge or first < int(found) < last)
    if found.version != cidr.version or not (is_inside or (found.version == IPv6 and found.is_link_local)):
        raise InvalidInput(
            f"Invalid input for operation: Gateway is not valid on subnet: {found} is no address that a router can "
            f"have in {cidr}."
        )
    return str(found)


def usual_pools(cidr: Network, gateway: str | None) -> Pools:
    """All that a port may have, but the gateway."""
    hole = None if gateway is None else int(ipaddress.ip_address(gateway))
    return [(text_of(first, cidr.version), text_of(last, cidr.version)) for first, last in without(usable(cidr), hole)]


def checked_pools(cidr: Network, given: Iterable[tuple[str, str]], gateway: str | None) -> Pools:
    """In order; within the subnet, not overlapping, without the gateway."""
    lowest, highest = usable(cidr)
    found: list[Interval] = []
    for start, end in given:
        first, last = address("allocation_pools", start), address("allocation_pools", end)
        if first.version != cidr.version or last.version != cidr.version or int(last) < int(first):
            raise InvalidAllocationPool(f"The allocation pool {start}-{end} is not valid.")
        if not (lowest <= int(first) and int(last) <= highest):
            raise OutOfBoundsAllocationPool(f"The allocation pool {start}-{end} spans beyond the subnet cidr {cidr}.")
        found.append((int(first), int(last)))
    if len(found) > POOLS_MAX:
        raise InvalidInput(f"Invalid input for allocation_pools. Reason: at most {POOLS_MAX} are accepted.")
    found.sort()
    for before, after in itertools.pairwise(found):
        if overlap(before, after):
            raise OverlappingAllocationPools(
                f"Found overlapping allocation pools: {_shown(before, cidr)} {_shown(after, cidr)} for subnet {cidr}."
            )
    check_gateway_outside(gateway, found, cidr.version)
    return [(text_of(first, cidr.version), text_of(last, cidr.version)) for first, last in found]


def check_gateway_outside(gateway: str | None, pools: Iterable[Interval], version: int) -> None:
    number = None if gateway is None else int(ipaddress.ip_address(gateway))
    for first, last in pools:
        if number is not None and first <= number <= last:
            pool = f"{text_of(first, version)}-{text_of(last, version)}"
            raise GatewayConflictWithAllocationPools(
                f"Gateway ip {gateway} conflicts with allocation pool {pool}: choose pools without it."
            )


def intervals(pools: Iterable[Sequence[str]]) -> list[Interval]:
    return [(int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last))) for first, last in pools]


def _shown(interval: Interval, cidr: Network) -> str:
    return f"{text_of(interval[0], cidr.version)}-{text_of(interval[1], cidr.version)}"


def checked_dns(given: Iterable[str]) -> list[str]:
    found = [str(address("dns_nameservers", one)) for one in given]
    if len(found) > DNS_MAX:
        raise InvalidInput(f"Invalid input for dns_nameservers. Reason: at most {DNS_MAX} are accepted.")
    if len(set(found)) != len(found):
        raise InvalidInput("Invalid input for dns_nameservers. Reason: an address stands there twice.")
    return found


def checked_routes(given: Iterable[tuple[str, str]], version: int | None = None) -> list[tuple[str, str]]:
    """Of a subnet or a router: each a destination and the next hop there."""
    found = []
    for destination, hop in given:
        cidr, next_hop = network("destination", destination), address("nexthop", hop)
        if cidr.version != next_hop.version or version not in (None, cidr.version):
            raise InvalidInput(
                f"Invalid input for operation: the route to {destination} via {hop} mixes IP versions, or is not of "
                "the version of its subnet."
            )
        found.append((str(cidr), str(next_hop)))
    if len(found) > ROUTES_MAX:
        raise InvalidInput(f"Invalid input for routes. Reason: at most {ROUTES_MAX} are accepted.")
    if len(set(found)) != len(found):
        raise InvalidInput("Invalid input for routes. Reason: a route stands there twice.")
    return found


def check_apart(cidr: str, of_network: str, others: Iterable[tuple[str, str]]) -> None:
    """`others`: the id and the range of each subnet of the network. Raises InvalidInput when it overlaps with one."""
    mine = interval_of(cidr)
    version = ipaddress.ip_network(cidr).version
    for subnet_id, other in others:
        if ipaddress.ip_network(other).version == version and overlap(mine, interval_of(other)):
            raise InvalidInput(
                f"Invalid input for operation: Requested subnet with cidr: {cidr} for network: {of_network} overlaps "
                f"with another subnet: {subnet_id} has {other}."
            )
