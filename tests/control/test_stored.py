"""What the releases before have stored is carried to a legal end, by this release and by one that tells its stories
with more steps, under other names, or with fewer.

`stored_0007.json` was made by the release of schema 0007, with

    python -m tests.control.make_stored tests/control/stored_0007.json

It holds every saga at every step: forward, backward, broken, blocked, queued and ended.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Boolean, Connection, Integer, MetaData, Table, insert, text

from droveway.control.control import Control
from droveway.control.engine.saga import NOTHING_LEFT, Context, FormerStep, Saga, Step, renamed
from droveway.control.liveness.observer import LivenessSettings
from droveway.control.sagas import STORIES
from droveway.domain.faults import Conflict
from droveway.domain.model import END, ENDED_SAGA, START, GuestState, SagaKind, SagaStatus, of_instance
from droveway.drivers.clock import SystemNames
from droveway.drivers.hypervisor.simulated.fleet import NOTHING, Durations
from droveway.ports.bus import Command, Verb
from droveway.simulation.many import silence
from droveway.store import upgrade
from droveway.store.compute import instance_list, instances
from droveway.store.engine.databases import open_engine
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.versions import v0008
from droveway.store.work import sagas
from tests.control.world import SETTINGS, DirectBus, World
from tests.store import databases
from tests.store.test_upgrade import bring_to

STORED = json.loads((Path(__file__).parent / "stored_0007.json").read_text())
Stories = dict[SagaKind, Saga]


@pytest.fixture(params=databases.KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of that release, brought to this one."""
    return fill(databases.empty()) if request.param == "postgresql" else filled(tmp_path)


def filled(directory: Path) -> str:
    """A copy: to bring one to this release is a program of its own."""
    path = directory / "old.sqlite"
    path.write_bytes(_filled())
    return f"sqlite:///{path}"


@functools.cache
def _filled() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "old.sqlite"
        fill(f"sqlite:///{path}")
        return path.read_bytes()


def fill(url: str) -> str:
    bring_to(url, STORED["revision"])
    with open_engine(url).connect().execution_options(writes=True) as connection, connection.begin():
        for name in (key for key in STORED if key not in {"revision", "told"}):
            columns, *rows = STORED[name]
            table = Table(name, MetaData(), autoload_with=connection)
            for row in rows:
                connection.execute(
                    insert(table).values(
                        {
                            column: json.dumps(value)
                            if isinstance(value, dict | list)
                            else bool(value)
                            if isinstance(table.c[column].type, Boolean) and value is not None
                            else value
                            for column, value in zip(columns, row, strict=True)
                        }
                    )
                )
            _number_on(connection, table)
    upgrade.bring_up_to_date(url)
    return url


def _number_on(connection: Connection, table: Table) -> None:
    """PostgreSQL counts what it numbers itself, and not what was given with its number."""
    numbered = [column.name for column in table.primary_key if isinstance(column.type, Integer)]
    if connection.dialect.name == "postgresql" and len(table.primary_key) == 1 and numbered:
        of = f"pg_get_serial_sequence('{table.name}', '{numbered[0]}')"
        highest = f"(SELECT max({numbered[0]}) FROM {table.name})"
        connection.execute(text(f"SELECT setval({of}, {highest}) WHERE {of} IS NOT NULL AND {highest} IS NOT NULL"))


