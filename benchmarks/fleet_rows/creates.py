"""A storm of creations through the API: how fast guests run, what one costs each part, and where they were put."""

from __future__ import annotations

import collections
import os
import time
from typing import Any, Protocol

from benchmarks.claims import Claim, cpu_seconds, median, progress
from benchmarks.fleet_rows import clients
from benchmarks.fleet_rows.clients import Api
from benchmarks.fleet_rows.rig import Cloud, image_of
from lab.compute import Compute

CLIENTS, MOST = 32, 100_000
ENDS_S = 400.0
SETTLED = """select count(*) from instances where deleted is false and name like 'storm-%%'
 and (vm_state = 'error' or (vm_state = 'active' and task_state is null))"""
FAULTS = "select fault from instances where deleted is false and vm_state = 'error' limit 3"


class Stormed(Protocol):
    """What a storm looks at while it goes over a cloud."""

    @property
    def count_of_hosts(self) -> int: ...
    def number(self, query: str) -> int: ...
    def ask(self, query: str) -> list[tuple[Any, ...]]: ...
    def cpu(self) -> dict[str, float]: ...
    def guests(self) -> dict[str, dict[str, int]]: ...
    def wait_for(self, query: str, least: int, timeout_s: float) -> None: ...


class Storm:
    """What came of one: `rate` is creations a second until the last guest runs; `per_host` how many hosts hold how
    many guests after it."""

    def __init__(self, cloud: Stormed, api: Api, count: int, at_once: int = 1) -> None:
        before, own_s, began_s = cloud.cpu(), _own_cpu_s(), time.monotonic()
        settled = cloud.number(SETTLED)
        posted = clients.storm(api, count // at_once, CLIENTS, at_once=at_once)
        self.posts_s = time.monotonic() - began_s
        wrong = [one for one in posted if one.status != 202]
        assert not wrong, f"{len(wrong)} of {len(posted)} were refused, such as {wrong[0]}"
        cloud.wait_for(SETTLED, settled + count, ENDS_S)
        self.took_s = time.monotonic() - began_s
        self.count, self.rate = count, count / self.took_s
        after = cloud.cpu()
        self.cpu_ms = {part: (after[part] - before[part]) * 1000 / count for part in after}
        self.client_ms = (_own_cpu_s() - own_s) * 1000 / count
        self.post_ms = median([one.took_s * 1000 for one in posted])
        self.errors = cloud.number("select count(*) from instances where deleted is false and vm_state = 'error'")
        self.faults = [str(fault) for (fault,) in cloud.ask(FAULTS)]
        guests = cloud.guests()
        self.per_host = collections.Counter(len(some) for some in guests.values())
        if len(guests) < cloud.count_of_hosts:
            self.per_host[0] += cloud.count_of_hosts - len(guests)

    @property
    def cpu_said(self) -> str:
        parts = ", ".join(f"{part} {ms:.1f}" for part, ms in self.cpu_ms.items())
        return f"CPU ms a create: {parts} (api is in control), clients {self.client_ms:.1f}"

    @property
    def spread(self) -> int:
        """Between the host with the most and the one with the fewest of them."""
        return max(self.per_host) - min(self.per_host)

    def claims(self, what: str, least: float, cpu_most_ms: float, against: str) -> list[Claim]:
        hosts = ", ".join(f"{hosts} hosts got {number}" for number, hosts in sorted(self.per_host.items()))
        return [
            Claim(
                f"{what}: each, to ACTIVE",
                1000 / self.rate,
                1000 / least,
                "ms",
                f"{self.rate:.0f}/s, bar {least:.0f}/s; {against}; all posted after {self.posts_s:.1f} of "
                f"{self.took_s:.1f} s, median answer {self.post_ms:.0f} ms",
            ),
            Claim("... CPU of control and api", self.cpu_ms["control"], cpu_most_ms, "ms", self.cpu_said),
            Claim("... spread over the hosts", self.spread, 1, "", hosts),
            Claim("... ended in ERROR", self.errors, 0, "", "; ".join(self.faults)),
        ]


def _own_cpu_s() -> float:
    return cpu_seconds([os.getpid()])


def unlimited(compute: Compute) -> str:
    """Quotas that no storm reaches (they are counted as ever); the token."""
    limits = {"quota_class_set": {"instances": MOST, "cores": MOST, "ram": MOST * 1024}}
    compute.must("PUT", "/compute/v2.1/os-quota-class-sets/default", limits)
    return compute.token


def api_of(cloud: Cloud) -> Api:
    control = cloud.control
    return Api(control.port, unlimited(control.compute()), image_of(control.port, control.home))


def measure(cloud: Cloud, count: int) -> list[Claim]:
    progress(f"a storm of {count:,} creations on {cloud.count_of_hosts:,} hosts")
    storm = Storm(cloud, api_of(cloud), count)
    what = f"storm of {count:,} creations by {CLIENTS} clients, {cloud.count_of_hosts:,} hosts"
    return storm.claims(what, 40.0, 20.0, "Nova: 2.2/s on 10 hosts")
