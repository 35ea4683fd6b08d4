"""The query of a list of images: filters with their operators, order, page."""

from __future__ import annotations

from typing import Any

from droveway.api.http import paging
from droveway.api.http.request import Request
from droveway.api.http.validate import as_flag, as_integer, as_time_us
from droveway.api.image import image_fields
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.store.image import images, members

PAGE = 100
SECOND_US = 1_000_000
_COLUMNS = {
    "id": "id",
    "name": "name",
    "status": "status",
    "visibility": "visibility",
    "owner": "project_id",
    "disk_format": "disk_format",
    "container_format": "container_format",
    "checksum": "checksum",
    "os_hash_value": "sha512",
}
_NUMBERS = {
    "min_ram": "min_ram_mb",
    "min_disk": "min_disk_gb",
    "size": "size_bytes",
    "virtual_size": "virtual_size_bytes",
}
_TIMES = {"created_at": "created_at_us", "updated_at": "updated_at_us"}
_SORTS = {
    "name": "name",
    "status": "status",
    "container_format": "container_format",
    "disk_format": "disk_format",
    "size": "size_bytes",
    "id": "id",
    "created_at": "created_at_us",
    "updated_at": "updated_at_us",
}
OPERATORS = ("gt", "gte", "lt", "lte", "eq", "neq")


def asked(api: Api, request: Request, owner: str | None) -> images.Filters | None:
    """None when nothing can match."""
    found = _Found()
    for name, value in request.query:
        found.take(name, value)
    page, sort = found.page, found.sort
    if not sort and ("sort_key" in page or "sort_dir" in page):
        sort = [_sort(page.get("sort_key", "created_at"), page.get("sort_dir", ""))]
    limit = as_integer("limit", page.get("limit", str(PAGE)), 0)
    if found.is_nothing:
        return None
    return images.Filters(
        project_id=owner,
        exact=found.exact,
        any_of=found.any_of,
        times=found.times,
        tags=found.tags,
        member_status=found.member_status,
        properties=found.properties,
        size_min=found.sizes.get("size_min"),
        size_max=found.sizes.get("size_max"),
        marker=page.get("marker"),
        sort=paging.order(sort, len(_SORTS)),
        limit=min(limit, api.settings.page_max),
    )


class _Found:
    def __init__(self) -> None:
        self.exact: dict[str, Any] = {}
        self.any_of: dict[str, list[str]] = {}
        self.times: list[tuple[str, bool, int | None, int | None]] = []
        self.tags: list[str] = []
        self.properties: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.page: dict[str, str] = {}
        self.sort: list[tuple[str, bool]] = []
        self.member_status: str | None = members.ACCEPTED
        self.is_nothing = False

    def take(self, name: str, value: str) -> None:
        if name in _COLUMNS:
            self._column(name, value)
        elif name in _NUMBERS:
            self.exact[_NUMBERS[name]] = as_integer(name, value, 0, 2**62)
        elif name in _TIMES:
            self.times.append((_TIMES[name], *_times(name, value)))
        elif name == "protected":
            self.exact["protected"] = as_flag(name, value)
        elif name in ("size_min", "size_max"):
            self.sizes[name] = as_integer(name, value, 0, 2**62)
        elif name == "tag":
            self.tags.append(value)
        elif name == "os_hidden":
            self.is_nothing |= as_flag(name, value)
        elif name == "os_hash_algo":
            self.is_nothing |= value != "sha512"
        elif name == "sort":
            self.sort = [_sort(*part.partition(":")[::2]) for part in value.split(",")]
        elif name in ("limit", "marker", "sort_key", "sort_dir"):
            self.page[name] = value
        elif name == "member_status":
            if value not in (*members.STATUSES, "all"):
                raise BadRequest(f"Invalid status: {value[:40]!r} is not one of {', '.join(members.STATUSES)}, all.")
            self.member_status = None if value == "all" else value
        else:
            self.properties[name] = value

    def _column(self, name: str, value: str) -> None:
        if value.startswith("in:"):
            self.any_of[_COLUMNS[name]] = _words(value[3:])
        elif name != "visibility":
            self.exact[_COLUMNS[name]] = value
        elif value not in (*image_fields.VISIBILITIES, "all"):
            raise BadRequest(f"Invalid visibility value: {value[:40]}")
        elif value != "all":
            self.exact[_COLUMNS[name]] = value


def _times(name: str, value: str) -> tuple[bool, int | None, int | None]:
    """`gte:2026-01-01T00:00:00Z`, or a time alone for equality, as (is it the negation, from, before) in microseconds.
    Images tell whole seconds, so that is what is compared."""
    operator, _, text = value.partition(":")
    if operator not in OPERATORS:
        try:
            operator, text = "eq", value
            as_time_us(name, text)
        except BadRequest:
            raise BadRequest(
                f"Invalid filter value {value[:64]!r} for {name}: it is an ISO 8601 time, or one behind "
                f"{', '.join(f'{each}:' for each in OPERATORS)}."
            ) from None
    at_us = as_time_us(name, text)
    floor_us = at_us // SECOND_US * SECOND_US
    ceiling_us = -(-at_us // SECOND_US) * SECOND_US
    after_us = floor_us + SECOND_US
    if operator in ("eq", "neq"):
        return operator == "neq", floor_us, after_us if floor_us == ceiling_us else floor_us
    bounds: dict[str, tuple[int | None, int | None]] = {
        "gt": (after_us, None),
        "gte": (ceiling_us, None),
        "lt": (None, ceiling_us),
        "lte": (None, after_us),
    }
    return False, *bounds[operator]


def _words(text: str) -> list[str]:
    """`a,b,"with, comma"`: the values of an `in:` filter."""
    words, current, quoted = [], "", False
    for character in text:
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            words.append(current)
            current = ""
        else:
            current += character
    if quoted:
        raise BadRequest("Invalid input for a filter: its quotation mark is not closed.")
    return [*words, current]


def _sort(key: str, direction: str) -> tuple[str, bool]:
    if key not in _SORTS or direction not in ("", "asc", "desc"):
        raise BadRequest(
            f"Invalid sort {key[:40]}:{direction[:40]}; keys are {', '.join(_SORTS)}, directions asc and desc."
        )
    return _SORTS[key], direction != "asc"
