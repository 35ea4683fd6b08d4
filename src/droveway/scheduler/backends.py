"""Where a volume may lie: the facts of all backends in, a ranked plan out, with a reason for each that is not in it.

Pure, and without numpy: there are few backends. The same facts, request and seed give the same plan.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from droveway.domain.placement import FittingHost, Plan, RuleRejection
from droveway.domain.volume.placement import BackendFacts, VolumeRequest
from droveway.scheduler.matching import CAPABILITIES, matches
from droveway.scheduler.summaries import EACH_HOST_UP_TO
from droveway.scheduler.summaries import reason as reason_of

NOT_FOUND = "No valid backend was found"
ALTERNATIVES = 8
NAME_KEY = "volume_backend_name"
_TRUE = frozenset({"true", "1", "yes", "on"})


class Rule(NamedTuple):
    """`say`: why this backend fails it; empty: it does not. `together`: the same of all of them."""

    name: str
    say: Callable[[BackendFacts, VolumeRequest], str]
    together: Callable[[VolumeRequest], str]


def _asked(one: BackendFacts, ask: VolumeRequest) -> str:
    return "" if ask.only in (None, one.name) else _only(ask)


def _only(ask: VolumeRequest) -> str:
    return ask.only_because or f"{ask.only} was asked for"


def _up(one: BackendFacts, ask: VolumeRequest) -> str:
    return "" if one.is_up else f"its service is down: {one.reason}"


def _enabled(one: BackendFacts, ask: VolumeRequest) -> str:
    if not one.disabled:
        return ""
    return f"its service is disabled: {one.disabled_reason or 'no reason was given'}"


def _thawed(one: BackendFacts, ask: VolumeRequest) -> str:
    return "an operator froze it" if one.frozen else ""


def _well(one: BackendFacts, ask: VolumeRequest) -> str:
    return one.trouble


def _zone(one: BackendFacts, ask: VolumeRequest) -> str:
    return "" if ask.zone in (None, one.zone) else f"it is in zone {one.zone}, {ask.zone} was asked for"


def _never(one: BackendFacts, ask: VolumeRequest) -> str:
    return ask.never.get(one.name, "")


def _same_host(one: BackendFacts, ask: VolumeRequest) -> str:
    return "" if ask.same_host is None or one.name in ask.same_host else "the hint same_host names volumes elsewhere"


def _different_host(one: BackendFacts, ask: VolumeRequest) -> str:
    return "the hint different_host names a volume there" if one.name in ask.different_host else ""


def wanted_of(ask: VolumeRequest) -> list[tuple[str, str]]:
    """What its type wants of a backend: its name, and keys of `capabilities:`, or those without a namespace."""
    specs = ((key.removeprefix(CAPABILITIES), wanted) for key, wanted in ask.extra_specs.items())
    return sorted((path, wanted) for path, wanted in specs if ":" not in path)


def _capabilities(one: BackendFacts, ask: VolumeRequest) -> str:
    for path, wanted in wanted_of(ask):
        has = one.capability(path)
        if not _is(has, wanted):
            return f"{path} is {has if has is not None else 'nothing that it tells'}, {wanted} is wanted"
    return ""


def _is(has: str | None, wanted: str) -> bool:
    """Cinder's word for truth, `<is> True`, beside the operators that flavors have."""
    words = wanted.split()
    if words[:1] == ["<is>"]:
        return has is not None and (has.lower() in _TRUE) == (" ".join(words[1:]).lower() in _TRUE)
    return matches(has, wanted)


def _capacity(one: BackendFacts, ask: VolumeRequest) -> str:
    if ask.size_gb <= one.headroom_gb:
        return ""
    left_gb = max(0.0, one.headroom_gb)
    return f"{ask.size_gb} GiB wanted, {left_gb:g} of {one.promisable_gb:g} GiB that may be promised are left"


def _free(one: BackendFacts, ask: VolumeRequest) -> str:
    """A thin backend gives what is written; so much of it may be."""
    ratio = one.settings.max_over_subscription_ratio if one.guarantees.thin else 1.0
    if ask.size_gb <= one.unreserved_gb * ratio:
        return ""
    return f"{ask.size_gb} GiB wanted, its pool has {max(0.0, one.unreserved_gb):.1f} of {one.total_gb:g} GiB free"


def _words(text: str) -> Callable[[VolumeRequest], str]:
    return lambda _ask: text


RULES = (
    Rule("asked", _asked, _only),
    Rule("up", _up, _words("their services are down")),
    Rule("disabled", _enabled, _words("their services are disabled")),
    Rule("frozen", _thawed, _words("they are frozen")),
    Rule("trouble", _well, _words("their pools cannot be used now")),
    Rule("zone", _zone, lambda ask: f"zone {ask.zone} was asked for"),
    Rule("tried", _never, _words("they refused it")),
    Rule("same_host", _same_host, _words("the hint same_host names volumes elsewhere")),
    Rule("different_host", _different_host, _words("the hint different_host names volumes there")),
    Rule("capabilities", _capabilities, lambda ask: f"volume type {ask.volume_type} wants {_pairs(ask)}"),
    Rule("capacity", _capacity, lambda ask: f"{ask.size_gb} GiB wanted"),
    Rule("free", _free, lambda ask: f"{ask.size_gb} GiB wanted"),
)


