"""Keys of the configuration file that have another name now: the file of an older release is told the new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# (table, key) as it was: where it stands now, with its table
MOVED: dict[tuple[str, str], str] = {
    ("scheduler", "wait_for_room"): "wait_for_capacity in [scheduler]",
}


def problems(raw: Mapping[str, Any]) -> list[str]:
    """A sentence for each moved key of the file, before its values are looked at."""
    found = []
    for (table, key), now in MOVED.items():
        part = raw.get(table)
        if isinstance(part, Mapping) and key in part:
            found.append(f"{key} in [{table}] is now called {now}: give it that name; its value stays as it is")
    return found
