"""A page of a listing, and the way to the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from droveway.api.http import paging
from droveway.api.http.request import Request
from droveway.domain.faults import BadRequest, NotFound
from tests.api.world import in_world


async def nothing_comes() -> Any:
    raise AssertionError("no body is read")


async def test_only_a_full_page_of_a_listing_with_pages_names_the_next_one(tmp_path: Path) -> None:
    async with in_world(tmp_path, seeded=False) as world:
        scope = {"method": "GET", "path": "/things", "headers": [], "query_string": b"sort=a&marker=x&sort=b"}
        request, rows = Request(scope, nothing_comes, "req-1"), [{"id": 1, "uuid": "u"}, {"id": 2, "uuid": "v"}]

        def listed(page: paging.Page, **more: str) -> dict[str, Any]:
            return paging.listed(world.api, request, page, "things", ["shown"], rows, **more)

        for page in (paging.Page(3), paging.whole(2), paging.whole(0), paging.Page(0)):
            assert listed(page) == {"things": ["shown"]}
        link = [{"rel": "next", "href": "http://cloud.test/things?sort=a&sort=b&marker=2"}]
        assert listed(paging.Page(2)) == {"things": ["shown"], "things_links": link}
        assert "marker=v" in listed(paging.Page(2), key="uuid", links="links")["links"][0]["href"]


def test_a_marker_that_is_not_there_is_the_requests_fault() -> None:
    with pytest.raises(BadRequest, match=r"marker \[gone\] not found"), paging.marked("gone"):
        raise NotFound("no such row")
