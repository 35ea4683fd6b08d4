"""Images: the way of one from queued to gone, and uploads that must leave nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from droveway.api import uploads
from droveway.store import images
from tests.api.world import IMG, RAW, World, in_world, make_image, put_data, sentence
from tests.domain.test_image_format import qcow2

PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


def left(world: World) -> list[str]:
    return sorted(path.name for path in world.images.iterdir())


async def queued(world: World, token: str, disk_format: str = "raw") -> str:
    body = {"name": "half", "disk_format": disk_format, "container_format": "bare"}
    return str((await world.ask("POST", f"{IMG}/images", token=token, json=body)).json()["id"])


async def status(world: World, token: str, image_id: str) -> str:
    return str((await world.ask("GET", f"{IMG}/images/{image_id}", token=token)).json()["status"])


def test_create_upload_show_download_delete(tmp_path: Path) -> None:
    async def story(world: World) -> None:
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

    in_world(tmp_path, story)


def test_the_keys_of_an_image(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        image_id = await make_image(world, token, hw_disk_bus="virtio")
        shown = (await world.ask("GET", f"{IMG}/images/{image_id}", token=token)).json()
        assert set(shown) == {
            "id", "name", "status", "visibility", "protected", "os_hidden", "container_format", "disk_format", "min_ram",
            "min_disk", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "owner", "tags", "created_at",
            "updated_at", "self", "file", "schema", "hw_disk_bus",
        }  # fmt: skip

    in_world(tmp_path, story)


def test_lists_filter_and_page(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        ids = {name: await make_image(world, token, name, tags=["x"] if name == "a" else []) for name in ("a", "b", "c")}

        async def names(query: str) -> list[str]:
            reply = await world.ask("GET", f"{IMG}/images?{query}", token=token)
            assert reply.status_code == 200, reply.text
            return [image["name"] for image in reply.json()["images"]]

        assert await names("") == ["c", "b", "a"]
        assert await names("name=b") == ["b"]
        assert await names(f"id=in:{ids['a']},{ids['c']}") == ["c", "a"]
        assert await names("name=in:a,%22b%22&sort=name:asc") == ["a", "b"]
        assert await names("sort_key=name&sort_dir=asc") == ["a", "b", "c"]
        assert await names("tag=x") == ["a"]
        assert await names("status=queued") == []
        assert await names(f"size_min={len(RAW) + 1}") == []
        assert await names("nothing=here") == []
        first = (await world.ask("GET", f"{IMG}/images?limit=2", token=token)).json()
        assert [image["name"] for image in first["images"]] == ["c", "b"]
        rest = (await world.ask("GET", "/image" + first["next"], token=token)).json()
        assert [image["name"] for image in rest["images"]] == ["a"]
        assert "next" not in rest
        for bad in ("limit=-1", "limit=x", "sort=colour", "marker=nowhere", "name=in:%22a"):
            reply = await world.ask("GET", f"{IMG}/images?{bad}", token=token)
            assert reply.status_code == 400, bad

    in_world(tmp_path, story)


def test_projects_do_not_see_each_others_images(tmp_path: Path) -> None:
    async def story(world: World) -> None:
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

    in_world(tmp_path, story)


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
        ({f"p{n}": "" for n in range(129)}, 400),
    ],
)
def test_a_bad_image_is_refused_and_not_made(tmp_path: Path, body: Any, code: int) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        reply = await world.ask("POST", f"{IMG}/images", token=token, json=body)
        assert reply.status_code == code, reply.text
        assert sentence(reply).endswith(".")
        assert (await world.ask("GET", f"{IMG}/images", token=token)).json()["images"] == []

    in_world(tmp_path, story)


def test_emoji_names_are_fine(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        name = "👩‍🚀" * 85  # 255 characters, far more bytes
        image_id = await make_image(world, token, name)
        shown = (await world.ask("GET", f"{IMG}/images/{image_id}", token=token)).json()
        assert shown["name"] == name

    in_world(tmp_path, story)


def test_patch_is_all_or_nothing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        image_id = await make_image(world, token, hw_a="1")
        path = f"{IMG}/images/{image_id}"

        async def patch(*operations: Any) -> Any:
            return await world.ask("PATCH", path, token=token, headers=PATCH, json=list(operations))

        reply = await patch({"op": "replace", "path": "/name", "value": "new"}, {"op": "add", "path": "/hw_b", "value": "2"},
                            {"op": "remove", "path": "/hw_a"})  # fmt: skip
        assert reply.status_code == 200, reply.text
        assert reply.json()["name"] == "new"
        assert reply.json()["hw_b"] == "2"
        assert "hw_a" not in reply.json()
        for bad, code in (
            ({"op": "replace", "path": "/status", "value": "queued"}, 403),
            ({"op": "replace", "path": "/disk_format", "value": "qcow2"}, 403),
            ({"op": "remove", "path": "/name"}, 403),
            ({"op": "remove", "path": "/nothing"}, 400),
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

    in_world(tmp_path, story)


# -- uploads that fail ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("disk_format", "data", "word"),
    [
        ("qcow2", RAW, "not one"),
        ("qcow2", qcow2(backing=4096) + b"\0" * 300_000, "backing file"),
        ("qcow2", qcow2(incompatible=4) + b"\0" * 300_000, "external file"),
        ("qcow2", qcow2() + b"\0" * 5000, "cut short"),
        ("raw", qcow2() + b"\0" * 300_000, "declared raw"),
        ("raw", b"", "empty"),
    ],
)
def test_data_that_is_not_what_it_is_declared_is_refused(tmp_path: Path, disk_format: str, data: bytes, word: str) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        image_id = await queued(world, token, disk_format)
        reply = await put_data(world, token, image_id, data)
        assert reply.status_code == 400
        assert word in sentence(reply)
        assert await status(world, token, image_id) == "queued"
        assert left(world) == []
        good = qcow2() + b"\0" * 300_000 if disk_format == "qcow2" else RAW  # the image can still take its data
        assert (await put_data(world, token, image_id, good)).status_code == 204
        assert await status(world, token, image_id) == "active"

    in_world(tmp_path, story)


def test_an_upload_cut_in_the_middle_leaves_queued_and_no_file(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        image_id = await queued(world, token)
        sent: list[Any] = []
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": b"x" * 3_000_000, "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"x-auth-token", token.encode()), (b"content-type", b"application/octet-stream")]
        scope = {"type": "http", "method": "PUT", "path": f"{IMG}/images/{image_id}/file", "headers": headers}
        await world.app(scope, receive, send)
        assert sent == []
        assert await status(world, token, image_id) == "queued"
        assert left(world) == []

    in_world(tmp_path, story)


class Slow:
    """A body whose second half waits until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield RAW
        self.begun.set()
        await self.go.wait()
        yield RAW


