"""A decision in plain values and words, to be shown now, or stored and shown later. Pure, and without numpy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec

from droveway.domain.placement import GroupRequest, PlacementRequest, PlacementSettings, Plan
from droveway.scheduler.summaries import NO_HOST, numbers, reason, taken

NAMED_MAX = 8  # hosts named where there may be thousands
FITS, ABSENT = "fits", "was not there"


class StoredDecision(msgspec.Struct, frozen=True):
    """A decision as it is kept: what was asked, under which settings, and what came of it."""

    ask: PlacementRequest
    plan: Plan
    settings: PlacementSettings = PlacementSettings()
    races: tuple[str, ...] = ()
    kind: str = ""


def kept(body: dict[str, Any]) -> StoredDecision:
    """The decision of a stored body."""
    return msgspec.convert(body, StoredDecision)


def as_plain(decision: StoredDecision, host: str | None) -> dict[str, Any]:
    """Everything but the packed rules, in plain values; `host` is the one that was chosen."""
    plan = decision.plan
    left, fallen = plan.hosts, []
    for one in plan.fallen:
        left -= one.hosts
        fallen.append(
            {
                "rule": one.rule,
                "hosts": one.hosts,
                "left": left,
                "reason": one.reason,
                "nearest": [{"host": name, "reason": why} for name, why in one.nearest],
            }
        )
    return {
        "kind": decision.kind,
        "host": host,
        "request": words(decision.ask),
        "ask": msgspec.to_builtins(decision.ask),
        "hosts": plan.hosts,
        "fitting": plan.fitting,
        "fallen": fallen,
        "ranked": msgspec.to_builtins(plan.ranked),
        "races": list(decision.races),
        "would_fit": list(plan.would_fit),
        "seed": plan.seed,
        "reason": why_not(decision) if host is None else "",
    }


def why_not(decision: StoredDecision) -> str:
    """Why no host was found, for a decision without one."""
    if decision.plan.ranked:
        return taken(decision.races)
    return reason(decision.plan)


def of_host(plan: Plan, host_id: int, name: str) -> dict[str, Any]:
    """What became of one host: {"host", "rule", "sentence"}; `rule` is None when it fitted or was not there."""
    standing = standings(plan)
    rule = standing.get(host_id, ABSENT)
    if rule == ABSENT:
        return {"host": name, "rule": None, "reason": f"{name} was not there when this was decided"}
    if rule == FITS:
        names = [choice.name for choice in plan.ranked]
        place = f"number {names.index(name) + 1}" if name in names else f"not among the best {len(names)}"
        return {"host": name, "rule": None, "reason": f"{name} fitted, {place} of {plan.fitting}"}
    fallen = next((one for one in plan.fallen if one.rule == rule), None)
    near = dict(fallen.nearest) if fallen is not None else {}
    phrase = near.get(name) or (fallen.reason if fallen is not None else "")
    return {"host": name, "rule": rule, "reason": phrase}


def standings(plan: Plan) -> dict[int, str]:
    """hosts.id -> the first rule it failed, or FITS. Hosts that were not there are missing."""
    rules = (FITS, *plan.rules)
    return {host: rules[number] for host, number in enumerate(numbers(plan)) if number != NO_HOST}


def first_rules_of(plan: Plan, names: Mapping[int, str]) -> dict[str, tuple[str, str]]:
    """Host -> the first rule that it failed and why, as far as the plan names it; empty words where it fits."""
    near = {name: (fell.rule, why) for fell in plan.fallen for name, why in fell.nearest}
    words_of = {fell.rule: fell.reason for fell in plan.fallen}
    found = {}
    for number, rule in standings(plan).items():
        name = names.get(number)
        if name is not None:
            found[name] = ("", "") if rule == FITS else near.get(name, (rule, words_of.get(rule, "")))
    return found


def differences(then: Plan, now: Plan, names: Mapping[int, str]) -> dict[str, Any]:
    """Which hosts stand otherwise now, grouped by what they failed then and fail now. `names` by hosts.id."""
    before, after = standings(then), standings(now)
    moved: dict[tuple[str, str], list[str]] = defaultdict(list)
    for number in sorted(before.keys() | after.keys()):
        was, is_now = before.get(number, ABSENT), after.get(number, "is gone")
        if was != is_now:
            moved[was, is_now].append(names.get(number, f"host number {number}"))
    changed = [
        {"then": was, "now": is_now, "hosts": len(found), "named": found[:NAMED_MAX]}
        for (was, is_now), found in sorted(moved.items(), key=lambda item: -len(item[1]))
    ]
    return {"changed": changed, "hosts_changed": sum(len(found) for found in moved.values())}


def words(ask: PlacementRequest) -> str:
    """The request as a person would say it."""
    parts = [f"{_count(ask.vcpus, 'vcpu')}, {ask.ram_mb} MiB memory, {ask.disk_gb} GiB disk"]
    for is_asked, phrase in (
        (ask.numa is not None, _numa(ask)),
        (ask.only, f"on {ask.only} and nowhere else"),
        (ask.zone, f"in zone {ask.zone}"),
        (ask.architecture, f"architecture {ask.architecture}"),
        (ask.machine_type, f"machine type {ask.machine_type}"),
        (ask.firmware, f"firmware {ask.firmware}"),
        (ask.hypervisor_type, f"hypervisor {ask.hypervisor_type}"),
        (ask.least_hypervisor_version, f"of version {ask.least_hypervisor_version} at least"),
        (ask.extra_specs, f"extra specs {_pairs(ask.extra_specs)}"),
        (ask.same_host is not None, f"on one of {_some(ask.same_host or ()) or 'no host at all'}"),
        (ask.different_host, f"not on {_some(ask.different_host)}"),
        (ask.group, _group(ask.group)),
        (ask.never, f"never on {_some(f'{name} ({why})' for name, why in ask.never.items())}"),
        (ask.failed, f"failed before on {_some(ask.failed)}"),
    ):
        if is_asked:
            parts.append(phrase)
    return "; ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _numa(ask: PlacementRequest) -> str:
    if ask.numa is None:
        return ""
    return f"over {_count(ask.numa.nodes, 'NUMA cell')}{', each vcpu on a CPU of its own' if ask.numa.pinned else ''}"


def _group(group: GroupRequest | None) -> str:
    if group is None:
        return ""
    members = sum(group.on_hosts.values())
    on = f", {_count(members, 'member')} on {_some(sorted(group.on_hosts))}" if members else ""
    return f"server group {group.id} ({group.policy}{on})"


def _pairs(values: Mapping[str, str]) -> str:
    return _some(f"{key}={value}" for key, value in sorted(values.items()))


def _some(names: Any) -> str:
    found = list(names)
    more = f" and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    return f"{', '.join(found[:NAMED_MAX])}{more}"
