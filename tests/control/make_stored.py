"""Makes a fixture: every saga at every step as this release stores it, and what its hosts were told until then.

    python -m tests.control.make_stored tests/control/stored_REVISION.json

Each saga is one of its own instance and stops where its `Stop` says: held there, broken there, or blocked there. The
rows are those of the database; the commands, in their order, bring simulated hosts to where they were.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from droveway.control.control import Control
from droveway.control.engine.run import Run
from droveway.control.engine.runner import Runner
from droveway.control.engine.saga import Step
from droveway.control.liveness.observer import LivenessSettings
from droveway.control.sagas import STORIES
from droveway.domain.faults import Unreachable
from droveway.domain.lifecycle import IN_TURN
from droveway.domain.model import Flavor, SagaKind, SagaStatus
from droveway.domain.placement import PlacementSettings
from droveway.drivers.hypervisor.simulated.fleet import Durations
from droveway.ports.bus import Command
from droveway.ports.replies import Answer
from droveway.simulation.many import silence
from droveway.store.compute import instances
from droveway.store.compute.instances import NewInstance
from droveway.store.engine.transaction import Tx
from droveway.store.schema import metadata
from droveway.store.upgrade import HEAD
from tests.control.world import SETTINGS, TINY, DirectBus, World

TABLES = ("hosts", "services", "counters", "leases", "instances", "migrations", "sagas")
HUGE = Flavor("2", "huge", 1, 1 << 30, 1)
FORWARD, BACKWARD = SagaStatus.FORWARD, SagaStatus.BACKWARD


class Stop(msgspec.Struct, frozen=True):
    """Where one saga stops: `how` is held, broken, blocked or ended. It fails at the step `fails`, once it is done."""

    kind: SagaKind
    status: SagaStatus = FORWARD
    step: str = ""
    how: str = "held"
    fails: str = ""


def stops() -> Iterator[Stop]:
    for kind, story in STORIES.items():
        if kind in IN_TURN:  # these need networks, which its world has not
            continue
        names = [step.name for step in story.steps]
        for name in names:
            yield Stop(kind, FORWARD, name)
        yield Stop(kind, FORWARD, names[0], "broken")
        yield Stop(kind, FORWARD, names[-1], "broken")
        yield Stop(kind, FORWARD, names[story.pivot], "blocked")
        yield Stop(kind, how="ended")
        undoable = [step.name for step in story.steps if step.undo is not None]
        for name in undoable:
            for how in ("held", "broken", "blocked"):
                yield Stop(kind, BACKWARD, name, how, fails=_last_to_fail(story.steps, story.pivot))
        if undoable:
            yield Stop(kind, how="ended", fails=undoable[0])
    yield Stop(SagaKind.LIVE_MIGRATION, BACKWARD, "check_destination", fails="check_source")


def _last_to_fail(steps: tuple[Step, ...], pivot: int) -> str:
    """The last step before the pivot, or the pivot itself, whose failure is possible once it has been done."""
    return steps[pivot - 1].name if steps[pivot - 1].undo is not None else steps[pivot].name


class Stopping(Runner):
    """Carries each saga to where it stops; every step is saved alone."""

    wanted: dict[tuple[str, SagaKind], Stop]
    arrived: set[tuple[str, SagaKind]]

    def _stop(self, run: Run) -> Stop | None:
        return self.wanted.get((run.instance_id, run.story.kind))

    async def _is_there(self, run: Run, woken: asyncio.Event) -> bool:
        stop, key = self._stop(run), (run.instance_id, run.story.kind)
        if stop is None or (run.status, run.step.name) != (stop.status, stop.step) or stop.how == "ended":
            return False
        if stop.how == "blocked" and run.blocked is None:
            if run.step.deferred_cleanup:
                await self._deferred(run, woken, "it was refused on purpose")
            else:
                await self._silent(run, woken, Unreachable("h1 does not answer"))
            return True
        self.arrived.add(key)
        assert stop.how != "broken", "broken on purpose"
        await asyncio.Event().wait()
        return True

    async def _forward(self, run: Run, woken: asyncio.Event) -> None:
        stop = self._stop(run)
        if await self._is_there(run, woken):
            return
        if stop is not None and run.step.name == stop.fails:
            assert run.step.do is not None
            await run.step.do(run.context)
            await self._turn_back(run, "it was refused on purpose")
            return
        await super()._forward(run, woken)

    async def _backward(self, run: Run, woken: asyncio.Event) -> None:
        if not await self._is_there(run, woken):
            await super()._backward(run, woken)

    def _advance(self, tx: Tx, run: Run, marks: list[dict[str, Any]], merge: bool) -> Any:
        return super()._advance(tx, run, marks, False)


class Telling(DirectBus):
    async def command(self, host: str, command: Command, timeout_s: float) -> Answer:
        world = self._world
        assert isinstance(world, Recorded)
        before = len(world.commands)
        answer = await super().command(host, command, timeout_s)
        if len(world.commands) > before:
            world.told.append((host, msgspec.to_builtins(command)))
        return answer


class Recorded(World):
    def __init__(self) -> None:
        super().__init__(msgspec.structs.replace(SETTINGS, placement=PlacementSettings(wait_for_capacity_s=3600.0)))
        self.told: list[tuple[str, Any]] = []
        self.wanted: dict[tuple[str, SagaKind], Stop] = {}
        self.arrived: set[tuple[str, SagaKind]] = set()

    async def start_control(self) -> None:
        self._control = Control(
            self.store, Telling(self), self.clock, "control", self.settings, LivenessSettings(1, 600), runner=Stopping
        )
        await self._control.start()
        assert isinstance(self._control.runner, Stopping)
        self._control.runner.wanted, self._control.runner.arrived = self.wanted, self.arrived
        self._task = asyncio.create_task(self._control.run())

    async def to(self, stop: Stop) -> None:
        """A new instance, and its saga where it stops; a deletion is queued behind some of those that are held."""

        def create(tx: Tx) -> str:
            made = instances.create(tx, NewInstance("p", "u", f"{stop.kind} {stop.step}", "g", TINY, None))
            if stop.kind is SagaKind.BOOT:
                self.wanted[made, stop.kind] = stop
            return made

        instance_id = await self.store.run(create)
        if stop.kind is not SagaKind.BOOT:
            await self._until_rest(instance_id)
            for kind in (SagaKind.STOP, stop.kind) if stop.kind is SagaKind.START else (stop.kind,):
                if kind is stop.kind:
                    self.wanted[instance_id, kind] = stop
                await self.store.run(instances.intend, instance_id, kind, {})
                if kind is not stop.kind:
                    await self._until_rest(instance_id)
        if stop.how == "ended":
            await self._until_rest(instance_id)
            return
        async with asyncio.timeout(30):
            while (instance_id, stop.kind) not in self.arrived:
                await asyncio.sleep(0.005)

    async def _until_rest(self, instance_id: str) -> None:
        async with asyncio.timeout(30):
            while await self.store.read(_is_at_work, instance_id):
                await asyncio.sleep(0.002)


def _is_at_work(tx: Tx, instance_id: str) -> bool:
    row = instances.get(tx, instance_id, None, deleted=True)
    return row["task_state"] is not None and not row["deleted"]


async def make() -> tuple[str, str]:
    """What it holds, in words, and the fixture."""
    w = Recorded()
    await w.open()
    w.fleet.durations = Durations(copy=(3600.0, 3600.0))
    for stop in stops():
        if stop.kind is SagaKind.LIVE_MIGRATION and _switches(stop):
            w.fleet.durations = Durations()
        await w.to(stop)
        w.fleet.durations = Durations(copy=(3600.0, 3600.0))
    for instance_id, kind in (sorted(w.arrived)[0], sorted(w.arrived)[-1]):
        if kind is not SagaKind.DELETE:
            await w.store.run(instances.intend, instance_id, SagaKind.DELETE, {})
    await w.store.run(instances.create, NewInstance("p", "u", "waits for room", "g", HUGE, None))
    await asyncio.sleep(0.2)
    rows = await w.store.read(_rows)
    await w.close()
    return f"{len(rows['sagas']) - 1} sagas, {len(w.told)} commands", _text(rows, w.told)


def _text(rows: dict[str, list[list[Any]]], told: list[tuple[str, Any]]) -> str:
    tables = [f'"{name}":{_lines(found)}' for name, found in {**rows, "told": told}.items()]
    return "{" + ",\n".join((f'"revision":"{HEAD}"', *tables)) + "}\n"


def _lines(values: Iterable[Any]) -> str:
    return "[\n" + ",\n".join(json.dumps(value, separators=(",", ":")) for value in values) + "\n]"


def _switches(stop: Stop) -> bool:
    """The copy ends, because the saga stops behind it."""
    names = [step.name for step in STORIES[stop.kind].steps]
    return stop.how == "ended" or (stop.status is FORWARD and stop.step in names[STORIES[stop.kind].pivot + 1 :])


def _rows(tx: Tx) -> dict[str, list[list[Any]]]:
    """Each table as its columns, and then its rows, as the database holds them."""
    found: dict[str, list[list[Any]]] = {}
    for name in TABLES:
        columns = list(metadata.tables[name].columns.keys())
        rows = tx.execute(metadata.tables[name].select()).mappings()
        found[name] = [columns, *([row[column] for column in columns] for row in rows)]
    return found


if __name__ == "__main__":
    silence()
    holds, fixture = asyncio.run(make())
    Path(sys.argv[1]).write_text(fixture)
    print(f"{sys.argv[1]}: {holds}, {len(fixture)} bytes")
