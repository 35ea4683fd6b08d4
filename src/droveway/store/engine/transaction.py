"""The one door to the store: `await store.run(fn, ...)` runs a plain function of a `Tx` in one transaction.

Writers queue (bounded) for one writer (store/engine/writer.py). Readers run beside it on a pool of their own. What
`run` answered is on the disk. A function may be run again from its beginning: whatever it changes outside must bear
that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from sqlalchemy import Connection, CursorResult, Engine, Executable
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from droveway.domain.faults import Busy
from droveway.ports.clock import Clock, Names
from droveway.store.engine.databases import (
    Connector,
    FailureKind,
    as_fault,
    drop,
    is_postgresql,
    open_engine,
    opening_fault,
    trouble,
)
from droveway.store.engine.prepared import Parameters, Prepared, Rows
from droveway.store.engine.writer import QUEUE_MAX, Result, Write, Writer

__all__ = ["QUEUE_MAX", "DiskStore", "MemoryStore", "Store", "Tx", "open_engine", "open_store"]

P = ParamSpec("P")
R = TypeVar("R")

READERS = 2
READS_MAX = 4096
OPEN_PAUSE_MIN_S, OPEN_PAUSE_MAX_S = 0.2, 3.0


class Tx:
    """What a query sees: the connection, and the time and names of this transaction.

    `nudges` collects topics to call out once the transaction has been committed (hints: they may be lost). `owner` is
    the control in this very process, if there is one: what is written for it need not be adopted first.
    """

    __slots__ = ("_connection", "names", "now_us", "nudges", "owner")

    def __init__(self, connection: Connection, now_us: int, names: Names, owner: tuple[str, int] | None = None) -> None:
        self.owner = owner
        self._connection = connection
        self.now_us = now_us
        self.names = names
        self.nudges: list[str] = []

    @overload
    def execute(self, statement: Prepared, parameters: Parameters | None = None) -> Rows: ...

    @overload
    def execute(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> CursorResult[*tuple[Any, ...]]: ...

    def execute(self, statement: Any, parameters: Any = None) -> Any:
        if type(statement) is Prepared:
            return statement.run(self._connection, parameters)
        return self._connection.execute(statement, parameters)


class Store(Protocol):
    async def run(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `fn` in a write transaction. Raises what `fn` raises (nothing is kept then), and Busy."""
        ...

    async def read(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `fn` on a snapshot. It must not write."""
        ...

    @property
    def commits(self) -> int | None:
        """How many there have been, counted before they are answered; None where other processes commit, too."""
        ...

    def on_commit(self, listener: Callable[[str], None]) -> None:
        """`listener(topic)` is called in the loop after each commit that nudged."""
        ...

    async def close(self) -> None: ...


class DiskStore:
    """SQLite in a file, or PostgreSQL by URL: one writer, a few readers. `is_alone`: no other process writes to it.
    Raises WrongConfiguration; and Busy when the server may answer later."""

    def __init__(self, url: str, clock: Clock, names: Names, *, is_alone: bool = False) -> None:
        self._engine = open_engine(url)
        self.owner: tuple[str, int] | None = None  # (name, epoch) of the control that shares this process
        self._clock = clock
        self._names = names
        self._listeners: list[Callable[[str], None]] = []
        self._connector = Connector(self._engine, clock)
        self._readers = ThreadPoolExecutor(READERS, "store-read")
        self._local = threading.local()
        self._read_connections: set[Connection] = set()
        self._reads = 0
        marks = None
        self._is_alone = is_alone
        try:
            with self._engine.connect().execution_options(writes=True) as connection:
                if is_postgresql(url):
                    from droveway.store.engine import postgresql

                    postgresql.check_server(connection)
                    marks = postgresql.CommitMarks(names.uuid())
                with connection.begin():  # fails where nothing may be written
                    connection.exec_driver_sql("DELETE FROM leases WHERE name IS NULL")
                    if marks is not None:
                        marks.forget_old(connection)
        except DBAPIError as error:
            self._engine.dispose()
            raise opening_fault(url, error, " for writing") from None
        self._writer = Writer(self._connector, clock, self._begin_write, self._answer, marks)

    @property
    def engine(self) -> Engine:
        return self._engine

    @property
    def commits(self) -> int | None:
        return self._writer.commits if self._is_alone else None

    def on_commit(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    async def run(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        write = Write(lambda tx: fn(tx, *args, **kwargs), asyncio.get_running_loop())
        self._writer.put(write)
        return await write.done  # type: ignore[no-any-return]

    async def read(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._reads >= READS_MAX:
            raise Busy(f"{READS_MAX} reads are waiting for the database; try again in a second")
        self._reads += 1
        try:
            work = asyncio.get_running_loop().run_in_executor(
                self._readers, lambda: self._read(lambda tx: fn(tx, *args, **kwargs))
            )
            return await work
        finally:
            self._reads -= 1

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.end)
        self._readers.shutdown()
        for connection in self._read_connections:
            connection.close()
        self._engine.dispose()

    def _begin_write(self, connection: Connection) -> Tx:
        return Tx(connection, self._clock.now_us(), self._names, self.owner)

    def _read(self, fn: Callable[[Tx], R]) -> R:
        """In a reader's thread. A connection that was lost while it was not used is noticed here: it is read again."""
        for is_last in (False, True):
            connection = self._reader()
            try:
                with connection.begin():
                    return fn(Tx(connection, self._clock.now_us(), self._names))
            except (DBAPIError, InvalidRequestError) as error:
                is_lost = trouble(error) is FailureKind.LOST
                if is_lost:
                    self._read_connections.discard(connection)
                    self._local.connection = None
                    drop(connection)
                if is_last or not is_lost:
                    raise as_fault(error) from error
        raise AssertionError("the last read returns or raises")

    def _reader(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connector.connect()
            self._read_connections.add(connection)
        return connection

    def _answer(self, results: list[Result], nudges: list[str]) -> None:
        for write, value, error in results:
            if write.done.done():
                continue  # the caller has gone away; what was written stays written
            if error is None:
                write.done.set_result(value)
            else:
                write.done.set_exception(error)
        for topic in nudges:
            self.call_out(topic)

    def call_out(self, topic: str) -> None:
        """To the listeners here: a commit, or another process's notice of one."""
        for listener in self._listeners:
            listener(topic)


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
        self.commits: int | None = 0

    @property
    def engine(self) -> Engine:
        return self._engine

    def on_commit(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)

    async def run(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await self._run(fn, *args, **kwargs)
        finally:
            self.commits = (self.commits or 0) + 1

    async def _run(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._delay is not None:
            await self._delay()
        tx = Tx(self._connection, self._clock.now_us(), self._names)
        try:
            with self._connection.begin():
                value = fn(tx, *args, **kwargs)
        except DBAPIError as error:
            raise as_fault(error) from error
        for topic in tx.nudges:
            for listener in self._listeners:
                listener(topic)
        if self._delay is not None:
            await self._delay()
        return value

    async def read(self, fn: Callable[Concatenate[Tx, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._run(fn, *args, **kwargs)

    async def close(self) -> None:
        self._connection.close()
        self._engine.dispose()


async def open_store(
    url: str, clock: Clock, names: Names, say: Callable[[str], None], *, is_alone: bool = False
) -> DiskStore:
    """The store at that URL, brought up to date. A server that does not answer yet is waited for, and `say` is told why
    each time the reason changes. Raises WrongConfiguration."""
    from droveway.store.upgrade import bring_up_to_date

    pause_s, last = OPEN_PAUSE_MIN_S, ""
    while True:
        try:
            await asyncio.to_thread(bring_up_to_date, url)
            return await asyncio.to_thread(DiskStore, url, clock, names, is_alone=is_alone)
        except Busy as busy:
            if busy.reason != last:
                say(f"{busy.reason}; it is tried again until it does")
            last = busy.reason
        await clock.sleep(pause_s)
        pause_s = min(pause_s * 2, OPEN_PAUSE_MAX_S)
