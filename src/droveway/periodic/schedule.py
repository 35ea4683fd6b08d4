"""When the next turn is. Turns stand on a grid that never moves; each may begin anywhere within its window."""

from __future__ import annotations

import math
from typing import NamedTuple

START_SPREAD_S = 5.0  # what is to run on start runs within these first seconds, not all in the first


class ScheduledRun(NamedTuple):
    """A place on the grid; how many before it were missed because the run before had not ended."""

    at_s: float
    skipped: int = 0


def first(now_s: float, every_s: float, run_on_start: bool, share: float) -> ScheduledRun:
    """`share` is from 0 to 1, drawn by chance: what starts together does not stay together."""
    return ScheduledRun(now_s + share * (min(every_s, START_SPREAD_S) if run_on_start else every_s))


def following(turn: ScheduledRun, every_s: float, window_s: float, now_s: float) -> ScheduledRun:
    """The turn after that one, whose run has ended now. A turn whose window has passed is skipped, not made up for."""
    next_s = turn.at_s + every_s
    skipped = max(0, math.ceil((now_s - next_s - window_s) / every_s))
    return ScheduledRun(next_s + skipped * every_s, skipped)
