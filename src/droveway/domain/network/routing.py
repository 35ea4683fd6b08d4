"""What a router may have at once. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from droveway.domain.network.addresses import interval_of, overlap
from droveway.domain.network.refusals import BadRouterRequest, InvalidInput
from droveway.domain.network.subnets import checked_routes


class Leg(NamedTuple):
    """An address of a router, with the subnet that it is of."""

    port_id: str
    network_id: str
    subnet_id: str
    cidr: str
    address: str
    is_gateway: bool


def check_legs(router_id: str, legs: Sequence[Leg]) -> None:
    """No two of its subnets overlap: packets would not know where to go. Raises BadRouterRequest."""
    for index, one in enumerate(legs):
        for other in legs[:index]:
            if other.subnet_id == one.subnet_id:
                continue
            same_version = ipaddress.ip_network(one.cidr).version == ipaddress.ip_network(other.cidr).version
            if same_version and overlap(interval_of(one.cidr), interval_of(other.cidr)):
                raise BadRouterRequest(
                    f"Bad router request: Cidr {one.cidr} of subnet {one.subnet_id} overlaps with cidr {other.cidr} of "
                    f"subnet {other.subnet_id}, which router {router_id} has already."
                )


def check_routes(given: Iterable[tuple[str, str]], legs: Sequence[Leg]) -> list[tuple[str, str]]:
    """Each next hop is a neighbour, and not the router itself. Raises InvalidInput."""
    found = checked_routes(given)
    for destination, hop in found:
        next_hop = ipaddress.ip_address(hop)
        if not any(next_hop in ipaddress.ip_network(leg.cidr) for leg in legs):
            raise InvalidInput(
                f"Invalid format for routes: the nexthop {hop} of {destination} is not connected with router: it is in "
                "none of its subnets."
            )
        if any(leg.address == hop for leg in legs):
            raise InvalidInput(
                f"Invalid format for routes: the nexthop {hop} of {destination} is used by router: it is its own "
                "address."
            )
    return found
