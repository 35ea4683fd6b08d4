"""What an observer may say after its server was away.

A server that stood still lets every session run out at the moment it wakes, and the living need a while to come back:
until then a member that was present before the outage is held as present.
"""

from __future__ import annotations

import msgspec

from droveway.ports.clock import Clock
from droveway.ports.membership import Presence


class Grace:
    def __init__(self, clock: Clock, grace_s: float) -> None:
        self._clock, self.grace_s = clock, grace_s
        # As seen last; from the beginning of an outage to the end of its grace, as seen before it.
        self._before: dict[str, dict[str, Presence]] = {}
        self._is_away = False
        self._ends_s: float | None = None

    def lost(self) -> None:
        if not self._is_away:
            self._is_away = True
            self._before = {group: dict(seen) for group, seen in self._before.items()}  # the driver's own goes on

    def back(self) -> None:
        """Begin to wait for members that were present. The first connection of all has none to wait for."""
        self._is_away = False
        if self._before:
            self._ends_s = self._clock.monotonic_s() + self.grace_s

    def over(self, group: str, seen: dict[str, Presence]) -> dict[str, Presence]:
        """`seen` as it may be said now. (The dictionary itself when there is nothing to hold: asking costs nothing.)"""
        if self._holds():
            known = dict(seen)
            for member in self._before.get(group, {}):
                if (one := self._held(group, member, seen.get(member))) is not None:
                    known[member] = one
            return known
        self._before[group] = seen
        return seen

    def over_one(self, group: str, member: str, seen: Presence | None) -> Presence | None:
        """The same for a driver that asks for one member at a time."""
        if self._holds():
            return self._held(group, member, seen)
        if seen is not None:
            self._before.setdefault(group, {})[member] = seen
        return seen

    def missing(self) -> list[tuple[str, str]]:
        """Everybody who is remembered: (group, member)."""
        return [(group, member) for group, members in self._before.items() for member in members]

    def _holds(self) -> bool:
        if self._is_away:
            return True
        if self._ends_s is None:
            return False
        if self._clock.monotonic_s() < self._ends_s:
            return True
        self._ends_s = None
        self._before.clear()
        return False

    def _held(self, group: str, member: str, seen: Presence | None) -> Presence | None:
        before = self._before.get(group, {}).get(member)
        if before is None or not before.is_present or (seen is not None and seen.is_present):
            return seen
        reason = "was present before the membership server was away, and may come back"
        return msgspec.structs.replace(before, is_held=True, reason=reason)
