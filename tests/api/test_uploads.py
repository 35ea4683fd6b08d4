"""Uploads that fail, one way or another, leave the image queued and no file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from droveway.api.image import uploads
from droveway.store.image import images
from tests.api.world import IMG, RAW, World, in_world, left, make_image, put_data, sentence
from tests.domain.test_image_format import qcow2


async def queued(world: World, token: str, disk_format: str = "raw") -> str:
    body = {"name": "half", "disk_format": disk_format, "container_format": "bare"}
    return str((await world.ask("POST", f"{IMG}/images", token=token, json=body)).json()["id"])


async def status(world: World, token: str, image_id: str) -> str:
    return str((await world.ask("GET", f"{IMG}/images/{image_id}", token=token)).json()["status"])


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
async def test_data_that_is_not_what_it_is_declared_is_refused(
    tmp_path: Path, disk_format: str, data: bytes, word: str
) -> None:
    async with in_world(tmp_path) as world:
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


async def test_an_upload_cut_in_the_middle_leaves_queued_and_no_file(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
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


class Slow:
    """A body whose second half waits until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield RAW
        self.begun.set()
        await self.go.wait()
        yield RAW


async def test_a_second_upload_of_the_same_image_is_409_and_harms_nothing(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await queued(world, token)
        slow = Slow()
        first = asyncio.ensure_future(put_data(world, token, image_id, slow))
        await slow.begun.wait()
        assert await status(world, token, image_id) == "saving"
        second = await put_data(world, token, image_id, b"other")
        assert second.status_code == 409
        assert "under way" in sentence(second)
        slow.go.set()
        assert (await first).status_code == 204
        assert (await world.ask("GET", f"{IMG}/images/{image_id}/file", token=token)).content == RAW + RAW
        third = await put_data(world, token, image_id, b"other")
        assert third.status_code == 409


async def test_an_image_deleted_while_it_is_uploaded_leaves_no_file(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await queued(world, token)
        slow = Slow()
        upload = asyncio.ensure_future(put_data(world, token, image_id, slow))
        await slow.begun.wait()
        assert await status(world, token, image_id) == "saving"
        assert (await world.ask("DELETE", f"{IMG}/images/{image_id}", token=token)).status_code == 204
        slow.go.set()
        assert (await upload).status_code == 410
        assert left(world) == []


async def test_a_cancelled_upload_leaves_queued_and_no_file(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await queued(world, token)
        slow = Slow()
        upload = asyncio.ensure_future(put_data(world, token, image_id, slow))
        await slow.begun.wait()
        assert await status(world, token, image_id) == "saving"
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert await status(world, token, image_id) == "queued"
        assert left(world) == []


async def test_too_much_data_is_413_whether_declared_or_not(tmp_path: Path) -> None:
    async with in_world(tmp_path, max_image_bytes=10000) as world:
        token = await world.token()
        image_id = await queued(world, token)

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 1000

        for data in (b"x" * 20_000, endless()):
            assert (await put_data(world, token, image_id, data)).status_code == 413
            assert await status(world, token, image_id) == "queued"
            assert left(world) == []


async def test_uploads_need_a_format_a_type_and_an_image(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
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


async def test_a_restart_forgets_half_uploads_and_strangers(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
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
