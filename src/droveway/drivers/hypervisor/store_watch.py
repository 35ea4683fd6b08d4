"""Does the instance store still answer? A store of a network may stop to, and then every call that touches it waits in
the kernel: neither an error nor an end.

So a thread looks that may hang: one at a time, on which nothing else depends. It writes, because a store may
answer readers and hold writers (a frozen file system, a full journal of the server's).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from droveway.ports.clock import Clock
from droveway.ports.hypervisor import HypervisorDown

GIB = 1024**3
ANSWERS_WITHIN_S = 5.0
LOOK_S = 1.0  # between two looks, while a caller asks
FULL = (errno.ENOSPC, errno.EDQUOT)  # it answers; that it has no room is told by its room
StoreCapacity = tuple[int, int]  # size and free space, in whole GiB
Look = Callable[[Path], tuple[StoreCapacity | None, str]]


def look_at(root: Path) -> tuple[StoreCapacity | None, str]:
    """Blocking. Its room, and why nothing can be written there."""
    try:
        existing = next(path for path in (root, *root.parents) if path.exists())
        found = os.statvfs(existing)
        headroom = found.f_blocks * found.f_frsize // GIB, found.f_bavail * found.f_frsize // GIB
    except OSError as error:
        return None, _refused(root, error)
    if existing != root:  # made with the first guest
        return headroom, ""
    try:
        with tempfile.TemporaryFile(dir=root) as mark:
            mark.write(b"\0")
    except OSError as error:
        return headroom, "" if error.errno in FULL else _refused(root, error)
    return headroom, ""


class StoreWatch:
    """Of one directory, in one loop."""

    def __init__(self, root: Path, clock: Clock, look_at: Look = look_at) -> None:
        self._root, self._clock, self._look_at = root, clock, look_at
        self._capacity: StoreCapacity | None = None
        self._refusal = ""  # the last look's
        self._began_s: float | None = None  # of the look under way
        self._ended_s = -math.inf
        self._answered = asyncio.Event()

    def trouble(self) -> str:
        """Why the store is not to be waited for; empty while it answers. Never waits; starts a look. The
        sentence stays the same as long as the trouble does."""
        if self._began_s is None and self._clock.monotonic_s() - self._ended_s >= LOOK_S:
            self._look()
        return self.silence()

    def silence(self) -> str:
        """The same, by the last look: no new one is begun."""
        if self._began_s is None or self._clock.monotonic_s() - self._began_s < ANSWERS_WITHIN_S:
            return ""
        return (
            f"the instance store at {self._root} does not answer: a file to be written there has waited for more "
            f"than {ANSWERS_WITHIN_S:.0f} s"
        )

    async def headroom(self) -> tuple[StoreCapacity, str]:
        """Its size and free space, and why no files can be made there, be it that it refuses them; the room that was
        seen last where it does not answer. Raises HypervisorDown when it never has."""
        if self._began_s is None:
            self._look()
        assert self._began_s is not None, "a look is under way"
        left_s = self._began_s + ANSWERS_WITHIN_S - self._clock.monotonic_s()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, left_s)):
                await self._answered.wait()
        trouble = self.silence() if self._began_s is not None else self._refusal
        if self._capacity is None:
            raise HypervisorDown(trouble)
        return self._capacity, trouble

    def _look(self) -> None:
        self._began_s = self._clock.monotonic_s()
        self._answered.clear()
        loop = asyncio.get_running_loop()

        def look() -> None:
            headroom, refusal = self._look_at(self._root)
            with contextlib.suppress(RuntimeError):  # the loop has ended: no caller waits any more
                loop.call_soon_threadsafe(self._seen, headroom, refusal)

        # A daemon: one that is lost in the kernel does not hold up the end of the process.
        threading.Thread(target=look, name="store-watch", daemon=True).start()

    def _seen(self, headroom: StoreCapacity | None, refusal: str) -> None:
        self._capacity, self._refusal = headroom or self._capacity, refusal
        self._began_s, self._ended_s = None, self._clock.monotonic_s()
        self._answered.set()


def _refused(root: Path, error: OSError) -> str:
    return f"the instance store at {root} takes no files: {error.strerror}"
