"""What /metrics tells of hosts, projects and sagas, and of this API itself."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from functools import cache, reduce
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import TYPE_CHECKING

from droveway.api.http.latency import EDGES_S, Latency
from droveway.store.fleet.totals import HeldAmounts, Totals
from droveway.store.work.saga_ages import Ages

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily, Metric

OTHER = "(other)"  # no host and no project has parentheses in its name
ALL = "(all)"  # the projects together, where none is told by itself
MIB, GIB = 1024**2, 1024**3
_HELD = (
    ("servers", "Servers", 1),
    ("vcpus_used", "Virtual CPUs that are promised to servers", 1),
    ("memory_used_bytes", "Memory that is promised to servers", MIB),
    ("disk_used_bytes", "Disk that is promised to servers", GIB),
)
_HAS = (
    ("vcpus", "CPUs that a host has", 1),
    ("memory_bytes", "Memory that a host has", MIB),
    ("disk_bytes", "Disk that a host has", GIB),
)


def _family(name: str, says: str, *labels: str) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(name, says, labels=labels)


def of_hosts(totals: Totals) -> Iterator[Metric]:
    count = _family("droveway_hosts", "Hosts that have joined.")
    count.add_metric([], totals.all_hosts)
    yield count
    held = {
        one.name: HeldAmounts(one.instances, one.vcpus_used, one.ram_mb_used, one.disk_gb_used) for one in totals.hosts
    }
    yield from _held("host", held, totals.other_hosts)
    for number, (name, says, unit) in enumerate(_HAS):
        family = _family(f"droveway_host_{name}", f"{says}, as it reports.", "host")
        for one in totals.hosts:
            family.add_metric([one.name], (one.vcpus, one.memory_mb, one.disk_gb)[number] * unit)
        yield family


def of_projects(totals: Totals, *, each: bool) -> Iterator[Metric]:
    if each:
        yield from _held("project", totals.projects, totals.other_projects)
    else:
        every = (
            totals.projects.values()
            if totals.other_projects is None
            else [*totals.projects.values(), totals.other_projects]
        )
        yield from _held("project", {ALL: reduce(HeldAmounts.plus, every, HeldAmounts())}, None)


def _held(label: str, held: Mapping[str, HeldAmounts], other: HeldAmounts | None) -> Iterator[Metric]:
    every = dict(held) if other is None else {**held, OTHER: other}
    for number, (name, says, unit) in enumerate(_HELD):
        family = _family(f"droveway_{label}_{name}", f"{says}, by {label}.", label)
        for value, amounts in every.items():
            family.add_metric([value], amounts[number] * unit)
        yield family


def of_sagas(ages: Mapping[str, Ages]) -> Iterator[Metric]:
    counts = _family("droveway_sagas", "Sagas that have not ended, by state and by how old they are.", "status", "age")
    oldest = _family("droveway_saga_oldest_seconds", "The age of the oldest saga in each state.", "status")
    blocked = _family("droveway_sagas_blocked", "Sagas that say what they wait for.", "status")
    for status, one in ages.items():
        for age, count in one.counts.items():
            counts.add_metric([status, age], count)
        oldest.add_metric([status], one.oldest_s)
        blocked.add_metric([status], one.blocked)
    yield from (counts, oldest, blocked)


def of_requests(latency: Latency) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    took = HistogramMetricFamily(
        "droveway_api_request_seconds", "How long this API took until its reply began.", labels=["service", "method"]
    )
    answered = CounterMetricFamily(
        "droveway_api_requests", "Requests that this API answered.", labels=["service", "method", "code"]
    )
    edges = [*map(str, EDGES_S), "+Inf"]
    for (service, method), times in sorted(latency.times.items()):
        buckets = list(zip(edges, accumulate(times.counts), strict=True))
        took.add_metric([service, method], buckets, times.sum_s)
        for code, count in sorted(times.codes.items()):
            answered.add_metric([service, method, code], count)
    yield from (took, answered)


def build() -> Metric:
    info = _family("droveway_build_info", "What runs here; always 1.", "version", "python")
    info.add_metric([_version(), platform.python_version()], 1)
    return info


@cache
def _version() -> str:
    try:
        return version("droveway")
    except PackageNotFoundError:  # run from its sources, without being installed
        return "unknown"
