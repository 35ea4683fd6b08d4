"""Databases for tests: a file, or a real PostgreSQL of this test run."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection, Engine

from droveway.drivers.clock import SystemNames
from droveway.ports.clock import Clock
from droveway.store.engine.databases import open_engine
from droveway.store.engine.transaction import DiskStore, MemoryStore
from droveway.store.schema import metadata
from droveway.store.upgrade import bring_up_to_date
from lab import postgresql, servers

KINDS = [pytest.param("sqlite", id="sqlite"), pytest.param("postgresql", id="postgresql", marks=pytest.mark.servers)]
InMemory = TypeVar("InMemory", bound=MemoryStore)
_numbers = itertools.count()
_TEMPLATE = "template_droveway"


@functools.cache
def server() -> postgresql.Postgresql:
    """One server for the whole run; it ends with it."""
    obstacle = servers.obstacle("postgresql")
    if obstacle:
        pytest.fail(obstacle)
    running = postgresql.server()
    started = running.__enter__()
    atexit.register(running.__exit__, None, None, None)
    bring_up_to_date(started.create(_TEMPLATE))
    return started


def empty() -> str:
    """A database on the server with nothing in it."""
    return server().create(f"empty{next(_numbers)}")


def fresh(kind: str, directory: Path) -> str:
    """A database of the newest schema with no rows; its URL."""
    if kind == "postgresql":
        return server().create(f"test{next(_numbers)}", _TEMPLATE)
    path = directory / "d.sqlite"
    path.write_bytes(upgraded())
    return f"sqlite:///{path}"


@functools.cache
def upgraded() -> bytes:
    """A file of the newest schema with no rows, as the revisions make it: made once, it is a program of its own."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "d.sqlite"
        bring_up_to_date(f"sqlite:///{path}")
        return path.read_bytes()


def store(clock: Clock) -> MemoryStore | DiskStore:
    """An empty store for one test: in memory, or on a server when DROVEWAY_TEST_DATABASE=postgresql says so."""
    if os.environ.get("DROVEWAY_TEST_DATABASE") == "postgresql":
        return DiskStore(fresh("postgresql", Path()), clock, SystemNames())
    return with_schema(MemoryStore(clock, SystemNames()))


def with_schema(made: InMemory) -> InMemory:
    """A store that was just made gets the newest schema, with no rows; and what SQLAlchemy has compiled for the stores
    before it, which is kept by dialect: a tenth of the time of most tests."""
    schema, first = _schema()
    with made.engine.connect() as connection:
        _sqlite(connection).deserialize(schema)
    made.engine.dialect = made._connection.dialect = first.dialect
    made.engine._compiled_cache = first._compiled_cache
    return made


@functools.cache
def _schema() -> tuple[bytes, Engine]:
    """An empty database, and an engine like those of the stores: made once, because to write it anew costs more than
    most tests."""
    engine = open_engine("sqlite://", in_memory=True)
    with engine.begin() as connection:
        metadata.create_all(connection)
        return _sqlite(connection).serialize(), engine


def _sqlite(connection: Connection) -> sqlite3.Connection:
    found = connection.connection.dbapi_connection
    assert isinstance(found, sqlite3.Connection)
    return found
