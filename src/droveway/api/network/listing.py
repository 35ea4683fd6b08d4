"""Listings of the Networking API: filters, `fields`, order, pages and their links; the same for every resource.

A key of the query that is no filter of the resource is refused: what was wished would not be heeded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from droveway.api.http.render import FieldTable
from droveway.api.http.request import Request, Response, encode, encode_each
from droveway.api.http.validate import TRUE, as_flag, as_integer
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.store.engine.tags import Tags
from droveway.store.engine.transaction import Tx
from droveway.store.network.finding import Asked

Row = Mapping[str, Any]
Read = Callable[[str, str], Any]
_PAGING = frozenset({"limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields"})
_TAGS = {"tags": "all", "tags-any": "any", "not-tags": "not_all", "not-tags-any": "not_any"}
SORT_KEYS_MAX = 8


def as_text(name: str, value: str) -> str:
    return value


def as_null(name: str, value: str) -> str | None:
    """Nothing, or `None`, is a null."""
    return value if value not in ("", "None", "null") else None


def as_number(name: str, value: str) -> int:
    return as_integer(name, value, -1)


class Filter(NamedTuple):
    """`column` of the rows; what has none of its own is told by its name alone."""

    column: str
    read: Read = as_text
    is_column: bool = True


STANDARD = {
    "id": Filter("id"),
    "project_id": Filter("project_id"),
    "tenant_id": Filter("project_id"),
    "description": Filter("description"),
    "revision_number": Filter("revision", as_number),
}
NAMED = STANDARD | {"name": Filter("name")}
FLAG = as_flag


class Resource(NamedTuple):
    """How one is called and found."""

    single: str
    plural: str
    fields: FieldTable[Any]
    filters: Mapping[str, Filter]
    find: Callable[[Tx, Asked], Sequence[Any]]
    has_tags: bool = True
    find_in_parts: Callable[[Tx, Asked], Iterable[Sequence[Any]]] | None = None  # of what there may be thousands


class Page(NamedTuple):
    asked: Asked
    fields: tuple[str, ...]


def read_query(api: Api, request: Request, of: Resource) -> Page:
    exact: dict[str, list[Any]] = {}
    others: dict[str, list[str]] = {}
    given: dict[str, list[str]] = {}
    for name, value in request.query:
        known = of.filters.get(name)
        if name in _PAGING or (of.has_tags and name in _TAGS):
            given.setdefault(name, []).append(value)
        elif known is None:
            raise BadRequest(f"['{name[:64]}'] is invalid attribute for filtering of {of.plural}.")
        elif known.is_column:
            exact.setdefault(known.column, []).append(known.read(name, value))
        else:
            found, what = known.read(name, value)
            others.setdefault(found, []).append(what)
    tags = {_TAGS[name]: tuple(",".join(values).split(",")) for name, values in given.items() if name in _TAGS}
    last = {name: values[-1] for name, values in given.items()}
    most = api.settings.network.page_max
    limit = min(as_integer("limit", last["limit"], 0) or most, most) if "limit" in last else most
    asked = Asked(
        request.scope,
        exact,
        others,
        Tags(**tags),
        _sort(given, of),
        last.get("marker"),
        last.get("page_reverse", "").lower() in TRUE,
        limit,
    )
    return Page(asked, tuple(given.get("fields", ())))


def _sort(given: Mapping[str, list[str]], of: Resource) -> list[tuple[str, bool]]:
    names, ways = given.get("sort_key", []), given.get("sort_dir", [])
    if len(names) > SORT_KEYS_MAX:
        raise BadRequest(f"A listing is sorted by at most {SORT_KEYS_MAX} keys; {len(names)} were given.")
    if ways and len(ways) != len(names):
        raise BadRequest("The number of sort_keys and sort_dirs must be same.")
    found: dict[str, bool] = {}
    for name, way in zip(names, ways or ["asc"] * len(names), strict=True):
        known = of.filters.get(name)
        if known is None or not known.is_column:
            raise BadRequest(f"['{name[:64]}'] is invalid attribute for sorting of {of.plural}.")
        if way not in ("asc", "desc"):
            raise BadRequest(f"sort_dir is asc or desc, not {way[:16]!r}.")
        found.setdefault(known.column, way == "desc")
    return list(found.items())


async def listed(api: Api, request: Request, of: Resource) -> Response:
    """The reply to a listing: read, rendered and encoded beside the loop."""
    page = read_query(api, request, of)
    is_admin = request.caller.is_admin

    def read(tx: Tx) -> bytes:
        parts = of.find_in_parts(tx, page.asked) if of.find_in_parts else (of.find(tx, page.asked),)
        render = of.fields.renderer(1, is_admin=is_admin)
        ids: list[str] = []
        items: list[msgspec.Raw] = []
        for rows in parts:
            ids += [row["id"] for row in rows]
            items += encode_each(chosen(render(row, None), page.fields) for row in rows)
        body: dict[str, Any] = {of.plural: items}
        links = _links(api, request, page.asked, ids)
        return encode(body | ({f"{of.plural}_links": links} if links else {}))

    return Response(200, await api.store.read(read))


def chosen(body: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """What `fields` names of it; all of it when they name nothing."""
    return {name: body[name] for name in fields if name in body} if fields else body


def _links(api: Api, request: Request, asked: Asked, ids: Sequence[str]) -> list[dict[str, str]]:
    found = []
    is_full = len(ids) >= asked.limit
    if ids and (is_full or asked.is_reverse):
        found.append({"rel": "next", "href": _href(api, request, ids[-1], is_reverse=False)})
    if ids and (asked.marker is not None or (asked.is_reverse and is_full)):
        found.append({"rel": "previous", "href": _href(api, request, ids[0], is_reverse=True)})
    return found


def _href(api: Api, request: Request, marker: str, *, is_reverse: bool) -> str:
    kept = [pair for pair in request.query if pair[0] not in ("marker", "page_reverse")]
    more = [("marker", marker), *([("page_reverse", "True")] if is_reverse else [])]
    return f"{api.settings.base_url}{request.path}?{urlencode([*kept, *more])}"


def shown(request: Request, of: Resource, row: Row, status: int = 200) -> Response:
    """One of them; `fields` may name what is wanted of it."""
    body = of.fields.renderer(1, is_admin=request.caller.is_admin)(row, None)
    wanted = [value for name, value in request.query if name == "fields"]
    return Response(status, {of.single: chosen(body, wanted)})


def made(request: Request, of: Resource, rows: Sequence[Row], *, are_several: bool) -> Response:
    """The reply to a creation: of one, or of a list."""
    if not are_several:
        return shown(request, of, rows[0], 201)
    render = of.fields.renderer(1, is_admin=request.caller.is_admin)
    return Response(201, {of.plural: [render(row, None) for row in rows]})
