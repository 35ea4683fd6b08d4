"""Seeds that broke a law when they were first played."""

from __future__ import annotations

from functools import cache
from pathlib import Path

WITH_NETWORKS = "# Of worlds that may have networks:"  # behind that line
WITH_VOLUMES = "# Of worlds that may have volumes:"  # likewise

WITH_ROOT_POOLS = "# Of worlds that may have root disks in a pool:"  # likewise


@cache
def _lines() -> tuple[str, ...]:
    return tuple(Path(__file__).with_name("once_bad.txt").read_text().splitlines())


def once_bad() -> list[int]:
    return _seeds(_lines())


@cache
def before_networks() -> frozenset[int]:
    """Those of worlds that had no networks yet."""
    return _before(WITH_NETWORKS)


@cache
def before_volumes() -> frozenset[int]:
    """Those of worlds that had no volumes yet."""
    return _before(WITH_VOLUMES)


@cache
def before_root_pools() -> frozenset[int]:
    """Those of worlds that had no pools of root disks yet."""
    return _before(WITH_ROOT_POOLS)


def _before(line: str) -> frozenset[int]:
    lines = _lines()
    return frozenset(_seeds(lines[: lines.index(line)]))


def _seeds(lines: tuple[str, ...]) -> list[int]:
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]
