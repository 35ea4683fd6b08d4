"""SQLite as a store: an engine that begins transactions itself, IMMEDIATE for writers, so a lock is waited for at the
start."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, StaticPool, create_engine, event, make_url
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

LOCK_S = 5.0
STATEMENTS_KEPT = 1024  # prepared: the program has some 400, and to prepare a long one costs as much as to run it


def open_engine(url: str, *, in_memory: bool = False) -> Engine:
    engine = create_engine(
        make_url(url).set(drivername="sqlite+droveway"),
        poolclass=StaticPool if in_memory else NullPool,
        connect_args={
            "check_same_thread": False,
            "timeout": LOCK_S,
            "factory": _Connection,
            "cached_statements": STATEMENTS_KEPT,
        },
    )
    event.listen(engine, "connect", _configure)
    return engine


class _Connection(sqlite3.Connection):
    begin = "BEGIN"


class Dialect(SQLiteDialect_pysqlite):
    """SQLAlchemy's own, but for how a transaction begins. (A listener for `begin` would do the same, and make every
    statement pay for looking for listeners.)"""

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: Any) -> None:
        dbapi_connection.execute(dbapi_connection.begin)

    def set_connection_execution_options(self, connection: Connection, opts: Mapping[str, Any]) -> None:
        if opts.get("writes") or opts.get("upgrades"):
            below = connection.connection.driver_connection
            assert isinstance(below, _Connection)
            below.begin = "BEGIN IMMEDIATE"
        super().set_connection_execution_options(connection, opts)


registry.register("sqlite.droveway", __name__, Dialect.__name__)


def _configure(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
