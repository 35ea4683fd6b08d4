"""One renderer for every resource: a table says which field exists from which microversion to which, and for whom.

A table is compiled once per version and kind of caller, so rendering a row is three things: a copy of the constants,
one multi-column get, and a call per computed field.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

R = TypeVar("R", bound=Mapping[str, object])  # a row's type, of store/rows.py
FOREVER = 10_000


class Absent:
    """What a computed field gives when this row does not have it."""


ABSENT = Absent()


class Field(NamedTuple, Generic[R]):
    """`get` is a column's name or a function of the row and the view; a constant when `get` is None."""

    name: str
    get: str | Callable[[R, Any], Any] | None
    since: int = 1
    until: int = FOREVER
    admin_only: bool = False
    constant: Any = None


def constant(name: str, value: Any, since: int = 1, until: int = FOREVER, *, admin_only: bool = False) -> Field[Any]:
    return Field(name, None, since, until, admin_only, value)


Renderer = Callable[[R, Any], dict[str, Any]]


class FieldTable(Generic[R]):
    """The fields of one resource, whose rows are of that type."""

    def __init__(self, row_type: type[R], *fields: Field[R]) -> None:
        columns = row_type.__annotations__
        unknown = [f.get for f in fields if isinstance(f.get, str) and f.get not in columns]
        assert not unknown, f"{row_type.__name__} has no {unknown}"
        self._fields = fields
        self._compiled: dict[tuple[int, bool], Renderer[R]] = {}

    @property
    def names(self) -> frozenset[str]:
        """Of all its fields, at any version."""
        return frozenset(field.name for field in self._fields)

    def renderer(self, version: int, *, is_admin: bool) -> Renderer[R]:
        """Rows into bodies at that version for that caller."""
        known = self._compiled.get((version, is_admin))
        if known is None:
            known = self._compiled[version, is_admin] = self._compile(version, is_admin)
        return known

    def render(self, rows: Sequence[R], version: int, view: Any, *, is_admin: bool = True) -> list[dict[str, Any]]:
        one = self.renderer(version, is_admin=is_admin)
        return [one(row, view) for row in rows]

    def _compile(self, version: int, is_admin: bool) -> Renderer[R]:
        fields = [f for f in self._fields if f.since <= version <= f.until and (is_admin or not f.admin_only)]
        constants = {f.name: f.constant for f in fields if f.get is None}
        columns = [(f.name, f.get) for f in fields if isinstance(f.get, str)]
        computed = [(f.name, f.get) for f in fields if callable(f.get)]
        names = tuple(name for name, _ in columns)
        # itemgetter gives a bare value for one key: repeat it, zip stops at the shorter names
        keys = [key for _, key in columns]
        get = itemgetter(*keys, keys[0], keys[0]) if keys else None

        def render(row: R, view: Any) -> dict[str, Any]:
            body = constants.copy()
            if get is not None:
                body.update(zip(names, get(row), strict=False))
            for name, compute in computed:
                value = compute(row, view)
                if value is not ABSENT:
                    body[name] = value
            return body

        return render


# -- values -----------------------------------------------------------------------------------------------------------
@lru_cache(4096)  # the rows of a list were often written in the same few seconds
def _whole(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()[:19]  # a third of what strftime costs


def seconds(at_us: int | None) -> str | None:
    """2026-11-20T22:30:00Z: how servers and images tell time."""
    return None if at_us is None else f"{_whole(at_us // 1_000_000)}Z"


def micros(at_us: int | None) -> str | None:
    """2026-11-20T22:30:00.000000: how services and migrations tell time."""
    if at_us is None:
        return None
    whole, fraction = divmod(at_us, 1_000_000)
    return f"{_whole(whole)}.{fraction:06d}"


def micros_z(at_us: int) -> str:
    """2026-11-20T22:30:00.000000Z: how tokens tell time."""
    return f"{micros(at_us)}Z"


@lru_cache(4096)
def host_id(host: str, project_id: str) -> str:
    """A name for the host that differs for each project, so that tenants cannot compare notes."""
    return hashlib.sha224((project_id + host).encode()).hexdigest()


def links(base: str, collection: str, identifier: object) -> list[dict[str, str]]:
    """`self` and `bookmark`, as compute gives them."""
    return [
        {"rel": "self", "href": f"{base}/compute/v2.1/{collection}/{identifier}"},
        {"rel": "bookmark", "href": f"{base}/compute/{collection}/{identifier}"},
    ]


@lru_cache(4096)  # of flavors and images, which many rows name; nobody changes what is made of it
def bookmark(base: str, collection: str, identifier: object) -> list[dict[str, str]]:
    return [{"rel": "bookmark", "href": f"{base}/compute/{collection}/{identifier}"}]
