"""Images that every host sees as files under the same path: they are copied from there."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from droveway.domain.image_tickets import ImageTicket
from droveway.domain.model import ImageRef
from droveway.drivers.images.half import PartialImage
from droveway.ports.images import ImageRefused

COPIES_MAX = 2


class SharedPathImages:
    """Answers droveway.ports.images.Images. Needs no tickets, and keeps no halves."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._pool = ThreadPoolExecutor(COPIES_MAX, "images")
        self._halves: dict[str, PartialImage] = {}
        self._ending: dict[Path, asyncio.Task[None]] = {}  # copies that were given up
        self._has_ended = threading.Event()

    async def fetch(self, image: ImageRef, target: Path, ticket: ImageTicket | None) -> None:
        while (ending := self._ending.get(target)) is not None:
            await asyncio.wait({ending})
        half = self._halves[image.id] = PartialImage(image, target, self._host)
        given_up = threading.Event()
        job = asyncio.get_running_loop().run_in_executor(self._pool, self._copy, half, given_up)
        try:
            await asyncio.shield(job)
        except asyncio.CancelledError:
            given_up.set()
            self._ending[target] = ended = asyncio.create_task(_remove(job, half))
            ended.add_done_callback(lambda _: self._ending.pop(target))
            raise
        finally:
            self._halves.pop(image.id, None)

    def _copy(self, half: PartialImage, given_up: threading.Event) -> None:
        path, is_whole = half.image.path, False
        try:
            with open(path, "rb", buffering=0) as source:
                while half.missing:
                    if given_up.is_set() or self._has_ended.is_set():
                        return
                    buffer = half.buffer()
                    count = source.readinto(buffer)
                    if not count:
                        break
                    half.take(buffer[:count])
            half.check(path)
            is_whole = True
        except OSError as error:
            raise ImageRefused(
                f"Image {half.image.id} cannot be read on host {self._host}: {error.strerror} ({path}); see that every "
                'host sees the directory of images, or let hosts fetch them: image_store = "file".'
            ) from None
        finally:
            half.close() if is_whole else half.remove()

    async def send(self, image_id: str, source: Path, ticket: ImageTicket | None) -> None:
        raise ImageRefused(f"Image {image_id} cannot be sent from host {self._host}: hosts only read the images here.")

    def progress(self, image: ImageRef) -> str:
        half = self._halves.get(image.id)
        return "" if half is None else f"image {image.id}: {half.size >> 20} of {image.size_bytes >> 20} MiB"

    async def sweep(self) -> None:
        pass

    def close(self) -> None:
        self._has_ended.set()
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _remove(job: asyncio.Future[None], half: PartialImage) -> None:
    """Once its thread is done with it, even if it has become whole meanwhile."""
    await asyncio.wait({job})
    if not job.cancelled():
        job.exception()  # retrieved: it is not awaited any more
    await asyncio.to_thread(half.remove)
