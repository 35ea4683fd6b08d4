"""Image data, in and out, in bounded memory.

In: claim the image, write pieces to a file of our own beside the others while both digests run, make it durable, look
at what it is, rename it, and only then say `active`. Whatever goes wrong before that leaves `queued` and no file, also
when it is the disk or the database that went wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import structlog

from droveway.api.http.bodies import sends
from droveway.api.http.faults import Gone, WrongMediaType
from droveway.api.http.request import Disconnected, Request, Response
from droveway.api.image import image_files
from droveway.api.image.image_files import PARTIAL, UploadFile, refusing
from droveway.api.image.images import image_id_of
from droveway.api.wiring import MIB, Api
from droveway.domain.faults import BadRequest, Busy, Forbidden, NoSpace, StoreRefused, TooLarge
from droveway.domain.quota import UNLIMITED
from droveway.store.compute import quotas
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.rows import ImageRow

log = structlog.get_logger("droveway.images")
PIECE_BYTES = MIB
COUNTED_BYTES = 64 * MIB  # what an upload that declared nothing may have stored before it counts
GIVE_UP_TRIES = 20
CLOSE_MAX_S = 10.0  # then its row is put right all the same; the file goes when the store answers
ABANDONED_S = 24 * 3600  # no upload of another process takes so long
EVER_US = 2**62


@sends("application/octet-stream", schema={})
async def upload(api: Api, request: Request) -> Response:
    """PUT of an image's data."""
    if (request.header(b"content-type") or "").partition(";")[0].strip() != "application/octet-stream":
        raise WrongMediaType("Image data is sent as application/octet-stream.")
    await take(api, request, image_id_of(request), request.scope, api.settings.max_image_bytes)
    return Response(204)


def _nothing_more(tx: Tx) -> None:
    pass


async def take(
    api: Api,
    request: Request,
    image_id: str,
    project_id: str | None,
    most_bytes: int,
    when_finished: Callable[[Tx], None] = _nothing_more,
) -> None:
    """The body of the request becomes the data of that image, which the project may change (None: any). With the row
    that says so goes `when_finished`."""
    declared = request.declared_bytes()
    if declared is not None and declared > most_bytes:
        raise TooLarge(f"The data is {declared} bytes; at most {most_bytes} are accepted.")
    for other, generation in list(api.unsettled.items()):
        await _settle(api, other, generation, tries=1)
    settings = api.settings
    await api.files.run(
        image_files.check_capacity, settings.images_directory, declared or 0, settings.images_reserved_bytes
    )
    row, room_bytes = await api.store.run(_claim, api, project_id, image_id, declared or 0)
    generation = row["generation"]
    sink = UploadFile(settings.images_directory / f"{PARTIAL}{image_id}-{generation}", settings.images_reserved_bytes)
    finished = False
    try:
        if row["disk_format"] is None or row["container_format"] is None:
            raise BadRequest("Properties disk_format, container_format must be set prior to saving data.")
        await _receive(api, request, sink, row, most_bytes, room_bytes)
        values = await api.files.run(sink.check, row["disk_format"], settings.max_virtual_bytes)
        await api.files.run(sink.publish, images.path_of(settings.images_directory, image_id))
        if not await api.store.run(_finish, api, image_id, generation, values, when_finished):
            raise Gone(f"Image {image_id} was deleted while its data was on the way.")
        finished = True
    finally:
        await _close(sink)
        if not finished:
            await _settle(api, image_id, generation, tries=GIVE_UP_TRIES)


async def _close(sink: UploadFile) -> None:
    """Not in the pool: this must happen even when the pool is full, or the task is being cancelled. Nor in the loop: a
    large file takes a while to delete, and on a store that hangs it waits for the piece that is still being written."""
    await asyncio.wait({asyncio.get_running_loop().run_in_executor(None, sink.close)}, timeout=CLOSE_MAX_S)


def _claim(tx: Tx, api: Api, project_id: str | None, image_id: str, declared: int) -> tuple[ImageRow, int | None]:
    """The image as this upload owns it, and how many bytes its project may still store."""
    owner = images.owned(tx, image_id, project_id)["project_id"]
    room_bytes = quotas.image_capacity(tx, owner, api.settings.quotas)
    if room_bytes is not None and (declared > room_bytes or room_bytes == 0):
        raise _over_quota(declared, room_bytes)
    return images.claim_upload(tx, image_id, project_id, declared), room_bytes


def _count(tx: Tx, api: Api, image_id: str, generation: int, size_bytes: int) -> bool:
    """Of an upload that has declared nothing, what has come so far: many of them side by side fill a disk too. False
    when the image is gone."""
    if not images.count_upload(tx, image_id, generation, size_bytes):
        return False
    _check_quota(tx, api, image_id, size_bytes)
    return True


def _finish(
    tx: Tx, api: Api, image_id: str, generation: int, values: dict[str, Any], when_finished: Callable[[Tx], None]
) -> bool:
    """What was not declared is counted now: others may have uploaded beside it."""
    if not images.finish_upload(tx, image_id, generation, values):
        return False
    when_finished(tx)
    _check_quota(tx, api, image_id, values["size_bytes"])
    return True


def _check_quota(tx: Tx, api: Api, image_id: str, size_bytes: int) -> None:
    owner = images.get(tx, image_id, None)["project_id"]
    limit = quotas.limits(tx, owner, api.settings.quotas)["image_size_total"]
    _, used_bytes = quotas.of_images(tx, owner)
    if limit != UNLIMITED and used_bytes > limit * MIB:
        raise _over_quota(size_bytes, max(0, limit * MIB - used_bytes + size_bytes))


