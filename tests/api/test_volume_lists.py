"""Lists of volumes and snapshots: filters, order, pages, counts; and lists of ten thousand, which hold nobody up."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from droveway.api.volume import fields
from tests.api.volume_world import VolumeWorld, volume_world
from tests.api.world import reason


async def names(w: VolumeWorld, query: str, **more: Any) -> list[str]:
    return [one["name"] for one in (await w.get(f"volumes?{query}", **more))["volumes"]]


async def _several(w: VolumeWorld) -> list[str]:
    made = []
    for name, size, metadata in (("a", 3, {"k": "v"}), ("b", 1, {}), ("ab", 2, {"k": "v", "l": "w"})):
        made.append((await w.make(name=name, size=size, metadata=metadata))["id"])
    return made


async def test_filters(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        ids = await _several(w)
        await w.done(ids[1], status="error")
        assert await names(w, "") == ["ab", "b", "a"]
        assert await names(w, "name=a") == ["a"]
        assert await names(w, "name~=a") == ["ab", "a"]
        assert await names(w, "name~=a", version=33) == ["ab", "b", "a"]
        assert await names(w, "status=error") == ["b"]
        assert await names(w, "metadata={'k': 'v'}") == ["ab", "a"]
        assert await names(w, 'metadata={"k": "v", "l": "w"}') == ["ab"]
        assert await names(w, "bootable=false") == ["ab", "b", "a"]
        assert await names(w, "availability_zone=mars") == []
        assert await names(w, "consumes_quota=false") == []
        assert await names(w, "created_at=gt:2020-01-01T00:00:00,lt:2021-01-01T00:00:00") == []
        assert await names(w, f"id={ids[0]}", who="admin") == []
        assert await names(w, f"id={ids[0]}&all_tenants=1", who="admin") == ["a"]
        assert await names(w, "all_tenants=1") == ["ab", "b", "a"]  # left alone
        assert await names(w, "", who="bob") == []
        assert await names(w, f"all_tenants=True&project_id={await w.project('alice')}", who="admin") == [
            "ab",
            "b",
            "a",
        ]


async def test_unknown_filters_are_refused_since_31(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        assert (await w.ask("GET", "volumes?colour=red", version=30)).status_code == 200
        reply = await w.ask("GET", "volumes?colour=red", version=31)
        assert reply.status_code == 400 and "Invalid filters colour" in reason(reply)
        assert (await w.ask("GET", "volumes?colour=red", who="admin")).status_code == 200


async def test_order_and_pages(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        await _several(w)
        assert await names(w, "sort=size:asc") == ["b", "ab", "a"]
        assert await names(w, "sort_key=name&sort_dir=desc") == ["b", "ab", "a"]
        assert await names(w, "sort=size:asc&offset=1") == ["ab", "a"]
        found, path = [], "volumes/detail?limit=2&sort=name:asc&with_count=true"
        while path:
            page = await w.get(path)
            found += [one["name"] for one in page["volumes"]]
            assert page["count"] == 3
            links = page.get("volumes_links")
            path = (
                urlsplit(links[0]["href"])._replace(scheme="", netloc="").geturl().partition("/v3/")[2] if links else ""
            )
        assert found == ["a", "ab", "b"]
        assert "count" not in await w.get("volumes?with_count=true", version=44)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=-1", "limit param must be positive"),
        ("limit=x", "limit param must be an integer"),
        ("offset=-1", "offset param must be positive"),
        ("marker=x", "marker [x] not found"),
        ("sort=colour", "Sort key is invalid: colour"),
        ("sort=name&sort_key=name", "cannot be used with the 'sort' parameter"),
        ("sort=name:up", "Sort direction is asc or desc"),
        ("created_at=soon", "Invalid soon operator"),
        ("created_at=gt:soon", "is not an ISO 8601 time"),
        ("metadata=x", "must be an object of texts"),
        ("bootable=maybe", "is not a boolean"),
    ],
)
async def test_wrong_queries(tmp_path: Path, query: str, says: str) -> None:
    async with volume_world(tmp_path) as w:
        reply = await w.ask("GET", f"volumes?{query}")
        assert reply.status_code == (404 if "marker" in query else 400) and says in reason(reply), reply.text


async def test_the_summary(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        await _several(w)
        found = (await w.get("volumes/summary"))["volume-summary"]
        assert found == {"total_count": 3, "total_size": 6, "metadata": {"k": ["v"], "l": ["w"]}}
        assert "metadata" not in (await w.get("volumes/summary", version=35))["volume-summary"]
        assert (await w.ask("GET", "volumes/summary", version=11)).status_code == 404


async def test_snapshots(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        first, second = await w.make(), await w.make()
        one = await w.snapshot(first["id"], name="one", metadata={"k": "v"})
        await w.snapshot(second["id"], name="two")
        for query, found in (
            ("", ["two", "one"]),
            (f"volume_id={first['id']}", ["one"]),
            ("metadata={'k': 'v'}", ["one"]),
            ("status=available&sort=name:asc", ["one", "two"]),
        ):
            assert [each["name"] for each in (await w.get(f"snapshots/detail?{query}"))["snapshots"]] == found
        assert "user_id" not in (await w.get("snapshots"))["snapshots"][0]
        changed = await w.ask(
            "PUT", f"snapshots/{one['id']}", {"snapshot": {"display_name": "uno", "description": None}}
        )
        assert changed.json()["snapshot"]["name"] == "uno"
        assert (await w.ask("PUT", f"snapshots/{one['id']}", {"snapshot": {}})).status_code == 400
        for key, code in (("k", 200), ("x", 404)):
            assert (await w.ask("GET", f"snapshots/{one['id']}/metadata/{key}")).status_code == code


async def test_metadata_is_changed_where_it_is_what_was_seen(tmp_path: Path) -> None:
    async with volume_world(tmp_path) as w:
        here = f"volumes/{(await w.make(metadata={'a': 'b'}))['id']}/metadata"
        seen = (await w.ask("GET", here)).headers["etag"]
        assert "etag" not in (await w.ask("GET", here, version=14)).headers
        assert (await w.ask("POST", here, {"metadata": {"c": "d"}})).json() == {"metadata": {"a": "b", "c": "d"}}
        token, version = await w.token("alice"), "volume 3.15"
        headers = {"If-Match": seen, "OpenStack-API-Version": version}
        for path, body in ((here, {"metadata": {}}), (f"{here}/a", {"meta": {"a": "x"}})):
            reply = await w.world.ask("PUT", f"/volume/v3/{path}", token=token, headers=headers, json=body)
            assert reply.status_code == 412 and "it was changed meanwhile" in reason(reply)
        headers["If-Match"] = (await w.ask("GET", here)).headers["etag"]
        body = {"metadata": {"e": "f"}}
        reply = await w.world.ask("PUT", f"/volume/v3/{here}", token=token, headers=headers, json=body)
        assert reply.json() == body
        assert (await w.ask("DELETE", f"{here}/x")).status_code == 404
        assert (await w.ask("DELETE", f"{here}/e")).status_code == 200


@pytest.mark.parametrize(
    ("version", "new"),
    [
        (13, {"group_id"}),
        (21, {"provider_id"}),
        (48, {"shared_targets", "service_uuid"}),
        (61, {"cluster_name"}),
        (63, {"volume_type_id"}),
        (65, {"consumes_quota"}),
    ],
)
def test_a_field_is_there_from_its_microversion_on(version: int, new: set[str]) -> None:
    row: Any = dict.fromkeys(fields.VolumeRow.__annotations__)
    row |= {"id": "i", "metadata": {}, "image_metadata": {}, "created_at_us": 1}
    view = fields.VolumeView("http://x")
    before, then = (set(fields.VOLUME.renderer(at, is_admin=True)(row, view)) for at in (version - 1, version))
    assert then - before == new and not before - then
