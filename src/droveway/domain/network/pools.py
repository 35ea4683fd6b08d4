"""Subnet pools: what one may be, and which range of it a subnet gets. Pure."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Sequence

import msgspec

from droveway.domain.network.addresses import Interval, IPv4, Network, interval_of, network, overlap, text_of
from droveway.domain.network.refusals import (
    IllegalSubnetPoolPrefixBounds,
    IllegalSubnetPoolPrefixUpdate,
    InvalidInput,
    SubnetAllocationError,
    SubnetPoolQuotaExceeded,
)

PREFIXES_MAX = 100
LEAST = {4: 8, 6: 64}  # prefix lengths, where none are said
BITS = {4: 32, 6: 128}
QUOTA_UNIT = {4: 32, 6: 64}  # the prefix length of what a quota counts


class Pool(msgspec.Struct, frozen=True):
    """`default_quota`: how many addresses (of IPv6: ranges of 64 bits) a project may have of it; None: all."""

    ip_version: int
    prefixes: tuple[str, ...]
    default_prefixlen: int
    min_prefixlen: int
    max_prefixlen: int
    default_quota: int | None = None


def checked(
    prefixes: Sequence[str], default: int | None, least: int | None, most: int | None, quota: int | None
) -> Pool:
    """Raises what is wrong with it."""
    ranges = _ranges(prefixes)
    version = ranges[0].version
    min_prefixlen = LEAST[version] if least is None else least
    max_prefixlen = BITS[version] if most is None else most
    default_prefixlen = min_prefixlen if default is None else default
    for name, number, is_wrong in (
        ("max_prefixlen", max_prefixlen, not 0 < max_prefixlen <= BITS[version]),
        ("min_prefixlen", min_prefixlen, not 0 < min_prefixlen <= max_prefixlen),
        ("default_prefixlen", default_prefixlen, not min_prefixlen <= default_prefixlen <= max_prefixlen),
    ):
        if is_wrong:
            raise IllegalSubnetPoolPrefixBounds(
                f"Illegal prefix bounds: {name}={number}; they stand in the order 1, min_prefixlen={min_prefixlen}, "
                f"default_prefixlen={default_prefixlen}, max_prefixlen={max_prefixlen}, {BITS[version]}."
            )
    return Pool(version, tuple(map(str, ranges)), default_prefixlen, min_prefixlen, max_prefixlen, quota)


def _ranges(prefixes: Sequence[str]) -> list[Network]:
    """Together as few as they can be, in order."""
    found = [network("prefixes", one) for one in prefixes]
    if not 0 < len(found) <= PREFIXES_MAX:
        raise InvalidInput(f"Invalid input for prefixes. Reason: a subnet pool has 1 to {PREFIXES_MAX} prefixes.")
    if len({one.version for one in found}) > 1:
        raise InvalidInput("Invalid input for prefixes. Reason: they mix IP versions.")
    found.sort(key=lambda one: (int(one.network_address), one.prefixlen))
    for before, after in itertools.pairwise(found):
        if before.overlaps(after):
            raise InvalidInput(f"Invalid input for prefixes. Reason: {before} and {after} overlap.")
    if found[0].version == IPv4:
        return list(ipaddress.collapse_addresses(one for one in found if isinstance(one, ipaddress.IPv4Network)))
    return list(ipaddress.collapse_addresses(one for one in found if isinstance(one, ipaddress.IPv6Network)))


def check_grows(before: Iterable[str], now: Iterable[str]) -> None:
    """A pool loses nothing of what subnets may have. Raises IllegalSubnetPoolPrefixUpdate."""
    ranges = [interval_of(one) for one in now]
    for prefix in before:
        first, last = interval_of(prefix)
        if not any(low <= first and last <= high for low, high in ranges):
            raise IllegalSubnetPoolPrefixUpdate(
                f"Illegal update to prefixes: {prefix} is not in them; prefixes can only be added to a subnet pool."
            )


def chosen(pool: Pool, pool_id: str, prefixlen: int | None, taken: Iterable[str]) -> str:
    """The lowest range of that length that overlaps with none of those taken. Raises SubnetAllocationError."""
    length = _checked_length(pool, pool.default_prefixlen if prefixlen is None else prefixlen)
    size = 1 << (BITS[pool.ip_version] - length)
    held = sorted(interval_of(one) for one in taken)
    for prefix in pool.prefixes:
        first = _first_free(interval_of(prefix), size, held)
        if first is not None:
            return f"{text_of(first, pool.ip_version)}/{length}"
    raise SubnetAllocationError(
        f"Failed to allocate subnet: Insufficient prefix space to allocate subnet size /{length} in subnet pool "
        f"{pool_id}."
    )


def _first_free(within: Interval, size: int, held: Sequence[Interval]) -> int | None:
    first, last = within
    start = -(-first // size) * size
    for low, high in held:
        if high >= start and low < start + size:
            start = -(-(high + 1) // size) * size
    return start if start + size - 1 <= last else None


def _checked_length(pool: Pool, length: int) -> int:
    if not pool.min_prefixlen <= length <= pool.max_prefixlen:
        raise SubnetAllocationError(
            f"Failed to allocate subnet: Unable to allocate subnet with prefix length {length}: the pool gives "
            f"{pool.min_prefixlen} to {pool.max_prefixlen}."
        )
    return length


def check_range(pool: Pool, pool_id: str, cidr: str, taken: Iterable[str]) -> None:
    """One that was asked for. Raises SubnetAllocationError."""
    wanted = ipaddress.ip_network(cidr)
    _checked_length(pool, wanted.prefixlen)
    first, last = interval_of(cidr)
    ranges = [interval_of(one) for one in pool.prefixes] if wanted.version == pool.ip_version else []
    is_free = not any(overlap((first, last), interval_of(one)) for one in taken)
    if not is_free or not any(low <= first and last <= high for low, high in ranges):
        raise SubnetAllocationError(
            f"Failed to allocate subnet: Cannot allocate requested subnet {cidr} from the available set of prefixes of "
            f"subnet pool {pool_id}."
        )


def check_quota(pool: Pool, mine: Iterable[str], more: str) -> None:
    """`mine`: what the project has of it. Raises SubnetPoolQuotaExceeded."""
    if pool.default_quota is None:
        return
    unit = QUOTA_UNIT[pool.ip_version]
    used, asked = sum(_units(one, unit) for one in mine), _units(more, unit)
    if used + asked > pool.default_quota:
        raise SubnetPoolQuotaExceeded(
            f"Per-tenant subnet pool prefix quota exceeded: {used} are used, {asked} more were asked for, and "
            f"{pool.default_quota} is the most."
        )


def _units(cidr: str, unit: int) -> int:
    return 1 << max(0, unit - ipaddress.ip_network(cidr).prefixlen)
