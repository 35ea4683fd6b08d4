"""A plan in words. Pure, and without numpy: whoever has a stored plan can tell it."""

from __future__ import annotations

import zlib

from droveway.domain.placement import Fallen, Plan

EACH_HOST_UP_TO = 8  # so many hosts are named each with its reason
SENTENCE_CHARACTERS_MAX = 1000
NO_HOST = 255
LARGEST_PACKED_BYTES = 64 << 20


def failing_rules(plan: Plan) -> dict[int, str]:
    """hosts.id -> the first rule that this host failed; hosts that fit are missing."""
    return {host: plan.rules[number - 1] for host, number in enumerate(numbers(plan)) if 0 < number < NO_HOST}


def numbers(plan: Plan) -> bytes:
    """The unpacked rules: for each hosts.id a byte."""
    if not plan.first_failing:
        return b""
    return zlib.decompressobj().decompress(plan.first_failing, LARGEST_PACKED_BYTES)


def _told(fallen: Fallen) -> str:
    hosts = f"{fallen.hosts} host" if fallen.hosts == 1 else f"{fallen.hosts} hosts"
    nearest = f" (nearest: {fallen.nearest[0][0]}: {fallen.nearest[0][1]})" if fallen.nearest else ""
    return f"{hosts}: {fallen.sentence}{nearest}"


def sentence(plan: Plan) -> str:
    """`No valid host was found`, why, and what would have fitted. Few hosts are named each with its reason."""
    if not plan.hosts:
        return "No valid host was found: there is no host yet; start an agent with 'droveway agent'"
    named = [f"{name}: {reason}" for fallen in plan.fallen for name, reason in fallen.nearest]
    if plan.hosts <= EACH_HOST_UP_TO and len(named) == plan.hosts - plan.fitting:
        told = sorted(named)
    else:
        told = [_told(fallen) for fallen in sorted(plan.fallen, key=lambda fallen: -fallen.hosts)]
    if plan.would_fit:
        told.append(f"it would fit {', or '.join(plan.would_fit)}")
    text = f"No valid host was found: {'; '.join(told)}"
    return text if len(text) <= SENTENCE_CHARACTERS_MAX else text[: SENTENCE_CHARACTERS_MAX - 1] + "…"
