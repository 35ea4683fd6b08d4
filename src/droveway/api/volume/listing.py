"""The query of a list of Block Storage: filters, order, page and count, the same for every resource.

Keys that are no filter are left alone up to 3.30 and refused from there on, except an administrator's, as in Cinder;
`key~` finds a part of a value since 3.34.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from droveway.api.http import paging
from droveway.api.http.request import Request
from droveway.api.http.validate import FALSE, TRUE, as_flag, as_integer, as_time_us
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.store.volume.listing import RowQuery

STRICT_SINCE, LIKE_SINCE, COUNT_SINCE = 31, 34, 45
OPERATORS = ("gt", "gte", "eq", "neq", "lt", "lte")
_PAGING = frozenset({"limit", "marker", "offset", "sort", "sort_key", "sort_dir", "with_count", "all_tenants"})
OFFSET_MAX = 2**31 - 1


def _as_it_is(name: str, value: str) -> Any:
    return value


def as_number(name: str, value: str) -> int:
    return as_integer(name, value, 0)


def as_yes(name: str, value: str) -> bool:
    return as_flag(name, value)


class Filter(NamedTuple):
    """`column` of the rows. `admin_only`: left out of the queries of others. `since`: the first microversion that has
    it; before, it is left alone."""

    column: str
    read: Callable[[str, str], Any] = _as_it_is
    admin_only: bool = False
    since: int = 0


class Times(NamedTuple):
    """A time and how it is compared: `gt:2026-11-30T12:00:00`."""

    column: str
    since: int = 0


class Items(NamedTuple):
    """An object whose items are all to be there: {'key': 'value'}."""

    column: str
    since: int = 0


Known = Filter | Times | Items


class Listed(NamedTuple):
    """How one resource is looked for. `ignored`: filters of what nothing here has; `True` where the value must be that
    for any row to match. `count_since`: of `with_count`."""

    filters: Mapping[str, Known]
    sorts: Mapping[str, str]  # key -> column
    ignored: Mapping[str, Callable[[str], bool]] = {}  # whether rows match
    count_since: int = COUNT_SINCE


class Query(NamedTuple):
    wanted: RowQuery
    with_count: bool
    limit: int
    is_empty: bool = False  # no row can match


def read(api: Api, request: Request, of: Listed) -> Query:
    """Raises BadRequest."""
    given = dict(request.query)
    limit = min(_number(given, "limit", api.settings.page_max), api.settings.page_max)
    all_projects = request.caller.is_admin and _is_yes(given.get("all_tenants", ""))
    equal: list[tuple[str, Any]] = []
    likes: list[tuple[str, str]] = []
    spans: list[tuple[str, str, int]] = []
    items: list[tuple[str, str, str]] = []
    project_id = None if all_projects else request.caller.project_id
    is_empty = False
    for name, value in given.items():
        if name in _PAGING:
            continue
        plain = name.removesuffix("~")
        if name in ("project_id", "tenant_id"):
            if all_projects:
                equal.append(("project_id", value))
        elif plain in of.ignored:
            is_empty |= not of.ignored[plain](value)
        else:
            known = of.filters.get(plain)
            if known is None or (isinstance(known, Filter) and known.admin_only and not request.caller.is_admin):
                _refuse_unknown(request, name)
            elif known.since > request.version:
                continue
            elif isinstance(known, Times):
                spans += _spans(name, known.column, value)
            elif isinstance(known, Items):
                items += [(known.column, key, one) for key, one in _items(name, value)]
            elif name.endswith("~") and request.version >= LIKE_SINCE:
                likes.append((known.column, value))
            elif not name.endswith("~"):
                equal.append((known.column, known.read(name, value)))
    wanted = RowQuery(
        project_id,
        equal=tuple(equal),
        likes=tuple(likes),
        spans=tuple(spans),
        items=tuple(items),
        sort=tuple(_sort(given, of)),
        marker=given.get("marker"),
        offset=_number(given, "offset", 0),
        limit=limit,
    )
    counts = request.version >= of.count_since and _is_yes(given.get("with_count", ""))
    return Query(wanted, counts, limit, is_empty)


def _refuse_unknown(request: Request, name: str) -> None:
    if request.version >= STRICT_SINCE and not request.caller.is_admin:
        raise BadRequest(f"Invalid filters {name[:64]} are found in query options.")


def _is_yes(value: str) -> bool:
    word = value.strip().lower()
    if word in FALSE or not word:
        return False
    if word in TRUE:
        return True
    raise BadRequest(f"Invalid input received: {value[:32]!r} is not a boolean.")


def _number(given: Mapping[str, str], name: str, otherwise: int) -> int:
    if name not in given:
        return otherwise
    try:
        number = int(given[name])
    except ValueError:
        raise BadRequest(f"{name} param must be an integer") from None
    if not 0 <= number <= OFFSET_MAX:
        raise BadRequest(f"{name} param must be positive")
    return number


def _spans(name: str, column: str, value: str) -> Iterator[tuple[str, str, int]]:
    for part in value.split(","):
        operator, colon, at = part.partition(":")
        if not colon or operator not in OPERATORS:
            raise BadRequest(
                f"Invalid {operator[:16]} operator: {name} takes {', '.join(OPERATORS)}, a colon and a time."
            )
        yield column, operator, as_time_us(name, at)


def _items(name: str, value: str) -> list[tuple[str, str]]:
    """Python's or JSON's way to write an object of texts, as clients send it."""
    try:
        found = msgspec.json.decode(value.replace("u'", "'").replace("'", '"'), type=dict[str, str])
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise BadRequest(
            f"Invalid input for {name}: it must be an object of texts, such as {{'key': 'value'}}."
        ) from None
    return list(found.items())


def _sort(given: Mapping[str, str], of: Listed) -> list[tuple[str, bool]]:
    if "sort" in given and ("sort_key" in given or "sort_dir" in given):
        raise BadRequest(
            "The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with the 'sort' parameter."
        )
    if "sort" in given:
        pairs = [part.strip().partition(":")[::2] for part in given["sort"].split(",") if part.strip()]
    elif "sort_key" in given or "sort_dir" in given:
        pairs = [(given.get("sort_key", "created_at").strip(), given.get("sort_dir", "desc").strip())]
    else:
        pairs = []
    asked = []
    for key, way in pairs or [("created_at", "desc")]:
        if key not in of.sorts:
            raise BadRequest(
                f"Invalid input received: Sort key is invalid: {key[:64]}; there is {', '.join(of.sorts)}."
            )
        if way not in ("", "asc", "desc"):
            raise BadRequest(f"Invalid input received: Sort direction is asc or desc, not {way[:16]!r}.")
        asked.append((of.sorts[key], way != "asc"))
    return paging.order(asked, len(of.sorts))


def body(
    api: Api, request: Request, name: str, items: Any, last: str | None, query: Query, number: int | None
) -> dict[str, Any]:
    """Of a list: with a link where there may be more, and how many there are in all, when it was asked."""
    found: dict[str, Any] = {name: items}
    if last is not None and query.limit and len(items) >= query.limit:
        kept = [pair for pair in request.query if pair[0] != "offset"]
        href = f"{api.settings.base_url}{request.path}?{_next(kept, last)}"
        found[f"{name}_links"] = [{"rel": "next", "href": href}]
    if number is not None:
        found["count"] = number
    return found


def _next(pairs: Sequence[tuple[str, str]], last: str) -> str:
    return urlencode([*(pair for pair in pairs if pair[0] != "marker"), ("marker", last)])
