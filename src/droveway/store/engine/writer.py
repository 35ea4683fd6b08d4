"""The one writer: a bounded queue and a thread. What waits together commits together, and one failure spoils nothing
else: when one fails by itself, all are run again, each in a savepoint of its own. (A savepoint for each from the start
is a tenth of all work, and hardly ever needed.) Every write is answered: kept, failed by itself, or (the database
failed) not kept.

On PostgreSQL a transaction may meet others or lose its server. What was surely not kept is run again, a few times;
whether a commit whose answer was lost was kept is found out first.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InvalidRequestError

from droveway.domain.faults import Busy
from droveway.ports.clock import Clock
from droveway.store.engine.databases import Connector, FailureKind, as_fault, drop, trouble

if TYPE_CHECKING:
    from droveway.store.engine.postgresql import CommitMarks
    from droveway.store.engine.transaction import Tx

QUEUE_MAX = 1024
BATCH_MAX = 64
TRIES = 4
CAREFUL_BATCHES = 16  # after one that had to be run again: who fails, often fails again soon
# How long it may take to find out about a commit whose answer was lost: a server that restarts, or hangs for some time.
ASK_S, ASK_PAUSE_S = 60.0, 0.1


class Write:
    __slots__ = ("call", "done", "loop")

    def __init__(self, call: Callable[[Tx], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.loop = loop
        self.done: asyncio.Future[Any] = loop.create_future()


Result = tuple[Write, Any, BaseException | None]


class Writer:
    """Runs the writes that are put in; `answer(results, nudges)` is called in their loop."""

    def __init__(
        self,
        connector: Connector,
        clock: Clock,
        begin: Callable[[Connection], Tx],
        answer: Callable[[list[Result], list[str]], None],
        marks: CommitMarks | None,
    ) -> None:
        self._connector, self._clock, self._begin, self._answer, self._marks = connector, clock, begin, answer, marks
        self._connection: Connection | None = None
        self.commits = 0  # as many as may have been kept; each counts before it is answered
        self._careful = 0  # batches to come in which each write has its savepoint from the start
        self._queue: queue.Queue[Write | None] = queue.Queue(QUEUE_MAX)
        self._thread = threading.Thread(target=self._work, name="store-write", daemon=True)
        self._thread.start()

    def put(self, write: Write) -> None:
        try:
            self._queue.put_nowait(write)
        except queue.Full:
            raise Busy(f"{QUEUE_MAX} writes are waiting for the database; try again in a second") from None

    def end(self) -> None:
        """Once what waits has been answered."""
        self._queue.put(None)
        self._thread.join()

    # -- the thread -------------------------------------------------------------------------------------------------
    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < BATCH_MAX and batch[-1] is not None:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            writes = [w for w in batch if w is not None]
            if writes:
                self._careful = max(0, self._careful - 1)
                results, nudges = self._outcome(writes, apart=self._careful > 0)
                self.commits += 1
                loop = writes[0].loop
                if not loop.is_closed():
                    loop.call_soon_threadsafe(self._answer, results, nudges)
            if batch[-1] is None:
                drop(self._connection)
                return

    def _outcome(self, writes: list[Write], *, apart: bool = False) -> tuple[list[Result], list[str]]:
        """Run them in one transaction, again where that may help; what came of it. `apart`: each in a savepoint."""
        apart = apart and len(writes) > 1
        for attempt in range(1, TRIES + 1):
            results: list[Result] = []
            nudges: list[str] = []
            is_ending = False
            try:
                self._connection = self._connection or self._connector.connect(writes=True)
                with self._connection.begin():
                    for write in writes:
                        results.append(self._one(self._connection, write, nudges, apart=apart))
                    if self._marks is not None:
                        self._marks.set(self._connection)
                    is_ending = True
                return results, nudges
            except _Failed as failed:
                if len(writes) == 1:
                    return [(writes[0], None, failed.error)], []
                self._careful = CAREFUL_BATCHES
                return self._outcome(writes, apart=True)
            except Exception as error:  # noqa: BLE001 - no write is kept, and each caller gets it
                what, fault = trouble(error), as_fault(error)
                if what is not FailureKind.AGAIN:
                    drop(self._connection)
                    self._connection = None
                if is_ending and what is FailureKind.LOST and self._marks is not None:
                    was_kept = self._ask(self._marks)
                    if was_kept:
                        return results, nudges
                    if was_kept is None:
                        return [(w, None, Busy(_UNKNOWN)) for w in writes], []
                if what is FailureKind.HELD and self._marks is not None:
                    self._end_who_sleeps()
                if what in _BY_THEMSELVES and len(writes) > 1:
                    return self._by_themselves(writes)
                if what in {FailureKind.OWN, FailureKind.ALONE} or attempt == TRIES:
                    return [(w, None, fault) for w in writes], []
        raise AssertionError("the last try returns")

    def _by_themselves(self, writes: list[Write]) -> tuple[list[Result], list[str]]:
        outcomes = [self._outcome([write]) for write in writes]
        return [r for results, _ in outcomes for r in results], [n for _, nudges in outcomes for n in nudges]

    def _one(self, connection: Connection, write: Write, nudges: list[str], *, apart: bool) -> Result:
        tx = self._begin(connection)
        savepoint = connection.begin_nested() if apart else None
        try:
            value = write.call(tx)
        except BaseException as error:
            fault = as_fault(error)
            if trouble(error) is not FailureKind.OWN:
                raise
            if savepoint is None:
                raise _Failed(fault) from None
            if fault is not error:
                raise  # the database failed, not this write: nothing of the batch can be relied on
            savepoint.rollback()
            return write, None, fault
        if savepoint is not None:
            savepoint.commit()
        nudges.extend(tx.nudges)
        return write, value, None

    def _ask(self, marks: CommitMarks) -> bool | None:
        """Whether the last commit was kept; None when that could not be found out in time."""
        until_s = self._clock.monotonic_s() + ASK_S
        while self._clock.monotonic_s() < until_s:
            try:
                self._connection = self._connection or self._connector.connect(writes=True)
                return marks.was_kept(self._connection)
            except (DBAPIError, InvalidRequestError, Busy):
                drop(self._connection)
                self._connection = None
                time.sleep(ASK_PAUSE_S)  # its own thread
        return None

    def _end_who_sleeps(self) -> None:
        from droveway.store.engine.postgresql import end_who_sleeps

        try:
            self._connection = self._connector.connect(writes=True)
            end_who_sleeps(self._connection)
        except (DBAPIError, InvalidRequestError, Busy):
            drop(self._connection)
            self._connection = None


_BY_THEMSELVES = {FailureKind.AGAIN, FailureKind.ALONE}
_UNKNOWN = (
    "the database was lost while it kept this, and has not come back to say whether it did; look before you ask again"
)


class _Failed(Exception):
    """A write that has no savepoint failed by itself."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error
