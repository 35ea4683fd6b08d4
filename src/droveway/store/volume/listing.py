"""Lists of block storage: which rows of a table, in which order, the page of them, and how many there are in all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import ColumnElement, String, Table, cast, false, func, literal, select

from droveway.domain.faults import NotFound
from droveway.store.engine import order, results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.transaction import Tx

_R = TypeVar("_R")


class RowQuery(msgspec.Struct, frozen=True):
    """Which rows, in which order. `items`: the metadata has all of these."""

    project_id: str | None = None
    equal: tuple[tuple[str, Any], ...] = ()  # (column, value)
    one_of: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (column, values)
    likes: tuple[tuple[str, str], ...] = ()  # (column, a part of it)
    spans: tuple[tuple[str, str, int], ...] = ()  # (column of a time, gt gte lt lte eq neq, microseconds)
    items: tuple[tuple[str, str, str], ...] = ()  # (column of an object, key, value)
    sort: tuple[tuple[str, bool], ...] = (("created_at_us", True),)  # (column, descending), each once
    marker: str | None = None
    offset: int = 0
    limit: int = 1000


def find(tx: Tx, row_type: type[_R], table: Table, wanted: RowQuery, *also: ColumnElement[bool]) -> list[_R]:
    """Raises NotFound when there is no row of the marker."""
    return results.every(row_type, tx.execute(_page(tx, table, select(table).where(*also), wanted)))


def without_project(wanted: RowQuery, equal: tuple[tuple[str, Any], ...]) -> RowQuery:
    """Of a table whose rows are of no project."""
    return msgspec.structs.replace(wanted, project_id=None, equal=equal)


def names(tx: Tx, table: Table, wanted: RowQuery) -> list[tuple[str, str | None]]:
    """Of the page the ids and names alone."""
    query = select(table.c.id, table.c.name)
    rows: Iterator[Any] = results.in_parts(tx.execute(_page(tx, table, query, wanted)))
    return [(row[0], row[1]) for row in rows]


def _page(tx: Tx, table: Table, query: Any, wanted: RowQuery) -> Any:
    by = dict(wanted.sort)
    by.setdefault("id", True)
    keys = [(table.c[name], down) for name, down in by.items()]
    query = query.where(*conditions(table, wanted))
    if wanted.marker is not None:
        seen = select(*(column for column, _ in keys)).where(table.c.id == wanted.marker)
        if wanted.project_id is not None and "project_id" in table.c:
            seen = seen.where(table.c.project_id == wanted.project_id)
        last = tx.execute(seen).first()
        if last is None:
            raise NotFound(f"marker [{wanted.marker[:64]}] not found")
        query = query.where(order.behind(keys, last))
    query = query.order_by(*order.clauses(keys)).limit(wanted.limit)
    return query.offset(wanted.offset) if wanted.offset else query


def count(tx: Tx, table: Table, wanted: RowQuery) -> int:
    """Of all pages."""
    return int(tx.execute(select(func.count()).select_from(table).where(*conditions(table, wanted))).scalar_one())


def totals(tx: Tx, table: Table, wanted: RowQuery) -> tuple[int, int]:
    """How many there are, and the sum of their sizes in GiB."""
    query = select(func.count(), func.coalesce(func.sum(table.c.size_gb), 0)).where(*conditions(table, wanted))
    number, size_gb = tx.execute(query).one()
    return int(number), int(size_gb)


def objects(tx: Tx, table: Table, column: str, wanted: RowQuery) -> Iterator[Any]:
    """That column of all rows, wherever the page ends."""
    query = select(table.c[column]).where(*conditions(table, wanted))
    return (row[0] for row in results.in_parts(tx.execute(query)))


def conditions(table: Table, wanted: RowQuery) -> Sequence[ColumnElement[bool]]:
    c = table.c
    found: list[ColumnElement[bool]] = []
    if wanted.project_id is not None:
        found.append(c.project_id == wanted.project_id)
    for name, value in wanted.equal:
        is_plain = value is None or isinstance(value, bool)
        found.append(c[name].is_(value) if is_plain else c[name] == value)
    for name, values in wanted.one_of:
        found.append(in_list(c[name], list(values)) if values else false())
    for name, part in wanted.likes:
        found.append(c[name].contains(part, autoescape=True))
    found += [_compared(c[name], operator, at_us) for name, operator, at_us in wanted.spans]
    found += [_has(c[name], key, value) for name, key, value in wanted.items]
    return found


def _compared(column: ColumnElement[Any], operator: str, at_us: int) -> ColumnElement[bool]:
    match operator:
        case "gt":
            return column > at_us
        case "gte":
            return column >= at_us
        case "lt":
            return column < at_us
        case "lte":
            return column <= at_us
        case "neq":
            return column != at_us
    return column == at_us


def _has(column: ColumnElement[Any], key: str, value: str) -> ColumnElement[bool]:
    """The text is `{"a":"b","c":"d"}`: a member is in it as it stands there, between two commas once the braces are
    off; quotes within a value are escaped, so that none can look like a member."""
    pair = msgspec.json.encode({key: value}).decode()[1:-1]
    text = cast(column, String)
    between = literal(",").concat(func.substr(text, 2, func.length(text) - 2)).concat(literal(","))
    return func.replace(between, f",{pair},", "") != between


def distinct_items(rows: Iterable[dict[str, str]]) -> dict[str, list[str]]:
    """Each key of these objects with every value that it has somewhere."""
    found: dict[str, set[str]] = {}
    for items in rows:
        for key, value in items.items():
            found.setdefault(key, set()).add(value)
    return {key: sorted(values) for key, values in sorted(found.items())}
