"""Networks: what the Networking API costs the program, beside Neutron as measured on the same kind of machine."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.claims import Claim
from benchmarks.network_rows import api

NEEDS = ()


def measure() -> Iterator[Claim]:
    yield from api.measure()
