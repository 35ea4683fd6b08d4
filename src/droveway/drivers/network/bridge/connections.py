"""Tracked connections of a port as text, in the words of `conntrack -o save`. What another host sends is data: a line
that is not about that port, or has another form, is left out. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

LINES_MAX = 20_000
BYTES_MAX = 2 * 1024 * 1024
_LINE = re.compile(r"-A( --?[a-z][a-z-]*( [A-Za-z0-9_.:,]+)?)+")
_ENDS = re.compile(r" -[sdrq] ([0-9a-f.:]+)")
_ZONE = re.compile(r" -w \d+")


def of_port(lines: Iterable[str], addresses: Collection[str]) -> str:
    """Those of these addresses, the first LINES_MAX of them, without their zone: that is the host's own."""
    kept: list[str] = []
    size = 0
    for line in lines:
        one = _ZONE.sub("", " ".join(line.split()))
        if _LINE.fullmatch(one) is None or not set(_ENDS.findall(one)) & set(addresses):
            continue
        size += len(one) + 1
        if len(kept) == LINES_MAX or size > BYTES_MAX:
            break
        kept.append(one)
    return "".join(f"{line}\n" for line in kept)


def in_zone(saved: str, addresses: Collection[str], zone: int) -> str:
    """To be loaded: those of these addresses, in that zone."""
    own = of_port(saved.splitlines(), addresses)
    return "".join(f"{line} -w {zone}\n" for line in own.splitlines())
