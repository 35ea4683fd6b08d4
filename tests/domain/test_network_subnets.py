"""What a subnet may be, and what each refusal names."""

from __future__ import annotations

from typing import Any

import pytest

from droveway.domain.faults import Fault
from droveway.domain.network import refusals
from droveway.domain.network.routing import Leg, check_legs, check_routes
from droveway.domain.network.subnets import Asked, check_apart, checked


def test_what_is_not_said_is_as_usual() -> None:
    found = checked(Asked(4, "10.0.0.9/24"))
    assert (found.cidr, found.gateway, found.pools) == ("10.0.0.0/24", "10.0.0.1", [("10.0.0.2", "10.0.0.254")])
    none = checked(Asked(4, "10.0.0.0/24", gateway=None))
    assert (none.gateway, none.pools) == (None, [("10.0.0.1", "10.0.0.254")])
    middle = checked(Asked(4, "10.0.0.0/29", gateway="10.0.0.4"))
    assert middle.pools == [("10.0.0.1", "10.0.0.3"), ("10.0.0.5", "10.0.0.6")]
    six = checked(Asked(6, "2001:DB8:0::/64", ipv6_address_mode="slaac", ipv6_ra_mode="slaac"))
    assert (six.cidr, six.gateway) == ("2001:db8::/64", "2001:db8::1")


def test_what_is_said_is_kept_in_one_spelling() -> None:
    found = checked(
        Asked(
            4,
            "10.0.0.0/24",
            pools=[("10.0.0.100", "10.0.0.110"), ("10.0.0.10", "10.0.0.20")],
            dns=["192.0.2.53", "2001:DB8::53"],
            routes=[("192.0.2.9/24", "10.0.0.9")],
        )
    )
    assert found.pools == [("10.0.0.10", "10.0.0.20"), ("10.0.0.100", "10.0.0.110")]
    assert (found.dns, found.routes) == (["192.0.2.53", "2001:db8::53"], [("192.0.2.0/24", "10.0.0.9")])
    assert checked(Asked(4, "10.0.0.0/32", enable_dhcp=False, gateway=None)).pools == [("10.0.0.0", "10.0.0.0")]
    assert checked(Asked(6, "2001:db8::/127", enable_dhcp=False)).gateway == "2001:db8::"
    assert checked(Asked(6, "2001:db8::/64", gateway="fe80::1")).gateway == "fe80::1"


R = refusals
WRONG: list[tuple[dict[str, Any], type[Fault], str]] = [
    ({"cidr": "0.0.0.0/0"}, R.InvalidInput, "0 is not allowed as CIDR prefix length"),
    ({"ip_version": 6, "cidr": "::/0"}, R.InvalidInput, "0 is not allowed"),
    ({"ip_version": 6, "cidr": "2001:db8::/127"}, R.InvalidInput, "2001:db8::/127.*at least 4"),
    ({"cidr": "10.0.0.0/31"}, R.InvalidInput, "10.0.0.0/31.*at least 4"),
    ({"cidr": "10.0.0.0/33"}, R.InvalidInput, "is not a valid IP subnet"),
    ({"cidr": "224.0.0.0/24"}, R.InvalidCIDR, "unicast"),
    ({"cidr": "127.0.0.0/8"}, R.InvalidCIDR, "127.0.0.0/8"),
    ({"ip_version": 6}, R.InvalidInput, "is of IP version 4, and ip_version is 6"),
    ({"gateway": "10.0.1.1"}, R.InvalidInput, "Gateway is not valid on subnet: 10.0.1.1"),
    ({"gateway": "10.0.0.0"}, R.InvalidInput, "Gateway is not valid"),
    ({"gateway": "10.0.0.255"}, R.InvalidInput, "Gateway is not valid"),
    ({"gateway": "2001:db8::1"}, R.InvalidInput, "Gateway is not valid"),
    ({"pools": [("10.0.0.9", "10.0.0.5")]}, R.InvalidAllocationPool, "10.0.0.9-10.0.0.5 is not valid"),
    ({"pools": [("10.0.0.9", "2001:db8::1")]}, R.InvalidAllocationPool, "is not valid"),
    ({"pools": [("10.0.0.9", "10.0.1.5")]}, R.OutOfBoundsAllocationPool, "spans beyond the subnet cidr 10.0.0.0/24"),
    ({"pools": [("10.0.0.9", "10.0.0.255")]}, R.OutOfBoundsAllocationPool, "spans beyond"),
    ({"pools": [("10.0.0.2", "10.0.0.9"), ("10.0.0.9", "10.0.0.20")]}, R.OverlappingAllocationPools, "10.0.0.9"),
    ({"pools": [("10.0.0.1", "10.0.0.9")]}, R.GatewayConflictWithAllocationPools, "10.0.0.1 conflicts"),
    ({"pools": [("10.0.0.9", "10.0.0.9")] * 65}, R.InvalidInput, "at most 64"),
    ({"dns": ["192.0.2.1"] * 2}, R.InvalidInput, "twice"),
    ({"dns": [f"192.0.2.{n}" for n in range(6)]}, R.InvalidInput, "at most 5"),
    ({"dns": ["192.0.2.1,192.0.2.2"]}, R.InvalidInput, "is not a valid IP address"),
    ({"routes": [("192.0.2.0/24", "2001:db8::1")]}, R.InvalidInput, "mixes IP versions"),
    ({"routes": [("192.0.2.0/24", "10.0.0.2")] * 2}, R.InvalidInput, "twice"),
    ({"routes": [(f"192.0.{n}.0/24", "10.0.0.2") for n in range(21)]}, R.InvalidInput, "at most 20"),
    ({"ipv6_ra_mode": "slaac"}, R.InvalidInput, "ipv6_ra_mode are not valid when ip_version is 4"),
]
WRONG_V6: list[tuple[dict[str, Any], str]] = [
    ({"enable_dhcp": False, "ipv6_ra_mode": "slaac"}, "cannot be set when enable_dhcp is False"),
    ({"ipv6_ra_mode": "slaac", "ipv6_address_mode": "dhcpv6-stateful"}, "where both are set, they are the same"),
    ({"cidr": "2001:db8::/65", "ipv6_address_mode": "slaac"}, "need a prefix length of 64"),
    ({"cidr": "2001:db8::/48", "ipv6_ra_mode": "dhcpv6-stateless"}, "need a prefix length of 64"),
]


