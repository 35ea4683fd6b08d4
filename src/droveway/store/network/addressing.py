"""Which addresses a port gets. They are claimed as rows, whose key is the subnet and the address: of two that want one
the second is refused, whatever was read before."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import bindparam, delete, func, insert, select

from droveway.domain.network.addresses import Interval, IPv4, digits_of, eui64, next_free, number_of, text_of, without
from droveway.domain.network.refusals import (
    InvalidInput,
    InvalidIpForNetwork,
    InvalidIpForSubnet,
    IpAddressGenerationFailure,
    IpAddressInUse,
    SubnetNotFound,
)
from droveway.domain.network.subnets import intervals, makes_own_address
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network.rows import SubnetRow
from droveway.store.network.tables import port_addresses, subnets

PER_PORT_MAX = 5
INTERFACE_OWNER = "network:router_interface"
c = port_addresses.c
_BETWEEN = (c.subnet_id == bindparam("of"), c.number.between(bindparam("first"), bindparam("last")))
_HIGHEST = Prepared(select(func.max(c.number)).where(*_BETWEEN))
_COUNT = Prepared(select(func.count()).where(*_BETWEEN))
_TAKEN = Prepared(select(c.number).where(*_BETWEEN).order_by(c.number))
_HOLDER = Prepared(select(c.port_id).where(c.subnet_id == bindparam("of"), c.number == bindparam("number")))
_SUBNETS = Prepared(
    select(subnets).where(subnets.c.network_id == bindparam("of")).order_by(subnets.c.created_at_us, subnets.c.id)
)
_INSERT = Prepared(insert(port_addresses))
_RELEASE = Prepared(delete(port_addresses).where(c.port_id == bindparam("of")))


class AddressRequest(msgspec.Struct, frozen=True):
    """A subnet, an address, or both."""

    subnet_id: str | None = None
    address: str | None = None


class Chosen(NamedTuple):
    subnet_id: str
    number: int
    address: str


def subnets_of(tx: Tx, network_id: str) -> list[SubnetRow]:
    return results.every(SubnetRow, tx.execute(_SUBNETS, {"of": network_id}))


def choose(
    tx: Tx, network_id: str, wanted: Sequence[AddressRequest] | None, mac: str, owner: str = "", mine: str = ""
) -> list[Chosen]:
    """Free addresses, none of which is claimed yet. `wanted`: None, and it is as usual: one of IPv4, and of IPv6 what
    the network has. `mine`: the port whose own addresses are no obstacle. Raises what is in the way."""
    there = subnets_of(tx, network_id)
    if wanted is None:
        return _usual(tx, network_id, there, mac)
    if len(wanted) > PER_PORT_MAX:
        raise InvalidInput(
            f"Invalid input for operation: Exceeded maximum amount of fixed ips per port: {PER_PORT_MAX} are accepted."
        )
    found: list[Chosen] = []
    for one in wanted:
        subnet = _subnet_of(network_id, there, one)
        taken = [other.number for other in found if other.subnet_id == subnet["id"]]
        if one.address is None:
            found.append(_free(tx, network_id, subnet, mac, owner, taken))
        else:
            found.append(_exactly(tx, network_id, subnet, one.address, (owner, mac), mine, taken))
    return found


def _usual(tx: Tx, network_id: str, there: Sequence[SubnetRow], mac: str) -> list[Chosen]:
    v4 = [subnet for subnet in there if subnet["ip_version"] == IPv4]
    own = [subnet for subnet in there if makes_own_address(subnet["ipv6_address_mode"])]
    v6 = [subnet for subnet in there if subnet["ip_version"] != IPv4 and subnet not in own]
    found = [_free(tx, network_id, subnet, mac) for subnet in own]
    for several in (v4, v6):
        if several:
            found.append(_of_the_first_with_room(tx, network_id, several))
    return sorted(found, key=lambda one: ":" in one.address)


def _of_the_first_with_room(tx: Tx, network_id: str, several: Sequence[SubnetRow]) -> Chosen:
    for subnet in several:
        number = _of_pools(tx, subnet, ())
        if number is not None:
            return _chosen(subnet, number)
    raise _exhausted(network_id, several)


def _exhausted(network_id: str, several: Sequence[SubnetRow]) -> IpAddressGenerationFailure:
    named = ", ".join(f"{subnet['id']} ({subnet['cidr']})" for subnet in several[:PER_PORT_MAX])
    return IpAddressGenerationFailure(
        f"No more IP addresses available on network {network_id}: the pools of subnet {named} are used up; delete "
        "ports, or add a subnet."
    )


def _subnet_of(network_id: str, there: Sequence[SubnetRow], one: AddressRequest) -> SubnetRow:
    if one.subnet_id is not None:
        for subnet in there:
            if subnet["id"] == one.subnet_id:
                return subnet
        raise SubnetNotFound(f"Subnet {one.subnet_id[:64]} could not be found on network {network_id}.")
    assert one.address is not None, "a wish names one of both"
    wanted = ipaddress.ip_address(one.address)
    for subnet in there:
        if wanted in ipaddress.ip_network(subnet["cidr"]):
            return subnet
    raise InvalidIpForNetwork(f"IP address {one.address} is not a valid IP for any of the subnets on the network.")


def _free(tx: Tx, network_id: str, subnet: SubnetRow, mac: str, owner: str = "", taken: Iterable[int] = ()) -> Chosen:
    if makes_own_address(subnet["ipv6_address_mode"]) and owner != INTERFACE_OWNER:
        return _exactly_number(tx, network_id, subnet, eui64(subnet["cidr"], mac))
    number = _of_pools(tx, subnet, taken)
    if number is None:
        raise _exhausted(network_id, [subnet])
    return _chosen(subnet, number)


def _of_pools(tx: Tx, subnet: SubnetRow, taken: Iterable[int]) -> int | None:
    """`taken`: what the very same port has been given just now."""

    def between(first: int, last: int) -> dict[str, str]:
        return {"of": subnet["id"], "first": digits_of(first), "last": digits_of(last)}

    def count(first: int, last: int) -> int:
        return int(tx.execute(_COUNT, between(first, last)).scalar_one())

    def which(first: int, last: int) -> list[int]:
        return [number_of(row) for row in tx.execute(_TAKEN, between(first, last)).scalars()]

    for pool in _without(intervals(subnet["pools"]), taken):
        highest = tx.execute(_HIGHEST, between(*pool)).scalar()
        number = next_free(pool, None if highest is None else number_of(highest), count, which)
        if number is not None:
            return number
    return None


def _without(pools: Iterable[Interval], taken: Iterable[int]) -> list[Interval]:
    """Those of the pools behind what is taken, first; so that two addresses of one port differ."""
    found = list(pools)
    for hole in taken:
        found = [part for pool in found for part in without(pool, hole)]
    return found


def _exactly(
    tx: Tx, network_id: str, subnet: SubnetRow, address: str, of: tuple[str, str], mine: str, taken: Sequence[int]
) -> Chosen:
    cidr, wanted = ipaddress.ip_network(subnet["cidr"]), ipaddress.ip_address(address)
    owner, mac = of
    is_edge = cidr.version == IPv4 and cidr.num_addresses > 2 and wanted in (cidr[0], cidr[-1])
    if wanted not in cidr or is_edge:
        raise InvalidIpForSubnet(f"IP address {address} is not a valid IP for the specified subnet: {cidr}.")
    number = int(wanted)
    is_auto = makes_own_address(subnet["ipv6_address_mode"]) and owner != INTERFACE_OWNER
    if is_auto and number != eui64(subnet["cidr"], mac):
        raise InvalidIpForSubnet(
            f"IPv6 address {address} can not be directly assigned to a port on subnet {subnet['id']} as the subnet is "
            "configured for automatic addresses."
        )
    if number in taken:
        raise InvalidInput(f"Invalid input for fixed_ips. Reason: {address} stands there twice.")
    return _exactly_number(tx, network_id, subnet, number, mine)


def _exactly_number(tx: Tx, network_id: str, subnet: SubnetRow, number: int, mine: str = "") -> Chosen:
    holder = tx.execute(_HOLDER, {"of": subnet["id"], "number": digits_of(number)}).scalar()
    if holder is not None and holder != mine:
        raise IpAddressInUse(
            f"Unable to complete operation for network {network_id}. The IP address "
            f"{text_of(number, subnet['ip_version'])} is in use: port {holder} has it."
        )
    return _chosen(subnet, number)


def _chosen(subnet: SubnetRow, number: int) -> Chosen:
    return Chosen(subnet["id"], number, text_of(number, subnet["ip_version"]))


def claim(tx: Tx, port_id: str, chosen: Sequence[Chosen]) -> None:
    rows = [
        {
            "subnet_id": one.subnet_id,
            "number": digits_of(one.number),
            "port_id": port_id,
            "place": place,
            "address": one[2],
        }
        for place, one in enumerate(chosen)
    ]
    if rows:
        tx.execute(_INSERT, rows)


def release(tx: Tx, port_id: str) -> None:
    tx.execute(_RELEASE, {"of": port_id})
