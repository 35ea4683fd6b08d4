"""How late the event loop wakes sleeping tasks: the one number that says whether something stalls it (law 6)."""

from __future__ import annotations

from droveway.ports.clock import Clock

EVERY_S = 0.5


class LoopLag:
    """Seconds: `last_s`, and `worst_s` since the start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.last_s = self.worst_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            due_s = self._clock.monotonic_s() + EVERY_S
            await self._clock.sleep(EVERY_S)
            self.last_s = max(0.0, self._clock.monotonic_s() - due_s)
            self.worst_s = max(self.worst_s, self.last_s)
