"""A program that runs in the world: it can be killed at any await, and stopped and continued as by a signal."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any

from droveway.simulation.loop import OWNER

if TYPE_CHECKING:
    from droveway.simulation.world import World


class Process:
    """Its tasks are cancelled where they stand when it dies, its doors have been shut before, so that whatever it still
    tries while dying has no effect."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.is_alive = True
        self.context = Context()  # of all that it does: the loop knows by it what stands still with it
        self.context.run(OWNER.set, self)
        self._loop = world.loop
        self._tasks: dict[asyncio.Task[None], None] = {}

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=self.name, context=self.context.copy())
        if not self.is_alive:
            task.cancel()
        self._tasks[task] = None
        # The process that asked for it may be stopped by then: that it has ended is noted all the same.
        task.add_done_callback(self._ended, context=self._loop.outside)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None and self.is_alive:
            self.world.broken(f"{self.name} failed: {error!r} {getattr(error, 'exceptions', '')}")

    def stop(self) -> None:
        """SIGSTOP."""
        self._loop.stop_process(self)

    def go_on(self) -> None:
        """SIGCONT; it may have been killed meanwhile."""
        self._loop.continue_process(self)

    @property
    def is_stopped(self) -> bool:
        return self._loop.is_stopped(self)

    def end(self) -> None:
        """SIGTERM: it may put things in order."""
        for task in list(self._tasks):
            task.cancel()

    def kill(self) -> None:
        self.is_alive = False
        self.world.dying.append(self)
        for task in list(self._tasks):
            task.cancel()
        self.go_on()

    @property
    def running(self) -> list[str]:
        return [task.get_name() for task in self._tasks if not task.done()]
