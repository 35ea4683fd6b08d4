"""Which two hosts were seen to work with the same pool of root disks, by a test object, a short while ago: so that a
move need not ask again. A hint of this process: what is not known is asked."""

from __future__ import annotations

from droveway.ports.clock import Clock

HOLDS_S = 600.0
PAIRS_MAX = 10_000


class PoolsSeen:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_s: dict[tuple[str, str, str], float] = {}

    def is_same(self, pool: str, one: str, other: str) -> bool:
        """Whether that was seen within HOLDS_S."""
        return self._clock.monotonic_s() < self._until_s.get(_pair(pool, one, other), 0.0)

    def note(self, pool: str, one: str, other: str) -> None:
        if len(self._until_s) >= PAIRS_MAX:
            self._until_s.clear()
        self._until_s[_pair(pool, one, other)] = self._clock.monotonic_s() + HOLDS_S


def _pair(pool: str, one: str, other: str) -> tuple[str, str, str]:
    first, second = sorted((one, other))
    return pool, first, second
