"""An image store, or a database, that is full: nothing stays behind, it is said in words, and deleting helps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from droveway.api.image import image_files, uploads
from droveway.domain.faults import Busy
from droveway.domain.quota import Quotas
from droveway.store.image import images
from droveway.store.schema import images as rows
from tests.api.test_uploads import queued, status
from tests.api.world import IMG, RAW, HandClock, World, in_world, left, make_image, put_data, reason
from tests.store import databases

PIECE = b"x" * (4 * 1024 * 1024)


@contextlib.contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """What a full disk answers, from the kernel: a write beyond that fails in its middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class QuickClock(HandClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class FullStore:
    """A database that takes nothing while it is full."""

    is_full = False

    def __init__(self, clock: HandClock) -> None:
        self._store = databases.store(clock)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def run(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        if self.is_full:
            raise Busy("the database did not take it (database or disk is full); try again in a second")
        return await self._store.run(fn, *args, **kwargs)


async def test_a_store_that_fills_up_is_507_and_the_image_can_be_tried_again(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await queued(world, token)
        for size in (3_000_000, 1024 * 1024 + 100):  # in the first pieces, and by the last bytes
            with files_of_at_most(1024 * 1024):
                reply = await put_data(world, token, image_id, os.urandom(size))
            assert (reply.status_code, "full" in reason(reply)) == (507, True)
            assert await status(world, token, image_id) == "queued"
            assert left(world) == []
        assert (await put_data(world, token, image_id, RAW)).status_code == 204


async def test_a_store_that_refuses_is_503_with_words(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        kept, image_id = await make_image(world, token), await queued(world, token)
        (world.images / f".upload-{image_id}-1").mkdir()  # "Is a directory"
        reply = await put_data(world, token, image_id, RAW)
        assert (reply.status_code, "The image store refused" in reason(reply)) == (503, True)
        assert await status(world, token, image_id) == "queued"
        (world.images / kept).unlink()
        (world.images / kept).mkdir()
        for method, path in (("GET", f"{kept}/file"), ("DELETE", kept)):
            reply = await world.ask(method, f"{IMG}/images/{path}", token=token)
            assert (reply.status_code, "The image store refused" in reason(reply)) == (503, True)
        assert await status(world, token, kept) == "active"  # what could not be deleted is not said to be


async def test_a_failed_upload_is_recorded_when_the_database_writes_again(tmp_path: Path) -> None:
    clock = QuickClock()
    store = FullStore(clock)
    world = World(tmp_path, store=store)  # type: ignore[arg-type]
    world.api.clock = clock
    await world.seed()
    token = await world.token()
    first, second, other = [await queued(world, token) for _ in range(3)]

    async def full_in_the_middle() -> Any:
        yield RAW
        store.is_full = True
        yield b""

    for image_id in (first, second):
        reply = await put_data(world, token, image_id, full_in_the_middle())
        assert reply.status_code == 503
        store.is_full = False
        assert [name for name in left(world) if name.startswith(".")] == []
    assert await status(world, token, first) == "queued"  # the second upload has tried once more
    assert await status(world, token, second) == "saving"
    assert (await put_data(world, token, other, RAW)).status_code == 204
    assert await status(world, token, second) == "queued"
    assert left(world) == [other]
    reply = await put_data(world, token, first, full_in_the_middle())
    store.is_full = False
    await uploads.recover(world.api)  # and so does a start
    assert await status(world, token, first) == "queued"
    assert left(world) == [other]
    store.is_full = True  # deleting frees before it records
    assert (await world.ask("DELETE", f"{IMG}/images/{other}", token=token)).status_code == 503
    assert left(world) == []
    store.is_full = False
    assert (await world.ask("DELETE", f"{IMG}/images/{other}", token=token)).status_code == 204
    await world.close()


async def test_uploads_leave_the_reserve_of_the_disk_free(tmp_path: Path) -> None:
    async with in_world(tmp_path, max_image_bytes=1 << 62) as world:
        token = await world.token()
        image_id = await queued(world, token)
        found = os.statvfs(world.images)
        free = found.f_bavail * found.f_frsize
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(free)}
        reply = await world.ask("PUT", f"{IMG}/images/{image_id}/file", token=token, headers=headers, content=b"")
        assert (reply.status_code, "stay free" in reason(reply)) == (507, True)
        assert await status(world, token, image_id) == "queued"


async def test_quotas_of_images(tmp_path: Path) -> None:
    mib = b"x" * (1024 * 1024)
    async with in_world(tmp_path, quotas=Quotas(image_count_total=3, image_size_total=2)) as world:
        alice, bob = await world.token("alice", "red"), await world.token("bob", "blue")
        ids = [await queued(world, alice) for _ in range(3)]
        reply = await world.ask("POST", f"{IMG}/images", token=alice, json={"name": "one more"})
        assert (reply.status_code, "image_count_total is over limit of 3" in reason(reply)) == (413, True)
        await make_image(world, bob)  # another project's is its own
        assert (await put_data(world, alice, ids[0], mib)).status_code == 204

        async def undeclared() -> Any:
            yield mib
            yield b"more"

        for data in (mib + b"more", undeclared()):
            reply = await put_data(world, alice, ids[1], data)
            assert (reply.status_code, "image_size_total" in reason(reply)) == (413, True)
            assert await status(world, alice, ids[1]) == "queued"
        used = (await world.ask("GET", "/image/v2/info/usage", token=alice)).json()["usage"]
        assert used["image_size_total"] == {"limit": 2, "usage": 1}
        assert used["image_count_total"] == {"limit": 3, "usage": 3}
        assert (await world.ask("DELETE", f"{IMG}/images/{ids[0]}", token=alice)).status_code == 204
        assert (await put_data(world, alice, ids[1], undeclared())).status_code == 204
        assert left(world).count(ids[1]) == 1


async def test_uploads_side_by_side_do_not_exceed_the_quota(tmp_path: Path) -> None:
    async with in_world(tmp_path, quotas=Quotas(image_count_total=-1, image_size_total=1)) as world:
        alice = await world.token("alice", "red")
        ids = [await queued(world, alice) for _ in range(4)]

        async def undeclared() -> Any:
            yield b"x" * (700 * 1024)

        replies = await asyncio.gather(*(put_data(world, alice, each, undeclared()) for each in ids))
        assert sorted(reply.status_code for reply in replies) == [204, 413, 413, 413]
        assert len(left(world)) == 1


async def test_an_upload_that_declared_nothing_counts_while_it_comes(tmp_path: Path) -> None:
    async with in_world(tmp_path, quotas=Quotas(image_size_total=64)) as world:
        alice = await world.token("alice", "red")
        ids = [await queued(world, alice) for _ in range(2)]
        first, second = asyncio.Event(), asyncio.Event()

        async def slow() -> Any:
            for _ in range(uploads.COUNTED_BYTES // len(PIECE)):
                yield PIECE
            first.set()
            await second.wait()
            yield b"."

        upload = asyncio.ensure_future(put_data(world, alice, ids[0], slow()))
        await first.wait()
        used = (await world.ask("GET", "/image/v2/info/usage", token=alice)).json()["usage"]
        assert used["image_size_total"] == {"limit": 64, "usage": 64}
        reply = await put_data(world, alice, ids[1], b"x")
        assert (reply.status_code, "image_size_total" in reason(reply)) == (413, True)
        second.set()
        assert (await upload).status_code == 413
        assert left(world) == []


async def test_an_upload_that_ends_while_its_image_is_deleted_leaves_no_file(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        image_id = await queued(world, alice)
        store = world.api.store

        class EndsLate:
            """The upload ends between the two steps of the deletion."""

            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            async def run(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
                if fn is images.remove:
                    assert (await put_data(world, alice, image_id, b"data")).status_code == 204
                return await store.run(fn, *args, **kwargs)

        world.api.store = EndsLate()  # type: ignore[assignment]
        assert (await world.ask("DELETE", f"{IMG}/images/{image_id}", token=alice)).status_code == 204
        assert left(world) == []


async def test_an_image_store_that_hangs_does_not_hold_the_loop(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await queued(world, token)
        part = world.api.settings.images_directory / f"{image_files.PARTIAL}{image_id}-1"
        os.mkfifo(part)  # takes 64 KiB, and lets whoever writes more wait in the kernel
        reader = os.open(part, os.O_RDONLY | os.O_NONBLOCK)
        upload = asyncio.ensure_future(put_data(world, token, image_id, PIECE))
        async with asyncio.timeout(30):
            while not select.select([reader], [], [], 0)[0]:
                await asyncio.sleep(0.01)
        upload.cancel()  # the client has gone
        await asyncio.sleep(0.05)
        async with asyncio.timeout(30):
            assert await status(world, token, image_id) == "saving"
        os.set_blocking(reader, True)
        left_bytes = len(PIECE)
        while left_bytes:
            left_bytes -= len(await asyncio.to_thread(os.read, reader, left_bytes))
        os.close(reader)
        with contextlib.suppress(asyncio.CancelledError):
            await upload
        assert await status(world, token, image_id) == "queued"
        assert left(world) == []


async def test_deleted_images_age_out_but_those_of_servers(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        queued_only, used = await queued(world, token), await make_image(world, token)
        gone = await make_image(world, token, hw_x="y" * 200)
        server = {"name": "g", "imageRef": used, "flavorRef": "tiny", "networks": "none"}
        made = await world.ask("POST", "/compute/v2.1/servers", token=token, version="2.96", json={"server": server})
        assert made.status_code == 202
        for image_id in (queued_only, used, gone):
            assert (await world.ask("DELETE", f"{IMG}/images/{image_id}", token=token)).status_code == 204

        def present(tx: Any) -> dict[str, Any]:
            return {row.id: row.properties for row in tx.execute(rows.select())}

        assert await world.store.read(present) == {used: {}, gone: {}}  # no data ever, no row; else next to nothing
        assert await world.store.run(images.forget_deleted, 0, 100) == 0
        assert await world.store.run(images.forget_deleted, 2**62, 100) == 1
        assert set(await world.store.read(present)) == {used}


@pytest.mark.parametrize("many", [{f"p{n}": "v" for n in range(129)}, {f"p{n}": "v" * 4000 for n in range(5)}])
async def test_metadata_of_an_image_is_bounded(tmp_path: Path, many: dict[str, str]) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        assert (await world.ask("POST", f"{IMG}/images", token=token, json=many)).status_code == 413
        image_id = await queued(world, token)
        patch = [{"op": "add", "path": f"/{name}", "value": value} for name, value in many.items()]
        headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
        reply = await world.ask("PATCH", f"{IMG}/images/{image_id}", token=token, headers=headers, json=patch)
        assert reply.status_code == 413
        shown = (await world.ask("GET", f"{IMG}/images/{image_id}", token=token)).json()
        assert not any(name in shown for name in many)


async def test_an_image_of_before_that_bound_can_be_unprotected_and_deleted(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        image_id = await queued(world, token)
        large = {"properties": {f"p{n}": "v" * 4000 for n in range(9)}, "protected": True}
        await world.store.run(lambda tx: tx.execute(rows.update().values(large)))
        headers = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
        for name, value, wanted in (("p0", "w", 413), ("protected", False, 200)):
            patch = [{"op": "replace", "path": f"/{name}", "value": value}]
            reply = await world.ask("PATCH", f"{IMG}/images/{image_id}", token=token, headers=headers, json=patch)
            assert reply.status_code == wanted
        assert (await world.ask("DELETE", f"{IMG}/images/{image_id}", token=token)).status_code == 204
