"""Out of a result into rows of a type (store/rows.py): the only place where that is claimed, and therefore checked.

What a statement selects is compared with the type the first time that it is run; a difference is an assertion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar, cast

from sqlalchemy import CursorResult, Row

from droveway.store.engine.prepared import Rows

_R = TypeVar("_R")
PART_ROWS = 256
_compared: set[tuple[type[Any], tuple[str, ...]]] = set()  # as many as there are statements


def first(row_type: type[_R], found: CursorResult[*tuple[Any, ...]] | Rows) -> _R | None:
    """The first row, of which the result is closed; None when there is none."""
    names = _names(row_type, found)
    row = found.first()
    return None if row is None else cast(_R, dict(zip(names, row, strict=True)))


def every(row_type: type[_R], found: CursorResult[*tuple[Any, ...]] | Rows) -> list[_R]:
    names = _names(row_type, found)
    if isinstance(found, Rows):
        return cast("list[_R]", found.dicts())
    return cast("list[_R]", [dict(zip(names, row, strict=True)) for row in in_parts(found)])


class Unread(NamedTuple, Generic[_R]):
    """Rows as the driver gave them, of which nothing is decoded yet; `read` makes one of them a row."""

    names: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    read: Callable[[tuple[Any, ...]], _R]


def unread(row_type: type[_R], found: Rows) -> Unread[_R]:
    """For who may know a row already, and need not read it."""
    names = _names(row_type, found)
    rows, read = found.unread()
    return Unread(names, rows, cast("Callable[[tuple[Any, ...]], _R]", read))


def parts(row_type: type[_R], found: CursorResult[*tuple[Any, ...]]) -> Iterator[list[_R]]:
    """Some at a time, where there may be many."""
    names = _names(row_type, found)
    while rows := found.fetchmany(PART_ROWS):
        yield cast("list[_R]", [dict(zip(names, row, strict=True)) for row in rows])


def in_parts(found: CursorResult[*tuple[Any, ...]]) -> Iterator[Row[Any]]:
    """All rows, asked for in parts: one by one, asking costs as much again as making a row; all at once, they would
    hold the interpreter for as long as all of them take."""
    while rows := found.fetchmany(PART_ROWS):
        yield from rows


def one_by_one(row_type: type[_R], found: CursorResult[*tuple[Any, ...]] | Rows) -> Iterator[_R]:
    """Where there may be many, and each is done with before the next."""
    names = _names(row_type, found)
    for row in found:
        yield cast(_R, dict(zip(names, row, strict=True)))


def _names(row_type: type[Any], found: CursorResult[*tuple[Any, ...]] | Rows) -> tuple[str, ...]:
    names = found.keys() if type(found) is Rows else tuple(found.keys())
    if (row_type, names) not in _compared:
        wanted = row_type.__required_keys__
        assert wanted == set(names), f"{row_type.__name__} is not what was selected: {sorted(wanted ^ set(names))}"
        _compared.add((row_type, names))
    return names
