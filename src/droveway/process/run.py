"""How a process of any role is run, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Coroutine
from typing import Any

import structlog
import uvloop

from droveway.config import tls
from droveway.config.http_bounds import raise_open_files

log = structlog.get_logger("droveway")
HANGUP = (
    "nothing ends by it; the certificate of the API is read again, the configuration at a restart alone: restart to "
    "change it"
)


def _on_hangup() -> None:
    log.warning("SIGHUP", because=HANGUP)
    tls.read_again()


def collect_seldom() -> None:
    """Of the time that a control or an API takes to load itself, a sixth was spent on looking for garbage in it."""
    gc.set_threshold(100_000, 50, 1000)


def run(work: Coroutine[Any, Any, None], alive_fd: int | None) -> None:
    """Run until done, SIGTERM, SIGINT, or the supervisor is gone (its pipe reads the end)."""

    async def supervised() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)
        is_told = False

        def stop() -> None:
            """Once: a second cancellation would cut short what the first one has begun to put in order."""
            nonlocal is_told
            if alive_fd is not None:
                loop.remove_reader(alive_fd)  # a pipe that has ended stays readable
            if not is_told:
                is_told = True
                task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        loop.add_signal_handler(signal.SIGHUP, _on_hangup)
        if alive_fd is not None:
            loop.add_reader(alive_fd, stop)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    raise_open_files()
    os.umask(0o077)  # whatever any start makes is for its own user: disks, images, credentials, the bus
    try:
        uvloop.run(supervised())  # a fifth less CPU for a migration than asyncio's own loop, for 3 MiB a process
    except ExceptionGroup as group:
        raise _first(group) from group


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The one sentence worth telling when several tasks ended together."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