def _over_quota(size_bytes: int, room_bytes: int) -> TooLarge:
    return TooLarge(
        f"The quota of image data (image_size_total) leaves this project {room_bytes} bytes"
        + (f", and the data is {size_bytes}" if size_bytes else "")
        + ": delete an image first, or ask an administrator for a larger quota."
    )


async def _settle(api: Api, image_id: str, generation: int, *, tries: int) -> None:
    """A failed upload goes back to queued, without a file. Where the database cannot write that now, every later upload
    tries once more, and so does the next start."""
    for rest in reversed(range(tries)):
        try:
            is_without_data = await api.store.run(images.give_up_upload, image_id, generation)
        except Busy as fault:
            if not rest:
                api.unsettled[image_id] = generation
                log.warning("a failed upload could not be recorded", image=image_id, because=fault.reason)
                return
            await api.clock.sleep(0.5)
        else:
            api.unsettled.pop(image_id, None)
            if is_without_data:  # otherwise it was finished after all, though its answer was lost
                with suppress(NoSpace, StoreRefused):
                    await api.files.run(image_files.remove, images.path_of(api.settings.images_directory, image_id))
            return


async def _receive(
    api: Api, request: Request, sink: UploadFile, row: ImageRow, most_bytes: int, room_bytes: int | None
) -> None:
    """All of the body into the sink, about a mebibyte at a time."""
    declared = request.declared_bytes()
    pieces: list[bytes] = []
    waiting = size = counted = 0
    async for piece in request.stream():
        pieces.append(piece)
        waiting += len(piece)
        size += len(piece)
        if size > most_bytes:
            raise TooLarge(f"The data is longer than {most_bytes} bytes, the most that is accepted.")
        if room_bytes is not None and size > room_bytes:
            raise _over_quota(declared or 0, room_bytes)
        if waiting >= PIECE_BYTES:
            await api.files.run(sink.write, pieces)
            pieces, waiting = [], 0
        if declared is None and size - counted >= COUNTED_BYTES:
            counted = size
            with suppress(Busy):  # it is counted a little later
                if not await api.store.run(_count, api, row["id"], row["generation"], size):
                    raise Gone(f"Image {row['id']} was deleted while its data was on the way.")
    await api.files.run(sink.write, pieces)
    if declared is not None and declared != size:
        raise Disconnected(f"{declared} bytes were declared and {size} arrived.")


async def download(api: Api, request: Request) -> Response:
    """GET of an image's data."""
    row = await api.store.read(images.get, image_id_of(request), request.scope)
    if row["status"] == images.DEACTIVATED and not request.caller.is_admin:
        raise Forbidden(f"Image {row['id']} is deactivated: its data is not given out until it is reactivated.")
    if row["status"] not in images.WITH_DATA:
        return Response(204)
    checksum, size_bytes = row["checksum"], row["size_bytes"]
    assert checksum is not None and size_bytes is not None, f"image {row['id']} is {row['status']} and has no checksum"
    file = await opened(api, row["id"])
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(row["size_bytes"]).encode()),
        (b"content-md5", checksum.encode()),
    ]
    if request.method == "HEAD":
        file.close()
    return Response(200, headers=headers, stream=pieces(api, file, size_bytes))


async def opened(api: Api, image_id: str) -> BinaryIO:
    """Raises Gone, StoreRefused."""
    opening = asyncio.ensure_future(api.files.run(_open, images.path_of(api.settings.images_directory, image_id)))
    try:
        return await asyncio.shield(opening)
    except FileNotFoundError:
        raise Gone(f"The data of image {image_id} is no longer there.") from None
    except asyncio.CancelledError:
        opening.add_done_callback(_close_unwanted)
        raise


def _close_unwanted(opening: asyncio.Future[BinaryIO]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _open(path: Path) -> BinaryIO:
    with refusing("opening the data of an image"):
        return path.open("rb")


async def pieces(api: Api, file: BinaryIO, count: int) -> AsyncGenerator[bytes, None]:
    """So many bytes from where the file stands, which is closed after them."""

    def read() -> bytes:
        with refusing("reading the data of an image"):
            return file.read(min(api.settings.piece_bytes, count))

    with file:
        while count:
            try:
                piece = await api.files.run(read)
            except (StoreRefused, Busy) as fault:
                raise Disconnected(fault.reason) from None  # the headers are out: the rest is not coming
            if not piece:
                raise Disconnected("The file of the image is shorter than it was.")
            count -= len(piece)
            yield piece


async def recover(api: Api, *, others_may_upload: bool = False) -> None:
    """At the start: uploads that the last run did not finish are queued again, files that belong to no image go. Where
    other processes may be taking uploads, only what has not moved for ABANDONED_S."""
    before_us = api.clock.now_us() - ABANDONED_S * 1_000_000 if others_may_upload else EVER_US
    known = await api.store.run(images.recover, before_us)

    def clear() -> None:
        api.settings.images_directory.mkdir(parents=True, exist_ok=True)
        for path in api.settings.images_directory.iterdir():
            if path.name.startswith(PARTIAL) or (len(path.name) == 36 and path.name not in known):
                with suppress(OSError):
                    if path.stat().st_mtime * 1_000_000 < before_us:
                        path.unlink()

    await api.files.run(clear)
