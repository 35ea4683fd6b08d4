"""How long a move will take and how long its guest will be silent, said before it begins. Pure.

What is sent is known beforehand: the memory that the guest has touched, its disks where they go along, and again what
it dirties meanwhile. How fast that goes, and what a move takes besides, is read from the moves that this cloud has
recorded (`learn`); as long as there are too few of them it is assumed, and said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import combinations
from statistics import median

import msgspec

from droveway.domain.wire import Count

ITERATIONS_MAX = 1000
LEARNT_FROM_MIN = 4  # moves; of fewer nothing is concluded
LEARNT_FROM_MAX = 24  # the newest ones
SPREAD_MIN = 1.5  # between the smallest and the largest of them, or a rate cannot be told from what comes besides
DIRTY_COUNTS_FROM = 0.1  # of the rate: a move that dirtied less than that tells the rate best
FIRST_THROTTLE, MORE_THROTTLE, THROTTLE_MAX = 0.2, 0.1, 0.99  # QEMU's auto-converge
FAST_ENOUGH = 0.5  # auto-converge throttles once a pass dirties more than half of what it has sent


class GuestLoad(msgspec.Struct, frozen=True):
    """A guest as its move will find it. `used_bytes`: what its memory occupies on the host. `dirty_bytes_per_s`: as its
    hypervisor has last measured it, so long ago; None: never, and it is taken to be idle."""

    memory_bytes: Count
    used_bytes: Count
    dirty_bytes_per_s: Count | None = None
    measured_ago_s: float = 0.0


class Way(msgspec.Struct, frozen=True):
    """What a move costs here. `learnt_from`: so many earlier moves; 0: assumed."""

    bytes_per_s: float = float(1 << 30)
    setup_s: float = 1.0  # all that is not sending
    downtime_s: float = 0.05  # of a guest that dirties nothing
    learnt_from: int = 0


ASSUMED = Way()


class Outcome(msgspec.Struct, frozen=True):
    """A move that has ended well, as it was foreseen and as it was. `bytes_`: what was to be sent once."""

    bytes_: Count
    duration_s: float
    downtime_s: float | None = None
    dirty_bytes_per_s: Count | None = None


class Mode(StrEnum):
    """What is done about a guest that writes faster than it is copied; and a move while it is off."""

    NEVER_SLOW = "never-slow"  # it runs as ever, until what remains fits the downtime
    AUTO_CONVERGE = "auto-converge"  # the guest is slowed down until it does
    POST_COPY = "post-copy"  # one pass, then it runs there and fetches the rest
    PAUSE = "pause"  # one pass, then it is held until the rest has gone
    COLD = "cold"  # it is stopped, and started there


class Prediction(msgspec.Struct, frozen=True):
    """`duration_s`, `downtime_s` None: it does not end by itself. Cold, the downtime is until its machine is on."""

    mode: Mode
    duration_s: float | None
    downtime_s: float | None


def learn(outcomes: Sequence[Outcome], assumed: Way) -> Way:
    """From the newest first. The rate is the median of the slopes between any two moves, which a few odd ones do not
    shift; what all took besides is the median of the rest."""
    usable = [one for one in outcomes if one.duration_s > 0][:LEARNT_FROM_MAX]
    calm = [
        one for one in usable if not one.dirty_bytes_per_s or one.dirty_bytes_per_s < DIRTY_COUNTS_FROM * _rate_of(one)
    ]
    chosen = calm if len(calm) >= LEARNT_FROM_MIN else usable
    if len(chosen) < LEARNT_FROM_MIN:
        return assumed
    bytes_per_s = _slope(chosen) or assumed.bytes_per_s
    setup_s = max(0.0, median(one.duration_s - one.bytes_ / bytes_per_s for one in chosen))
    silent = [one.downtime_s for one in chosen if one.downtime_s is not None]
    return Way(bytes_per_s, setup_s, median(silent) if silent else assumed.downtime_s, len(chosen))


def _rate_of(one: Outcome) -> float:
    return one.bytes_ / one.duration_s


def _slope(chosen: Sequence[Outcome]) -> float:
    """Bytes a second; 0 where they are too much alike."""
    least, most = min(one.bytes_ for one in chosen), max(one.bytes_ for one in chosen)
    if most < SPREAD_MIN * max(least, 1):
        return 0.0
    pairs = (
        (abs(a.bytes_ - b.bytes_), (a.duration_s - b.duration_s) * (1 if a.bytes_ > b.bytes_ else -1))
        for a, b in combinations(chosen, 2)
    )
    slopes = [seconds / size for size, seconds in pairs if size >= (most - least) / 4]
    slope = median(slopes) if slopes else 0.0
    return 1.0 / slope if slope > 0 else 0.0


def predict(load: GuestLoad, disk_bytes: int, way: Way, downtime_max_s: float) -> tuple[Prediction, ...]:
    """One for each mode, in their order. `disk_bytes`: of the disks that go along."""
    return tuple(_predict(mode, load, disk_bytes, way, downtime_max_s) for mode in Mode)


def of_mode(predictions: Sequence[Prediction], mode: Mode) -> Prediction:
    return next(one for one in predictions if one.mode is mode)


def _predict(mode: Mode, load: GuestLoad, disk_bytes: int, way: Way, downtime_max_s: float) -> Prediction:
    before_s = way.setup_s + disk_bytes / way.bytes_per_s
    first_s = load.used_bytes / way.bytes_per_s
    dirty = float(load.dirty_bytes_per_s or 0)
    left_bytes = min(dirty * first_s, float(load.memory_bytes))
    if mode is Mode.COLD:
        return Prediction(mode, before_s, before_s)
    if mode is Mode.POST_COPY:
        return Prediction(mode, before_s + first_s + left_bytes / way.bytes_per_s, way.downtime_s)
    if mode is Mode.PAUSE:
        silent_s = way.downtime_s + left_bytes / way.bytes_per_s
        return Prediction(mode, before_s + first_s + silent_s, silent_s)
    passes_s, silent_s = _passes(load, way, downtime_max_s, throttles=mode is Mode.AUTO_CONVERGE)
    if passes_s is None:
        return Prediction(mode, None, None)
    return Prediction(mode, before_s + passes_s + silent_s, silent_s)


def _passes(load: GuestLoad, way: Way, downtime_max_s: float, *, throttles: bool) -> tuple[float | None, float]:
    """How long the passes over the memory take until what remains can be sent while the guest is held, and how long
    that is. None: each leaves as much as the one before."""
    rate, throttle, seconds = way.bytes_per_s, 0.0, 0.0
    dirty, left_bytes, fast_passes = float(load.dirty_bytes_per_s or 0), float(load.used_bytes), 0
    for _ in range(ITERATIONS_MAX):
        pass_s = left_bytes / rate
        seconds += pass_s
        sent_bytes, left_bytes = left_bytes, min(dirty * (1.0 - throttle) * pass_s, float(load.memory_bytes))
        if left_bytes / rate <= downtime_max_s:
            return seconds, way.downtime_s + left_bytes / rate
        if throttles:
            fast_passes = fast_passes + 1 if left_bytes > FAST_ENOUGH * sent_bytes else 0
            if fast_passes >= 2:
                throttle = min(THROTTLE_MAX, throttle + MORE_THROTTLE if throttle else FIRST_THROTTLE)
                fast_passes = 0
        elif left_bytes >= sent_bytes:
            return None, 0.0
    return None, 0.0