class Upgraded(World):
    """The hosts were told what the older release had told them; then this one starts on its database."""

    def __init__(self, url: str, stories: Stories) -> None:
        super().__init__(SETTINGS)
        self.stories = stories
        self.store = DiskStore(url, self.clock, SystemNames())  # type: ignore[assignment]

    async def start_control(self) -> None:
        aborted = {told["instance_id"] for _, told in STORED["told"] if told["verb"]["type"] == "abort_copy"}
        for host, told in STORED["told"]:
            self.fleet.durations = Durations(copy=(3600.0, 3600.0) if told["instance_id"] in aborted else NOTHING)
            verb = msgspec.convert(told["verb"], Verb)
            await self.agents[host].handle(Command(of_instance(told["instance_id"]), told["generation"], verb))
        self._control = Control(
            self.store, DirectBus(self), self.clock, "control", self.settings, LivenessSettings(1, 600), self.stories
        )
        await self._control.start()
        self._task = asyncio.create_task(self._control.run())

    async def end_all(self) -> None:
        """What is broken is retried, and nobody waits for room."""
        for row in await self.store.read(sagas.listing, limit=1000, only_open=True):
            if row["status"] == SagaStatus.BROKEN:
                await self.store.run(sagas.retry, row["id"])
            elif row["blocked"] and "waits for room" in row["blocked"]:
                await self.store.run(sagas.cancel, row["id"], "nobody waits any longer")
        async with asyncio.timeout(30):
            while any(
                row["status"] != SagaStatus.BROKEN
                for row in await self.store.read(sagas.listing, limit=1000, only_open=True)
            ):
                await asyncio.sleep(0.02)


def carried_on(url: str, stories: Stories = STORIES) -> list[str]:
    """What is wrong in the end."""

    async def play() -> list[str]:
        w = Upgraded(url, stories)
        before = {row["id"]: row for row in await w.store.read(sagas.listing, limit=1000, only_open=False)}
        await w.open()
        try:
            await w.end_all()
            return await wrong(w, before)
        finally:
            await w.close()

    silence()
    return asyncio.run(play())


async def wrong(w: Upgraded, before: dict[str, Any]) -> list[str]:
    found = list(w.fleet.violations)
    for row in await w.store.read(sagas.listing, limit=1000, only_open=False):
        was = before.get(row["id"])
        if SagaStatus(row["status"]) not in ENDED_SAGA:
            found.append(f"{row['kind']} is {row['status']} at {row['step']}: {row['error']}")
        elif was is not None and not was["ended"] and row["status"] not in _ends(was):
            came_too_late = was["kind"] == "live_migration" and was["step"] in {"begin_copy", "admit_guest"}
            if not came_too_late:
                found.append(f"{row['kind']} at {was['step']} went {was['status']} and is {row['status']}")
    for row in await w.store.read(_instances):
        running = await w.runs_on(row["id"])
        expected = [row["host"]] if row["vm_state"] == "active" else []
        if running != expected or row["task_state"] is not None:
            found.append(f"{row['name']} is {row['vm_state']} ({row['task_state']}) at {row['host']}: runs {running}")
    found += [f"a probe is left: {name}" for name in w.fleet.stores["shared"].probes]
    found += [
        f"a husk of {one}"
        for host in w.fleet.hosts.values()
        for one, domain in host.domains.items()
        if domain.state is GuestState.PAUSED
    ]
    return found + [str(finding) for finding in (await w.control.audit()).findings]


def _ends(was: Any) -> set[str]:
    going = was["broken_while"] if was["status"] == "broken" else was["status"]
    if was["cancel"] or (was["blocked"] and "waits for room" in was["blocked"]):
        return {"undone", "done"}  # it may be too late
    return {"undone" if going == "backward" else "done"}


def _instances(tx: Tx) -> list[Any]:
    gone = instance_list.find(tx, instance_list.Filters(deleted=True))
    return [*instance_list.find(tx, instance_list.Filters()), *gone]


def test_every_saga_of_the_release_before_ends(url: str) -> None:
    assert carried_on(url) == []


def test_the_fixture_holds_every_step() -> None:
    columns, *rows = STORED["sagas"]
    stored = {
        (one["kind"], one["status"], one["position"]) for one in (dict(zip(columns, r, strict=True)) for r in rows)
    }
    for kind, story in STORIES.items():
        undone = {step.name for step in story.steps if step.undo is not None}
        for position, name in enumerate(v0008.STEPS.get(kind, ())):  # what is younger, that release did not know
            assert (kind, "forward", position) in stored
            assert name not in undone or {(kind, "backward", position), (kind, "broken", position)} <= stored


