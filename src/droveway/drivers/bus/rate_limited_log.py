"""What is said of peers that send nonsense: each thing once in a while, however often it happens."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

log = structlog.get_logger("droveway.bus")
AGAIN_S = 60.0
KEY_MAX = 300  # characters
THINGS_MAX = 1024  # remembered; beyond that nothing new is said until the oldest is forgotten


class RateLimitedLog:
    def __init__(self) -> None:
        self._at_s: dict[tuple[str, str], float] = {}
        self.suppressed = 0  # since something was last said

    def warn(self, event: str, about: str, **facts: Any) -> None:
        """`about`: whom or what; the same event about it is said again after AGAIN_S."""
        now_s = asyncio.get_running_loop().time()
        key = (event, about[:KEY_MAX])
        if now_s - self._at_s.get(key, float("-inf")) < AGAIN_S:
            self.suppressed += 1
            return
        self._at_s.pop(key, None)
        while self._at_s and now_s - next(iter(self._at_s.values())) >= AGAIN_S:
            del self._at_s[next(iter(self._at_s))]
        if len(self._at_s) >= THINGS_MAX:
            self.suppressed += 1
            return
        self._at_s[key] = now_s
        more = {"not_said": self.suppressed} if self.suppressed else {}
        log.warning(event, **facts, **more)
        self.suppressed = 0
