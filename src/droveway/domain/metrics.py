"""What is counted of liveness, as values: the failure detector gives them, `/metrics` shows them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from droveway.domain.wire import Count, Number, Reason, ShortText

# Upper edges: a beat that was late by exactly one of them still falls into its bucket. One more bucket takes the rest.
LATENESS_BUCKETS_MS = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)


class TaskMetrics(msgspec.Struct, frozen=True):
    """One periodic task. Counts rise since its process started."""

    host: ShortText
    name: ShortText
    runs: Count = 0
    errors: Count = 0
    overruns: Count = 0
    timeouts: Count = 0
    last_duration_s: float = 0.0
    service: ShortText = ""  # of that host; empty: a control's own


class TaskStatus(msgspec.Struct, frozen=True):
    """One task as it stands. `errors` counts every run that did not go well, `timeouts` those of them that were ended
    at their deadline, `overruns` turns that were missed; `last_error` is about the last run, and empty when it went
    well."""

    name: ShortText
    kind: ShortText
    every_s: float
    runs: Number
    errors: Number
    timeouts: Number
    overruns: Number
    last_started_us: Number | None
    last_duration_s: float | None
    last_error: Reason
    last_line: Reason
    last_exit_code: Number | None
    running_since_us: Number | None
    next_due_in_s: float | None  # None while it runs
    service: ShortText = ""  # of the host that was asked; empty: a control's own


class LivenessMetrics(msgspec.Struct, frozen=True):
    """Counts rise since the failure detector started. `transitions`: how often each state was entered."""

    beats_total: int = 0
    beats_refused_total: int = 0
    transitions: Mapping[str, int] = {}
    flaps_total: int = 0
    holds_total: int = 0
    lateness_counts: tuple[int, ...] = (0,) * (len(LATENESS_BUCKETS_MS) + 1)  # beats in each bucket, not cumulated
    lateness_sum_ms: int = 0
    loop_lag_s: float = 0.0
    loop_lag_max_s: float = 0.0
    tasks: tuple[TaskMetrics, ...] = ()
