"""Bounded pools for what would stall the event loop: password hashing, image data (law 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar

from droveway.domain.faults import Busy

P = ParamSpec("P")
R = TypeVar("R")


class Pool(Protocol):
    async def run(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a blocking function off the loop. Raises Busy when too many wait already."""
        ...


class ThreadPool:
    """A few threads and a bounded queue before them."""

    def __init__(self, name: str, threads: int, waiting_max: int) -> None:
        self._name = name
        self._executor = ThreadPoolExecutor(threads, name)
        self._most = threads + waiting_max
        self._count = 0

    async def run(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._count >= self._most:
            raise Busy(f"The {self._name} queue is full ({self._most} jobs); try again in a second.")
        self._count += 1
        # Counted until the thread is done with it, even when the one who asked has gone away.
        job = asyncio.get_running_loop().run_in_executor(self._executor, lambda: fn(*args, **kwargs))
        job.add_done_callback(self._done)
        return await asyncio.shield(job)

    def _done(self, job: asyncio.Future[R]) -> None:
        self._count -= 1
        if not job.cancelled():
            job.exception()  # read here, so that an abandoned job does not complain when it is collected

    def close(self) -> None:
        self._executor.shutdown()


class InlinePool:
    """Runs at once, in the loop: for simulated time, where threads would not be repeatable."""

    async def run(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return fn(*args, **kwargs)
