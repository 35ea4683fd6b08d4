"""A saga that a newer release has put into the store, and that this one cannot read: it stays as it is, a list
of sagas shows why, and everything else goes on. In the end a control of that release carries it on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import update

from droveway.domain.model import END, SagaKind, SagaStatus, Subject, TaskState, VmState, of_instance
from droveway.simulation.client import Client
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.rows import SagaRow
from droveway.store.schema import sagas as table
from droveway.store.work import sagas, subjects

if TYPE_CHECKING:
    from droveway.simulation.world import World

REQUEST = "req-of-another-release"  # by which its sagas are known
PUT_S, STAYS_MIN_S, STAYS_MAX_S = 60.0, 5.0, 60.0
UNREADABLE: tuple[dict[str, Any], ...] = (
    {"step": "a_step_of_another_release"},
    {"kind": "resize", "step": "a_step_of_another_release"},
    {"step": "cycle_guest", "notes": {"host": 7}},
)
STAYS = ("kind", "step", "status", "generation", "notes", "owner", "error", "blocked")


@dataclass
class _Cursor:
    id: str
    subject: Subject
    project_id: str
    generation: int


class OtherRelease:
    """Puts one now and then, until `stop`. One at a time."""

    def __init__(self, world: World) -> None:
        self._world, self._client = world, Client(world)
        self._was: SagaRow | None = None
        self._task = world.loop.create_task(self._run(), name="another release")

    async def _run(self) -> None:
        rng = self._world.rng
        while True:
            await asyncio.sleep(rng.expovariate(1.0 / PUT_S))
            if self.put():
                await asyncio.sleep(rng.uniform(STAYS_MIN_S, STAYS_MAX_S))
                self.carry_on()

    def stop(self) -> None:
        self._task.cancel()
        self.carry_on()

    def put(self) -> bool:
        """About an instance with which nothing is done, if there is one."""
        world = self._world
        self._was = world.database.commit(lambda tx: _put(tx, self._choose(tx)), world.clock.now_us())[0]
        if self._was is not None:
            world.counts["sagas of another release"] += 1
            world.trace.note(f"another release: {self._was['kind']} {self._was['id']} at {self._was['step']}")
        return self._was is not None

    def _choose(self, tx: Tx) -> tuple[str, dict[str, Any]] | None:
        rows = [
            row
            for row in self._world.database.living()
            if row.vm_state == VmState.ACTIVE.value
            and row.task_state is None
            and subjects.in_the_way(tx, (of_instance(row.id),)) is None
        ]
        rng = self._world.rng
        return (rng.choice(rows).id, rng.choice(UNREADABLE)) if rows else None

    def carry_on(self) -> None:
        """A control of that release ends it; until then no other control may have touched it."""
        was, self._was = self._was, None
        if was is None:
            return
        world = self._world
        row = world.database.look(lambda tx: sagas.get(tx, was["id"]))
        now, then = dict(row), dict(was)
        changed = [f"its {name} was {then[name]!r} and is {now[name]!r}" for name in STAYS if now[name] != then[name]]
        if changed:
            world.broken(f"{was['kind']} {was['id']} is of another release: {', '.join(changed)}")
        else:
            world.database.commit(lambda tx: _end(tx, row), world.clock.now_us())

    async def not_yet(self) -> list[str]:
        """Why it may not be said yet that it is listed with its reason, and that all others go on."""
        assert self._was is not None, "it was put"
        saga_id, control = self._was["id"], self._client.any_control()
        found = [
            f"{row['kind']} {row['id']} is {row['status']} beside one of another release"
            for row in self._world.database.look(sagas.open_sagas)
            if row["id"] != saga_id
        ]
        if control is None:
            return [*found, "no control lives"]
        reply = await self._client.ask(control, "GET", "/droveway/v1/sagas")
        listed = [row for row in reply.body["sagas"] if row["id"] == saga_id] if reply.is_ok else []
        if not listed or not (listed[0]["unreadable"] or "").startswith("this release "):
            found.append(f"{saga_id} is of another release and is listed without a reason: {listed}")
        return found


def _put(tx: Tx, chosen: tuple[str, dict[str, Any]] | None) -> SagaRow | None:
    if chosen is None:
        return None
    instance_id, what = chosen
    own, project = of_instance(instance_id), instances.get(tx, instance_id)["project_id"]
    saga_id = sagas.enqueue(tx, SagaKind.HARD_REBOOT, own, project, {}, request_id=REQUEST)
    generation = sagas.get(tx, saga_id)["generation"] + 1
    tx.execute(update(table).where(table.c.id == saga_id).values(**what, generation=generation))
    instances.set_(tx, instance_id, task_state=TaskState.REBOOTING_HARD.value)
    return sagas.get(tx, saga_id)


def _end(tx: Tx, row: SagaRow) -> None:
    seen = _Cursor(row["id"], sagas.subject_of(row), row["project_id"], row["generation"])
    sagas.save(tx, seen, step=END, status=SagaStatus.DONE, notes=row["notes"], error="", blocked=None, ticks=[])
    instances.set_idle(tx, row["subject_id"])
