"""Servers with ports: what a port adds to a create, how soon a guest is reached, how long a migration interrupts it,
and when a rule that was answered is in force."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.claims import Claim
from benchmarks.network_rows import moved, reached, real_ports, simulated_ports
from lab.demo import own_cloud

NEEDS = ("hosts",)


def measure() -> Iterator[Claim]:
    with own_cloud() as cloud:
        yield from simulated_ports.measure(cloud)
    with own_cloud() as cloud:
        cloud.up(simulated=False, foreground=False, quiet=True)
        yield from real_ports.measure(cloud)
        yield from reached.measure(cloud)
        yield from moved.measure(cloud)
