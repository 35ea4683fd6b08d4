"""Turns of several hosts at once, each to its own end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any


async def all_of(turns: Iterable[Awaitable[Any]]) -> None:
    """Raises what the first of them raised that failed, once all have ended: one that went on alone would meet the next
    try, which begins with the same hosts."""
    for outcome in await asyncio.gather(*turns, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
