"""The simulated processes themselves: what one does for another ends with itself, whatever befalls the other."""

from __future__ import annotations

import asyncio

from droveway.simulation.loop import SimLoop
from droveway.simulation.process import Process
from droveway.simulation.world import Parts, World


def test_what_a_stopped_process_has_asked_another_for_has_ended_when_it_has() -> None:
    loop = SimLoop()  # type: ignore[abstract]
    world = World(loop, 1, Parts(), keep_trace=False)
    asker, asked = Process(world, "asker"), Process(world, "asked")

    async def answer() -> None:
        await asyncio.sleep(1.0)

    async def ask() -> None:
        asked.spawn(answer())

    async def play() -> None:
        asker.spawn(ask())
        await asyncio.sleep(0.5)
        assert asked.running == ["asked"]
        asker.stop()
        await asyncio.sleep(1.0)
        assert asked.running == []

    loop.run_until_complete(play())
    loop.close()