@pytest.mark.parametrize(("said", "kind", "words"), WRONG)
def test_what_is_refused(said: dict[str, Any], kind: type[Fault], words: str) -> None:
    with pytest.raises(kind, match=words):
        checked(Asked(**({"ip_version": 4, "cidr": "10.0.0.0/24"} | said)))


@pytest.mark.parametrize(("said", "words"), WRONG_V6)
def test_modes_of_ipv6(said: dict[str, Any], words: str) -> None:
    with pytest.raises(refusals.InvalidInput, match=words):
        checked(Asked(**({"ip_version": 6, "cidr": "2001:db8::/64"} | said)))
    checked(Asked(6, "2001:db8::/65", ipv6_address_mode="dhcpv6-stateful"))


def test_subnets_of_a_network_lie_apart() -> None:
    others = [("s1", "10.0.0.0/24"), ("s2", "2001:db8::/64")]
    check_apart("10.0.1.0/24", "n", others)
    for cidr, other in (("10.0.0.128/25", "s1"), ("10.0.0.0/16", "s1"), ("2001:db8::/64", "s2")):
        with pytest.raises(refusals.InvalidInput, match=f"{cidr} for network: n overlaps with another subnet: {other}"):
            check_apart(cidr, "n", others)


def test_legs_of_a_router_lie_apart_and_routes_lead_to_neighbours() -> None:
    one, other = (
        Leg("p1", "n1", "s1", "10.0.0.0/24", "10.0.0.1", False),
        Leg("p2", "n2", "s2", "10.0.1.0/24", "10.0.1.1", False),
    )
    six = Leg("p2", "n2", "s3", "2001:db8::/64", "2001:db8::1", False)
    check_legs("r", [one, other, six, one])
    with pytest.raises(refusals.BadRouterRequest, match=r"Cidr 10.0.0.0/16 of subnet s9 overlaps"):
        check_legs("r", [one, Leg("p9", "n9", "s9", "10.0.0.0/16", "10.0.0.2", True)])
    assert check_routes([("192.0.2.1/24", "10.0.1.9")], [one, other]) == [("192.0.2.0/24", "10.0.1.9")]
    for hop, words in (("10.0.2.9", "is not connected with router"), ("10.0.1.1", "is used by router")):
        with pytest.raises(refusals.InvalidInput, match=words):
            check_routes([("192.0.2.0/24", hop)], [one, other])