def _pairs(ask: VolumeRequest) -> str:
    return ", ".join(f"{path}={wanted}" for path, wanted in wanted_of(ask))


ROOM = frozenset({"up", "trouble", "capacity", "free"})  # the rules for a volume that is there, and grows


def first_failing(one: BackendFacts, ask: VolumeRequest, only: Collection[str] | None = None) -> tuple[str, str] | None:
    """The first rule that it fails, of all or of those that are named, and why."""
    for rule in RULES:
        if (only is None or rule.name in only) and (why := rule.say(one, ask)):
            return rule.name, why
    return None


def unmet(one: BackendFacts, ask: VolumeRequest) -> str:
    """What the type wants and it does not have."""
    return _capabilities(one, ask)


def place(backends: Sequence[BackendFacts], ask: VolumeRequest, seed: int) -> Plan:
    """Rank the backends that fit, the one with the most left to promise first, and say of all others why not."""
    fell: dict[str, list[tuple[str, str]]] = {}
    fitting = list[BackendFacts]()
    for one in sorted(backends, key=lambda one: one.name):
        failing = first_failing(one, ask)
        if failing is None:
            fitting.append(one)
        else:
            fell.setdefault(failing[0], []).append((one.name, failing[1]))
    fitting.sort(key=lambda one: (-one.headroom_gb, zlib.crc32(f"{seed} {one.name}".encode())))
    return Plan(
        hosts=len(backends),
        fitting=len(fitting),
        ranked=tuple(
            FittingHost(one.name, round(one.headroom_gb, 3), {"headroom_gb": round(one.headroom_gb, 3)})
            for one in fitting[:ALTERNATIVES]
        ),
        fallen=tuple(
            RuleRejection(rule.name, len(some), rule.together(ask), tuple(some[:EACH_HOST_UP_TO]))
            for rule in RULES
            if (some := fell.get(rule.name))
        ),
        rules=tuple(rule.name for rule in RULES),
        seed=seed,
    )


def reason(plan: Plan) -> str:
    """Why no backend was found."""
    if not plan.hosts:
        return f"{NOT_FOUND}: there is no backend yet; name one in a host's configuration (volume-services.md)"
    return reason_of(plan, NOT_FOUND)


_OF_THE_REQUEST = frozenset({"zone", "same_host", "different_host", "capabilities", "capacity", "free"})


def to_tenants(plan: Plan) -> str:
    """Which of their wishes the backends could not meet. Names and ailments of backends are the operator's."""
    theirs = [one.reason for one in plan.fallen if one.rule in _OF_THE_REQUEST]
    return f"{NOT_FOUND}: {'; '.join(theirs) if theirs else 'none is in service for it'}"


class _StoredChoice(msgspec.Struct, frozen=True):
    """As `volume_placements` keeps it."""

    ask: VolumeRequest
    plan: Plan
    kind: str = ""
    races: tuple[str, ...] = ()


def as_plain(body: dict[str, Any], backend: str | None) -> dict[str, Any]:
    """A stored choice in plain values, of the shape that those of servers have (scheduler/decisions.py)."""
    choice = msgspec.convert(body, _StoredChoice)
    plan, left, fallen = choice.plan, choice.plan.hosts, []
    for one in plan.fallen:
        left -= one.hosts
        nearest = [{"host": name, "reason": why} for name, why in one.nearest]
        fallen.append({"rule": one.rule, "hosts": one.hosts, "left": left, "reason": one.reason, "nearest": nearest})
    return {
        "kind": choice.kind,
        "host": backend,
        "request": words(choice.ask),
        "ask": msgspec.to_builtins(choice.ask),
        "hosts": plan.hosts,
        "fitting": plan.fitting,
        "fallen": fallen,
        "ranked": msgspec.to_builtins(plan.ranked),
        "races": list(choice.races),
        "would_fit": [],
        "seed": plan.seed,
        "reason": reason(plan) if backend is None else "",
    }


def words(ask: VolumeRequest) -> str:
    """The request as a person would say it."""
    parts = [f"{ask.size_gb} GiB"]
    for is_asked, phrase in (
        (ask.volume_type, f"type {ask.volume_type}"),
        (wanted_of(ask), _pairs(ask)),
        (ask.only, f"on {ask.only} and nowhere else"),
        (ask.zone, f"in zone {ask.zone}"),
        (ask.same_host is not None, f"on one of {', '.join(ask.same_host or ()) or 'no backend at all'}"),
        (ask.different_host, f"not on {', '.join(ask.different_host)}"),
        (ask.never, f"refused by {', '.join(f'{name} ({why})' for name, why in ask.never.items())}"),
    ):
        if is_asked:
            parts.append(phrase)
    return "; ".join(parts)
