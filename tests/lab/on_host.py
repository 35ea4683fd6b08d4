"""Stands before the program's command lines on a lab host, for what can only be done to a process from within it:

- an agent gets a task that blocks its loop when it is sent SIGUSR1;
- a heart is started with another clock when /run/clock-offset of its host says by how much.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

BLOCKS_S = 30.0
TASK = "long report"
OFFSET = Path("/run/clock-offset")
_running: set[asyncio.Task[None]] = set()


async def report() -> None:
    """As a careless task would: the whole loop waits for it."""
    time.sleep(BLOCKS_S)  # noqa: ASYNC251 - that is the point


def block(_number: int, _frame: object) -> None:
    task = asyncio.get_running_loop().create_task(report(), name=TASK)
    _running.add(task)
    task.add_done_callback(_running.discard)


def main() -> None:
    """`on_host.py LIBFAKETIME PYTHON -m droveway.main agent|heart ...`"""
    library, *words = sys.argv[1:]
    start = words[words.index("droveway.main") + 1]
    if start == "agent":
        from droveway.main import main as program

        signal.signal(signal.SIGUSR1, block)
        sys.argv = words[2:]
        program()
    if OFFSET.exists():
        os.environ |= {
            "LD_PRELOAD": library,
            "FAKETIME": OFFSET.read_text().strip(),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    os.execv(words[0], words)


if __name__ == "__main__":
    main()
