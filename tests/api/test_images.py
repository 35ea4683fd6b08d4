"""Images: the way of one from queued to gone, lists, who sees which, and what is refused."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.api.world import IMG, RAW, in_world, left, make_image, put_data, reason

PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


async def test_create_upload_show_download_delete(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        body = {"name": "mine", "disk_format": "raw", "container_format": "bare", "owner_specified.openstack.md5": ""}
        created = await world.ask("POST", f"{IMG}/images", token=token, json=body)
        assert created.status_code == 201
        image_id = created.json()["id"]
        assert created.headers["location"].endswith(f"/image/v2/images/{image_id}")
        assert created.json()["status"] == "queued"
        assert (await world.ask("GET", f"{IMG}/images/{image_id}/file", token=token)).status_code == 204
        assert (await put_data(world, token, image_id, RAW)).status_code == 204
        shown = (await world.ask("GET", f"{IMG}/images/{image_id}", token=token)).json()
        assert shown["status"] == "active"
        assert shown["size"] == shown["virtual_size"] == len(RAW)
        assert shown["checksum"] == hashlib.md5(RAW).hexdigest()
        assert (shown["os_hash_algo"], shown["os_hash_value"]) == ("sha512", hashlib.sha512(RAW).hexdigest())
        assert shown["owner_specified.openstack.md5"] == ""
        data = await world.ask("GET", f"{IMG}/images/{image_id}/file", token=token)
        assert data.content == RAW
        assert data.headers["content-md5"] == shown["checksum"]
        assert left(world) == [image_id]
        assert (await world.ask("DELETE", f"{IMG}/images/{image_id}", token=token)).status_code == 204
        assert (await world.ask("GET", f"{IMG}/images/{image_id}", token=token)).status_code == 404
        assert left(world) == []
        again = await world.ask("POST", f"{IMG}/images", token=token, json={**body, "id": image_id})
        assert again.status_code == 409  # an id is never given to other bytes


async def test_the_keys_of_an_image(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await make_image(world, token, hw_disk_bus="virtio")
        shown = (await world.ask("GET", f"{IMG}/images/{image_id}", token=token)).json()
        assert set(shown) == {
            "id",
            "name",
            "status",
            "visibility",
            "protected",
            "os_hidden",
            "container_format",
            "disk_format",
            "min_ram",
            "min_disk",
            "size",
            "virtual_size",
            "checksum",
            "os_hash_algo",
            "os_hash_value",
            "owner",
            "tags",
            "created_at",
            "updated_at",
            "self",
            "file",
            "schema",
            "hw_disk_bus",
        }


async def test_lists_filter_and_page(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        ids = {
            name: await make_image(world, token, name, tags=["x"] if name == "a" else []) for name in ("a", "b", "c")
        }

        async def names(query: str) -> list[str]:
            reply = await world.ask("GET", f"{IMG}/images?{query}", token=token)
            assert reply.status_code == 200, reply.text
            return [image["name"] for image in reply.json()["images"]]

        assert await names("") == ["c", "b", "a"]
        assert await names("name=b") == ["b"]
        assert await names(f"id=in:{ids['a']},{ids['c']}") == ["c", "a"]
        assert await names("name=in:a,%22b%22&sort=name:asc") == ["a", "b"]
        assert await names("sort_key=name&sort_dir=asc") == ["a", "b", "c"]
        assert await names(f"sort=name:asc,id,name:desc,id&marker={ids['a']}") == ["b", "c"]
        assert await names("tag=x") == ["a"]
        assert await names("status=queued") == []
        assert await names(f"size_min={len(RAW) + 1}") == []
        assert await names("nothing=here") == []
        first = (await world.ask("GET", f"{IMG}/images?limit=2", token=token)).json()
        assert [image["name"] for image in first["images"]] == ["c", "b"]
        rest = (await world.ask("GET", "/image" + first["next"], token=token)).json()
        assert [image["name"] for image in rest["images"]] == ["a"]
        assert "next" not in rest
        many = "sort=" + ",".join(["id", "name"] * 5)
        for bad in ("limit=-1", "limit=x", "sort=colour", many, "marker=nowhere", "name=in:%22a"):
            reply = await world.ask("GET", f"{IMG}/images?{bad}", token=token)
            assert reply.status_code == 400, bad


async def test_projects_do_not_see_each_others_images(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice, bob, admin = await world.token("alice", "red"), await world.token("bob", "blue"), await world.token()
        rita = await world.token("rita", "red")
        hers = await make_image(world, alice, "hers")
        public = await make_image(world, admin, "for all", visibility="public")
        seen = (await world.ask("GET", f"{IMG}/images", token=bob)).json()["images"]
        assert [image["id"] for image in seen] == [public]
        assert (await world.ask("GET", f"{IMG}/images/{hers}", token=bob)).status_code == 404
        assert (await world.ask("GET", f"{IMG}/images/{hers}/file", token=bob)).status_code == 404
        assert (await world.ask("DELETE", f"{IMG}/images/{hers}", token=bob)).status_code == 404
        assert (await world.ask("DELETE", f"{IMG}/images/{public}", token=bob)).status_code == 403
        assert (await world.ask("GET", f"{IMG}/images/{hers}", token=rita)).status_code == 200
        assert (await world.ask("DELETE", f"{IMG}/images/{hers}", token=rita)).status_code == 403  # a reader
        assert (await world.ask("POST", f"{IMG}/images", token=rita, json={"name": "x"})).status_code == 403
        publish = {"name": "x", "visibility": "public"}
        assert (await world.ask("POST", f"{IMG}/images", token=alice, json=publish)).status_code == 403
        unscoped = await world.token("alice", None)
        assert (await world.ask("GET", f"{IMG}/images", token=unscoped)).status_code == 403


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], 400),
        ({"disk_format": "vmdk"}, 400),
        ({"container_format": "ova"}, 400),
        ({"name": 7}, 400),
        ({"name": "x" * 256}, 400),
        ({"name": "a\0b"}, 400),
        ({"min_ram": -1}, 400),
        ({"min_disk": "many"}, 400),
        ({"visibility": "secret"}, 400),
        ({"protected": "perhaps"}, 400),
        ({"tags": "x"}, 400),
        ({"colour": 7}, 400),
        ({"id": "not-a-uuid"}, 400),
        ({"status": "active"}, 403),
        ({"size": 7}, 403),
        ({f"p{n}": "" for n in range(129)}, 413),
        ({"os_glance_import_task": "x"}, 403),
        ({"id": "0123456789abcdef0123456789abcdef"}, 400),
        ({"id": "{01234567-89ab-cdef-0123-456789abcdef}"}, 400),
    ],
)
async def test_a_bad_image_is_refused_and_not_made(tmp_path: Path, body: Any, code: int) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        reply = await world.ask("POST", f"{IMG}/images", token=token, json=body)
        assert reply.status_code == code, reply.text
        assert reason(reply).endswith(".")
        assert (await world.ask("GET", f"{IMG}/images", token=token)).json()["images"] == []


async def test_emoji_names_are_fine(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        name = "👩‍🚀" * 85  # 255 characters, far more bytes
        image_id = await make_image(world, token, name)
        shown = (await world.ask("GET", f"{IMG}/images/{image_id}", token=token)).json()
        assert shown["name"] == name


async def test_patch_is_all_or_nothing(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await make_image(world, token, hw_a="1")
        path = f"{IMG}/images/{image_id}"

        async def patch(*operations: Any) -> Any:
            return await world.ask("PATCH", path, token=token, headers=PATCH, json=list(operations))

        reply = await patch(
            {"op": "replace", "path": "/name", "value": "new"},
            {"op": "add", "path": "/hw_b", "value": "2"},
            {"op": "remove", "path": "/hw_a"},
        )
        assert reply.status_code == 200, reply.text
        assert reply.json()["name"] == "new"
        assert reply.json()["hw_b"] == "2"
        assert "hw_a" not in reply.json()
        for bad, code in (
            ({"op": "replace", "path": "/status", "value": "queued"}, 403),
            ({"op": "replace", "path": "/disk_format", "value": "qcow2"}, 403),
            ({"op": "remove", "path": "/name"}, 403),
            ({"op": "remove", "path": "/nothing"}, 409),
            ({"op": "replace", "path": "/nothing", "value": "x"}, 409),
            ({"op": "add", "path": "/os_glance_x", "value": "x"}, 403),
            ({"op": "move", "path": "/name"}, 400),
            ({"op": "add", "path": "/hw_c"}, 400),
            ("nonsense", 400),
        ):
            reply = await patch({"op": "replace", "path": "/name", "value": "spoiled"}, bad)
            assert reply.status_code == code, reply.text
            assert (await world.ask("GET", path, token=token)).json()["name"] == "new"
        assert (await world.ask("PUT", f"{path}/tags/blue", token=token)).status_code == 204
        assert (await world.ask("GET", path, token=token)).json()["tags"] == ["blue"]
        assert (await world.ask("DELETE", f"{path}/tags/blue", token=token)).status_code == 204
        assert (await world.ask("DELETE", f"{path}/tags/blue", token=token)).status_code == 404
        protect = await patch({"op": "replace", "path": "/protected", "value": True})
        assert protect.json()["protected"] is True
        assert (await world.ask("DELETE", path, token=token)).status_code == 403
        assert left(world) == [image_id]


async def test_errors_are_text_for_people_and_json_for_clients(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        path = f"{IMG}/images/nowhere"
        plain = await world.ask("GET", path, token=token, headers={"Accept": "text/plain"})
        assert plain.headers["content-type"].startswith("text/plain")
        for accept in ("application/json", "application/*", "application/json, */*;q=0.5"):
            asked = await world.ask("GET", path, token=token, headers={"Accept": accept})
            assert asked.json()["code"] == "404 Not Found"
            assert reason(asked) == reason(plain)
        for accept in ("", "*/*", "text/html, application/*;q=0.5"):  # as glanceclient asks: it is no page of JSON
            asked = await world.ask("GET", path, token=token, headers={"Accept": accept})
            assert asked.headers["content-type"].startswith("text/html")
            lines = [re.sub("<.+?>", "", line.strip()) for line in asked.text.splitlines()]
            assert [line for line in lines if line] == [
                "404 Not Found",
                "404 Not Found",
                reason(plain).splitlines()[-1],
            ]


async def test_schemas_name_what_may_be_set(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        schema = (await world.ask("GET", f"{IMG}/schemas/image", token=token)).json()
        assert schema["properties"]["disk_format"]["enum"] == [None, "qcow2", "raw"]
        assert schema["properties"]["status"]["readOnly"] is True
        assert (await world.ask("GET", f"{IMG}/schemas/images", token=token)).json()["name"] == "images"
