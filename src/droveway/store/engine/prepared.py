"""Statements that stand in the program and are run again and again: compiled once, and run at the driver.

SQLAlchemy looks up, checks and wraps each run of a statement anew, which costs several times what SQLite takes to run
it. What it knows of a statement is asked for once here: its text, its parameters with what converts them, and its
columns with what converts those. A statement that is built for one use goes to SQLAlchemy as it is.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from sqlalchemy import Column, Connection, Delete, Dialect, Insert, Select, Update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.schema import ScalarElementColumnDefault
from sqlalchemy.sql.selectable import CompoundSelect

Statement = Select[Any] | CompoundSelect[Any] | Insert | Update | Delete
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]
_Convert = Callable[[Any], Any]


class Prepared:
    """A statement whose values are all parameters, or the same for ever."""

    __slots__ = ("_compiled", "_has_columns", "statement")

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        self._has_columns = isinstance(statement, Insert | Update)  # which ones, the parameters say
        self._compiled: dict[tuple[Any, ...], _Compiled] = {}

    def run(self, connection: Connection, parameters: Parameters | None) -> Rows:
        """Raises DBAPIError, as SQLAlchemy does."""
        dialect = connection.dialect
        # most give none, or a dict: asking an abstract class costs more than all the rest
        is_many = parameters is not None and type(parameters) is not dict and not isinstance(parameters, Mapping)
        names: tuple[str, ...] = ()
        if self._has_columns and parameters:
            names = tuple(parameters[0] if is_many else parameters)  # type: ignore[index, arg-type]
        key = (dialect.name, is_many, names)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = _Compiled(self.statement, dialect, names, is_many=is_many)
        return compiled.run(connection, parameters)


class Rows:
    """What a prepared statement found: rows as tuples with named fields."""

    __slots__ = ("_compiled", "_connection", "_cursor")

    def __init__(self, compiled: _Compiled, connection: Connection, cursor: Any) -> None:
        self._compiled, self._connection, self._cursor = compiled, connection, cursor

    @property
    def rowcount(self) -> int:
        return int(self._cursor.rowcount)

    def keys(self) -> tuple[str, ...]:
        return self._compiled.names

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from map(self._compiled.row, self._cursor)
        except self._compiled.errors as error:
            self._compiled.fail(self._connection, self._cursor, error)

    def tuples(self) -> Iterator[tuple[Any, ...]]:
        """As the driver gives them: of columns that need no conversion, without names."""
        assert self._compiled.values is None, "a column needs a conversion"
        try:
            yield from self._cursor
        except self._compiled.errors as error:
            self._compiled.fail(self._connection, self._cursor, error)

    def fetchall(self) -> list[Any]:
        return list(self)

    def dicts(self) -> list[dict[str, Any]]:
        """All of them, by the names of their columns."""
        names, values = self._compiled.names, self._compiled.values
        try:
            found = self._cursor if values is None else map(values, self._cursor)
            return [dict(zip(names, row, strict=True)) for row in found]
        except self._compiled.errors as error:
            self._compiled.fail(self._connection, self._cursor, error)

    def unread(self) -> tuple[list[tuple[Any, ...]], Callable[[Sequence[Any]], dict[str, Any]]]:
        """All of them as the driver gives them, and what makes one of these what `dicts` has."""
        names, values = self._compiled.names, self._compiled.values
        try:
            found = self._cursor.fetchall()
        except self._compiled.errors as error:
            self._compiled.fail(self._connection, self._cursor, error)
        return found, lambda row: dict(zip(names, row if values is None else values(row), strict=True))

    def first(self) -> Any:
        """The first row, or None; the others are not looked at."""
        cursor = self._cursor
        try:
            found = cursor.fetchone()
        except self._compiled.errors as error:
            self._compiled.fail(self._connection, cursor, error)
        cursor.close()
        return None if found is None else self._compiled.row(found)

    def one(self) -> Any:
        (row,) = self
        return row

    def scalar(self) -> Any:
        row = self.first()
        return None if row is None else row[0]

    def scalar_one(self) -> Any:
        return self.one()[0]

    def scalars(self) -> Iterator[Any]:
        return (row[0] for row in self)


class _Compiled:
    """A statement in the words of one kind of database."""

    def __init__(self, statement: Statement, dialect: Dialect, columns: Sequence[str], *, is_many: bool) -> None:
        if isinstance(statement, Insert) and not list(statement.exported_columns):
            statement = statement.inline()  # nobody asks for the key that the database gave it
        compiled = statement.compile(dialect=dialect, column_keys=list(columns) or None, for_executemany=is_many)
        assert isinstance(compiled, SQLCompiler)
        assert not compiled.post_compile_params, "its text depends on its parameters: it cannot be prepared"
        assert not compiled.update_prefetch, "SQLAlchemy would fill in a value"
        self.dialect = dialect
        self.sql = compiled.string
        for bind in compiled.literal_execute_params:  # constants that a function wants to see in the text
            place = f"__[POSTCOMPILE_{compiled.bind_names[bind]}]"
            text: str = compiled.render_literal_bindparam(bind)  # type: ignore[no-untyped-call]
            self.sql = self.sql.replace(place, text)
        self._is_many = is_many
        self._by_position = compiled.positiontup is not None
        self._bind(compiled)
        self._statement = statement
        self.names: tuple[str, ...] = ()
        self.row: Callable[[Any], Any] = tuple
        self.values: Callable[[Any], Sequence[Any]] | None = None  # with what converts them, if anything does
        assert dialect.dbapi is not None
        self.errors: type[Exception] = dialect.dbapi.Error

    def _bind(self, compiled: SQLCompiler) -> None:
        names = compiled.positiontup if self._by_position else compiled.binds
        places = [name for name in names or () if compiled.binds[name] not in compiled.literal_execute_params]
        binds = [compiled.binds[name] for name in places]
        self._keys = [bind.key for bind in binds]
        self._places = [compiled.escaped_bind_names.get(name, name) for name in places]
        self._constants = {bind.key: bind.effective_value for bind in binds if not bind.required}
        self._constants |= {column.key: _default_of(column) for column in compiled.insert_prefetch}
        processors = [bind.type.dialect_impl(self.dialect).bind_processor(self.dialect) for bind in binds]
        self._conversions = _those(processors)

    def _describe(self, description: Sequence[Sequence[Any]]) -> None:
        """At the first run: what the driver says of each column, its name and its type, is needed to convert it."""
        columns = list(self._statement.exported_columns)
        assert len(columns) == len(description), f"{len(columns)} columns are selected, and {len(description)} found"
        processors = [
            column.type.dialect_impl(self.dialect).result_processor(self.dialect, found[1])
            for column, found in zip(columns, description, strict=True)
        ]
        conversions = _those(processors)
        names = tuple(str(found[0]) for found in description)
        make: Callable[[Any], Any] = partial(tuple.__new__, _row_type(names))  # `_make` would count the columns anew

        def values(found: Sequence[Any]) -> Sequence[Any]:
            row = list(found)
            for place, convert in conversions:
                row[place] = convert(row[place])
            return row

        def converted(found: Sequence[Any]) -> Any:
            return make(values(found))

        self.row = converted if conversions else make
        self.values = values if conversions else None
        self.names = names

    def run(self, connection: Connection, parameters: Parameters | None) -> Rows:
        below = connection.connection.driver_connection
        assert below is not None
        cursor = below.cursor()
        try:
            if self._is_many:
                cursor.executemany(self.sql, [self._values(one) for one in parameters or ()])  # type: ignore[arg-type]
            else:
                cursor.execute(self.sql, self._values(parameters or {}))  # type: ignore[arg-type]
        except self.errors as error:
            self.fail(connection, cursor, error)
        if not self.names and cursor.description:
            self._describe(cursor.description)
        return Rows(self, connection, cursor)

    def _values(self, given: Mapping[str, Any]) -> Any:
        if self._constants:
            given = {**self._constants, **given}
        values = list(map(given.__getitem__, self._keys))
        for place, convert in self._conversions:
            values[place] = convert(values[place])
        return values if self._by_position else dict(zip(self._places, values, strict=True))

    def fail(self, connection: Connection, cursor: Any, error: Exception) -> NoReturn:
        """As SQLAlchemy does; a connection that is lost is given up."""
        assert self.dialect.dbapi is not None
        below = connection.connection.driver_connection
        is_lost = self.dialect.is_disconnect(error, below, cursor)  # type: ignore[arg-type]
        if is_lost:
            connection.invalidate(error)
        raise DBAPIError.instance(
            self.sql,
            None,
            error,
            self.dialect.dbapi.Error,
            hide_parameters=True,  # they may be secrets
            connection_invalidated=is_lost,
            dialect=self.dialect,
        ) from error


def _default_of(column: Column[Any]) -> Any:
    assert isinstance(column.default, ScalarElementColumnDefault), f"the default of {column.name} is no constant"
    return column.default.arg


def _row_type(names: tuple[str, ...]) -> Any:
    return namedtuple("Row", names, rename=True)


def _those(processors: Sequence[_Convert | None]) -> list[tuple[int, _Convert]]:
    return [(place, convert) for place, convert in enumerate(processors) if convert is not None]
