"""A service under a heart, as a process: joins and pulses. SIGTERM: it leaves. SIGUSR1: its loop is blocked."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time

from droveway.agents.pulse import HeartPulse, LoopWatch
from droveway.drivers.clock import SystemChance, SystemClock

BLOCKED_S = 4.0


def block_here() -> None:
    time.sleep(BLOCKED_S)


async def report(due: asyncio.Event) -> None:
    await due.wait()
    block_here()


async def main(path: str, host: str, boot_id: str, binary: str, interval_s: float) -> None:
    clock, loop, due = SystemClock(), asyncio.get_running_loop(), asyncio.Event()
    pulse = HeartPulse(path, host, boot_id, binary, LoopWatch(clock), clock, SystemChance())
    pulse.set_interval(interval_s)
    running, reporting = asyncio.create_task(pulse.run()), asyncio.create_task(report(due), name="report")
    loop.add_signal_handler(signal.SIGTERM, running.cancel)
    loop.add_signal_handler(signal.SIGUSR1, due.set)
    with contextlib.suppress(asyncio.CancelledError):
        await running
    pulse.leave()
    reporting.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5], float(sys.argv[5])))
