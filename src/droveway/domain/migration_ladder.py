"""What is done about a guest that writes to its memory faster than it is copied: the ladder of live migration.

A copy goes over the memory in passes; each one sends what the guest has written to during the pass before, and the
guest is switched once the rest can be sent within the downtime that is allowed. Where the rest does not shrink,
something has to give: the downtime, the guest's speed, the safety of a guest whose memory lies on one host alone, or
the migration. Which of them is the policy. `next_action` decides from what the source host counts, and from nothing
else.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec

from droveway.domain.model import CopyProgress
from droveway.domain.wire import Count

POLICY_KEY, DOWNTIME_KEY = "droveway:migration_policy", "droveway:migration_downtime_ms"
DOWNTIME_LEAST_MS, DOWNTIME_MOST_MS = 1, 60_000
AT_ONCE_MAX = 16  # copies away from one host
WINDOW_PASSES = 2  # over which the rest is looked at: what is seen of one alone depends on when one looks
SHRINKS_TO = 0.8  # of what it was before; less is no headway
DOWNTIME_SPARE = 1.25  # what is asked for above what was needed last
THROTTLE_MAX_PERCENT = 80  # beyond, a guest stands still for a second at a time, as seen from outside
WINDOWS_MAX = {"never-slow": 2, "auto-converge": 6}  # without headway


class Policy(StrEnum):
    """What may be done to a guest so that its migration ends."""

    AUTO_CONVERGE = "auto-converge"  # its CPUs are slowed down by steps; given up when that will not do
    POST_COPY = "post-copy"  # it runs on at the destination before its memory is there: lost, if the source is then
    PAUSE = "pause"  # it stands still while the rest is copied
    NEVER_SLOW = "never-slow"  # nothing, and the migration is given up


class CopyTarget(msgspec.Struct, frozen=True):
    """What is wanted of one copy. A `timeout_s` or `bandwidth_mib_s` of 0: as long, as much as it takes."""

    policy: Policy = Policy.AUTO_CONVERGE
    downtime_ms: Annotated[int, msgspec.Meta(ge=DOWNTIME_LEAST_MS, le=DOWNTIME_MOST_MS)] = 300
    downtime_max_ms: Annotated[int, msgspec.Meta(ge=DOWNTIME_LEAST_MS, le=DOWNTIME_MOST_MS)] = 1000
    timeout_s: float = 3600.0
    post_copy_after_s: float = 10.0  # of its first pass
    bandwidth_mib_s: Count = 0  # not of a post-copy, for which a guest waits


class LadderAction(StrEnum):
    RAISE_DOWNTIME = "raise downtime"
    POST_COPY = "post-copy"
    PAUSE = "pause"
    STOP = "stop"


class LadderDecision(NamedTuple):
    action: LadderAction
    reason: str
    downtime_ms: int = 0  # from now on, where it is raised


class LadderState(NamedTuple):
    """What has been seen of one copy. Begun anew by a control that has restarted: it only decides later then."""

    downtime_ms: int
    began_iteration: int = 0  # of the window
    peak_bytes: int = 0  # the most that remained in it
    least_peak_bytes: int = 0  # of the windows before; 0: there is none
    began_throttle_percent: int = 0  # when the window began
    idle_windows: int = 0  # in a row, in which it made no headway
    is_slowest: bool = False  # in the last of them the guest was as slow as it may be, from its beginning
    free_dirty_bytes_s: int = 0  # what the guest writes to while nothing slows it down


def target_of(default: CopyTarget, extra_specs: Mapping[str, str], metadata: Mapping[str, str]) -> CopyTarget:
    """The server's own metadata before its flavor, and that before the configuration. Raises ValueError, with a
    sentence, for a value that is none."""
    target = default
    for place, found in (("extra spec", extra_specs), ("metadata", metadata)):
        if (wrong := wrong_value(found)) is not None:
            raise ValueError(f"its {place} {wrong}")
        if POLICY_KEY in found:
            target = msgspec.structs.replace(target, policy=Policy(found[POLICY_KEY]))
        if DOWNTIME_KEY in found:
            downtime_ms = int(found[DOWNTIME_KEY])
            most_ms = max(downtime_ms, default.downtime_max_ms)
            target = msgspec.structs.replace(target, downtime_ms=downtime_ms, downtime_max_ms=most_ms)
    return target


def wrong_value(found: Mapping[str, str]) -> str | None:
    """What is wrong with the keys of the ladder in there; None when nothing is."""
    policy, downtime = found.get(POLICY_KEY), found.get(DOWNTIME_KEY)
    if policy is not None and policy not in {one.value for one in Policy}:
        return f"{POLICY_KEY} = {policy[:64]!r} is none of {', '.join(Policy)}"
    if downtime is not None and not (
        downtime.isascii()
        and downtime.isdecimal()
        and len(downtime) <= 5
        and DOWNTIME_LEAST_MS <= int(downtime) <= DOWNTIME_MOST_MS
    ):
        return f"{DOWNTIME_KEY} = {downtime[:64]!r} is no number of ms from {DOWNTIME_LEAST_MS} to {DOWNTIME_MOST_MS}"
    return None


def begin(target: CopyTarget) -> LadderState:
    return LadderState(target.downtime_ms)


def next_action(
    target: CopyTarget, state: LadderState, seen: CopyProgress
) -> tuple[LadderState, LadderDecision | None]:
    """From one look at a copy that goes on, every half second or so. What is decided is to be carried out at once; the
    same is decided again after the next window, if it has brought nothing."""
    if target.timeout_s and seen.elapsed_ms > target.timeout_s * 1000:
        return state, _last_resort(target, f"it has not ended within {target.timeout_s:.0f} s")
    if seen.iteration == 0 or seen.rate_bytes_s == 0:
        return state, None  # its disks go first, or nothing is known yet
    if seen.iteration == 1:
        is_long = target.policy is Policy.POST_COPY and seen.elapsed_ms >= target.post_copy_after_s * 1000
        reason = f"its first pass takes longer than {target.post_copy_after_s:.0f} s"
        return state, LadderDecision(LadderAction.POST_COPY, reason) if is_long else None
    state = _note(state, seen)
    if seen.iteration < state.began_iteration + WINDOW_PASSES:
        is_late = target.policy is Policy.POST_COPY and _need_ms(state.peak_bytes, seen) > target.downtime_max_ms
        return state, LadderDecision(LadderAction.POST_COPY, _rest(state.peak_bytes, seen)) if is_late else None
    state = _close_window(state, seen)
    if state.idle_windows == 0:
        return state, None
    return _climb(target, state, seen)


def _note(state: LadderState, seen: CopyProgress) -> LadderState:
    free = state.free_dirty_bytes_s if seen.throttle_percent else max(state.free_dirty_bytes_s, seen.dirty_bytes_s)
    if state.began_iteration == 0:
        return state._replace(
            began_iteration=seen.iteration,
            peak_bytes=seen.memory_remaining_bytes,
            began_throttle_percent=seen.throttle_percent,
            free_dirty_bytes_s=free,
        )
    return state._replace(peak_bytes=max(state.peak_bytes, seen.memory_remaining_bytes), free_dirty_bytes_s=free)


def _close_window(state: LadderState, seen: CopyProgress) -> LadderState:
    """`idle_windows` rises where the rest has not shrunk, or cannot: the guest writes faster than what is sent."""
    peak, least = state.peak_bytes, state.least_peak_bytes
    has_shrunk = peak <= SHRINKS_TO * least if least else seen.dirty_bytes_s < seen.rate_bytes_s
    return state._replace(
        began_iteration=seen.iteration,
        peak_bytes=seen.memory_remaining_bytes,
        least_peak_bytes=min(peak, least) if least else peak,
        began_throttle_percent=seen.throttle_percent,
        is_slowest=state.began_throttle_percent >= THROTTLE_MAX_PERCENT,
        idle_windows=0 if has_shrunk else state.idle_windows + 1,
    )


def _climb(target: CopyTarget, state: LadderState, seen: CopyProgress) -> tuple[LadderState, LadderDecision | None]:
    rest_bytes = max(state.least_peak_bytes, seen.memory_remaining_bytes)
    need_ms = _need_ms(rest_bytes, seen)
    wanted_ms = min(int(need_ms * DOWNTIME_SPARE) + 1, target.downtime_max_ms)
    if need_ms <= target.downtime_max_ms and wanted_ms > state.downtime_ms:
        reason = f"{_rest(rest_bytes, seen)}; {state.downtime_ms} ms were allowed"
        return state._replace(downtime_ms=wanted_ms), LadderDecision(LadderAction.RAISE_DOWNTIME, reason, wanted_ms)
    if target.policy in (Policy.POST_COPY, Policy.PAUSE):
        return state, _last_resort(target, _rest(rest_bytes, seen))
    slowed = state.free_dirty_bytes_s * (100 - THROTTLE_MAX_PERCENT) / 100
    if target.policy is Policy.AUTO_CONVERGE and slowed >= seen.rate_bytes_s:
        reason = (
            f"the guest writes to {_mib(state.free_dirty_bytes_s)} MiB a second, and even slowed down by "
            f"{THROTTLE_MAX_PERCENT} % to more than the {_mib(seen.rate_bytes_s)} MiB that are sent"
        )
        return state, _last_resort(target, reason)
    if state.is_slowest or state.idle_windows >= WINDOWS_MAX[target.policy]:
        by = f" with the guest slowed down by {seen.throttle_percent} %" if seen.throttle_percent else ""
        return state, _last_resort(target, _rest(rest_bytes, seen) + by)
    return state, None


def _last_resort(target: CopyTarget, reason: str) -> LadderDecision:
    if target.policy is Policy.POST_COPY:
        return LadderDecision(LadderAction.POST_COPY, reason)
    if target.policy is Policy.PAUSE:
        return LadderDecision(LadderAction.PAUSE, reason)
    return LadderDecision(
        LadderAction.STOP,
        f"{reason} (policy {target.policy}); let the guest do less, set {POLICY_KEY} to post-copy or pause, or force "
        "the migration to complete",
    )


def forced(target: CopyTarget) -> LadderDecision:
    """What is done when the migration is to complete at any price that its policy allows."""
    is_post_copy = target.policy is Policy.POST_COPY
    return LadderDecision(LadderAction.POST_COPY if is_post_copy else LadderAction.PAUSE, "it was forced to complete")


def time_left_s(seen: CopyProgress) -> float | None:
    """How much longer the copy takes if the guest goes on as it does; None when it would never end so, or nothing is
    known. Where the guest writes to less than is sent, each pass is shorter than the one before by that share."""
    rest_bytes = seen.memory_remaining_bytes + seen.disk_remaining_bytes
    if seen.rate_bytes_s == 0 or seen.dirty_bytes_s >= seen.rate_bytes_s:
        return None
    return rest_bytes / (seen.rate_bytes_s - seen.dirty_bytes_s)


def _need_ms(rest_bytes: int, seen: CopyProgress) -> float:
    """How long the guest would stand still, were it switched now."""
    return 1000 * rest_bytes / seen.rate_bytes_s


def _rest(rest_bytes: int, seen: CopyProgress) -> str:
    return (
        f"{_mib(rest_bytes)} MiB remain after {seen.iteration - 1} passes, which takes "
        f"{_need_ms(rest_bytes, seen) / 1000:.1f} s to send"
    )


def _mib(count: float) -> str:
    return f"{count / (1 << 20):.1f}"
