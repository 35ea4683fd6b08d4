"""Networks as ranges of numbers: a tenth of what `ipaddress` takes, where a host has thousands of them. Pure."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Span(NamedTuple):
    """A network, from its first to its last address. `text`: as it is written."""

    version: int
    first: int
    last: int
    text: str

    @property
    def is_everything(self) -> bool:
        return self.first == 0 and self.last == (1 << (32 if self.version == 4 else 128)) - 1

    @property
    def is_one(self) -> bool:
        return self.first == self.last

    @property
    def short(self) -> str:
        """Without the prefix length of a single address."""
        return self.text.partition("/")[0] if self.is_one else self.text


@lru_cache(maxsize=65_536)
def span(cidr: str) -> Span:
    """Of an address or a network; bits behind its prefix length do not count. Raises ValueError."""
    address, _, length = cidr.partition("/")
    version = 6 if ":" in address else 4
    try:
        packed = socket.inet_pton(FAMILIES[version], address)
        bits = 8 * len(packed)
        prefix = int(length) if length else bits
        hosts = (1 << (bits - prefix)) - 1
    except (OSError, ValueError):
        raise ValueError(f"{cidr!r} is no address and no network") from None
    first = int.from_bytes(packed) & ~hosts
    text = socket.inet_ntop(FAMILIES[version], first.to_bytes(len(packed)))
    return Span(version, first, first | hosts, f"{text}/{prefix}")


def disjoint(spans: Iterable[Span]) -> list[Span]:
    """The same addresses, without those that are inside another one: networks overlap in no other way."""
    found: list[Span] = []
    for one in sorted(spans, key=lambda one: (one.version, one.first, -one.last)):
        if not found or found[-1].version != one.version or one.last > found[-1].last:
            found.append(one)
    return found


def layers(spans: Iterable[Span]) -> list[list[Span]]:
    """By how many others of them each is inside: within one layer none overlaps another. Of one IP version."""
    found: list[list[Span]] = []
    around: list[Span] = []
    for one in sorted(spans, key=lambda one: (one.first, -one.last)):
        while around and around[-1].last < one.first:
            around.pop()
        if len(found) <= len(around):
            found.append([])
        found[len(around)].append(one)
        around.append(one)
    return found
