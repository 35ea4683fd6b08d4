"""Hosts that are asked at once: each has its turn to the end, whatever another one says."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from droveway.control.loops import turns
from droveway.domain.faults import Busy


async def test_none_goes_on_behind_the_failure_of_another() -> None:
    ended: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(0.02)
        ended.append("slow")

    async def refused() -> None:
        raise Busy("the store has no time")

    with pytest.raises(Busy):
        await turns.all_of([refused(), slow(), refused()])
    assert ended == ["slow"]


async def test_all_end_when_it_is_cancelled() -> None:
    ended: list[int] = []

    async def one(number: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    running = asyncio.create_task(turns.all_of(one(number) for number in range(3)))
    await asyncio.sleep(0.01)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert running.cancelled() and sorted(ended) == [0, 1, 2]
