"""The one door to the store: `await store.run(fn, ...)` runs a plain function of a `Tx` in one transaction.

Writers queue (bounded) for one writer; what waits together commits together, each in a savepoint of its own, so one
failure spoils nothing else. Readers run beside it on a pool of their own. What `run` answered is on the disk.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection, Engine, NullPool, StaticPool, create_engine, event, make_url
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    ProgrammingError,
    ResourceClosedError,
)

from droveway.domain.faults import Busy, WrongConfiguration
from droveway.ports.clock import Clock, Names

P = ParamSpec("P")
R = TypeVar("R")

QUEUE_MAX = 1024
BATCH_MAX = 64
READERS = 2
RECONNECT_S = 0.2


class Tx:
    """What a query sees: the connection, and the time and names of this transaction.

    `nudges` collects topics to call out once the transaction has been committed (hints: they may be lost). `owner` is
    the control in this very process, if there is one: what is written for it need not be adopted first.
    """

    __slots__ = ("execute", "names", "now_us", "nudges", "owner")

    def __init__(self, connection: Connection, now_us: int, names: Names, owner: tuple[str, int] | None = None) -> None:
        self.owner = owner
        self.execute = connection.execute
        self.now_us = now_us
        self.names = names
        self.nudges: list[str] = []


class Store(Protocol):
    async def run(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `fn` in a write transaction. Raises what `fn` raises (nothing is kept then), and Busy."""
        ...

    async def read(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `fn` on a snapshot. It must not write."""
        ...

    def on_commit(self, listener: Callable[[str], None]) -> None:
        """`listener(topic)` is called in the loop after each commit that nudged."""
        ...

    async def close(self) -> None: ...


def open_engine(url: str, *, in_memory: bool = False) -> Engine:
    """An engine that begins transactions itself: IMMEDIATE for writers, so a lock is waited for at the start."""
    options: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {"poolclass": NullPool}
    if not url.startswith("sqlite"):
        return create_engine(url, **options)
    options["connect_args"] = {"check_same_thread": False, "timeout": 5.0, "factory": _SqliteConnection}
    engine = create_engine(make_url(url).set(drivername="sqlite+droveway"), **options)
    event.listen(engine, "connect", _configure_sqlite)
    return engine


class _SqliteConnection(sqlite3.Connection):
    begin = "BEGIN"


class SqliteDialect(SQLiteDialect_pysqlite):
    """SQLAlchemy's own, but for how a transaction begins. (A listener for `begin` would do the same, and make every
    statement pay for looking for listeners.)"""

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: Any) -> None:
        dbapi_connection.execute(dbapi_connection.begin)

    def set_connection_execution_options(self, connection: Connection, opts: Mapping[str, Any]) -> None:
        if opts.get("writes"):
            _sqlite_connection(connection).begin = "BEGIN IMMEDIATE"
        super().set_connection_execution_options(connection, opts)


def _sqlite_connection(connection: Connection) -> _SqliteConnection:
    below = connection.connection.driver_connection
    assert isinstance(below, _SqliteConnection)
    return below


registry.register("sqlite.droveway", __name__, SqliteDialect.__name__)


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


class _Write:
    __slots__ = ("call", "done", "loop")

    def __init__(self, call: Callable[[Tx], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.loop = loop
        self.done: asyncio.Future[Any] = loop.create_future()


_Result = tuple[_Write, Any, BaseException | None]


class DiskStore:
    """SQLite in a file (or PostgreSQL by URL): one writer thread, a few readers."""

    def __init__(self, url: str, clock: Clock, names: Names) -> None:
        self._engine = open_engine(url)
        self.owner: tuple[str, int] | None = None  # (name, epoch) of the control that shares this process
        self._clock = clock
        self._names = names
        self._listeners: list[Callable[[str], None]] = []
        self._queue: queue.Queue[_Write | None] = queue.Queue(QUEUE_MAX)
        self._readers = ThreadPoolExecutor(READERS, "store-read")
        self._local = threading.local()
        self._read_connections: list[Connection] = []
        try:
            self._writer_connection = self._engine.connect().execution_options(writes=True)
            with self._writer_connection.begin():  # deletes nothing, and fails where nothing may be written
                self._writer_connection.exec_driver_sql("DELETE FROM leases WHERE name IS NULL")
        except DBAPIError as error:
            raise WrongConfiguration(f"the database {url} cannot be opened for writing: {error.orig}") from None
        self._thread = threading.Thread(target=self._write_loop, name="store-write", daemon=True)
        self._thread.start()

    def on_commit(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    async def run(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        write = _Write(lambda tx: fn(tx, *args, **kwargs), asyncio.get_running_loop())
        try:
            self._queue.put_nowait(write)
        except queue.Full:
            raise Busy(f"{QUEUE_MAX} writes are waiting for the database; try again in a second") from None
        return await write.done  # type: ignore[no-any-return]

    async def read(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        def work() -> R:
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = self._engine.connect()
                self._read_connections.append(connection)
            try:
                with connection.begin():
                    return fn(Tx(connection, self._clock.now_us(), self._names), *args, **kwargs)
            except DBAPIError as error:
                raise _as_fault(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def close(self) -> None:
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._readers.shutdown()
        for connection in (self._writer_connection, *self._read_connections):
            connection.close()
        self._engine.dispose()

    # -- the writer thread ------------------------------------------------------------------------------------------
    def _write_loop(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < BATCH_MAX and batch[-1] is not None:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            writes = [w for w in batch if w is not None]
            if writes:
                self._commit(writes)
            if batch[-1] is None:
                return

    def _commit(self, writes: list[_Write]) -> None:
        """Every write of the batch is answered: kept, failed by itself, or (when the database failed) none is kept."""
        results: list[_Result] = []
        nudges: list[str] = []
        try:
            with self._writer_connection.begin():
                for write in writes:
                    results.append(self._one(write, nudges, alone=len(writes) == 1))
        except _RolledBack:
            pass
        except Exception as error:  # noqa: BLE001 - the commit itself failed: nobody's write is kept, each is told
            results = [(w, None, _as_fault(error)) for w in writes]
            nudges = []
            self._recover()
        loop = writes[0].loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._answer, results, nudges)

    def _one(self, write: _Write, nudges: list[str], *, alone: bool) -> _Result:
        tx = Tx(self._writer_connection, self._clock.now_us(), self._names, self.owner)
        savepoint = None if alone else self._writer_connection.begin_nested()
        try:
            value = write.call(tx)
        except BaseException as error:
            if savepoint is None:
                told: list[_Result] = [(write, None, _as_fault(error))]
                write.loop.call_soon_threadsafe(self._answer, told, [])
                raise _RolledBack from None
            if isinstance(_as_fault(error), Busy):
                raise  # the database failed, not this write: nothing of the batch can be relied on
            savepoint.rollback()
            return write, None, _as_fault(error)
        if savepoint is not None:
            savepoint.commit()
        nudges.extend(tx.nudges)
        return write, value, None

    def _recover(self) -> None:
        """After a failed commit the connection may stand in the middle of a transaction: begin with a new one."""
        try:
            self._writer_connection.invalidate()
            self._writer_connection.close()
        except DBAPIError:
            pass
        try:
            self._writer_connection = self._engine.connect().execution_options(writes=True)
        except DBAPIError:
            time.sleep(RECONNECT_S)  # its own thread; the next write tries again, and is told

    def _answer(self, results: list[_Result], nudges: list[str]) -> None:
        for write, value, error in results:
            if write.done.done():
                continue  # the caller has gone away; what was written stays written
            if error is None:
                write.done.set_result(value)
            else:
                write.done.set_exception(error)
        for topic in nudges:
            for listener in self._listeners:
                listener(topic)


class _RolledBack(Exception):
    """Inside: the only write of the batch failed and has been answered."""


def _as_fault(error: BaseException) -> BaseException:
    """What the database itself could not do (locked, full, unreadable) says nothing of the request: try again. A row
    that breaks a constraint and a statement that makes no sense are the program's, and stay what they are."""
    if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError | ProgrammingError | DataError):
        return Busy(f"the database did not take it ({error.orig}); try again in a second")
    if isinstance(error, InvalidRequestError | ResourceClosedError):
        return Busy("the database connection was lost; try again in a second")
    return error


class MemoryStore:
    """SQLite in memory, run inline: for simulation and unit tests. `delay` (if any) is awaited before and after each
    transaction, which is where a simulated crash can fall between a commit and its answer."""

    def __init__(self, clock: Clock, names: Names, delay: Callable[[], Any] | None = None) -> None:
        self._engine = open_engine("sqlite://", in_memory=True)
        self._connection = self._engine.connect().execution_options(writes=True)
        self._clock = clock
        self._names = names
        self._delay = delay
        self._listeners: list[Callable[[str], None]] = []

    @property
    def engine(self) -> Engine:
        return self._engine

    def on_commit(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    async def run(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._delay is not None:
            await self._delay()
        tx = Tx(self._connection, self._clock.now_us(), self._names)
        try:
            with self._connection.begin():
                value = fn(tx, *args, **kwargs)
        except DBAPIError as error:
            raise _as_fault(error) from error
        for topic in tx.nudges:
            for listener in self._listeners:
                listener(topic)
        if self._delay is not None:
            await self._delay()
        return value

    async def read(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.run(fn, *args, **kwargs)

    async def close(self) -> None:
        self._connection.close()
        self._engine.dispose()
