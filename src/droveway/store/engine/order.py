"""The order of a listing and where its next page begins, the same on every database: a null comes before everything,
false before true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Boolean, ColumnElement, and_, false, or_

Keys = Sequence[tuple[ColumnElement[Any], bool]]  # what to sort by, and whether descending


def clauses(keys: Keys) -> list[ColumnElement[Any]]:
    return [_clause(column, down) for column, down in keys]


def _clause(column: ColumnElement[Any], down: bool) -> ColumnElement[Any]:
    """Where nulls go is said only where there may be one: no index knows it."""
    if not _may_be_null(column):
        return column.desc() if down else column.asc()
    return column.desc().nulls_last() if down else column.asc().nulls_first()


def behind(keys: Keys, last: Sequence[Any]) -> ColumnElement[bool]:
    """Rows strictly behind the one that has the values `last` of these keys: (a, b) > (A, B) spelled out."""
    ways: list[ColumnElement[bool]] = []
    equal: list[ColumnElement[bool]] = []
    for (column, down), value in zip(keys, last, strict=True):
        ways.append(and_(*equal, _beyond(column, down, value)))
        equal.append(column.is_(None) if value is None else column.is_(value) if _is_flag(column) else column == value)
    return or_(*ways)


def _beyond(column: ColumnElement[Any], down: bool, value: Any) -> ColumnElement[bool]:
    if value is None:
        return false() if down else column.is_not(None)
    if _is_flag(column):  # databases do not agree on what is less than true
        more: ColumnElement[bool] = column.is_(not down) if value is down else false()
    else:
        more = column < value if down else column > value
    return or_(more, column.is_(None)) if down and _may_be_null(column) else more


def _is_flag(column: ColumnElement[Any]) -> bool:
    return isinstance(column.type, Boolean)


def _may_be_null(column: ColumnElement[Any]) -> bool:
    return bool(getattr(column, "nullable", True))
