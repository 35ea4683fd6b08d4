"""Where a guest may run: all hosts as columns in, a ranked plan out, with a reason for each host that is not in it.

Pure: nothing here asks for time, chance or the store. The same columns, request, settings and seed give the same plan.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import numpy as np

from droveway.domain.placement import (
    FirstFailure,
    FittingHost,
    GroupRequest,
    HostFacts,
    PlacementRequest,
    PlacementSettings,
    Plan,
    RuleRejection,
)
from droveway.scheduler.columns import Bytes, Columns, Ints
from droveway.scheduler.filters import FILTERS, NUMBERS, RULES, Filter, FilterContext, first_rules
from droveway.scheduler.numa import fit_cells
from droveway.scheduler.reasons import UNITS
from droveway.scheduler.suggestions import would_fit
from droveway.scheduler.summaries import EACH_HOST_UP_TO, NO_HOST, failing_rules, reason
from droveway.scheduler.weighers import rank

__all__ = [
    "FirstFailure",
    "FittingHost",
    "Plan",
    "RuleRejection",
    "each_rule",
    "failing_rules",
    "first_failing",
    "fit_cells",
    "have_headroom",
    "place",
    "place_many",
    "reason",
    "why_immovable",
]

NEAREST, NEAREST_WHERE_SOME_FIT = 3, 1  # hosts listed by rule: after a success the list is rarely read


def place(columns: Columns, ask: PlacementRequest, settings: PlacementSettings, seed: int) -> Plan:
    """Rank the hosts that fit, and say of all others why not."""
    if not len(columns):
        return Plan(0, rules=RULES, seed=seed)
    context = FilterContext(columns, ask, settings)
    numbers = first_rules(context)
    by_rule = _rows_by_number(numbers)
    rows = by_rule[0]
    most = NEAREST_WHERE_SOME_FIT if len(rows) else NEAREST
    if len(columns) <= EACH_HOST_UP_TO:
        most = EACH_HOST_UP_TO
    return Plan(
        hosts=len(columns),
        fitting=len(rows),
        ranked=rank(context, rows, seed) if len(rows) else (),
        fallen=tuple(
            _rejection(context, rule, fell, most) for rule in FILTERS if len(fell := by_rule[NUMBERS[rule.name]])
        ),
        would_fit=() if len(rows) else would_fit(context),
        rules=RULES,
        first_failing=_packed(columns, numbers),
        seed=seed,
    )


def first_failing(facts: HostFacts, ask: PlacementRequest, settings: PlacementSettings) -> FirstFailure | None:
    """The first rule that this one host fails; None when it fits. The very same table."""
    columns = Columns()
    columns.put(facts)
    number = int(first_rules(FilterContext(columns, ask, settings))[0])
    if not number:
        return None
    rule = FILTERS[len(FILTERS) - number]
    return FirstFailure(rule.name, rule.say(facts, ask, settings))


def each_rule(
    facts: HostFacts, ask: PlacementRequest, settings: PlacementSettings, always: Collection[str] = ()
) -> list[tuple[str, str]]:
    """Every rule that this request has for a host, with why this one fails it: empty where it keeps it. `always`: rules
    that are told of though no host fails them."""
    columns = Columns()
    columns.put(facts)
    context = FilterContext(columns, ask, settings)
    found = []
    for rule in FILTERS:
        mask = rule.keep(context)
        if mask is not None or rule.name in always:
            found.append((rule.name, "" if mask is None or mask[0] else rule.say(facts, ask, settings)))
    return found


def why_immovable(columns: Columns, name: str, ask: PlacementRequest, settings: PlacementSettings) -> str:
    """Why a guest that asked for that, and begins on that host, could move to no other one while it runs; empty where
    one could take it now, or where there is no other one. Processors are compared by their features alone."""
    if len(columns) < 2 or name not in columns:
        return ""
    here = columns.facts(name)
    if ask.numa is not None:
        return f"it holds NUMA cells of {name}, and is bound to them"
    moving = msgspec.structs.replace(
        ask,
        only=None,
        failed=(),
        never={name: "it runs there already"},
        hypervisor_type=here.hypervisor_type or None,
        least_hypervisor_version=here.hypervisor_version,
    )
    numbers = first_rules(FilterContext(columns, moving, settings))
    fitting = np.flatnonzero(numbers == 0).tolist()
    if any(_may_run(here, columns.at(row)) for row in fitting):
        return ""
    if fitting:
        return f"no other host that fits has every feature of the processor of {name}"
    return f"no other host could take it: {reason(place(columns, moving, settings, 0))}"


def _may_run(here: HostFacts, there: HostFacts) -> bool:
    """An emulated guest touches no processor."""
    return here.hypervisor_type != "KVM" or set(here.cpu_features) <= set(there.cpu_features)


def place_many(
    columns: Columns, asks: Sequence[PlacementRequest], settings: PlacementSettings, seed: int
) -> list[Plan]:
    """One plan each, every one seeing the claims of those before it. The columns end as they were."""
    groups: dict[str, dict[str, int]] = {}
    plans = []
    with _temporary_claims(columns) as hold:
        for index, wanted in enumerate(asks):
            ask = _with_members(wanted, groups)
            plan = place(columns, ask, settings, seed + index)
            plans.append(plan)
            if not plan.ranked:
                continue
            best = plan.ranked[0].name
            hold(best, ask)
            if ask.group is not None:
                on_hosts = groups.setdefault(ask.group.id, {})
                on_hosts[best] = on_hosts.get(best, 0) + 1
    return plans


def have_headroom(
    columns: Columns, asks: Sequence[PlacementRequest], settings: PlacementSettings, seed: int
) -> list[bool]:
    """Whether a host fits each, every one seeing the claims of those before it; without reasons, which cost most. None
    of them is in a group. The columns end as they were."""
    found, refused = list[bool](), set[bytes]()
    with _temporary_claims(columns) as hold:
        for index, ask in enumerate(asks):
            key = msgspec.msgpack.encode(ask)
            rows: Ints = np.zeros(0, dtype=np.intp)
            if len(columns) and key not in refused:  # there is ever less room: who wants the same finds none either
                context = FilterContext(columns, ask, settings)
                rows = np.flatnonzero(first_rules(context) == 0)
            if len(rows):
                hold(rank(context, rows, seed + index)[0].name, ask)
            else:
                refused.add(key)
            found.append(bool(len(rows)))
    return found


@contextmanager
def _temporary_claims(columns: Columns) -> Iterator[Callable[[str, PlacementRequest], None]]:
    """Claims of this block only."""
    before: dict[str, HostFacts] = {}

    def hold(name: str, ask: PlacementRequest) -> None:
        facts = columns.facts(name)
        before.setdefault(name, facts)
        columns.hold(name, ask, fit_cells(facts, ask) if facts.cells else ())

    try:
        yield hold
    finally:
        for facts in before.values():
            columns.put(facts)


def _with_members(ask: PlacementRequest, groups: dict[str, dict[str, int]]) -> PlacementRequest:
    """The request, its group with the members that were placed before it."""
    if ask.group is None or ask.group.id not in groups:
        return ask
    on_hosts = dict(ask.group.on_hosts)
    for name, count in groups[ask.group.id].items():
        on_hosts[name] = on_hosts.get(name, 0) + count
    group = GroupRequest(ask.group.id, ask.group.policy, on_hosts, ask.group.max_per_host)
    return msgspec.structs.replace(ask, group=group)


def _rows_by_number(numbers: Bytes) -> list[Ints]:
    """The rows of each number, one sort for all."""
    rows = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[rows], np.arange(len(FILTERS) + 1), side="right").tolist()
    return [rows[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _rejection(context: FilterContext, rule: Filter, rows: Ints, most: int) -> RuleRejection:
    words = rule.together(context.ask)
    if rule.headroom is None:
        nearest: list[int] = rows[:most].tolist()
    else:
        headroom = rule.headroom(context)[rows]
        nearest = rows[_largest(headroom, most)].tolist()
        words += f", at most {max(0, int(headroom.max()))}{UNITS[rule.field]} free on any"
    hosts = [context.columns.at(row) for row in nearest]
    examples = tuple((host.name, rule.say(host, context.ask, context.settings)) for host in hosts)
    return RuleRejection(rule.name, len(rows), words, examples)


def _largest(values: Ints, most: int) -> list[int]:
    """The places of the largest values; so few that looking several times is the quickest."""
    left = values.copy()
    places = []
    for _ in range(min(most, len(left))):
        place_of = int(left.argmax())
        places.append(place_of)
        left[place_of] = np.iinfo(np.int64).min
    return places


def _packed(columns: Columns, numbers: Bytes) -> bytes:
    ids = columns.column("id")
    by_id = np.full(int(ids.max()) + 1, NO_HOST, dtype=np.uint8)
    by_id[ids] = numbers
    return zlib.compress(by_id.tobytes(), 1)
