"""A host's heart under simulation: what agents/heart/process.py is on a real host; and an agent's pulse."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from droveway.domain.liveness import LATENESS_MAX_MS, LEFT
from droveway.ports.bus import Beat
from droveway.simulation.process import Process
from droveway.simulation.truth import HEART_HUNG
from droveway.store.fleet.hosts import COMPUTE

if TYPE_CHECKING:
    from droveway.simulation.machines import Host

PULSES_AN_INTERVAL = 2
STILL_INTERVALS = 2.0
STOPPED_NOTE = "its process is stopped (SIGSTOP)"


class Joined(msgspec.Struct):
    """The agent that joined last, as its heart sees it."""

    process: object
    moved_s: float
    progress: int = 0
    lateness_ms: int = 0
    fate: int = 0  # or LEFT, or DIED


class HeartProcess(Process):
    """One life of one heart. It dies with its host, or by its own fault; never with the agent."""

    def __init__(self, host: Host, interval_s: float) -> None:
        super().__init__(host.world, f"heart of {host.name}")
        self.host, self._interval_s = host, interval_s
        self.agent: Joined | None = None
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
        host, agent = self.host, self.agent
        self._counter = max(self._counter + 1, self._boottime_ms())
        beat = Beat(host.name, host.boot_id, self._counter, self._generation, wall_us=host.clock.now_us())
        if agent is not None:
            is_still = self._loop.time() - agent.moved_s > STILL_INTERVALS * self._interval_s and not agent.fate
            beat = msgspec.structs.replace(
                beat,
                services=(COMPUTE,),
                progress=(agent.progress,),
                notes=(STOPPED_NOTE if is_still else "",),
                lateness_ms=(agent.fate or agent.lateness_ms,),
            )
            agent.lateness_ms = 0
        self.world.network.beat(beat)

    # -- what it is told ----------------------------------------------------------------------------------------------
    def hear(self, process: object, progress: int, lateness_ms: int) -> None:
        """A pulse; the first one of a process joins."""
        if self.agent is None or self.agent.process is not process:
            self.agent = Joined(process, self._loop.time())
            self.hurry()
        self.agent.progress, self.agent.moved_s = progress, self._loop.time()
        self.agent.lateness_ms = max(self.agent.lateness_ms, lateness_ms)

    def take_interval(self, interval_s: float) -> None:
        self._interval_s = interval_s

    def tell_end(self, process: object, fate: int) -> None:
        """That process has left, or the kernel says that it has ended."""
        if self.agent is not None and self.agent.process is process and not self.agent.fate:
            self.agent.fate = fate
            self.hurry()


class SimPulse:
    """Pulse of one life of one agent: tells the heart of its host, whichever lives, that its loop turns."""

    def __init__(self, host: Host, process: Process, interval_s: float) -> None:
        self._host, self._process, self._interval_s = host, process, interval_s

    async def run(self) -> None:
        clock, progress, late_s = self._host.clock, 0, 0.0
        while True:
            progress += 1
            if self._host.heart is not None:
                self._host.heart.hear(self._process, progress, min(int(late_s * 1000), LATENESS_MAX_MS))
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
            self._host.tell_heart(self._process, LEFT)
