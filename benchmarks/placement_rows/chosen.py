"""Choosing alone: columns in, a plan with its reasons out. Beside it, in the same run, a floor: one bare look of numpy
at as many columns, without rules, reasons, or ranks."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.claims import Claim, median, progress
from droveway.domain.placement import (
    GroupPolicy,
    GroupRequest,
    HostFacts,
    NumaCell,
    NumaRequest,
    PlacementRequest,
    PlacementSettings,
)
from droveway.scheduler.columns import Columns
from droveway.scheduler.filters import FILTERS
from droveway.scheduler.plan import place, place_many

ROUNDS, BATCH = 400, 500
SETTINGS = PlacementSettings()
NOVA_MS = {1_000: 674, 10_000: 5_700}
BARS_MS = {1_000: 0.3, 10_000: 1.0}


def unlike(number: int) -> HostFacts:
    """Three zones, several kinds, four sets of aggregates, each host with another load; some are down or disabled."""
    cells = (NumaCell(0, tuple(range(16)), 65_536), NumaCell(1, tuple(range(16, 32)), 65_536))
    aggregates = (
        {"ssd": ("true",)},
        {"ssd": ("true",), "gpu": ("false",)},
        {"ssd": ("false",)},
        {"ssd": ("true",), "filter_tenant_id": ("nobody",)},
    )
    return HostFacts(
        number,
        f"host-{number}",
        zone=f"zone-{number % 3}",
        is_up=number % 50 != 0,
        reason="no heartbeat for 60 s",
        disabled=number % 70 == 0,
        refused="memory_mb is -1" if number % 501 == 0 else "",
        hypervisor_up=number % 90 != 0,
        hypervisor_type="QEMU" if number % 5 else "simulated",
        hypervisor_version=7_000_000 + number % 2,
        machine_types=("pc", "q35"),
        cpu_features=("aes", "avx2") if number % 7 else ("aes",),
        aggregates=aggregates[number % 4],
        cells=cells,
        vcpus=32,
        memory_mb=131_072,
        disk_gb=2_000,
        vcpus_used=number * 7919 % 400,
        ram_mb_used=number * 104_729 % 131_072,
        disk_gb_used=number * 15_485_863 % 2_000,
        instances=number % 11,
        failures=int(number % 333 == 0),
    )


def alike(number: int) -> HostFacts:
    return HostFacts(number, f"host-{number}", vcpus=32, memory_mb=131_072, disk_gb=2_000)


def columns_of(make: Callable[[int], HostFacts], count: int) -> Columns:
    columns = Columns()
    for number in range(1, count + 1):
        columns.put(make(number))
    return columns


def asks_for_everything(turn: int, ram_mb: int = 4_096, never: str = "") -> PlacementRequest:
    """Every rule is asked for, but for those that would leave one host alone; each turn asks something else. Another
    `never` each time leaves nothing of earlier requests to use again."""
    return PlacementRequest(
        2,
        ram_mb + turn % 7,
        20,
        zone=f"zone-{turn % 3}",
        project_id=f"project-{turn}",
        never={never or f"host-{turn + 10}": "it runs there already"},
        hypervisor_type="qemu",
        least_hypervisor_version=7_000_000,
        architecture="x86_64",
        machine_type="q35",
        extra_specs={"capabilities:cpu_info:features": "<in> avx2", "aggregate_instance_extra_specs:ssd": "true"},
        different_host=("host-1", "host-4"),
        group=GroupRequest("g", GroupPolicy.ANTI_AFFINITY, {"host-7": 1, "host-8": 1}),
        numa=NumaRequest(2, turn % 2 == 0),
        failed=("host-2",),
    )


def cpu_ms(do: Callable[[int], Any], rounds: int = ROUNDS) -> float:
    """The median of the CPU time that it takes."""
    for turn in range(20):
        do(turn)
    times = []
    gc.collect()
    for turn in range(rounds):
        began = time.process_time_ns()
        do(turn)
        times.append((time.process_time_ns() - began) / 1e6)
    return median(times)


def _floor_ms(columns: Columns) -> float:
    """As many comparisons as there are rules, the sums of three columns, and the best."""
    some = [columns.headroom(name, SETTINGS) for name in ("ram", "cpu", "disk")]

    def look(turn: int) -> int:
        fits = some[0] >= turn
        for number in range(1, len(FILTERS)):
            fits &= some[number % 3] >= turn
        weights = (some[0] / 131_072.0) + (some[1] / 32.0) + (some[2] / 2_000.0)
        return int(np.where(fits, weights, -1.0).argmax())

    return cpu_ms(look)


def _one(count: int) -> list[Claim]:
    progress(f"one host among {count:,}")
    columns = columns_of(unlike, count)
    plan = place(columns, asks_for_everything(1), SETTINGS, 1)
    assert plan.fitting
    floor_ms = _floor_ms(columns)
    found_ms = cpu_ms(lambda turn: place(columns, asks_for_everything(turn), SETTINGS, turn))
    none_ms = cpu_ms(lambda turn: place(columns, asks_for_everything(turn, 10**6), SETTINGS, turn))
    kept_ms = cpu_ms(lambda turn: place(columns, asks_for_everything(turn, never="host-5"), SETTINGS, turn))
    plain_ms = cpu_ms(lambda turn: place(columns, PlacementRequest(2, 4_096, 20), SETTINGS, turn))
    return [
        Claim(
            f"place one among {count:,} hosts, all filters, reasons",
            found_ms,
            BARS_MS[count],
            "ms",
            f"CPU, median of {ROUNDS} unlike requests; {plan.fitting:,} fit, the others fell by "
            f"{len(plan.fallen)} rules; bare numpy {floor_ms:.2f}; Nova: {NOVA_MS[count]:,}",
        ),
        Claim(
            "... requests of three zones, each of another project",
            kept_ms,
            BARS_MS[count],
            "ms",
            "what claims do not change is kept from one to the next that asks the same of it",
        ),
        Claim("... a plain request", plain_ms, BARS_MS[count], "ms", "vcpus, ram, disk"),
        Claim("... none fits, what would have is sought", none_ms, 2 * BARS_MS[count], "ms"),
    ]


def _batch() -> list[Claim]:
    progress(f"{BATCH} alike requests at once among 10,000")
    columns = columns_of(alike, 10_000)
    asks = [PlacementRequest(2, 4_096, 20)] * BATCH
    began = time.process_time_ns()
    plans = place_many(columns, asks, SETTINGS, 1)
    each_ms = (time.process_time_ns() - began) / 1e6 / BATCH
    distinct = len({plan.ranked[0].name for plan in plans})
    hundred = place_many(columns_of(alike, 10), [PlacementRequest(1, 512, 1)] * 100, SETTINGS, 7)
    spread = Counter(plan.ranked[0].name for plan in hundred)
    uneven = max(spread.values()) - min(spread.values()) if len(spread) == 10 else max(spread.values())
    return [
        Claim(
            f"{BATCH} alike requests among 10,000 hosts, each",
            each_ms,
            2.0,
            "ms",
            f"{1000 / each_ms:,.0f} a second; on {distinct} different hosts",
        ),
        Claim("100 alike requests on 10 equal hosts: most less least", uneven, 1, "", "Nova left 7 of 10 empty"),
    ]


def measure() -> list[Claim]:
    return [*_one(1_000), *_one(10_000), *_batch()]
