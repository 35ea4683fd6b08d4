"""Pages of a listing: `limit` and `marker` in, a `next` link out; and the order they are in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

from droveway.api.http.request import Request
from droveway.api.http.validate import as_integer
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound

USUAL = 100  # rows of a list of our own, where no limit is given


class Page(NamedTuple):
    limit: int
    marker: str | None = None
    has_next: bool = True  # such a listing has pages: a full one is followed by another


def asked(api: Api, request: Request) -> Page:
    given = dict(request.query)
    most = api.settings.page_max
    limit = as_integer("limit", given["limit"], 0) if "limit" in given else most
    return Page(min(limit, most), given.get("marker"))


def whole(most: int) -> Page:
    """A listing that has no pages at this microversion: as much of it as there may be."""
    return Page(most, None, has_next=False)


def newest(given: Mapping[str, str], most: int) -> int:
    """How many rows of a list of our own, newest first, which has no marker."""
    return as_integer("limit", given.get("limit", USUAL), 1, most)


@contextmanager
def marked(marker: str | None) -> Iterator[None]:
    """Where rows behind a marker are read. Raises BadRequest when there is no such row."""
    try:
        yield
    except NotFound:
        raise no_such(marker) from None


def no_such(marker: str | None) -> BadRequest:
    return BadRequest(f"marker [{(marker or '')[:64]}] not found")


Rows = Sequence[Any]  # each a mapping


def listed(
    api: Api, request: Request, page: Page, name: str, items: Any, rows: Rows, *, key: str = "id", links: str = ""
) -> dict[str, Any]:
    """The body of a listing: `items` are what is shown of `rows`, and `key` is the column that a marker names. With one
    link when the page is full, so there may be more."""
    body: dict[str, Any] = {name: items}
    if page.has_next and page.limit and len(rows) >= page.limit:
        href = f"{api.settings.base_url}{request.path}?{next_query(request, rows[-1][key])}"
        body[links or f"{name}_links"] = [{"rel": "next", "href": href}]
    return body


def next_query(request: Request, last_id: object) -> str:
    """The query of the next page. It repeats the present one in its order: keys that are given more than once, such as
    `sort_key` and `sort_dir`, belong together by their places."""
    return urlencode([*query_without_marker(request), ("marker", str(last_id))])


def query_without_marker(request: Request) -> list[tuple[str, str]]:
    return [(name, value) for name, value in request.query if name != "marker"]


def order(asked: list[tuple[str, bool]], columns: int) -> list[tuple[str, bool]]:
    """What to sort by, (column, descending): each column once, as it was first mentioned. `columns` is how many there
    are, and the most that may be given: the query for the next page grows with the square of their number."""
    if len(asked) > columns:
        raise BadRequest(f"A listing is sorted by at most {columns} keys; {len(asked)} were given.")
    found: dict[str, bool] = {}
    for column, descending in asked:
        found.setdefault(column, descending)
    return list(found.items())
