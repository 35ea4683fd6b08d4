"""Keys of configuration files that have another name now: an old file does not start, and says what to write."""

from __future__ import annotations

from typing import Any

MOVED = {  # as dotted names, from the top of the file
    "scheduler.wait_for_room": "scheduler.wait_for_capacity",
}


def problems(raw: dict[str, Any]) -> list[str]:
    """A message for each key of the file that has moved."""
    return [
        f"{old} is called {new} now: rename it in the file, its value means the same"
        for old, new in MOVED.items()
        if _holds(raw, old.split("."))
    ]


def _holds(part: object, names: list[str]) -> bool:
    first, *rest = names
    if not isinstance(part, dict) or first not in part:
        return False
    return not rest or _holds(part[first], rest)