# -- the release after ------------------------------------------------------------------------------------------------
def with_more_steps(story: Saga) -> Saga:
    """A new step in front of each, and every step under another name."""
    steps: list[Step] = []
    for n, step in enumerate(story.steps):
        new = Step(f"new_{n}", write=lambda tx, ctx: None, harmless=n <= story.pivot)
        steps += [new, dataclasses.replace(step, name=f"{step.name}_now")]
    older = {step.name: renamed(f"{step.name}_now") for step in story.steps}
    return dataclasses.replace(story, steps=tuple(steps), older=older)


def with_fewer_steps(story: Saga) -> Saga:
    """Without those steps of the fixture that do nothing a guest would miss."""
    dropped = {
        "show_running": FormerStep("begin_copy", "admit_guest"),
        "record_done": FormerStep("record_done_now", "await_switch"),
    }
    names = {step.name for step in story.steps}
    older = {name: now for name, now in dropped.items() if {name, now.backward} <= names}
    steps = [step for step in story.steps if step.name not in older]
    if "record_done" in older:
        steps.append(Step("record_done_now", write=story.steps[-1].write))
    return dataclasses.replace(story, steps=tuple(steps), older=older)


class Indexed(Saga):
    """The mutant: a row's cursor counts the steps, as it did."""

    def position_of(self, name: str, *, backward: bool = False) -> int:
        told = next(story for kind, story in STORIES.items() if kind is self.kind)
        return told.position_of(name, backward=backward)


def by_index(story: Saga) -> Saga:
    return Indexed(**{one.name: getattr(story, one.name) for one in dataclasses.fields(story)})


@pytest.mark.parametrize("next_release", [with_more_steps, with_fewer_steps])
def test_a_release_with_other_steps_carries_every_saga_on(next_release: Callable[[Saga], Saga], url: str) -> None:
    assert carried_on(url, {kind: next_release(story) for kind, story in STORIES.items()}) == []


def test_a_cursor_that_is_an_index_is_noticed(tmp_path: Path) -> None:
    stories = {kind: by_index(with_more_steps(story)) for kind, story in STORIES.items()}
    assert carried_on(filled(tmp_path), stories) != []


def test_a_new_step_that_was_passed_by_is_not_undone(tmp_path: Path) -> None:
    done, undone = set[str](), list[str]()

    async def take(ctx: Context) -> None:
        done.add(ctx.id)
        ctx.notes = msgspec.convert(msgspec.to_builtins(ctx.notes) | {"taken": True}, more)

    async def give_back(ctx: Context) -> None:
        undone.append(ctx.id)

    boot = STORIES[SagaKind.BOOT]
    more = msgspec.defstruct("More", [("taken", bool, False)], bases=(boot.notes,))
    new = Step("take", do=take, undo=give_back, did=lambda notes: getattr(notes, "taken", False))
    later = dataclasses.replace(boot, notes=more, steps=(boot.steps[0], new, *boot.steps[1:]))
    assert carried_on(filled(tmp_path), STORIES | {SagaKind.BOOT: later}) == []
    assert done and set(undone) <= done


