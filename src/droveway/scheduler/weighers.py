"""What makes one host better than another, as a table. Each weigher gives every host that fits something between 0 (the
worst of them) and 1 (the best); a multiplier of the operator's says how much it counts, below 0 the other way round.

| weigher | OpenStack's name |
|---|---|
| ram, cpu, disk | RAMWeigher, CPUWeigher, DiskWeigher; here the free share of what the host has, not the free amount |
| instances | NumInstancesWeigher (it has more guests count for more, so its multiplier is below 0 there) |
| failures | BuildFailureWeigher |
| soft_group | ServerGroupSoftAffinityWeigher, ServerGroupSoftAntiAffinityWeigher |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from droveway.domain.placement import FittingHost, GroupPolicy, Weights
from droveway.scheduler.columns import Ints
from droveway.scheduler.filters import FilterContext

Floats = NDArray[np.float64]
FINEST = float(1 << 20)  # weights closer than this part of 1 are equal: what is below is noise of the arithmetic


def _share(name: str) -> Callable[[FilterContext], NDArray[Any]]:
    return lambda context: context.columns.headroom(f"{name}_share", context.settings)


def _fewest(name: str) -> Callable[[FilterContext], NDArray[Any]]:
    return lambda context: -context.columns.column(name)


def _soft_group(context: FilterContext) -> NDArray[Any] | None:
    group = context.ask.group
    if group is None or group.policy not in {GroupPolicy.SOFT_AFFINITY, GroupPolicy.SOFT_ANTI_AFFINITY}:
        return None
    near = np.zeros(len(context.columns), dtype=np.int64)
    for name, count in group.on_hosts.items():
        row = context.columns.row(name)
        if row is not None:
            near[row] = count if group.policy is GroupPolicy.SOFT_AFFINITY else -count
    return near


@dataclass(frozen=True, slots=True)
class Weigher:
    name: str
    best: Callable[[FilterContext], NDArray[Any] | None]  # more is better; None when it says nothing
    multiplier: Callable[[Weights], float]


WEIGHERS: tuple[Weigher, ...] = (
    Weigher("ram", _share("ram"), lambda weights: weights.ram),
    Weigher("cpu", _share("cpu"), lambda weights: weights.cpu),
    Weigher("disk", _share("disk"), lambda weights: weights.disk),
    Weigher("instances", _fewest("instances"), lambda weights: weights.instances),
    Weigher("failures", _fewest("failures"), lambda weights: weights.failures),
    Weigher("soft_group", _soft_group, lambda weights: weights.soft_group),
)


def _weigh(context: FilterContext, rows: Ints) -> tuple[Floats, dict[str, Floats]]:
    """The weight of each of these hosts, and what each weigher gave."""
    total = np.zeros(len(rows))
    parts: dict[str, Floats] = {}
    whole = len(rows) == len(context.columns)
    for weigher in WEIGHERS:
        multiplier = weigher.multiplier(context.settings.weights)
        raw = weigher.best(context) if multiplier else None
        if raw is None:
            continue
        values = raw if whole else raw[rows]
        low, high = values.min(), values.max()
        if low == high:
            continue  # it finds them equal
        part = (values - low) * (multiplier / (high - low))
        parts[weigher.name] = part
        total += part
    return total, parts


def _lots(ids: Ints, seed: int) -> NDArray[np.uint32]:
    """A number drawn for each host: the same for the same seed, whatever row the host is in."""
    mixed = ids.astype(np.uint32) * np.uint32(2654435761) + np.uint32((seed * 0x9E3779B1) & 0xFFFFFFFF)
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def _best(weights: Floats, ids: Ints, most: int, seed: int) -> list[int]:
    """The places of the best, best first; the seed draws lots among equals."""
    rounded = np.rint(weights * FINEST)
    if len(rounded) <= most:
        places = np.arange(len(rounded))
    else:
        least = np.partition(rounded, len(rounded) - most)[len(rounded) - most]
        above = np.flatnonzero(rounded > least)
        equal = np.flatnonzero(rounded == least)
        left = most - len(above)
        if left < len(equal):
            equal = equal[np.argpartition(_lots(ids[equal], seed), left)[:left]]
        places = np.concatenate([above, equal])
    order = np.lexsort((ids[places], _lots(ids[places], seed), -rounded[places]))
    found: list[int] = places[order].tolist()
    return found


def rank(context: FilterContext, rows: Ints, seed: int) -> tuple[FittingHost, ...]:
    """The best of these hosts, best first, at most as many as the settings want alternatives."""
    weights, parts = _weigh(context, rows)
    columns = context.columns
    places = _best(weights, columns.column("id")[rows], max(1, context.settings.alternatives), seed)
    of_best = zip(*(part[places].tolist() for part in parts.values()), strict=True) if parts else ((),) * len(places)
    return tuple(
        FittingHost(columns.at(row).name, weight, dict(zip(parts, values, strict=True)))
        for row, weight, values in zip(rows[places].tolist(), weights[places].tolist(), of_best, strict=True)
    )
