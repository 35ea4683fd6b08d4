"""What would have fitted, when nothing did: with how much less of one thing, or without which one rule. Only sentences
that are true: each was tried on the columns."""

from __future__ import annotations

import msgspec
import numpy as np

from droveway.scheduler import numa
from droveway.scheduler.columns import Ints, Mask
from droveway.scheduler.filters import FILTERS, Filter, FilterContext, first_rules

REASONS_MAX = 5
NAMES_MAX = 3


def counted(hosts: int) -> str:
    return f"{hosts} host" if hosts == 1 else f"{hosts} hosts"


def would_fit(context: FilterContext) -> tuple[str, ...]:
    """The most useful first: less of one amount, then without one rule."""
    kept = {rule.name: mask for rule in FILTERS if (mask := rule.keep(context)) is not None}
    fails = np.zeros(len(context.columns), dtype=np.int64)
    for mask in kept.values():
        fails += ~mask
    amounts = [_less(context, rule, kept, fails) for rule in FILTERS if rule.headroom and rule.name in kept]
    rules = [_without(context, rule, kept[rule.name], fails) for rule in FILTERS if rule.without and rule.name in kept]
    return tuple(reason for reason in (*amounts, *rules, _floating(context, fails)) if reason)[:REASONS_MAX]


def _only(mask: Mask, fails: Ints) -> Mask:
    """The hosts for which this rule alone stands in the way."""
    alone: Mask = ~mask & (fails == 1)
    return alone


def _less(context: FilterContext, rule: Filter, kept: dict[str, Mask], fails: Ints) -> str:
    """The most of this amount with which a host would fit, and how many hosts that would be."""
    ask = context.ask
    assert rule.headroom is not None
    headroom = rule.headroom(context)
    others = fails - ~kept[rule.name]
    if ask.numa is not None and rule.field != "disk_gb" and "numa" in kept:
        others = others - ~kept["numa"]
        headroom = np.minimum(headroom, _headroom_in_cells(context, rule.field))
    free = headroom[others == 0]
    most = int(free.max()) if len(free) else 0
    most = min(most, getattr(ask, rule.field) - 1)
    if most <= 0:
        return ""
    hosts = _fitting(context, **{rule.field: most})
    return f"with {rule.field} <= {most}: {counted(hosts)}" if hosts else ""


def _floating(context: FilterContext, fails: Ints) -> str:
    """Without cells and CPUs of its own: two rules at once."""
    if context.ask.numa is None or fails.min() > 2:
        return ""
    hosts = _fitting(context, numa=None)
    return f"without the NUMA topology: {counted(hosts)}" if hosts else ""


def _fitting(context: FilterContext, **changes: object) -> int:
    """How many hosts fit the request when it is changed so."""
    changed = FilterContext(context.columns, msgspec.structs.replace(context.ask, **changes), context.settings)
    return int(np.count_nonzero(first_rules(changed) == 0))


def _headroom_in_cells(context: FilterContext, field: str) -> Ints:
    """What each host's cells could give of it, spread over the nodes, were it the only thing that is less."""
    ask = context.ask
    assert ask.numa is not None
    nodes = ask.numa.nodes
    cpus = context.columns.cells("own_cpus" if ask.numa.pinned else "shared_cpus")
    memory = context.columns.cells("memory_mb")
    vcpus, memory_mb, _count = numa.nodes_of(ask)[0]
    given = np.where(cpus >= vcpus, memory, 0) if field == "ram_mb" else np.where(memory >= memory_mb, cpus, 0)
    if len(given) < nodes:
        return np.zeros(len(context.columns), dtype=np.int64)
    best: Ints = np.sort(given, axis=0)[-nodes].clip(0) * nodes
    return best


def _without(context: FilterContext, rule: Filter, mask: Mask, fails: Ints) -> str:
    rows = np.flatnonzero(_only(mask, fails))
    if not len(rows) or rule.without is None:
        return ""
    words = rule.without(context.ask)
    if rule.name not in {"up", "enabled"}:
        return f"without {words}: {counted(len(rows))}"
    names = sorted(context.columns.at(row).name for row in rows[:NAMES_MAX].tolist())
    if len(rows) > NAMES_MAX:
        return f"with hosts {words} that are not: {counted(len(rows))}"
    return f"with {' and '.join(names)} {words}: {counted(len(rows))}"
