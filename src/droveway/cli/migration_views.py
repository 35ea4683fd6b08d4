"""Migrations in words, for `droveway migration list` and `watch`."""

from __future__ import annotations

from typing import Any

from droveway.cli.columns import one_line

MIGRATIONS = "/droveway/v1/migrations"
UNDER_WAY = frozenset({"accepted", "queued", "preparing", "running"})
MIB = 1 << 20
DAY_S = 24 * 3600


def progress_line(one: dict[str, Any]) -> str:
    """How far it is, in one line."""
    if one["status"] == "queued":
        return f"number {one['queue_place']} of those that wait to leave {one['source']}"
    if done(one) is None:
        return "nothing is copied yet"
    words = [f"{_mib(rest(one))} of {_mib(total(one))} MiB remain", f"{_mib(one['rate_bytes_s'])} MiB/s"]
    if one["post_copy"] != "none":
        words.append("post-copy" if one["post_copy"] == "active" else "post-copy was cut")
    elif one["iteration"]:
        words += [f"pass {one['iteration']}", f"the guest writes {_mib(one['dirty_bytes_s'])} MiB/s"]
    if one["throttle_percent"]:
        words.append(f"slowed down by {one['throttle_percent']} %")
    if one["paused"]:
        words.append("paused")
    left_s = one["time_left_s"]
    words.append("no end in sight" if left_s is None and one["rate_bytes_s"] else f"{_time(left_s)} left")
    return ", ".join(words)


def outcome_line(one: dict[str, Any]) -> str:
    """How it ended, and why."""
    reason = f": {one_line(one['error'])}" if one["error"] else ""
    where = f"{one['source']} to {one['destination'] or 'nowhere'}"
    return f"{one['server']['name']}, {where}: {one['status']}{reason}"


def total(one: dict[str, Any]) -> int:
    return int((one["memory_total_bytes"] or 0) + (one["disk_total_bytes"] or 0))


def rest(one: dict[str, Any]) -> int:
    return int((one["memory_remaining_bytes"] or 0) + (one["disk_remaining_bytes"] or 0))


def done(one: dict[str, Any]) -> float | None:
    """Of what there is to copy, 0 to 1; None while that is not known."""
    return 1 - min(1.0, rest(one) / total(one)) if total(one) else None


def _mib(count: float | None) -> str:
    return f"{(count or 0) / MIB:.1f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "some time"
    if seconds > DAY_S:
        return "more than a day"
    minutes, left_s = divmod(int(seconds), 60)
    return f"{minutes} min {left_s} s" if minutes else f"{seconds:.1f} s"
