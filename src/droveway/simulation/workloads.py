"""Users: they want things of instances through the very functions the API uses, and most of what they want at a bad
moment is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select

from droveway.domain.faults import Busy, Conflict, Fault, NotFound
from droveway.domain.model import Flavor, MigrationStatus, SagaKind
from droveway.simulation.world import IMAGE_ID, ControlProcess, World
from droveway.store import instances, migrations, sagas
from droveway.store.schema import instances as instances_table
from droveway.store.transaction import Tx

FLAVORS = (Flavor("tiny", "tiny", 1, 512, 1), Flavor("small", "small", 2, 2048, 2), Flavor("big", "big", 4, 6144, 8))
GIVES_UP_S = 8.0
MIGRATE, CREATE, DELETE, STOP, START, REBOOT, CANCEL = (
    "migrate",
    "create",
    "delete",
    "stop",
    "start",
    "reboot",
    "cancel",
)
WEIGHTS = {MIGRATE: 50, CREATE: 10, DELETE: 4, STOP: 6, START: 8, REBOOT: 6, CANCEL: 5}
KINDS = {DELETE: SagaKind.DELETE, STOP: SagaKind.STOP, START: SagaKind.START, REBOOT: SagaKind.HARD_REBOOT,
         MIGRATE: SagaKind.LIVE_MIGRATION}  # fmt: skip
_c = instances_table.c
_LIVING = select(_c.id, _c.vm_state, _c.task_state).where(_c.deleted.is_(False)).order_by(_c.number)
FITS = {STOP: "active", START: "stopped", REBOOT: "active", MIGRATE: "active"}  # asked for mostly where it may work


class Users:
    """Some people with one cloud. `most` instances at a time, an act every `pause_s` or so each."""

    def __init__(self, world: World, people: int, most: int, pause_s: float) -> None:
        self._world, self._most, self._pause_s = world, most, pause_s
        self._names = 0
        self.stopped = False
        self.tasks = [world.loop.create_task(self._person(), name=f"user {i}") for i in range(people)]

    async def _person(self) -> None:
        rng = self._world.rng
        while not self.stopped:
            await asyncio.sleep(rng.expovariate(1.0 / self._pause_s))
            if not self.stopped:
                await self._act(rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0])

    async def _act(self, act: str) -> None:
        world = self._world
        rows = world.database.look(living)
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
        params: dict[str, Any] = {}
        if act == MIGRATE:
            named = world.rng.choice(list(world.hosts)) if world.rng.random() < 0.3 else None
            params = {"destination": named, "block_migration": "auto"}
        await self.request(act, instances.intend, row.id, KINDS[act], params)

    async def _create(self) -> None:
        self._names += 1
        flavor = self._world.rng.choice(FLAVORS)
        name = f"guest{self._names}"
        await self.request(CREATE, instances.create, instances.NewInstance(
            project_id="p", user_id="u", name=name, hostname=name, flavor=flavor, image_id=IMAGE_ID))  # fmt: skip

    async def _cancel(self) -> None:
        rows = self._world.database.look(_moving)
        if rows:
            row = self._world.rng.choice(rows)
            await self.request(CANCEL, sagas.cancel, row["saga_id"], "a user asked for it")

    async def request(self, what: str, fn: Callable[..., Any], *args: Any) -> None:
        """One request to any control that lives; it may die with the request, and the user gives up."""
        world = self._world
        if not world.controls:
            return
        control = world.controls[world.rng.choice(list(world.controls))]
        answered: asyncio.Future[str] = world.loop.create_future()
        control.spawn(_serve(control, answered, fn, *args))
        try:
            async with asyncio.timeout(GIVES_UP_S):
                outcome = await answered
        except TimeoutError:
            outcome = "no answer"
        world.counts[f"asked to {what}: {outcome}"] += 1
        shown = " ".join(str(arg)[:40] for arg in args if not isinstance(arg, instances.NewInstance))
        world.trace.note(f"user {what} {shown} by {control.name}: {outcome}")


async def _serve(control: ControlProcess, answered: asyncio.Future[str], fn: Callable[..., Any], *args: Any) -> None:
    """What a request handler does: one transaction, and its fault as an answer."""
    try:
        await control.door.run(fn, *args)
        outcome = "ok"
    except (Conflict, NotFound):
        outcome = "refused"
    except Busy:
        outcome = "busy"
    except Fault as fault:
        outcome = f"fault {fault.sentence}"
    if not answered.done():
        answered.set_result(outcome)


def living(tx: Tx) -> Sequence[Any]:
    return tx.execute(_LIVING).all()


def _moving(tx: Tx) -> list[Any]:
    return [row for row in migrations.find(tx, under_way=True) if row["status"] != MigrationStatus.COMPLETED.value]
