"""The store under simulation: one database that never dies, and a door to it for each process, which does.

A write travels to the database, is committed there, and the answer travels back: a process may die on either way. The
laws of the rows are triggers inside the database, so that no statement, from wherever, passes them unseen.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import msgspec
from sqlalchemy import Connection

from droveway.domain.faults import Busy
from droveway.domain.placement import PlacementSettings
from droveway.ports.clock import Names
from droveway.simulation.loop import SimClock, SimLoop
from droveway.store.engine.transaction import Tx, open_engine
from droveway.store.schema import metadata
from droveway.store.work.events import SERVICE

P = ParamSpec("P")
R = TypeVar("R")

HOST = "host"
SWITCHED = '{"step":"record_switch","mark":"+"'
_PLACE_OF = "select i.id, i.host from sagas s join instances i on i.id = s.subject_id where s.id = ?"
_HELD = """(
    select coalesce(sum({column}), 0) from (
        select host, {column} from instances where not deleted and host = new.{host}
        union all select destination, {column} from migrations where holds_claim and destination = new.{host}))"""
_MEMBERS = """(
    select count(*) from (
        select id from instances where not deleted and host = new.{host} and server_group_id = g.id
        union all select m.instance_id from migrations m join instances i on i.id = m.instance_id
        where m.holds_claim and m.destination = new.{host} and i.server_group_id = g.id))"""
_PLACED = "(select count(*) from instances where not deleted and host is not null and server_group_id = g.id)"
_AT_WORK = "('forward', 'backward', 'broken')"
_HAS_ANOTHER = """(
    exists (select * from sagas o where o.status in {at_work} and o.id <> new.{saga}
        and o.subject_id = new.subject_id and o.subject_kind = new.subject_kind)
    or exists (select * from saga_subjects h where h.held and h.saga_id <> new.{saga}
        and h.subject_id = new.subject_id and h.subject_kind = new.subject_kind))"""
_LEFT_HELD = """
    select h.saga_id, h.subject_kind, h.subject_id from saga_subjects h left join sagas s on s.id = h.saga_id
    where s.id is null or s.ended"""
_CAPACITY = "(select json_extract(resources, '$.{key}') from hosts where name = new.{host})"


def _law(name: str, event: str, when: str, reason: str) -> str:
    return f"create trigger law_{name} after {event} when {when} begin insert into broken_laws values ({reason}); end"


# What must hold for each change of a row: name, event, when it is broken, the sentence of what was broken.
_LAWS = (
    (
        "generation",
        "update of step, status, notes, generation, owner on sagas",
        "new.generation <= old.generation",
        "'saga ' || new.id || ' was saved with generation ' || new.generation || ' over ' || old.generation",
    ),
    (
        "ended",
        "update of step, status, notes, generation on sagas",
        "old.ended",
        "'saga ' || new.id || ' had ended ' || old.status || ' and was written again'",
    ),
    (
        "broken",
        "update of status on sagas",
        "new.status = 'broken'",
        "'saga ' || new.kind || ' ' || new.id || ' is broken: ' || new.error",
    ),
    (
        "fence",
        "update of fence on instances",
        "new.fence <= old.fence",
        "'the fence of ' || new.id || ' went from ' || old.fence || ' to ' || new.fence",
    ),
    (
        "deleted",
        "update on instances",
        "old.deleted and (not new.deleted or new.host is not null and new.host is not old.host)",
        "'deleted instance ' || new.id || ' came back'",
    ),
    (
        "store",
        "update of host on instances",
        "old.host is null and new.host is not null and "
        "coalesce(" + _CAPACITY.format(key="store_trouble", host="host") + ", '') <> ''",
        "'instance ' || new.id || ' was placed on ' || new.host || ', which had said that its store hangs'",
    ),
    (
        "told",
        "update of blocked on sagas",
        "new.kind = 'boot' and new.blocked like '% waits: %' and "
        "new.blocked not like '% is at work: %' and new.blocked not like 'await_ports waits: %' and not exists "
        "(select * from instances where id = new.subject_id and vm_state = 'error' and fault is not null)",
        "'instance ' || new.subject_id || ' is shown without a fault, and ' || new.blocked",
    ),
    (
        "mended",
        "update of vm_state on instances",
        "new.fault is not null and (new.vm_state = 'building' or new.vm_state = 'active' and old.vm_state = 'error')",
        "'instance ' || new.id || ' is ' || new.vm_state || ' and keeps its fault: ' || new.fault",
    ),
)


def _laws(settings: PlacementSettings) -> list[str]:
    """The laws as triggers that write down the sentence of what was broken."""
    laws = [_law(*law) for law in _LAWS]
    for table, host in (("instances", "host"), ("migrations", "destination")):
        for column, key, ratio in (
            ("vcpus", "vcpus", settings.cpu_ratio),
            ("ram_mb", "memory_mb", settings.ram_ratio),
            ("disk_gb", "disk_gb", settings.disk_ratio),
        ):
            held = _HELD.format(column=column, host=host)
            changed = f"update of {host}{', holds_claim' if table == 'migrations' else ''} on {table}"
            laws.append(
                _law(
                    f"{table}_{column}",
                    changed,
                    f"new.{host} is not null and {held} > {ratio} * {_CAPACITY.format(key=key, host=host)}",
                    f"'{column} of ' || new.{host} || ' promised beyond its ratio: ' || {held}",
                )
            )
    return laws + _subject_laws() + _group_laws()


def _subject_laws() -> list[str]:
    """One active saga a subject, be it that it is about it or holds it."""
    about, beside = (_HAS_ANOTHER.format(at_work=_AT_WORK, saga=saga) for saga in ("id", "saga_id"))
    two = "new.subject_kind || ' ' || new.subject_id || ' is in use, and is taken by saga ' || new."
    begins = f"new.status in {_AT_WORK} and {about}"
    return [
        _law("one_saga_new", "insert on sagas", begins, two + "id"),
        _law("one_saga_begins", "update of status on sagas", "old.status = 'queued' and " + begins, two + "id"),
        _law("one_hold_new", "insert on saga_subjects", f"new.held and {beside}", two + "saga_id"),
        _law("one_hold_begins", "update of held on saga_subjects", f"new.held and {beside}", two + "saga_id"),
    ]


def _group_laws() -> list[str]:
    """Members are apart where they should be, also while one of them arrives; and together where a new one comes."""
    apart = "g.policy = 'anti-affinity' and {members} > coalesce(g.max_server_per_host, 1)"
    together = "g.policy = 'affinity' and {placed} > 1 and {members} = 1"
    broken = "exists (select * from server_groups g where g.id = {group} and {rule})"
    member = "(select server_group_id from instances where id = new.instance_id)"
    at_host, arriving = _MEMBERS.format(host="host"), _MEMBERS.format(host="destination")
    return [
        _law(
            "apart",
            "update of host on instances",
            "new.host is not null and not new.deleted and "
            + broken.format(group="new.server_group_id", rule=apart.format(members=at_host)),
            "'two members that must be apart are on ' || new.host",
        ),
        _law(
            "apart_arriving",
            "update of destination, holds_claim on migrations",
            "new.holds_claim and " + broken.format(group=member, rule=apart.format(members=arriving)),
            "'two members that must be apart are, or will be, on ' || new.destination",
        ),
        _law(
            "together",
            "update of host on instances",
            "new.host is not null and not new.deleted and "
            + broken.format(group="new.server_group_id", rule=together.format(placed=_PLACED, members=at_host)),
            "'a member of a group that must be together was placed alone on ' || new.host",
        ),
    ]


class _Engine:
    """One engine a process, emptied between seeds: compiling every statement anew would cost more than the seed."""

    def __init__(self, settings: PlacementSettings) -> None:
        self.connection: Connection = open_engine("sqlite://", in_memory=True).connect().execution_options(writes=True)
        with self.connection.begin():
            metadata.create_all(self.connection)
            self.connection.exec_driver_sql("create table broken_laws (sentence text)")
            for law in _laws(settings):
                self.connection.exec_driver_sql(law)
        # From here on SQLAlchemy sees one transaction without end: its own bookkeeping of each would cost as
        # much as a statement. `Database` begins and ends them below it.
        below: Any = self.connection.connection.driver_connection
        below.begin = ""
        gc.freeze()  # what has been imported and made so far stays: no collection between seeds looks at it again

    def empty(self) -> None:
        for table in reversed(metadata.sorted_tables):
            self.connection.execute(table.delete())
        self.connection.exec_driver_sql("delete from broken_laws")


class InstanceView(NamedTuple):
    """An instance, as much of it as users look at before they want something."""

    id: str
    vm_state: str
    task_state: str | None


_engines: dict[PlacementSettings, _Engine] = {}


class Database:
    """The rows of one simulated world. `busy` is the chance that a transaction is refused for load."""

    def __init__(
        self, loop: SimLoop, rng: random.Random, names: Names, settings: PlacementSettings, note: Callable[[str], None]
    ) -> None:
        self.loop, self.rng, self.names, self._note = loop, rng, names, note
        engine = _engines.get(settings)
        if engine is None:
            engine = _engines[settings] = _Engine(settings)
        engine.empty()
        self.connection = engine.connection
        self._below: Any = self.connection.connection.driver_connection  # for the few looks that are made very often
        self._noted = 0  # events up to here are in the trace
        self.busy = 0.0
        self.slow_s = 0.002
        self.transactions = 0
        self.refused = 0
        self.on_switch: Callable[[str, str], None] = lambda _instance, _host: None
        self.on_host: Callable[[str, str], None] = lambda _host, _body: None
        self.on_service: Callable[[str, str, dict[str, Any]], None] = lambda _by, _subject, _body: None

    def broken_laws(self) -> list[str]:
        left = self._below.execute(_LEFT_HELD)
        return [reason for (reason,) in self._below.execute("select sentence from broken_laws")] + [
            f"{kind} {subject} is held by saga {saga}, which has ended" for saga, kind, subject in left
        ]

    def living(self) -> list[InstanceView]:
        query = "select id, vm_state, task_state from instances where not deleted order by number"
        return [InstanceView(*row) for row in self._below.execute(query)]

    def commit(self, fn: Callable[[Tx], R], now_us: int, by: str = "") -> tuple[R, list[str]]:
        """One transaction, now; its value and its nudges. `by`: the process whose it is."""
        self.transactions += 1
        below, before = self._below, self._below.total_changes
        tx = Tx(self.connection, now_us, self.names)
        below.execute("begin")
        try:
            value = fn(tx)
        except BaseException:
            below.execute("rollback")
            raise
        below.execute("commit")
        if below.total_changes != before:
            self._read_events(by)
        return value, tx.nudges

    def _read_events(self, by: str) -> None:
        query = "select id, kind, subject_id, body from events where id > ? order by id"
        for number, kind, subject, body in self._below.execute(query, (self._noted,)):
            self._noted = number
            self._note(f"{kind} {subject} {body}")
            if kind == SERVICE:
                self.on_service(by, subject, msgspec.json.decode(body))
            elif kind == HOST:
                self.on_host(subject, body)
            elif SWITCHED in body:
                self.on_switch(*self._below.execute(_PLACE_OF, (subject,)).fetchone())

    def look(self, fn: Callable[[Tx], R]) -> R:
        """For checkers: it takes no time and disturbs nothing."""
        return fn(Tx(self.connection, 0, self.names))


class DatabaseAccess:
    """One process's way to the database. Once shut (the process is dead) nothing goes in or comes out."""

    def __init__(self, database: Database, clock: SimClock, name: str) -> None:
        self._database, self._clock, self._name = database, clock, name
        self._listeners: list[Callable[[str], None]] = []
        self.is_open = True

    @property
    def commits(self) -> int | None:
        """Other processes write too."""
        return None

    def on_commit(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    async def run(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._send(lambda tx: fn(tx, *args, **kwargs), may_be_busy=True)

    async def read(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._send(lambda tx: fn(tx, *args, **kwargs), may_be_busy=False)

    async def close(self) -> None:
        self.is_open = False

    def _send(self, work: Callable[[Tx], R], *, may_be_busy: bool) -> asyncio.Future[R]:
        database = self._database
        done: asyncio.Future[R] = database.loop.create_future()
        if self.is_open:  # a request of a dead process is not run
            delay_s = database.rng.random() * database.slow_s
            database.loop.call_later(delay_s, self._commit, work, done, may_be_busy, context=database.loop.outside)
        return done

    def _commit(self, work: Callable[[Tx], R], done: asyncio.Future[R], may_be_busy: bool) -> None:
        """At the database: whether the process still lives makes no difference here."""
        database = self._database
        value: R | None = None
        error: BaseException | None = None
        nudges: list[str] = []
        if may_be_busy and database.busy and database.rng.random() < database.busy:
            database.refused += 1
            error = Busy("the simulated database is busy; try again in a second")
        else:
            try:
                value, nudges = database.commit(work, self._clock.now_us(), self._name)
            except Exception as raised:  # noqa: BLE001 - belongs to the caller, who is told
                error = raised
        delay_s = database.rng.random() * database.slow_s
        database.loop.call_later(delay_s, self._answer, done, value, error, nudges)

    def _answer(self, done: asyncio.Future[R], value: Any, error: BaseException | None, nudges: list[str]) -> None:
        if not self.is_open:
            return
        if not done.done():
            if error is None:
                done.set_result(value)
            else:
                done.set_exception(error)
        for topic in nudges:
            for listener in self._listeners:
                listener(topic)
