"""A plan in words. Pure, and without numpy: a stored plan is enough."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from droveway.domain.placement import Plan, RuleRejection

EACH_HOST_UP_TO = 8  # so many hosts are named each with its reason
REASON_CHARACTERS_MAX = 1000
NO_HOST = 255
LARGEST_PACKED_BYTES = 64 << 20
NOT_FOUND = "No valid host was found"
NOT_ENOUGH = f"{NOT_FOUND}. There are not enough hosts available."
# Rules about what the request itself asks for: their sentences name it, and no host. Those of which they do name hosts
# have other words here.
_OF_THE_REQUEST = {
    "zone",
    "hypervisor",
    "version",
    "architecture",
    "machine",
    "capabilities",
    "aggregates",
    "different_host",
    "anti_affinity",
    "ram",
    "cpu",
    "disk",
    "numa",
}
_WITHOUT_HOSTS = {
    "asked": "another host was asked for",
    "same_host": "the hint same_host names servers elsewhere",
    "affinity": "affinity: its group is elsewhere",
}


def failing_rules(plan: Plan) -> dict[int, str]:
    """hosts.id -> the first rule that this host failed; hosts that fit are missing."""
    return {host: plan.rules[number - 1] for host, number in enumerate(numbers(plan)) if 0 < number < NO_HOST}


def numbers(plan: Plan) -> bytes:
    """The unpacked rules: for each hosts.id a byte."""
    if not plan.first_failing:
        return b""
    return zlib.decompressobj().decompress(plan.first_failing, LARGEST_PACKED_BYTES)


def _summary(fallen: RuleRejection) -> str:
    hosts = f"{fallen.hosts} host" if fallen.hosts == 1 else f"{fallen.hosts} hosts"
    nearest = f" (nearest: {fallen.nearest[0][0]}: {fallen.nearest[0][1]})" if fallen.nearest else ""
    return f"{hosts}: {fallen.reason}{nearest}"


def reason(plan: Plan, not_found: str = NOT_FOUND) -> str:
    """`No valid host was found`, why, and what would have fitted. Few hosts are named each with its reason."""
    if not plan.hosts:
        return f"{NOT_FOUND}: there is no host yet; start an agent with 'droveway agent'"
    named = [f"{name}: {reason}" for fallen in plan.fallen for name, reason in fallen.nearest]
    if plan.hosts <= EACH_HOST_UP_TO and len(named) == plan.hosts - plan.fitting:
        parts = sorted(named)
    else:
        parts = [_summary(fallen) for fallen in sorted(plan.fallen, key=lambda fallen: -fallen.hosts)]
    if plan.would_fit:
        parts.append(f"it would fit {', or '.join(plan.would_fit)}")
    return _bounded(f"{not_found}: {'; '.join(parts)}")


def taken(races: Sequence[str]) -> str:
    """There was capacity, and none of it was given to this request."""
    return f"{NOT_FOUND}: the hosts that fitted were taken meanwhile: {'; '.join(races)}"


def to_tenants(plan: Plan) -> str:
    """Which of their wishes the hosts could not meet, the one that stopped most hosts first. Names and ailments of
    hosts are the operator's."""
    if plan.ranked:
        return f"{NOT_FOUND}: there was room, and others took it meanwhile; try again"
    theirs = [
        _WITHOUT_HOSTS.get(fallen.rule, fallen.reason)
        for fallen in sorted(plan.fallen, key=lambda fallen: -fallen.hosts)
        if fallen.rule in _OF_THE_REQUEST or fallen.rule in _WITHOUT_HOSTS
    ]
    if not theirs:
        return NOT_ENOUGH
    if len(theirs) < len(plan.fallen):
        theirs.append("they are not in service for it")
    subjects = ["all hosts"] if len(theirs) == 1 else ["some hosts", *["others"] * (len(theirs) - 1)]
    return _bounded(f"{NOT_FOUND}: {'; '.join(map(': '.join, zip(subjects, theirs, strict=True)))}")


def _bounded(text: str) -> str:
    return text if len(text) <= REASON_CHARACTERS_MAX else text[: REASON_CHARACTERS_MAX - 1] + "…"
