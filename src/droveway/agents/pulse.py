"""An agent's side of its heart: says that its loop turns, how late it was, and what it is stuck in."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from types import FrameType
from typing import Any, Protocol

import structlog

from droveway.agents.heart import heart_bytes
from droveway.ports.clock import Chance, Clock

log = structlog.get_logger("droveway.agent")
PULSES_AN_INTERVAL = 4
PULSE_MIN_S = 0.005
RECONNECT_FIRST_S, RECONNECT_MAX_S = 0.05, 1.0
MISSES_SAID = 10  # tries in a row without a heart, about 5 s
STUCK_S = 1.0
LOOK_EVERY_S = 0.5
LOOPS = {"base_events.py", "runners.py"}  # files of asyncio in which a loop runs; uvloop's run is called by the latter


class Pulse(Protocol):
    """What reports that a service makes progress."""

    async def run(self) -> None:
        """Until cancelled."""
        ...

    def set_interval(self, interval_s: float) -> None:
        """What control has handed out."""
        ...

    def leave(self) -> None:
        """The service ends in good order."""
        ...


class HeartPulse:
    """Joins the heart at `path`, again and again, for one service."""

    def __init__(
        self,
        path: str,
        host: str,
        boot_id: str,
        binary: str,
        watch: LoopWatch,
        clock: Clock,
        chance: Chance,
        interval_s: float = 1.0,
    ) -> None:
        self._path, self._watch, self._clock, self._chance = path, watch, clock, chance
        self._joining = heart_bytes.JOIN + "\0".join((host, boot_id, binary)).encode()
        self._interval_s = interval_s
        self._handed_out = False
        self._socket: socket.socket | None = None
        self._delay_s, self._connect_s = RECONNECT_FIRST_S, 0.0
        # Not 0: two processes that end after their first pulse would look like one that stands still.
        self._progress = int(chance.uniform(0, 1 << 32))
        self._misses = 0
        self._has_left = False

    async def run(self) -> None:
        late_s = 0.0
        try:
            while True:
                self._pulse(late_s)
                pause_s = max(PULSE_MIN_S, self._interval_s / PULSES_AN_INTERVAL)
                if self._socket is None:
                    pause_s = min(pause_s, self._delay_s)
                due_s = self._clock.monotonic_s() + pause_s
                self._watch.expect(self, due_s)
                await self._clock.sleep(pause_s)
                late_s = max(0.0, self._clock.monotonic_s() - due_s)
        finally:
            self._watch.forget(self)

    def is_in(self, text: str) -> None:
        """What the loop is in, says the watch from its own thread."""
        whole = text.encode()[: heart_bytes.WHERE_MAX_BYTES].decode(errors="ignore")  # no half character at the end
        self._send(heart_bytes.WHERE + whole.encode())

    def set_interval(self, interval_s: float) -> None:
        self._interval_s, self._handed_out = interval_s, True
        self._say_interval()

    def leave(self) -> None:
        self._has_left = True
        self._send(heart_bytes.LEAVE)
        self._part()

    # -- towards the heart --------------------------------------------------------------------------------------------
    def _pulse(self, late_s: float) -> None:
        self._progress = (self._progress + 1) & 0xFFFFFFFF
        if self._socket is None:
            self._connect()
        late_ms = min(int(late_s * 1000), heart_bytes.LATENESS_MAX_MS)
        if not self._send(heart_bytes.PULSE + heart_bytes.PULSED.pack(self._progress, late_ms)):
            self._part()

    def _connect(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._has_left or now_s < self._connect_s:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            sock.connect(self._path)
            sock.send(self._joining)
        except OSError as error:
            sock.close()
            self._misses += 1
            if self._misses == MISSES_SAID:
                log.warning(
                    "no heart process on this host: no heartbeats are sent for this agent",
                    path=self._path,
                    because=error.strerror,
                )
            self._connect_s = now_s + self._delay_s * self._chance.uniform(0.5, 1.0)
            self._delay_s = min(self._delay_s * 2, RECONNECT_MAX_S)
            return
        self._socket, self._connect_s = sock, now_s + RECONNECT_MAX_S
        self._delay_s, self._misses = RECONNECT_FIRST_S, 0
        self._say_interval()

    def _say_interval(self) -> None:
        if self._handed_out:
            interval_ms = min(max(int(self._interval_s * 1000), 0), heart_bytes.INTERVAL_MAX_MS)
            self._send(heart_bytes.INTERVAL + heart_bytes.INTERVALLED.pack(interval_ms))

    def _send(self, message: bytes) -> bool:
        """False when there is no heart. Called by the watching thread too: a packet goes out whole or not at all."""
        sock = self._socket
        if sock is None:
            return True
        try:
            sock.send(message)
        except BlockingIOError:
            return True  # a heart that does not read sends no heartbeats: the failure detector notices
        except OSError:
            return False
        return True

    def _part(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class LoopWatch:
    """One a process: looks twice a second, from beside the loop, whether that turns; if not, tells what it is in."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_s: dict[HeartPulse, float] = {}  # when each will have had its turn
        self._ended: threading.Event | None = None

    def expect(self, pulse: HeartPulse, due_s: float) -> None:
        self._due_s[pulse] = due_s
        if self._ended is None:
            self._ended = threading.Event()
            looked = (asyncio.get_running_loop(), threading.get_ident(), self._ended)
            threading.Thread(target=self._look, args=looked, name="loop watch", daemon=True).start()

    def forget(self, pulse: HeartPulse) -> None:
        self._due_s.pop(pulse, None)
        if not self._due_s and self._ended is not None:
            self._ended.set()
            self._ended = None

    def _look(self, loop: asyncio.AbstractEventLoop, loop_thread: int, ended: threading.Event) -> None:
        while not ended.wait(LOOK_EVERY_S):
            pulses = self._due_s.copy()
            if not pulses or self._clock.monotonic_s() <= min(pulses.values()) + STUCK_S:
                continue
            frame = sys._current_frames().get(loop_thread)
            if frame is not None:
                text = where(asyncio.current_task(loop), frame)
                for pulse in pulses:
                    pulse.is_in(text)


def where(task: asyncio.Task[Any] | None, frame: FrameType) -> str:
    """What a loop is in: the task, the innermost line of this program's own, and the library's line it waits in."""
    inner, own = frame, _own(frame)
    text = f"task '{task.get_name()}' ({_place(own or inner)}" if task is not None else f"a callback ({_place(inner)}"
    return f"{text}, which is in {_place(inner)})" if own is not None and own is not inner else f"{text})"


def _own(frame: FrameType) -> FrameType | None:
    """Not beyond the loop itself: what started it is this program's own too."""
    package = f"{os.sep}droveway{os.sep}"
    walking: FrameType | None = frame
    while walking is not None and os.path.basename(walking.f_code.co_filename) not in LOOPS:
        if package in walking.f_code.co_filename:
            return walking
        walking = walking.f_back
    return None


def _place(frame: FrameType) -> str:
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}"
