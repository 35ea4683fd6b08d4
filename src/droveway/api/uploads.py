"""Image data, in and out, in bounded memory.

In: claim the image, write pieces to a file of our own beside the others while both digests run, make it durable, look
at what it is, rename it, and only then say `active`. Whatever goes wrong before that leaves `queued` and no file.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from droveway.api.faults import Gone, WrongMediaType
from droveway.api.images import image_id_of, owner_of
from droveway.api.request import Disconnected, Request, Response
from droveway.api.wiring import MIB, Api
from droveway.domain import image_format
from droveway.domain.faults import BadRequest, Busy, TooLarge
from droveway.store import images

PIECE_BYTES = MIB
GIVE_UP_TRIES = 20
ABANDONED_S = 24 * 3600  # no upload of another process takes so long
EVER_US = 2**62
PARTIAL = ".upload-"  # the beginning of the name of a file that is not (yet) an image


class _Sink:
    """The file of one upload. Everything here blocks, and is run in the file pool."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.head = b""
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha512 = hashlib.sha512()
        self._file: BinaryIO | None = None
        self._closed = False
        self._lock = threading.Lock()  # a write may still be running when its upload is given up

    def write(self, pieces: list[bytes]) -> None:
        with self._lock:
            if not self._closed:
                self._write(pieces)

    def _write(self, pieces: list[bytes]) -> None:
        if self._file is None:
            self._file = self.path.open("xb")
        for piece in pieces:
            self._file.write(piece)
            self._md5.update(piece)
            self._sha512.update(piece)
            self.size += len(piece)
            if len(self.head) < image_format.HEAD_BYTES:
                self.head += piece[: image_format.HEAD_BYTES - len(self.head)]

    def check(self, disk_format: str, max_virtual_bytes: int) -> dict[str, Any]:
        """Make the data durable and look at it. The columns of an active image; raises BadRequest."""
        self.write([])  # an empty upload has a file too, and is refused for what it holds
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        found = image_format.inspect(disk_format, self.head, self.size, max_virtual_bytes)
        return {
            "size_bytes": self.size,
            "virtual_size_bytes": found.virtual_size_bytes,
            "checksum": self._md5.hexdigest(),
            "sha512": self._sha512.hexdigest(),
        }

    def publish(self, final: Path) -> None:
        self.path.chmod(0o600)
        self.path.replace(final)
        directory = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """No file of ours stays behind, whatever happened."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()
            self.path.unlink(missing_ok=True)


async def upload(api: Api, request: Request) -> Response:
    """PUT of an image's data."""
    if (request.header(b"content-type") or "").partition(";")[0].strip() != "application/octet-stream":
        raise WrongMediaType("Image data is sent as application/octet-stream.")
    declared = request.declared_bytes()
    if declared is not None and declared > api.settings.max_image_bytes:
        raise TooLarge(f"The data is {declared} bytes; at most {api.settings.max_image_bytes} are accepted.")
    image_id = image_id_of(request)
    row = await api.store.run(images.claim_upload, image_id, owner_of(request))
    generation = row["generation"]
    sink = _Sink(api.settings.images_directory / f"{PARTIAL}{image_id}-{generation}")
    finished = False
    try:
        if row["disk_format"] is None or row["container_format"] is None:
            raise BadRequest("Properties disk_format, container_format must be set prior to saving data.")
        await _receive(api, request, sink, declared)
        values = await api.files.run(sink.check, row["disk_format"], api.settings.max_virtual_bytes)
        final = images.path_of(api.settings.images_directory, image_id)
        await api.files.run(sink.publish, final)
        if not await api.store.run(images.finish_upload, image_id, generation, values):
            await api.files.run(final.unlink, missing_ok=True)
            raise Gone(f"Image {image_id} was deleted while its data was on the way.")
        finished = True
    finally:
        sink.close()  # not in the pool: this must happen even when the pool is full or the task is being cancelled
        if not finished:
            await _give_up(api, image_id, generation)
    return Response(204)


async def _give_up(api: Api, image_id: str, generation: int) -> None:
    """Back to queued; worth a few tries, because nothing else does it before the next start."""
    for _ in range(GIVE_UP_TRIES - 1):
        try:
            await api.store.run(images.give_up_upload, image_id, generation)
        except Busy:
            await api.clock.sleep(0.5)
        else:
            return
    await api.store.run(images.give_up_upload, image_id, generation)


async def _receive(api: Api, request: Request, sink: _Sink, declared: int | None) -> None:
    """All of the body into the sink, about a mebibyte at a time."""
    pieces: list[bytes] = []
    waiting = size = 0
    async for piece in request.stream():
        pieces.append(piece)
        waiting += len(piece)
        size += len(piece)
        if size > api.settings.max_image_bytes:
            raise TooLarge(f"The data is longer than {api.settings.max_image_bytes} bytes, the most that is accepted.")
        if waiting >= PIECE_BYTES:
            await api.files.run(sink.write, pieces)
            pieces, waiting = [], 0
    await api.files.run(sink.write, pieces)
    if declared is not None and declared != size:
        raise Disconnected(f"{declared} bytes were declared and {size} arrived.")


async def download(api: Api, request: Request) -> Response:
    """GET of an image's data."""
    row = await api.store.read(images.get, image_id_of(request), owner_of(request))
    if row["status"] != images.ACTIVE:
        return Response(204)
    path = images.path_of(api.settings.images_directory, row["id"])
    try:
        file = await api.files.run(path.open, "rb")
    except FileNotFoundError:
        raise Gone(f"The data of image {row['id']} is no longer there.") from None
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(row["size_bytes"]).encode()),
        (b"content-md5", row["checksum"].encode()),
    ]
    if request.method == "HEAD":
        file.close()
    return Response(200, headers=headers, stream=_pieces(api, file))


async def _pieces(api: Api, file: Any) -> AsyncIterator[bytes]:
    with file:
        while piece := await api.files.run(file.read, PIECE_BYTES):
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
