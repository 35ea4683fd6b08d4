"""How a listing of networks is asked for: filters by column, tags, order and marker; the same for every resource."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Boolean, ColumnElement, Integer, Select, String, Table, and_, cast, false, not_, or_, select

from droveway.domain.faults import NotFound
from droveway.store.engine import order, results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.transaction import Tx

_R = TypeVar("_R")


class Tags(msgspec.Struct, frozen=True):
    """Of a listing: all of these, one of these, not all of these, none of these."""

    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    not_all: tuple[str, ...] = ()
    not_any: tuple[str, ...] = ()


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
        *_tagged(table, asked),
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


def _tagged(table: Table, asked: Asked) -> list[ColumnElement[bool]]:
    """Tags are JSON text: one is in it as it stands there, in quotes."""
    if asked.tags == Tags():
        return []

    def has(tag: str) -> ColumnElement[bool]:
        return cast(table.c.tags, String).contains(msgspec.json.encode(tag).decode(), autoescape=True)

    tags = asked.tags
    found: list[ColumnElement[bool]] = [has(tag) for tag in tags.all]
    if tags.any:
        found.append(or_(false(), *(has(tag) for tag in tags.any)))
    if tags.not_all:
        found.append(not_(and_(*(has(tag) for tag in tags.not_all))))
    if tags.not_any:
        found.append(not_(or_(false(), *(has(tag) for tag in tags.not_any))))
    return found
