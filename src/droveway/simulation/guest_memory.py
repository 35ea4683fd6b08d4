"""Guests that write to their memory faster than it is copied, what their users let be done to them, and operators who
abort their migrations or force them to complete. In one world of three."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from droveway.domain.migration_ladder import POLICY_KEY, Policy
from droveway.drivers.hypervisor.simulated.passes import MIB, Writing
from droveway.simulation.client import Client
from droveway.simulation.world import World
from droveway.store.compute import migrations
from droveway.store.engine.transaction import Tx

EVERY, WHICH = 3, 1  # of the seeds
PAUSE_S = 0.5
LINK_BYTES_S = 128 * MIB
WRITES, RESTS, FORCES, ABORTS = "write", "rest", "force", "abort"
WEIGHTS = {WRITES: 12, RESTS: 3, FORCES: 3, ABORTS: 1}
RATES_MIB_S = (50, 300, 2000, 100_000)
SERVERS = "/compute/v2.1/servers"


def has_writers(world: World) -> bool:
    return world.seed % EVERY == WHICH


class MemoryUsers:
    """Draws by itself, so that the other worlds play as they would without it."""

    def __init__(self, world: World) -> None:
        self._world, self._client = world, Client(world)
        self._rng = random.Random(f"{world.seed} memory")
        self._stopped = False
        if has_writers(world):
            world.fleet.link_bytes_s = LINK_BYTES_S
            self._task = world.loop.create_task(self._act_on(), name="users of memory")

    def stop(self) -> None:
        """What writes goes on writing: its migration ends all the same."""
        self._stopped = True

    async def _act_on(self) -> None:
        while not self._stopped:
            await asyncio.sleep(self._rng.expovariate(1.0 / PAUSE_S))
            if not self._stopped:
                await self._act(self._rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0])

    async def _act(self, act: str) -> None:
        world, rng = self._world, self._rng
        if act in (FORCES, ABORTS):
            await self._steer(act)
            return
        rows = [row for row in world.database.living() if row.vm_state == "active"]
        if not rows:
            return
        server_id = rng.choice(rows).id
        if act == RESTS:
            world.fleet.writing.pop(server_id, None)
            return
        world.fleet.writing[server_id] = Writing(rng.choice(RATES_MIB_S) * MIB, rng.choice((16, 128, 512)) * MIB)
        policy = rng.choice([*Policy, Policy.POST_COPY, Policy.POST_COPY])
        await self._ask(act, "POST", f"{SERVERS}/{server_id}/metadata", {"metadata": {POLICY_KEY: policy.value}})

    async def _steer(self, act: str) -> None:
        under_way = self._world.database.look(_under_way)
        if not under_way:
            return
        number, server_id = self._rng.choice(under_way)
        path = f"{SERVERS}/{server_id}/migrations/{number}"
        if act == FORCES:
            await self._ask(act, "POST", f"{path}/action", {"force_complete": None})
        else:
            await self._ask(act, "DELETE", path)

    async def _ask(self, what: str, method: str, target: str, body: Any = None) -> None:
        control = self._client.any_control()
        if control is not None:
            reply = await self._client.ask(control, method, target, body)
            self._world.counts[f"asked to {what}: {reply.word}"] += 1
            self._world.trace.note(f"user of memory: {what} {target[-60:]}: {reply.word}")


def _under_way(tx: Tx) -> list[tuple[int, str]]:
    return [(row["id"], row["instance_id"]) for row in migrations.find(tx, under_way=True)]