# -- what cannot be read ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("step", "never_heard_of", "knows no step 'never_heard_of' of live_migration"),
        ("kind", "resize", "knows no saga of the kind 'resize'"),
        ("notes", '{"source":7}', "cannot read what live_migration has noted"),
    ],
)
async def test_what_cannot_be_read_stays_and_is_said(column: str, value: str, reason: str, tmp_path: Path) -> None:
    url = filled(tmp_path)

    silence()
    w = Upgraded(url, STORIES)
    rows = await w.store.read(sagas.listing, limit=1000, only_open=True)
    moves = [row for row in rows if row["kind"] == "live_migration" and row["step"] == "begin_copy"]
    strange = {row["status"]: row["id"] for row in moves}
    assert set(strange) == {"forward", "backward", "broken"}

    def spoil(tx: Tx) -> None:
        for saga_id in strange.values():
            new = json.loads(value) if column == "notes" else value
            tx.execute(sagas.sagas.update().where(sagas.sagas.c.id == saga_id).values({column: new}))

    await w.store.run(spoil)
    before = {one: await w.store.read(sagas.get, one) for one in strange.values()}
    await w.open()
    try:
        async with asyncio.timeout(30):
            while {
                row["id"]
                for row in await w.store.read(sagas.listing, limit=1000, only_open=True)
                if row["status"] not in {"broken", "queued"} and not row["blocked"]
            } - set(strange.values()):
                await asyncio.sleep(0.02)
        for saga_id, old in before.items():
            row = await w.store.read(sagas.get, saga_id)
            assert dict(row) == dict(old) | {"unreadable": row["unreadable"]}, "it stays as it is"
            assert reason in row["unreadable"] and "runs on this database" in row["unreadable"]
            for way in (sagas.retry, lambda tx, one: sagas.cancel_by_hand(tx, sagas.get(tx, one), "no")):
                with pytest.raises(Conflict, match="can be neither retried nor cancelled: this release"):
                    await w.store.run(way, saga_id)
            with pytest.raises(Conflict):
                await w.store.run(instances.intend, row["subject_id"], SagaKind.STOP, {})
        await goes_on_once_it_can_be_read(w, column, before)
    finally:
        await w.close()


async def goes_on_once_it_can_be_read(w: Upgraded, column: str, before: dict[str, Any]) -> None:
    """A newer release starts on the same database."""

    def mend(tx: Tx) -> None:
        known = {"step": "begin_copy", "kind": "live_migration"}
        for saga_id, old in before.items():
            new = old["notes"] | {"source": "h1"} if column == "notes" else known[column]
            tx.execute(sagas.sagas.update().where(sagas.sagas.c.id == saga_id).values({column: new}))

    if column == "notes":
        return  # what it was is gone
    await w.store.run(mend)
    w.kill_control()
    async with asyncio.timeout(30):
        while [one for one in before if (await w.store.read(sagas.get, one))["unreadable"]]:
            await asyncio.sleep(0.02)


async def test_a_step_that_was_dropped_at_an_end_of_the_story_ends_it(tmp_path: Path) -> None:
    url = filled(tmp_path)
    move = STORIES[SagaKind.LIVE_MIGRATION]
    later = dataclasses.replace(move, older={"dropped": FormerStep(END, NOTHING_LEFT)})

    silence()
    w = Upgraded(url, STORIES | {SagaKind.LIVE_MIGRATION: later})

    def drop(tx: Tx) -> dict[str, str]:
        rows = sagas.listing(tx, limit=1000, only_open=True)
        ends = {("record_done", "forward"), ("check_destination", "backward")}
        found = {row["status"]: row["id"] for row in rows if (row["step"], row["status"]) in ends}
        for one in found.values():
            tx.execute(sagas.sagas.update().where(sagas.sagas.c.id == one).values(step="dropped"))
        return found

    stood = await w.store.run(drop)
    await w.open()
    try:
        await w.end_all()
        ended = {going: (await w.store.read(sagas.get, one)) for going, one in stood.items()}
    finally:
        await w.close()
    assert {going: (row["status"], row["step"]) for going, row in ended.items()} == {
        "forward": ("done", END),
        "backward": ("undone", START),
    }


def test_what_a_story_says_of_older_names_must_be_sense() -> None:
    boot = STORIES[SagaKind.BOOT]
    for older in (
        {"start_guest": renamed("record_running")},
        {"gone": renamed("nowhere")},
        {"gone": FormerStep("start_guest", "nowhere")},
    ):
        with pytest.raises(AssertionError):
            dataclasses.replace(boot, older=older)
