"""How a listing of networks is asked for: filters by column, tags, order and marker; the same for every resource."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Boolean, ColumnElement, Integer, Select, Table, false, or_, select

from droveway.domain.faults import NotFound
from droveway.store.engine import order, results, tags
from droveway.store.engine.in_list import in_list
from droveway.store.engine.tags import Tags
from droveway.store.engine.transaction import Tx

_R = TypeVar("_R")


class Asked(msgspec.Struct, frozen=True):
    """`scope`: the project whose rows may be seen; None: all. `exact`: column -> values, one of which it has; None
    among them is a null. `others`: what has no column of its own, by name."""

    scope: str | None
    exact: Mapping[str, Sequence[Any]] = {}
    others: Mapping[str, Sequence[str]] = {}
    tags: Tags = Tags()
    sort: Sequence[tuple[str, bool]] = ()  # (column, descending), each once
    marker: str | None = None
    is_reverse: bool = False  # the page before the marker
    limit: int = 1000


def rows(
    tx: Tx, row_type: type[_R], table: Table, asked: Asked, *conditions: ColumnElement[bool], what: str
) -> list[_R]:
    """The rows in order. Raises NotFound when there is no such marker."""
    found = results.every(row_type, tx.execute(_query(tx, table, asked, conditions, what)))
    return found[::-1] if asked.is_reverse else found


def in_parts(
    tx: Tx, row_type: type[_R], table: Table, asked: Asked, *conditions: ColumnElement[bool], what: str
) -> Iterator[list[_R]]:
    """The same, some at a time: of a long list, which is never in memory as a whole."""
    if asked.is_reverse:  # the last of them come first
        yield rows(tx, row_type, table, asked, *conditions, what=what)
        return
    yield from results.parts(row_type, tx.execute(_query(tx, table, asked, conditions, what)))


def _query(tx: Tx, table: Table, asked: Asked, conditions: Sequence[ColumnElement[bool]], what: str) -> Select[Any]:
    usual = [("created_at_us", False), ("id", False)]
    sort = [*asked.sort, *(key for key in usual if key[0] not in dict(asked.sort))]
    keys = [(table.c[name], down is not asked.is_reverse) for name, down in sort]
    wanted = [
        *conditions,
        *(_exact(table, name, values) for name, values in asked.exact.items()),
        *tags.matching(table.c.tags, asked.tags),
    ]
    if asked.marker is not None:
        last = tx.execute(select(*(column for column, _ in keys)).where(table.c.id == asked.marker)).first()
        if last is None:
            raise NotFound(f"{what} {asked.marker[:64]} could not be found.")
        wanted.append(order.behind(keys, list(last)))
    return select(table).where(*wanted).order_by(*order.clauses(keys)).limit(asked.limit)


def _exact(table: Table, name: str, values: Sequence[Any]) -> ColumnElement[bool]:
    column = table.c[name]
    given = [value for value in values if value is not None]
    ways: list[ColumnElement[bool]] = [column.is_(None)] if len(given) < len(values) else []
    if isinstance(column.type, Boolean):
        ways += [column.is_(bool(value)) for value in dict.fromkeys(given)]
    elif isinstance(column.type, Integer):
        ways += [column == value for value in dict.fromkeys(given)]
    elif len(given) == 1:
        ways.append(column == given[0])
    elif given:
        ways.append(in_list(column, given))
    return or_(false(), *ways)
