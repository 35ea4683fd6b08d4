"""Addresses as numbers: which are within, which overlap, which is the next that is free. Pure.

A free address is chosen by arithmetic over counts: the caller gives how many of an interval are taken, and one window
of them at the end, so that a subnet of 65,000 addresses is not read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence

from droveway.domain.network.refusals import InvalidInput

IPv4, IPv6 = 4, 6
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
WINDOW = 256  # taken addresses that are looked at one by one
NUMBER_DIGITS = 32
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")

Interval = tuple[int, int]  # first and last, both within


def address(path: str, value: object) -> Address:
    """An IP address. Raises InvalidInput."""
    try:
        if not isinstance(value, str) or "%" in value:
            raise ValueError
        return ipaddress.ip_address(value)
    except ValueError:
        raise InvalidInput(
            f"Invalid input for {path}. Reason: {str(value)[:64]!r} is not a valid IP address."
        ) from None


def network(path: str, value: object) -> Network:
    """A range of addresses; bits behind its prefix are cut off. Raises InvalidInput."""
    try:
        if not isinstance(value, str) or "%" in value:
            raise ValueError
        return ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise InvalidInput(f"Invalid input for {path}. Reason: {str(value)[:64]!r} is not a valid IP subnet.") from None


def mac(path: str, value: object) -> str:
    """A MAC address of one device, in small letters. Raises InvalidInput."""
    text = value.lower().replace("-", ":") if isinstance(value, str) else ""
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        raise InvalidInput(f"Invalid input for {path}. Reason: {str(value)[:64]!r} is not a valid MAC address.")
    return text


def mac_of(uuid: str) -> str:
    """A MAC address that nobody else is likely to have: Neutron's first three bytes, then of a random id."""
    digits = uuid.replace("-", "")[-6:]
    return f"fa:16:3e:{digits[:2]}:{digits[2:4]}:{digits[4:]}"


def digits_of(number: int) -> str:
    """As text whose order is that of the numbers."""
    return f"{number:0{NUMBER_DIGITS}x}"


def number_of(digits: str) -> int:
    return int(digits, 16)


def text_of(number: int, version: int) -> str:
    return str(ipaddress.IPv4Address(number) if version == IPv4 else ipaddress.IPv6Address(number))


def eui64(cidr: str, of_mac: str) -> int:
    """The address that a host of that MAC gives itself (RFC 4291, appendix A)."""
    octets = bytes.fromhex(of_mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]])
    return int(ipaddress.ip_network(cidr).network_address) + int.from_bytes(identifier, "big")


def usable(cidr: Network) -> Interval:
    """What a port may have: neither the network's own address nor IPv4's broadcast, but where there are just one or
    two."""
    first, last = int(cidr.network_address), int(cidr.broadcast_address)
    if cidr.num_addresses <= 2:
        return first, last
    return first + 1, last - 1 if cidr.version == IPv4 else last


def without(interval: Interval, hole: int | None) -> list[Interval]:
    """What is left of it without that number."""
    first, last = interval
    if hole is None or not first <= hole <= last:
        return [interval]
    return [part for part in ((first, hole - 1), (hole + 1, last)) if part[0] <= part[1]]


def overlap(one: Interval, other: Interval) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def interval_of(cidr: str) -> Interval:
    found = ipaddress.ip_network(cidr)
    return int(found.network_address), int(found.broadcast_address)


def is_within(number: int, intervals: Iterable[Interval]) -> bool:
    return any(first <= number <= last for first, last in intervals)


# -- which is free ----------------------------------------------------------------------------------------------------
Count = Callable[[int, int], int]  # how many of that interval are taken
Taken = Callable[[int, int], Sequence[int]]  # which they are, in order


def next_free(pool: Interval, highest: int | None, count: Count, taken: Taken) -> int | None:
    """A free address of the pool: the one behind the highest that is taken, so that one just given back rests for a
    while; where that was the last, the lowest there is. None: all are taken."""
    first, last = pool
    if highest is None or highest < first:
        return first
    if highest < last:
        return highest + 1
    if count(first, last) > last - first:
        return None
    while last - first >= WINDOW:
        middle = (first + last) // 2
        if count(first, middle) <= middle - first:
            last = middle
        else:
            first = middle + 1
    return first_gap((first, last), taken(first, last))


def first_gap(interval: Interval, taken: Sequence[int]) -> int | None:
    """The lowest number of it that is not among them, which are in order."""
    wanted, last = interval
    for number in taken:
        if number > wanted:
            break
        wanted = number + 1
    return wanted if wanted <= last else None
