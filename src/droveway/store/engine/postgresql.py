"""PostgreSQL as a store, with the semantics of SQLite's one writer (decision 013).

A write transaction begins by locking `alembic_version`, a table that nothing else touches, and takes its snapshot once
it holds the lock. So the writers of all controls stand in one queue, and each sees all that those before it have kept:
what is true of one writer is true of many. Readers do not wait. Nothing waits for ever: the server ends statements,
waits for locks and transactions whose client sleeps; a server that says nothing is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import errors
from sqlalchemy import Column, Connection, Engine, NullPool, create_engine, make_url, text
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGTypeCompiler
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from droveway.domain.faults import WrongConfiguration

# Each is longer than the one before, so that a waiter outlasts what it waits for.
IDLE_IN_TRANSACTION_S, LOCK_S, STATEMENT_S, ANSWER_S = 4, 6, 8, 12
UPGRADE_S = 300
CONNECT_S = 5
KEPT_DAYS = 1  # how long the mark of a writer that has ended is kept
OLDEST_SERVER = 13
_UPGRADE_LOCK = 0x64726F7665  # "drove"; a lock of its own, because the first upgrade finds no table to lock
_READS = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITES = "BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE alembic_version IN EXCLUSIVE MODE"
_UPGRADES = f"BEGIN; SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})"
_SETTINGS = {
    "synchronous_commit": "on",
    "statement_timeout": f"{STATEMENT_S}s",
    "lock_timeout": f"{LOCK_S}s",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_S}s",
}


def open_engine(url: str) -> Engine:
    return create_engine(
        make_url(url).set(drivername="postgresql+droveway"),
        poolclass=NullPool,
        connect_args={
            "autocommit": True,  # transactions are begun and ended below
            "application_name": "droveway",
            "client_encoding": "utf-8",
            "connect_timeout": CONNECT_S,
            "keepalives": 1,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": ANSWER_S * 1000,
            "options": " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items()),
        },
    )


class _Connection(psycopg.Connection[Any]):
    """Knows how its transactions begin and end, and waits no longer than `answer_s` for an answer."""

    begin = _READS
    mark = ""  # what is written in the same breath as the commit
    answer_s = float(ANSWER_S)

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, timeout or self.answer_s)
        except errors._WaitTimeout:
            self.close()
            raise psycopg.OperationalError(f"the server has not answered for {self.answer_s:.0f} s") from None


class _Types(PGTypeCompiler):
    """Text is compared byte by byte, as in SQLite: one order for every page of a listing, whatever the server's
    language, and letters beyond a to z are themselves."""

    def visit_VARCHAR(self, type_: Any, **how: Any) -> str:  # noqa: N802 - SQLAlchemy's name
        return str(super().visit_VARCHAR(type_, **how)) + _collation(how)

    def visit_TEXT(self, type_: Any, **how: Any) -> str:  # noqa: N802 - SQLAlchemy's name
        return str(super().visit_TEXT(type_, **how)) + _collation(how)


def _collation(how: Mapping[str, Any]) -> str:
    return ' COLLATE "C"' if isinstance(how.get("type_expression"), Column) else ""


class Dialect(PGDialect_psycopg):
    """SQLAlchemy's own, but for how transactions begin and end, and for the order of text."""

    supports_statement_cache = True
    type_compiler_cls = _Types

    def connect(self, *arguments: Any, **settings: Any) -> Any:
        return _Connection.connect(*arguments, **settings)

    def do_begin(self, dbapi_connection: Any) -> None:
        dbapi_connection.execute(dbapi_connection.begin, prepare=False)

    def do_commit(self, dbapi_connection: Any) -> None:
        dbapi_connection.execute(f"{dbapi_connection.mark}COMMIT", prepare=False)

    def set_connection_execution_options(self, connection: Connection, opts: Mapping[str, Any]) -> None:
        below = _below(connection)
        if opts.get("writes"):
            below.begin = _WRITES
        if opts.get("upgrades"):
            below.begin, below.answer_s = _UPGRADES, float(UPGRADE_S)
            below.execute(f"SET statement_timeout = '{UPGRADE_S}s'; SET lock_timeout = '{UPGRADE_S}s'")
        super().set_connection_execution_options(connection, opts)


registry.register("postgresql.droveway", __name__, Dialect.__name__)


def _below(connection: Connection) -> _Connection:
    below = connection.connection.driver_connection
    assert isinstance(below, _Connection)
    return below


def check_server(connection: Connection) -> None:
    """Raises WrongConfiguration for a server that this program cannot work with."""
    below = _below(connection)
    if below.info.server_version < OLDEST_SERVER * 10_000:
        raise WrongConfiguration(
            f"the PostgreSQL server is of version {below.info.server_version // 10_000}; "
            f"version {OLDEST_SERVER} or a later one is needed"
        )
    encoding = below.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise WrongConfiguration(
            f"the database is encoded in {encoding}; create it with ENCODING 'UTF8' TEMPLATE template0"
        )


class CommitMarks:
    """Tells whether a commit whose answer was lost was kept: its number is written in the commit itself, into a row of
    this writer. (The server's transaction ids would not do: one whose commit did not reach the disk before a crash is
    given to another transaction after it.)"""

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._number = 0

    def forget_old(self, connection: Connection) -> None:
        """Rows of writers that have not written for long."""
        connection.exec_driver_sql(
            "DELETE FROM writers WHERE at_us < "
            f"extract(epoch FROM clock_timestamp() - interval '{KEPT_DAYS} days') * 1000000"
        )

    def set(self, connection: Connection) -> None:
        """A transaction that wrote nothing leaves no mark: it may well be run again."""
        self._number += 1
        _below(connection).mark = (
            "INSERT INTO writers (name, number, at_us) "
            f"SELECT '{self._writer}', {self._number}, extract(epoch FROM clock_timestamp()) * 1000000 "
            "WHERE pg_current_xact_id_if_assigned() IS NOT NULL "
            "ON CONFLICT (name) DO UPDATE SET number = excluded.number, at_us = excluded.at_us; "
        )

    def was_kept(self, connection: Connection) -> bool:
        """Of the last one. `connection` is another one than that which was lost: its transaction begins when that of
        the lost one, which held the lock, has ended in one way or the other."""
        _below(connection).mark = ""
        with connection.begin():
            found = connection.execute(text("SELECT number FROM writers WHERE name = :name"), {"name": self._writer})
            return found.scalar() == self._number


def end_who_sleeps(connection: Connection) -> None:
    """A writer that holds the lock and waits for its client, which is stopped or gone, is ended by the server after
    IDLE_IN_TRANSACTION_S; one that cannot send its client an answer, only by this."""
    _below(connection).execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE relation = 'alembic_version'::regclass AND mode = 'ExclusiveLock' AND granted "
        "AND wait_event_type = 'Client' AND pid <> pg_backend_pid()"
    )
