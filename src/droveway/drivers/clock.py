"""The operating system's time, chance and names."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
import uuid


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
    def uuid(self) -> str:
        return str(uuid.uuid4())

    def secret(self) -> str:
        return secrets.token_urlsafe(32)