def test_a_second_upload_of_the_same_image_is_409_and_harms_nothing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        image_id = await queued(world, token)
        slow = Slow()
        first = asyncio.ensure_future(put_data(world, token, image_id, slow))
        while await status(world, token, image_id) != "saving":
            await asyncio.sleep(0.01)
        second = await put_data(world, token, image_id, b"other")
        assert second.status_code == 409
        assert "under way" in sentence(second)
        slow.go.set()
        assert (await first).status_code == 204
        assert (await world.ask("GET", f"{IMG}/images/{image_id}/file", token=token)).content == RAW + RAW
        third = await put_data(world, token, image_id, b"other")
        assert third.status_code == 409

    in_world(tmp_path, story)


def test_an_image_deleted_while_it_is_uploaded_leaves_no_file(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        image_id = await queued(world, token)
        slow = Slow()
        upload = asyncio.ensure_future(put_data(world, token, image_id, slow))
        while await status(world, token, image_id) != "saving":
            await asyncio.sleep(0.01)
        assert (await world.ask("DELETE", f"{IMG}/images/{image_id}", token=token)).status_code == 204
        slow.go.set()
        assert (await upload).status_code == 410
        assert left(world) == []

    in_world(tmp_path, story)


def test_a_cancelled_upload_leaves_queued_and_no_file(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        image_id = await queued(world, token)
        slow = Slow()
        upload = asyncio.ensure_future(put_data(world, token, image_id, slow))
        while await status(world, token, image_id) != "saving":
            await asyncio.sleep(0.01)
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert await status(world, token, image_id) == "queued"
        assert left(world) == []

    in_world(tmp_path, story)


def test_too_much_data_is_413_whether_declared_or_not(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        image_id = await queued(world, token)

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 1000

        for data in (b"x" * 20_000, endless()):
            assert (await put_data(world, token, image_id, data)).status_code == 413
            assert await status(world, token, image_id) == "queued"
            assert left(world) == []

    in_world(tmp_path, story, max_image_bytes=10_000)


def test_uploads_need_a_format_a_type_and_an_image(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        bare = (await world.ask("POST", f"{IMG}/images", token=token, json={"name": "no format"})).json()["id"]
        assert (await put_data(world, token, bare, RAW)).status_code == 400
        assert await status(world, token, bare) == "queued"
        reply = await world.ask("PUT", f"{IMG}/images/{bare}/file", token=token, content=RAW)
        assert reply.status_code == 415
        nowhere = "00000000-0000-4000-8000-000000000000"
        assert (await put_data(world, token, nowhere, RAW)).status_code == 404
        assert (await put_data(world, token, "..%2F..%2Fetc", RAW)).status_code == 404
        assert left(world) == []

    in_world(tmp_path, story)


def test_a_restart_forgets_half_uploads_and_strangers(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        kept = await make_image(world, token)
        half = await queued(world, token)
        row = await world.store.run(images.claim_upload, half, None)
        (world.images / f".upload-{half}-1").write_bytes(b"half")
        (world.images / "00000000-0000-4000-8000-000000000000").write_bytes(b"nobody's")
        (world.images / "README").write_bytes(b"an operator's")
        await uploads.recover(world.api)
        assert await status(world, token, half) == "queued"
        assert left(world) == sorted([kept, "README"])
        finished = await world.store.run(images.finish_upload, half, row["generation"], {})
        assert not finished  # the upload of before the restart does not own it any more

    in_world(tmp_path, story)


def test_errors_are_text_for_people_and_json_for_clients(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        path = f"{IMG}/images/nowhere"
        plain = await world.ask("GET", path, token=token)
        assert plain.headers["content-type"].startswith("text/plain")
        for accept in ("application/json", ""):
            asked = await world.ask("GET", path, token=token, headers={"Accept": accept})
            assert asked.json()["code"] == "404 Not Found"
            assert sentence(asked) == sentence(plain)

    in_world(tmp_path, story)


def test_schemas_name_what_may_be_set(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        token = await world.token()
        schema = (await world.ask("GET", f"{IMG}/schemas/image", token=token)).json()
        assert schema["properties"]["disk_format"]["enum"] == [None, "qcow2", "raw"]
        assert schema["properties"]["status"]["readOnly"] is True
        assert (await world.ask("GET", f"{IMG}/schemas/images", token=token)).json()["name"] == "images"

    in_world(tmp_path, story)
