"""Names for `IN (...)`, in parts that every database takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

NAMES_MAX = 500  # in one statement


def in_parts(names: Iterable[str]) -> Iterator[list[str]]:
    """Sorted, so that two that lock the same rows do it in one order."""
    wanted = sorted(names)
    return (wanted[start : start + NAMES_MAX] for start in range(0, len(wanted), NAMES_MAX))
