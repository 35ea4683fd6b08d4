"""Users who have servers moved while they are off, or made of another flavor, and who then confirm or revert that, or
leave it. In some of the worlds."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from droveway.domain.model import VmState
from droveway.simulation.client import Client

if TYPE_CHECKING:
    from droveway.simulation.world import World

SHARE = 0.35  # of the worlds
PAUSE_S = 0.7
FITS = 0.9  # of the wishes are of a server that is idle, in a state for it
SERVERS = "/compute/v2.1/servers"
MOVABLE = (VmState.ACTIVE.value, VmState.STOPPED.value)


def are_played(seed: int) -> bool:
    return random.Random(f"are there users who resize in {seed}").random() < SHARE


class ResizeUsers:
    """One person. `stop` ends it after its present act."""

    def __init__(self, world: World, flavors: tuple[str, ...]) -> None:
        self._world, self._rng = world, random.Random(f"resizes of {world.seed}")
        self._client, self._flavors, self._stopped = Client(world), flavors, False
        world.loop.create_task(self._person(), name="user who resizes")

    def stop(self) -> None:
        self._stopped = True

    async def _person(self) -> None:
        acts = {self._resize: 10, self._migrate: 10, self._confirm: 9, self._revert: 9}
        while not self._stopped:
            await asyncio.sleep(self._rng.expovariate(1.0 / PAUSE_S))
            if not self._stopped:
                (act,) = self._rng.choices(list(acts), list(acts.values()))
                await act()

    async def _ask(self, what: str, states: tuple[str, ...], action: dict[str, Any]) -> None:
        found = self._world.database.living()
        if self._rng.random() < FITS:
            found = [one for one in found if one.vm_state in states and one.task_state is None]
        control = self._client.any_control()
        if control is None or not found:
            return
        server_id = self._rng.choice(found).id
        reply = await self._client.ask(control, "POST", f"{SERVERS}/{server_id}/action", action)
        self._world.counts[f"asked to {what}: {reply.word}"] += 1
        self._world.trace.note(f"user who resizes: {what} {server_id} by {control.name}: {reply.word}")

    async def _resize(self) -> None:
        await self._ask("resize", MOVABLE, {"resize": {"flavorRef": self._rng.choice(self._flavors)}})

    async def _migrate(self) -> None:
        host = self._rng.choice(list(self._world.hosts)) if self._rng.random() < 0.3 else None
        await self._ask("migrate cold", MOVABLE, {"migrate": {"host": host}})

    async def _confirm(self) -> None:
        await self._ask("confirm a resize", (VmState.RESIZED.value,), {"confirmResize": None})

    async def _revert(self) -> None:
        await self._ask("revert a resize", (VmState.RESIZED.value,), {"revertResize": None})
