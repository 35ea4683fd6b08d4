"""A host's heart under simulation: what agents/heart/process.py is on a real host; and an agent's pulse."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from droveway.domain.liveness import LATENESS_MAX_MS, LEFT
from droveway.ports.bus import Beat
from droveway.simulation.process import Process
from droveway.simulation.truth import HEART_HUNG

if TYPE_CHECKING:
    from droveway.simulation.machines import AgentProcess, Host

PULSES_AN_INTERVAL = 2
STILL_INTERVALS = 2.0
STOPPED_NOTE = "its process is stopped (SIGSTOP)"


class JoinedProcess(msgspec.Struct):
    """The process that joined last as a service, as its heart sees it."""

    process: AgentProcess
    moved_s: float
    progress: int = 0
    lateness_ms: int = 0
    ending: int = 0  # or LEFT, or DIED


class HeartProcess(Process):
    """One life of one heart. It dies with its host, or by its own fault; never with a service."""

    def __init__(self, host: Host, interval_s: float) -> None:
        super().__init__(host.world, f"heart of {host.name}")
        self.host, self._interval_s = host, interval_s
        self.joined: dict[str, JoinedProcess] = {}  # by service
        self._generation = self._counter = self._boottime_ms()
        self._timer: asyncio.Handle = self._loop.call_soon(self._due, context=self.context)

    def _boottime_ms(self) -> int:
        return int(self.host.clock.monotonic_s() * 1000)

    def stop(self) -> None:
        self.world.truth.begin(HEART_HUNG, self.host.name)
        super().stop()

    def go_on(self) -> None:
        self.world.truth.end(HEART_HUNG, self.host.name)
        super().go_on()

    def kill(self) -> None:
        self._timer.cancel()
        super().kill()

    # -- beating ------------------------------------------------------------------------------------------------------
    def _due(self) -> None:
        self._timer = self._loop.call_later(self._interval_s, self._due, context=self.context)
        self.beat()

    def hurry(self) -> None:
        """There is news: the next beat is due now."""
        if self.is_alive:
            self._timer.cancel()
            self._timer = self._loop.call_soon(self._due, context=self.context)

    def beat(self) -> None:
        host, joined = self.host, self.joined.values()
        self._counter = max(self._counter + 1, self._boottime_ms())
        stalled_since_s = self._loop.time() - STILL_INTERVALS * self._interval_s
        notes = tuple(STOPPED_NOTE if one.moved_s < stalled_since_s and not one.ending else "" for one in joined)
        self.world.network.beat(
            Beat(
                host.name,
                host.boot_id,
                self._counter,
                self._generation,
                tuple(self.joined),
                tuple(one.progress for one in joined),
                tuple(one.ending or one.lateness_ms for one in joined),
                host.clock.now_us(),
                notes,
            )
        )
        for one in joined:
            one.lateness_ms = 0

    # -- what it is told ----------------------------------------------------------------------------------------------
    def on_beat(self, process: AgentProcess, progress: int, lateness_ms: int) -> None:
        """A pulse; the first one of a process joins."""
        one = self.joined.get(process.service)
        if one is None or one.process is not process:
            self.joined.pop(process.service, None)
            one = self.joined[process.service] = JoinedProcess(process, self._loop.time())
            self.hurry()
        one.progress, one.moved_s = progress, self._loop.time()
        one.lateness_ms = max(one.lateness_ms, lateness_ms)

    def take_interval(self, interval_s: float) -> None:
        self._interval_s = interval_s

    def note_end(self, process: AgentProcess, ending: int) -> None:
        """That process has left, or the kernel says that it has ended."""
        one = self.joined.get(process.service)
        if one is not None and one.process is process and not one.ending:
            one.ending = ending
            self.hurry()


class SimPulse:
    """Pulse of one life of one service: tells the heart of its host, whichever lives, that its loop turns."""

    def __init__(self, host: Host, process: AgentProcess, interval_s: float) -> None:
        self._host, self._process, self._interval_s = host, process, interval_s

    async def run(self) -> None:
        clock, progress, late_s = self._host.clock, 0, 0.0
        while True:
            progress += 1
            if self._host.heart is not None:
                self._host.heart.on_beat(self._process, progress, min(int(late_s * 1000), LATENESS_MAX_MS))
            pause_s = self._interval_s / PULSES_AN_INTERVAL
            due_s = clock.monotonic_s() + pause_s
            await clock.sleep(pause_s)
            late_s = clock.monotonic_s() - due_s

    def set_interval(self, interval_s: float) -> None:
        self._interval_s = interval_s
        if self._host.heart is not None:
            self._host.heart.take_interval(interval_s)

    def leave(self) -> None:
        if self._process.is_alive:  # a killed one says nothing any more
            self._host.note_end_at_heart(self._process, LEFT)
