"""Rows by their tags, which are a list of texts in a JSON column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, String, and_, cast, func, literal, not_, or_


class Tags(msgspec.Struct, frozen=True):
    """Of a listing: all of these, one of these, not all of these, none of these."""

    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    not_all: tuple[str, ...] = ()
    not_any: tuple[str, ...] = ()


def matching(column: ColumnElement[Any], tags: Tags) -> Sequence[ColumnElement[bool]]:
    """What a row has to be."""
    if tags == Tags():
        return []
    found: list[ColumnElement[bool]] = [_has(column, tag) for tag in tags.all]
    if tags.any:
        found.append(or_(*(_has(column, tag) for tag in tags.any)))
    if tags.not_all:
        found.append(not_(and_(*(_has(column, tag) for tag in tags.not_all))))
    if tags.not_any:
        found.append(not_(or_(*(_has(column, tag) for tag in tags.not_any))))
    return found


def _has(column: ColumnElement[Any], tag: str) -> ColumnElement[bool]:
    """The text is `["a","b"]`: a tag is in it as it stands there, between two commas once the brackets are off. A
    replacement finds it: LIKE would not tell small letters from large ones everywhere."""
    text = cast(column, String)
    between = literal(",").concat(func.substr(text, 2, func.length(text) - 2)).concat(literal(","))
    return func.replace(between, f",{msgspec.json.encode(tag).decode()},", "") != between
