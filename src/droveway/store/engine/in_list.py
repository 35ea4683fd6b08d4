"""`column IN (these names)` with one parameter, however many names: the text of the statement stays the same, so it is
rendered once, and planned once by PostgreSQL; and no database's limit of parameters is met."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Boolean, ColumnElement, Dialect, Text, bindparam, literal_column
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine


class _Names(TypeDecorator[Iterable[str]]):
    """An array for PostgreSQL, JSON for SQLite."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(ARRAY(Text()) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Iterable[str] | None, dialect: Dialect) -> Any:
        names = list(value or ())
        return names if dialect.name == "postgresql" else msgspec.json.encode(names).decode()


class _Among(FunctionElement[bool]):
    name = "among"
    type = Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Any:
        """As it is: SQLite, which has no booleans, would be asked whether it `= 1`, and use no index."""
        return self


def among(column: ColumnElement[str], names: str | Iterable[str]) -> ColumnElement[bool]:
    """`names`: the names, or what the parameter is called that will hold them."""
    if isinstance(names, str):
        return _Among(column, bindparam(names, type_=_Names()))
    return _Among(column, bindparam(None, names, type_=_Names()))


def one_of(column: ColumnElement[str], constants: Iterable[str]) -> ColumnElement[bool]:
    """The same of words that stand in the program."""
    return column.in_([literal_column(f"'{word}'") for word in constants])


@compiles(_Among)
def _in_json(element: _Among, compiler: SQLCompiler, **how: Any) -> str:
    column, names = (compiler.process(clause, **how) for clause in element.clauses)
    return f"({column} IN (SELECT value FROM json_each({names})))"


@compiles(_Among, "postgresql")
def _in_array(element: _Among, compiler: SQLCompiler, **how: Any) -> str:
    column, names = (compiler.process(clause, **how) for clause in element.clauses)
    return f"({column} = ANY({names}))"
