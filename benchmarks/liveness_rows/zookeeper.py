"""With ZooKeeper as the judge: how soon a death is seen, and what reading a thousand members costs."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from pathlib import Path

from benchmarks.claims import Claim, median, progress
from benchmarks.liveness_rows.rig import spread
from droveway.ports.membership import EVERY_SERVICE
from lab import servers
from tests.drivers.membership_worlds import Observing, World, ZookeeperWorld, zookeeper_settings

TICK_MS, KILLS, SLACK_S = 200, 20, 0.2
MEMBERS, SESSIONS, ROUNDS = 1000, 4, 5


def measure() -> list[Claim]:
    why_not = servers.obstacle("zookeeper")
    if why_not is not None:
        return [Claim("ZooKeeper", float("nan"), 0, "", why_not)]
    progress("ZooKeeper")
    with (
        tempfile.TemporaryDirectory(prefix="droveway-bench-") as directory,
        servers.zookeeper(Path(directory), tick_ms=TICK_MS) as server,
    ):
        world = ZookeeperWorld(zookeeper_settings(server.address)).serve(server)
        return [*asyncio.run(_detection(world)), *asyncio.run(_reading(world))]


async def _detection(world: World) -> list[Claim]:
    """Each member is a process; each is killed at a moment of its own."""
    session_s = world.settings.zookeeper.session_timeout
    assert session_s is not None, "the world sets it"

    async def dies(seen: Observing, number: int) -> float:
        member = await world.member(f"killed{number}/nova-compute")
        await seen.until(f"killed{number}/nova-compute", "present", within_s=20)
        await asyncio.sleep(random.uniform(1, 3))
        began_s = time.monotonic()
        await member.kill()
        await seen.until(f"killed{number}/nova-compute", "absent", within_s=20)
        return time.monotonic() - began_s

    async with world.opened() as seen:
        try:
            took_s = await asyncio.gather(*(dies(seen, number) for number in range(KILLS)))
        finally:
            await world.all_die()
    return [
        Claim(
            "ZooKeeper: kill -9 -> absent",
            max(took_s),
            session_s + TICK_MS / 1000 + SLACK_S,
            "s",
            f"session {session_s:g} s, tick {TICK_MS} ms; {spread(took_s)}",
        )
    ]


async def _reading(world: World) -> list[Claim]:
    assert isinstance(world, ZookeeperWorld)
    first_ms, again_ms = [], []
    async with contextlib.AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(world.opened()) for _ in range(SESSIONS)]
        await asyncio.gather(
            *(
                ends[number % SESSIONS].end.join(EVERY_SERVICE, f"host{number:04}/nova-compute")
                for number in range(MEMBERS)
            )
        )
        for _ in range(ROUNDS):
            async with world.opened() as seen:
                await asyncio.sleep(1.0)  # its session is made
                first_ms.append(await _read_ms(seen))
                again_ms.append(await _read_ms(seen))
        floor_ms = await asyncio.to_thread(_bare_ms, world)
    return [
        Claim(
            f"ZooKeeper: {MEMBERS:,} members read",
            median(first_ms),
            5.0,
            "ms",
            f"{SESSIONS} sessions, the first question of a new control; bare kazoo get_children: {floor_ms:.2f}, "
            f"asked again: {median(again_ms):.2f}; median of {ROUNDS}",
        )
    ]


async def _read_ms(seen: Observing) -> float:
    began_s = time.perf_counter()
    found = await seen.end.get_all(EVERY_SERVICE)
    took_ms = (time.perf_counter() - began_s) * 1000
    assert len(found) == MEMBERS, f"{len(found)} members were seen"
    return took_ms


def _bare_ms(world: ZookeeperWorld) -> float:
    times_ms = []
    with world.client() as client:
        for _ in range(ROUNDS):
            began_s = time.perf_counter()
            client.get_children(f"/servicegroups/{EVERY_SERVICE}")
            times_ms.append((time.perf_counter() - began_s) * 1000)
    return median(times_ms)
