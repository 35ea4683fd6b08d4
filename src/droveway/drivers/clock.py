"""The operating system's time, chance and names."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
import uuid

UUIDS_AT_ONCE = 64
_drawn: list[bytes] = []  # of this process, for the ids that are asked for next
os.register_at_fork(after_in_child=_drawn.clear)  # no two processes give the same


class SystemClock:
    def monotonic_s(self) -> float:
        return time.monotonic()

    def now_us(self) -> int:
        return time.time_ns() // 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SystemChance:
    def uniform(self, low: float, high: float) -> float:
        return random.uniform(low, high)


class SystemNames:
    """Every request has an id: to ask the operating system for the chance of each by itself is a tenth of what a short
    one costs."""

    def uuid(self) -> str:
        try:
            chance = _drawn.pop()
        except IndexError:
            fresh = os.urandom(16 * UUIDS_AT_ONCE)
            _drawn.extend(fresh[at : at + 16] for at in range(16, len(fresh), 16))
            chance = fresh[:16]
        return str(uuid.UUID(bytes=chance, version=4))

    def secret(self) -> str:
        return secrets.token_urlsafe(32)
