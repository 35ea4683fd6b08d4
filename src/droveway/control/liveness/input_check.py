"""Whether heartbeats can reach this control: a failure detector without input concludes nothing, whatever the cause.

What this end sends itself must come back by the way that heartbeats take. A connection that is half open, a
subscription that the broker forgot or forbids, a socket that was replaced, a process without file descriptors: none of
them is told to anybody, and each of them keeps the echo away. Of a broker that works and carries nothing (another
prefix, another account) an echo says nothing: there one heartbeat must have arrived before anything is concluded.
"""

from __future__ import annotations

import math

import msgspec
import structlog

from droveway.control.liveness.observer import Observer
from droveway.domain.faults import Unreachable
from droveway.domain.liveness import Timing
from droveway.ports.bus import ControlBus
from droveway.ports.clock import Clock

log = structlog.get_logger("droveway.liveness")
ECHOES_AN_INTERVAL = 4
# An echo that is missing for longer takes the input away. A shorter pause does not: it is no host's silence.
MISSING_INTERVALS = 1.5
RENEWED_AFTER = 20  # echoes missing in a row: fifteen intervals


class NoInput(msgspec.Struct, frozen=True):
    """Why no heartbeat can arrive, and what to do about it."""

    reason: str
    advice: str


class InputCheck:
    """Times are the observer's: they stand still while this process does not run."""

    def __init__(self, bus: ControlBus, observer: Observer, clock: Clock, timing: Timing) -> None:
        self._bus, self._observer, self._clock = bus, observer, clock
        self._interval_s = timing.report_interval_s
        self._returned_s = observer.now_s()  # when the youngest echo that came back was sent
        self._lost_s = -math.inf  # and the youngest that did not
        self._paused: list[tuple[float, float]] = []
        self._because = ""

    async def run(self) -> None:
        """Until cancelled. A connection without echoes is made anew: its other end may have lost the subscriptions. An
        echo for which this process was itself late is not counted as missing."""
        missing = 0
        while True:
            began_s = self._clock.monotonic_s()
            has_returned = await self.confirm()
            was_late = self._clock.monotonic_s() - began_s > self._interval_s
            missing = 0 if has_returned or was_late or self._bus.trouble else missing + 1
            if missing == RENEWED_AFTER:
                log.warning("reconnecting to the bus", because=self._because)
                self._bus.renew()
                missing = 0
            await self._clock.sleep(self._interval_s / ECHOES_AN_INTERVAL)

    async def confirm(self) -> bool:
        """Whether what is sent now comes back, within half a report interval."""
        sent_s = self._observer.now_s()
        try:
            await self._bus.echo(self._interval_s / 2)
        except Unreachable as fault:
            self._because = fault.reason
            self._lost_s = max(self._lost_s, sent_s)
            return False
        if self._returned_s < self._lost_s < sent_s:
            self._paused.append((self._returned_s, sent_s))
        self._returned_s = max(self._returned_s, sent_s)
        return True

    def take_paused(self) -> list[tuple[float, float]]:
        """From when to when echoes were missing that come back again, since the last call: what others sent then may be
        lost likewise."""
        paused, self._paused = self._paused, []
        return paused

    def missing(self, now_s: float) -> NoInput | None:
        """None while heartbeats can reach this control."""
        if self._bus.trouble:
            return NoInput(self._bus.trouble, "bring the broker back; agents and control connect again by themselves")
        if self._observer.defers:
            return None  # a membership driver is asked, over its own connection
        if now_s - self._returned_s > MISSING_INTERVALS * self._interval_s:
            return NoInput(
                f"what this control sends itself does not come back: {self._because or 'no echo yet'}",
                "look at the connection between this control and its bus, and at what its user may subscribe to there",
            )
        if not self._observer.has_heard and not self._bus.is_direct:
            return NoInput(
                "no host has been heard since this control started",
                "start a host's agent and heart; if they run, compare their servers and prefix with this control's",
            )
        return None
