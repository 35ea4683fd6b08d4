"""Work that ends only with its driver. Should it break, that is said: a driver that no longer beats or looks must not
go on answering."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

log = structlog.get_logger("droveway.config.membership")


def unending(work: Coroutine[Any, Any, None], name: str, broken: Callable[[str], None]) -> asyncio.Task[None]:
    """Run `work` in the background; `broken(sentence)` is called if it ends by anything but a cancellation."""

    def ended(task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        log.error("membership driver broke", driver=name, exc_info=error)
        broken(f"the {name} driver broke and must be restarted: {error!r}")

    task = asyncio.get_running_loop().create_task(work, name=f"membership {name}")
    task.add_done_callback(ended)
    return task
