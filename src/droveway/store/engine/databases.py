"""What SQLite and PostgreSQL have in common for the store, and what their errors mean."""

from __future__ import annotations

from enum import Enum
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    PendingRollbackError,
    ProgrammingError,
    ResourceClosedError,
)

from droveway.domain.faults import Busy, WrongConfiguration
from droveway.ports.clock import Clock
from droveway.store.engine import sqlite

log = structlog.get_logger("droveway.store")
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 2.0
SHOWN_MAX = 300


def is_postgresql(url: str) -> bool:
    return url.startswith("postgresql")


def open_engine(url: str, *, in_memory: bool = False) -> Engine:
    """An engine whose transactions read a snapshot; with the execution option `writes` they wait for their turn and
    write, with `upgrades` they change the schema."""
    if not is_postgresql(url):
        return sqlite.open_engine(url, in_memory=in_memory)
    try:
        from droveway.store.engine import postgresql
    except ImportError:
        raise WrongConfiguration(
            "database: PostgreSQL needs psycopg, which is not installed; pip install 'droveway[postgresql]'"
        ) from None
    return postgresql.open_engine(url)


def shown(url: str) -> str:
    """The database as it may be told: without a password, and without options, which may hold one."""
    return make_url(url).set(query={}).render_as_string(hide_password=True)


class FailureKind(Enum):
    """What an error of the database means for the transaction that met it. None of it is kept in any case; but of a
    commit that met LOST is unknown."""

    OWN = "it is wrong, or the database cannot do it now"
    AGAIN = "another transaction was first: run it again"
    ALONE = "it took too long: whatever else was in its batch is run again"
    HELD = "the turn to write did not come"
    LOST = "the connection is gone"


_TROUBLES = {
    "40001": FailureKind.AGAIN,  # serialization failure
    "40P01": FailureKind.AGAIN,  # deadlock
    "57014": FailureKind.ALONE,  # statement_timeout
    "55P03": FailureKind.HELD,  # lock_timeout
    "25P03": FailureKind.LOST,  # idle_in_transaction_session_timeout
    "57P01": FailureKind.LOST,  # the server shuts down, or an administrator ended the connection
    "57P02": FailureKind.LOST,  # the server has crashed
    "57P03": FailureKind.LOST,  # the server starts
}


def trouble(error: BaseException) -> FailureKind:
    if isinstance(error, DBAPIError):
        known = _TROUBLES.get(getattr(error.orig, "sqlstate", None) or "")
        return known or (FailureKind.LOST if error.connection_invalidated else FailureKind.OWN)
    return FailureKind.LOST if isinstance(error, PendingRollbackError | ResourceClosedError) else FailureKind.OWN


def as_fault(error: BaseException) -> BaseException:
    """What the database itself could not do (locked, full, unreadable) says nothing of the request: try again. A row
    that breaks a constraint and a statement that makes no sense are the program's, and stay what they are."""
    if isinstance(error, DBAPIError) and not isinstance(error, IntegrityError | ProgrammingError | DataError):
        return Busy(f"the database did not take it ({message_of(error)}); try again in a second")
    if isinstance(error, InvalidRequestError | ResourceClosedError):
        return Busy("the database connection was lost; try again in a second")
    return error


def message_of(error: DBAPIError) -> str:
    """The database's own words, in one line."""
    lines = str(error.orig).strip().splitlines() or ["no reason given"]
    line = next((line for line in lines if "FATAL:" in line), lines[0])
    return line.strip()[:SHOWN_MAX]


# What PostgreSQL says when it refuses a connection, and the way out. Anything else may pass: it starts, it is full, it
# is not there yet.
_REFUSALS = {
    "password authentication failed": "correct user and password (percent-encoded where they hold : / @ or %)",
    "no password supplied": "put the password in: postgresql://USER:PASSWORD@HOST:PORT/NAME",
    "role ": "create the user, or name another one",
    "database ": "create it: createdb -O USER NAME",
    "pg_hba.conf": "let this host in by pg_hba.conf",
    "permission denied for database": "grant the user CONNECT",
    "permission denied": "make the user the owner of the database",
    "does not support SSL": "choose another sslmode, or switch TLS on in the server",
    "certificate": "correct sslrootcert, sslcert and sslkey",
    "invalid connection option": "take it out",
}


def opening_fault(url: str, error: DBAPIError, how: str = "") -> WrongConfiguration | Busy:
    """Why a database cannot be opened: WrongConfiguration when waiting cannot help."""
    words = message_of(error)
    if not is_postgresql(url):
        return WrongConfiguration(f"the database {shown(url)} cannot be opened{how}: {words}")
    for sign, way_out in _REFUSALS.items():
        is_sign = "does not exist" in words and sign in words if sign in ("role ", "database ") else sign in words
        if is_sign:
            return WrongConfiguration(f"the database {shown(url)} cannot be opened: {words}; {way_out}")
    return Busy(f"the database {shown(url)} cannot be used yet: {words}")


class Connector:
    """Opens connections. While the database is not reached it is tried ever more rarely, and a request in between is
    told so at once."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine, self._clock = engine, clock
        self._pause_s = 0.0
        self._again_at_s = 0.0
        self._reason = ""

    def connect(self, **options: Any) -> Connection:
        """Raises Busy."""
        if self._pause_s and self._clock.monotonic_s() < self._again_at_s:
            raise Busy(self._reason)
        try:
            connection = self._engine.connect()
        except DBAPIError as error:
            # Where it is and as whom it is asked is not for tenants, who read the sentence in a 503.
            if not self._pause_s:
                log.warning("the database does not answer", because=message_of(error))
            self._reason = "the database does not answer; try again in a second"
            self._pause_s = min(PAUSE_MAX_S, max(PAUSE_MIN_S, self._pause_s * 2))
            self._again_at_s = self._clock.monotonic_s() + self._pause_s
            raise Busy(self._reason) from None
        self._pause_s = 0.0
        return connection.execution_options(**options)


def drop(connection: Connection | None) -> None:
    """A connection of unknown state."""
    if connection is None:
        return
    try:
        connection.invalidate()
        connection.close()
    except (DBAPIError, InvalidRequestError):
        pass
