"""Where clients depend on what Glance does exactly: pointers, media types, ids, times, deactivated images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.world import IMG, NOVA, RAW, World, in_world, make_image, make_server, put_data, sentence

PATCH = "application/openstack-images-v2.1-json-patch"


async def patch(world: World, token: str, image_id: str, body: Any, kind: str = PATCH) -> httpx.Response:
    headers = {"Content-Type": kind}
    return await world.ask("PATCH", f"{IMG}/images/{image_id}", token=token, headers=headers, json=body)


async def test_a_patch_reaches_the_items_of_the_tags_and_nothing_else_below_the_top(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await make_image(world, token, tags=["a", "c"])

        async def tags(*operations: tuple[Any, ...]) -> Any:
            body = [dict(zip(("op", "path", "value"), each, strict=False)) for each in operations]
            reply = await patch(world, token, image_id, body)
            return reply.json()["tags"] if reply.status_code == 200 else reply.status_code

        assert await tags(("add", "/tags/2", "d")) == ["a", "c", "d"]  # as openstacksdk sends it
        assert await tags(("add", "/tags/-", "z"), ("add", "/tags/1", "b")) == ["a", "b", "c", "d", "z"]
        assert await tags(("remove", "/tags/4"), ("replace", "/tags/0", "e")) == ["b", "c", "d", "e"]
        assert await tags(("replace", "/tags", ["x"])) == ["x"]
        for bad in (
            ("add", "/tags/2", "y"),
            ("remove", "/tags/1"),
            ("replace", "/tags/-", "y"),
            ("add", "/tags/x", "y"),
            ("add", "/tags/01", "y"),
            ("add", "/tags/0", 7),
            ("add", "/tags/0/1", "y"),
            ("add", "/a/b", "y"),
            ("replace", "/a/b", "x"),
            ("add", "a", "x"),
            ("add", "//a", "x"),
            ("add", "/a/", "x"),
            ("add", "/", "x"),
            ("add", "/a~2", "x"),
            ("add", "/a~", "x"),
        ):
            assert await tags(bad) == 400, bad
        reply = await patch(world, token, image_id, [{"op": "add", "path": "/a/b", "value": "x"}])
        assert sentence(reply) == "Invalid JSON pointer for this resource: '/a/b'"
        reply = await patch(world, token, image_id, [{"op": "add", "path": "/a~1b~0", "value": "x"}])
        assert reply.json()["a/b~"] == "x"
        assert await tags(("add", "/locations/-", {})) == 403
        shown = (await world.ask("GET", f"{IMG}/images/{image_id}", token=token)).json()
        assert (shown["tags"], "a/b" in shown, "tags/2" in shown) == (["x"], False, False)


async def test_media_types_of_a_patch(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await make_image(world, token)
        for kind in ("application/xml", "application/json", "application/json-patch+json", ""):
            reply = await patch(world, token, image_id, [], kind)
            assert reply.status_code == 415, kind
            assert PATCH in reply.headers["accept-patch"]
        older = [{"replace": "/name", "value": "new"}, {"add": "/x", "value": "1"}, {"remove": "/x"}]
        reply = await patch(world, token, image_id, older, "application/openstack-images-v2.0-json-patch")
        assert (reply.status_code, reply.json()["name"]) == (200, "new")
        assert (await patch(world, token, image_id, older)).status_code == 400
        hidden = [{"op": "replace", "path": "/os_hidden", "value": False}]
        assert (await patch(world, token, image_id, hidden)).status_code == 200


async def test_lists_are_filtered_by_time_with_operators(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await make_image(world, token)
        at = (await world.ask("GET", f"{IMG}/images/{image_id}", token=token)).json()["created_at"]

        async def count(**query: str) -> int:
            reply = await world.ask("GET", f"{IMG}/images", token=token, params=query)
            assert reply.status_code == 200, reply.text
            return len(reply.json()["images"])

        matches = {"": 1, "eq:": 1, "neq:": 0, "gt:": 0, "gte:": 1, "lt:": 0, "lte:": 1}
        assert {each: await count(created_at=each + at) for each in matches} == matches
        half = at.removesuffix("Z") + ".5Z"  # images tell whole seconds: it is neither before nor at half past
        matches = {"": 0, "neq:": 1, "gt:": 0, "gte:": 0, "lt:": 1, "lte:": 1}
        assert {each: await count(created_at=each + half) for each in matches} == matches
        assert await count(updated_at="gte:2000-01-01T00:00:00Z", created_at="lt:2100-01-01T00:00:00+01:00") == 1
        assert await count(created_at="lt:2000-01-01T00:00:00Z") == 0
        assert await count(size=str(len(RAW))) == 1
        assert await count(virtual_size="7") == 0
        for bad in (
            "created_at=gte:nonsense",
            "created_at=yesterday",
            "updated_at=in:2000-01-01",
            "visibility=mine",
            "size=big",
        ):
            assert (await world.ask("GET", f"{IMG}/images?{bad}", token=token)).status_code == 400, bad


async def test_an_id_has_one_spelling(tmp_path: Path) -> None:
    lower = "0123456a-89ab-cdef-0123-456789abcdef"
    async with in_world(tmp_path) as world:
        token = await world.token()
        body = {"name": "i", "disk_format": "raw", "container_format": "bare"}
        made = await world.ask("POST", f"{IMG}/images", token=token, json={**body, "id": lower.upper()})
        assert (made.status_code, made.json()["id"]) == (201, lower)
        assert made.headers["location"].endswith(lower)
        again = await world.ask("POST", f"{IMG}/images", token=token, json={**body, "id": lower})
        assert again.status_code == 409
        assert (await put_data(world, token, lower.upper(), RAW)).status_code == 204
        for spelling in (lower.upper(), lower.capitalize()):
            shown = await world.ask("GET", f"{IMG}/images/{spelling}", token=token)
            assert shown.json()["id"] == lower
        for other in (lower.replace("-", ""), f"{{{lower}}}", f"urn:uuid:{lower}"):
            assert (await world.ask("GET", f"{IMG}/images/{other}", token=token)).status_code == 404
        server = await make_server(world, token, lower.upper())
        shown = await world.ask("GET", f"{NOVA}/servers/{server}", token=token)
        assert shown.json()["server"]["image"]["id"] == lower
        hinted = {"name": "g", "imageRef": lower, "flavorRef": "tiny"}
        hints = {"different_host": [server.upper()], "same_host": server.replace("-", "")}
        reply = await world.ask(
            "POST", f"{NOVA}/servers", token=token, json={"server": hinted, "os:scheduler_hints": hints}
        )
        hinted_id = reply.json()["server"]["id"]
        kept = await world.store.read(lambda tx: hints_of(tx, hinted_id))
        assert kept == {"different_host": [server], "same_host": server}


def hints_of(tx: Any, server: str) -> Any:
    from droveway.store.compute import instances

    return instances.get(tx, server)["hints"]


async def test_a_deactivated_image_is_given_to_nobody_and_boots_nothing(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        image_id = await make_image(world, alice)
        path = f"{IMG}/images/{image_id}"

        async def act(name: str, token: str) -> int:
            return (await world.ask("POST", f"{path}/actions/{name}", token=token)).status_code

        assert await act("deactivate", alice) == 403
        assert [await act("deactivate", admin) for _ in range(2)] == [204, 204]
        assert (await world.ask("GET", path, token=alice)).json()["status"] == "deactivated"
        refused = await world.ask("GET", f"{path}/file", token=alice)
        assert (refused.status_code, "deactivated" in sentence(refused)) == (403, True)
        assert (await world.ask("GET", f"{path}/file", token=admin)).content == RAW
        server = {"name": "g", "imageRef": image_id, "flavorRef": "tiny", "networks": "none"}
        reply = await world.ask("POST", f"{NOVA}/servers", token=alice, version="2.96", json={"server": server})
        assert (reply.status_code, "it is deactivated" in sentence(reply)) == (400, True)
        assert (await put_data(world, alice, image_id, RAW)).status_code == 409
        assert (await world.ask("GET", f"{IMG}/images?status=deactivated", token=alice)).json()["images"]
        assert await act("reactivate", alice) == 403
        assert [await act("reactivate", admin) for _ in range(2)] == [204, 204]
        await make_server(world, alice, image_id)
        empty = await world.ask("POST", f"{IMG}/images", token=admin, json={"name": "queued"})
        for name in ("deactivate", "reactivate"):
            reply = await world.ask("POST", f"{IMG}/images/{empty.json()['id']}/actions/{name}", token=admin)
            assert (reply.status_code, "is queued" in sentence(reply)) == (403, True)


@pytest.mark.parametrize("target", ["default", "red", "blue"])
async def test_administrators_set_the_quotas_of_images(tmp_path: Path, target: str) -> None:
    async with in_world(tmp_path) as world:
        admin, alice = await world.token(), await world.token("alice", "red")
        path = f"/droveway/v1/image-quotas/{target}"
        body = {"image_quotas": {"image_count_total": 0}}
        assert (await world.ask("PATCH", path, token=alice, json=body)).status_code == 403
        assert (await world.ask("PATCH", path, token=admin, json=body)).status_code == 200
        shown = (await world.ask("GET", path, token=admin)).json()["image_quotas"]["image_count_total"]
        assert shown == ({"limit": 0} if target == "default" else {"limit": 0, "usage": 0})
        made = await world.ask("POST", f"{IMG}/images", token=alice, json={"name": "x"})
        assert made.status_code == (201 if target == "blue" else 413)
        back = {"image_quotas": {"image_count_total": None}}
        assert (await world.ask("PATCH", path, token=admin, json=back)).status_code == 200
        assert (await world.ask("POST", f"{IMG}/images", token=alice, json={"name": "x"})).status_code == 201
        for bad in ({"image_count_total": -2}, {"images": 1}, {"image_size_total": "many"}):
            assert (await world.ask("PATCH", path, token=admin, json={"image_quotas": bad})).status_code == 400
        assert (await world.ask("GET", "/droveway/v1/image-quotas/nobody", token=admin)).status_code == 404
