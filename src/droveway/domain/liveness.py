"""Is an agent alive? Judged by the observer's own monotonic clock and a rising counter; pure."""

from __future__ import annotations

import msgspec


class Sighting(msgspec.Struct):
    """What the observer has seen of one agent. Times are this observer's monotonic seconds."""

    first_s: float  # when this observer began to expect it
    beat_s: float | None = None  # when its last accepted beat arrived
    boot_id: str = ""
    counter: int = 0
    beats: int = 0
    connected: bool = False
    gone: str = ""  # the sentence with which its connection ended


class Opinion(msgspec.Struct, frozen=True):
    is_up: bool
    sentence: str
    held: bool = False  # nothing may be said yet: keep the state that is recorded


def accept(sighting: Sighting, boot_id: str, counter: int, now_s: float) -> bool:
    """Take a beat in; False for one that is replayed or reordered (its counter did not rise)."""
    if boot_id == sighting.boot_id and counter <= sighting.counter:
        return False
    sighting.boot_id, sighting.counter, sighting.beat_s = boot_id, counter, now_s
    sighting.beats += 1
    return True


def judge(sighting: Sighting, now_s: float, down_time_s: float) -> Opinion:
    """Up or down, with the sentence. A fresh observer grants one `down_time_s` of grace."""
    if sighting.gone and not sighting.connected:
        return Opinion(False, sighting.gone)
    if sighting.beat_s is None:
        waited = now_s - sighting.first_s
        if waited <= down_time_s:
            return Opinion(False, "no beat yet; the observer has just started", held=True)
        return Opinion(False, f"no beat since the observer started {waited:.0f} s ago")
    silent = now_s - sighting.beat_s
    if silent <= down_time_s:
        return Opinion(True, "beats arrive")
    return Opinion(False, f"no beat for {silent:.1f} s; down after {down_time_s:.1f} s")
