"""The time of the failure detector. Pure: who calls says what the machine's clock shows."""

from __future__ import annotations


class ObserverClock:
    """The observer's time: monotonic, and it does not run while the observer itself was not running. The time for
    which it was stopped, starved or swapped out counts against no host."""

    def __init__(self, gap_max_s: float) -> None:
        self._gap_max_s = gap_max_s
        self._read_s: float | None = None
        self.credited_s = 0.0

    def now_s(self, monotonic_s: float) -> float:
        """To be called at least every `gap_max_s`."""
        if self._read_s is not None and monotonic_s - self._read_s > self._gap_max_s:
            self.credited_s += monotonic_s - self._read_s - self._gap_max_s
        self._read_s = monotonic_s
        return monotonic_s - self.credited_s

    def credit(self, seconds: float) -> None:
        self.credited_s += seconds
