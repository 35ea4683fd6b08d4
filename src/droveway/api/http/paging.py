"""Pages of a listing: `limit` and `marker` in, a `next` link out; and the order they are in."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlencode

from droveway.api.http.request import Request
from droveway.api.http.validate import as_integer
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest


class Page(NamedTuple):
    limit: int
    marker: str | None


def asked(api: Api, request: Request) -> Page:
    given = dict(request.query)
    most = api.settings.page_max
    limit = as_integer("limit", given["limit"], 0) if "limit" in given else most
    return Page(min(limit, most), given.get("marker"))


def next_links(api: Api, request: Request, page: Page, count: int, last_id: object) -> list[dict[str, str]]:
    """One link when the page is full, so there may be more; none otherwise. It repeats the query in its order: keys
    that are given more than once, such as `sort_key` and `sort_dir`, belong together by their places."""
    if not page.limit or count < page.limit:
        return []
    query = [(name, value) for name, value in request.query if name != "marker"]
    href = f"{api.settings.base_url}{request.path}?{urlencode([*query, ('marker', str(last_id))])}"
    return [{"rel": "next", "href": href}]


def order(asked: list[tuple[str, bool]], columns: int) -> list[tuple[str, bool]]:
    """What to sort by, (column, descending): each column once, as it was first mentioned. `columns` is how many there
    are, and the most that may be given: the query for the next page grows with the square of their number."""
    if len(asked) > columns:
        raise BadRequest(f"A listing is sorted by at most {columns} keys; {len(asked)} were given.")
    found: dict[str, bool] = {}
    for column, descending in asked:
        found.setdefault(column, descending)
    return list(found.items())
