"""How many requests an address, and a project, may ask in a second.

Each has a bucket that holds BURST_S seconds' worth and fills at its rate: who asks in bursts is not refused, who asks
more for long is told how long to wait. The counts are of this process; with several APIs each has its own.
"""

from __future__ import annotations

from droveway.domain.faults import TooMany

BURST_S = 2.0
KEYS_MAX = 10_000  # of which counts are kept; full buckets go first, which is all that is known of most


class Rates:
    """`most_per_s`: 0 is no bound. `whose`: for the sentence."""

    def __init__(self, most_per_s: int, whose: str) -> None:
        self._most, self._whose = most_per_s, whose
        self._buckets: dict[str, tuple[float, float]] = {}  # what is left, and when that was so

    def take(self, key: str, now_s: float) -> None:
        """Raises TooMany."""
        if not self._most:
            return
        full = self._most * BURST_S
        left, at_s = self._buckets.get(key, (full, now_s))
        left = min(full, left + (now_s - at_s) * self._most)
        if left < 1.0:
            raise TooMany(f"More than {self._most} requests a second come {self._whose}; ask less often.")
        if key not in self._buckets and len(self._buckets) >= KEYS_MAX:
            self._forget(now_s)
        self._buckets[key] = (left - 1.0, now_s)

    def _forget(self, now_s: float) -> None:
        """Those that are full again, or all: then nobody is refused by it for a moment."""
        self._buckets = {key: one for key, one in self._buckets.items() if now_s - one[1] < BURST_S}
        if len(self._buckets) >= KEYS_MAX:
            self._buckets.clear()
