"""Users: they want things of servers through the API, and most of what they want at a bad moment is refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from droveway.domain.faults import Busy, Conflict, NotFound
from droveway.domain.model import MigrationStatus
from droveway.simulation import together
from droveway.simulation.apis import IMAGE_ID
from droveway.simulation.client import VERSION, Client
from droveway.simulation.machines import ControlProcess
from droveway.simulation.world import FLAVORS, GROUPS, HUGE, World
from droveway.store.compute import migrations
from droveway.store.engine.transaction import Tx
from droveway.store.work import sagas

MIGRATE, CREATE, DELETE, STOP, START, REBOOT, CANCEL, TOGETHER = (
    "migrate",
    "create",
    "delete",
    "stop",
    "start",
    "reboot",
    "cancel",
    "reboot together",
)
PAUSE, UNPAUSE, SUSPEND, RESUME, SOFT_REBOOT, RESET = (
    "pause",
    "unpause",
    "suspend",
    "resume",
    "reboot softly",
    "reset the state",
)
REBUILD, RESCUE, UNRESCUE = "rebuild", "rescue", "unrescue"
WEIGHTS = {MIGRATE: 50, CREATE: 10, DELETE: 4, STOP: 6, START: 8, REBOOT: 6, CANCEL: 5, TOGETHER: 6}
HELD = {PAUSE: 4, UNPAUSE: 6, SUSPEND: 4, RESUME: 6, SOFT_REBOOT: 3, RESET: 2}  # in one world of three
HELD_EVERY = 3
RENEWED = {REBUILD: 6, RESCUE: 5, UNRESCUE: 8}  # in few worlds, so that the others stay as they are
RENEWED_EVERY, RENEWED_AT = 14, 13
ACTIONS: dict[str, Any] = {
    STOP: {"os-stop": None},
    START: {"os-start": None},
    REBOOT: {"reboot": {"type": "HARD"}},
    SOFT_REBOOT: {"reboot": {"type": "SOFT"}},
    PAUSE: {"pause": None},
    UNPAUSE: {"unpause": None},
    SUSPEND: {"suspend": None},
    RESUME: {"resume": None},
    RESET: {"os-resetState": {"state": "active"}},
    REBUILD: {"rebuild": {"imageRef": IMAGE_ID}},
    RESCUE: {"rescue": None},
    UNRESCUE: {"unrescue": None},
}
VERSIONS = {REBUILD: "2.93"}  # from which on one that begins from a volume is rebuilt
SERVERS = "/compute/v2.1/servers"
FITS_NOWHERE, IN_A_GROUP = 0.04, 0.3  # of the creations
TAKEN_AT_ONCE = 0.6  # of the second instances of those that are rebooted together
CHECKED_IN_REQUEST = "2.25"  # up to 2.33 a migration is answered once its checks have passed
FITS = {
    STOP: "active",
    START: "stopped",
    REBOOT: "active",
    MIGRATE: "active",
    TOGETHER: "active",
    PAUSE: "active",
    UNPAUSE: "paused",
    SUSPEND: "active",
    RESUME: "suspended",
    SOFT_REBOOT: "active",
    REBUILD: "active",
    RESCUE: "active",
    UNRESCUE: "rescued",
}  # asked for mostly where it may work


class UserWorkload:
    """Some people with one cloud. `most` instances at a time, an act every `pause_s` or so each."""

    def __init__(
        self, world: World, people: int, most: int, pause_s: float, nics: Callable[[], Any] = lambda: "none"
    ) -> None:
        self._world, self._most, self._pause_s = world, most, pause_s
        self._client, self._names, self._nics = Client(world), 0, nics
        self._weights = WEIGHTS | HELD if world.seed % HELD_EVERY == 0 else WEIGHTS
        if world.seed % RENEWED_EVERY == RENEWED_AT:
            self._weights = self._weights | RENEWED
        self.stopped = False
        self.tasks = [world.loop.create_task(self._person(), name=f"user {i}") for i in range(people)]

    async def _person(self) -> None:
        rng = self._world.rng
        while not self.stopped:
            await asyncio.sleep(rng.expovariate(1.0 / self._pause_s))
            if not self.stopped:
                await self._act(rng.choices(list(self._weights), list(self._weights.values()))[0])

    async def _act(self, act: str) -> None:
        world = self._world
        rows = world.database.living()
        if act == CREATE or len(rows) < self._most // 2:
            if len(rows) < self._most:
                await self._create()
            return
        if act == CANCEL:
            await self._cancel()
            return
        fitting = [row for row in rows if act not in FITS or (row.vm_state == FITS[act] and row.task_state is None)]
        ill_timed = world.rng.random() < 0.1
        if not fitting and not ill_timed:
            return
        row = world.rng.choice(rows if ill_timed else fitting)
        if act == MIGRATE:
            await self._migrate(row.id)
        elif act == DELETE:
            await self.delete(row.id)
        elif act == TOGETHER:
            await self._together(row.id, world.rng.choice(rows).id)
        else:
            await self._ask(act, row.id, "POST", f"{SERVERS}/{row.id}/action", ACTIONS[act], VERSIONS.get(act, VERSION))

    async def _create(self) -> None:
        self._names += 1
        rng = self._world.rng
        flavor = HUGE if rng.random() < FITS_NOWHERE else rng.choice(FLAVORS)
        name = f"guest{self._names}"
        server = {"name": name, "flavorRef": flavor.id, "imageRef": IMAGE_ID, "networks": self._nics()}
        body: dict[str, Any] = {"server": server}
        if rng.random() < IN_A_GROUP:
            body["os:scheduler_hints"] = {"group": rng.choice(list(GROUPS.values()))}
        await self._ask(CREATE, name, "POST", SERVERS, body)

    async def _migrate(self, instance_id: str) -> None:
        rng = self._world.rng
        named = rng.choice(list(self._world.hosts)) if rng.random() < 0.3 else None
        waits = rng.random() < 0.05
        action: dict[str, Any] = {"host": named, "block_migration": "auto"}
        await self._ask(
            MIGRATE,
            instance_id,
            "POST",
            f"{SERVERS}/{instance_id}/action",
            {"os-migrateLive": action},
            CHECKED_IN_REQUEST if waits else VERSION,
        )

    async def delete(self, instance_id: str) -> None:
        await self._ask(DELETE, instance_id, "DELETE", f"{SERVERS}/{instance_id}")

    async def _cancel(self) -> None:
        """No request does it: an operator's wish."""
        rows, control = self._world.database.look(_moving), self._client.any_control()
        if rows and control is not None:
            row = self._world.rng.choice(rows)
            control.spawn(_cancel(control, row["saga_id"]))
            self._world.counts["asked to cancel"] += 1

    async def _together(self, instance_id: str, other: str) -> None:
        """No request does it: a story of the simulation."""
        control = self._client.any_control()
        if control is not None and instance_id != other:
            control.spawn(
                _begin_together(control, instance_id, other, at_once=self._world.rng.random() < TAKEN_AT_ONCE)
            )
            self._world.counts[f"asked to {TOGETHER}"] += 1

    async def _ask(
        self, what: str, about: str, method: str, target: str, body: Any = None, version: str = VERSION
    ) -> None:
        """One request to any control that lives; it may die with the request, and the user gives up."""
        control = self._client.any_control()
        if control is not None:
            reply = await self._client.ask(control, method, target, body, version)
            self._world.counts[f"asked to {what}: {reply.word}"] += 1
            self._world.trace.note(f"user {what} {about[:40]} by {control.name}: {reply.word}")


async def _cancel(control: ControlProcess, saga_id: str) -> None:
    with contextlib.suppress(Busy, Conflict, NotFound):
        await control.door.run(sagas.cancel, saga_id, "a user asked for it")


async def _begin_together(control: ControlProcess, instance_id: str, other: str, *, at_once: bool) -> None:
    with contextlib.suppress(Busy, Conflict, NotFound):
        await control.door.run(together.begin, instance_id, other, at_once=at_once)


def _moving(tx: Tx) -> list[Any]:
    return [row for row in migrations.find(tx, under_way=True) if row["status"] != MigrationStatus.COMPLETED.value]
