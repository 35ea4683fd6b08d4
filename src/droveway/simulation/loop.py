"""An event loop whose time jumps: nothing waits, order depends on nothing but the order of the calls.

Also the clock, the chance and the names that the program asks for (law 7), all from one seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

OWNER: ContextVar[object] = ContextVar("OWNER", default=None)  # the process for which a callback runs
EPOCH_US = 1_767_225_600_000_000  # 2026-01-01: wall time at the start of every simulation
CALLBACKS_PER_INSTANT_MAX = 200_000


class Deadlock(AssertionError):
    """Nothing will ever happen again, or time stands still: a task waits for what will not happen."""


class SimTask(asyncio.Task[T]):
    """Hashed by its number: the order in which a set of tasks is walked must not depend on addresses."""

    _number = 0

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        *,
        loop: SimLoop,
        name: str | None = None,
        context: Context | None = None,
    ) -> None:
        loop.tasks_made += 1
        self._number = loop.tasks_made
        super().__init__(coroutine, loop=loop, name=name or f"task {self._number}", context=context)

    def __hash__(self) -> int:
        return self._number


class SimHandle(asyncio.TimerHandle):
    """A callback and when it is due. Half the work of asyncio's own, and a seed makes twenty thousand of them."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: SimLoop,
        context: Context | None,
    ) -> None:
        self._when, self._callback, self._args, self._loop, self._cancelled = when, callback, args, loop, False
        self._context = copy_context() if context is None else context

    def cancel(self) -> None:
        self._cancelled = True


class SimLoop(asyncio.AbstractEventLoop):
    """Time, callbacks, tasks: what a program without sockets, threads and signals needs; and how they run is ours."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._ready: deque[SimHandle] = deque()
        self._timers: list[tuple[float, int, SimHandle]] = []
        self._timers_made = 0
        self._run_now = 0  # callbacks since time last moved
        self._running = False
        self._closed = False
        self._held: dict[object, list[SimHandle]] = {}  # of stopped processes: what they do once they go on
        self.outside = Context()  # whatever runs in it belongs to no process
        self.tasks_made = 0
        self.troubles: list[str] = []  # what was not caught

    # -- time and callbacks -------------------------------------------------------------------------------------------
    def time(self) -> float:
        return self._now_s

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> SimHandle:
        handle = SimHandle(self._now_s, callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> SimHandle:
        when = self._now_s + delay
        handle = SimHandle(when, callback, args, self, context)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, handle))
        return handle

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> SimHandle:
        handle = SimHandle(when, callback, args, self, context)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, handle))
        return handle

    # -- processes ----------------------------------------------------------------------------------------------------
    def stop_process(self, owner: object) -> None:
        """SIGSTOP: nothing of it runs, and it does not know."""
        self._held.setdefault(owner, [])

    def continue_process(self, owner: object) -> None:
        """SIGCONT: whatever it has missed runs now, in its order."""
        self._ready.extend(self._held.pop(owner, ()))

    def is_stopped(self, owner: object) -> bool:
        return owner in self._held

    def hold(self, owner: object, callback: Callable[..., object], *args: Any) -> None:
        """Keep that for a process that is stopped: it lies in a buffer."""
        self._held[owner].append(SimHandle(self._now_s, callback, args, self, self.outside))

    # -- futures and tasks --------------------------------------------------------------------------------------------
    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        return SimTask(coro, loop=self, name=name, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.troubles.append(f"{context.get('message')}: {context.get('exception')!r}")

    get_debug = bool  # False; each future asks, and asks without a call into Python

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._ready.clear()
        self._timers.clear()
        self._closed = True

    # -- running ------------------------------------------------------------------------------------------------------
    def run_until_complete(self, future: Any) -> Any:
        task = asyncio.ensure_future(future, loop=self)
        with self._as_running():
            while not task.done():
                self._instant(task)
        return task.result()

    def settle(self) -> None:
        """Run what is ready now, without letting time pass."""
        with self._as_running():
            for _ in range(CALLBACKS_PER_INSTANT_MAX):
                if not self._ready:
                    return
                handle = self._ready.popleft()
                if not handle._cancelled:
                    handle._run()

    @contextlib.contextmanager
    def _as_running(self) -> Generator[None, None, None]:
        self._running = True
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            self._running = False
            asyncio._set_running_loop(None)

    def _instant(self, until: asyncio.Future[Any]) -> None:
        """Everything that happens at the next moment at which anything happens."""
        ready, timers = self._ready, self._timers
        if not ready:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise Deadlock("nothing is ready and nothing is scheduled")
            if timers[0][0] > self._now_s:
                self._now_s, self._run_now = timers[0][0], 0
        now_s = self._now_s
        while timers and timers[0][0] <= now_s:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled:
                ready.append(handle)
        held, run_now, is_done = self._held, self._run_now, until.done
        try:
            while ready:
                handle = ready.popleft()
                if not handle._cancelled:
                    if held and (kept := held.get(handle._context.get(OWNER))) is not None:
                        kept.append(handle)
                    else:
                        handle._run()
                run_now += 1
                if run_now > CALLBACKS_PER_INSTANT_MAX:
                    raise Deadlock(f"{CALLBACKS_PER_INSTANT_MAX} callbacks at {now_s:.6f} s and time stands still")
                if is_done():
                    return
        finally:
            self._run_now = run_now


class SimClock:
    """One process's clock: its monotonic time starts anywhere, its wall time is wrong by some skew, which may
    step by a day at any moment."""

    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self._loop = loop
        self._origin_s = rng.uniform(0.0, 1e6)
        self.skew_us = int(rng.uniform(-3e6, 3e6))  # may step at any moment

    def monotonic_s(self) -> float:
        return self._loop.time() + self._origin_s

    def now_us(self) -> int:
        return EPOCH_US + int(self._loop.time() * 1e6) + self.skew_us

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SimChance:
    def __init__(self, rng: random.Random) -> None:
        self.uniform = rng.uniform


class SimNames:
    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def secret(self) -> str:
        return f"{self._rng.getrandbits(192):048x}"
