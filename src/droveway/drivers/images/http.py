"""Images that hosts fetch from any API over HTTP, with a ticket, and send to one.

Transfers run in a few threads of their own. Of each file that is being fetched the half is kept, with its running
sha512, while a ticket is waited for, so that nothing is fetched or hashed twice.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from droveway.domain.image_tickets import TICKET_HEADER, VERIFIER_HEADER, ImageTicket, challenge_of
from droveway.domain.model import ImageRef
from droveway.drivers.images.half import PartialImage
from droveway.drivers.images.http_fetch import (
    ANOTHER_TICKET,
    FetchCancelled,
    NeedsTicket,
    Transfer,
    connect,
    path_of,
    reason_of,
    shuffled,
    words_of,
)
from droveway.ports.clock import Chance, Clock
from droveway.ports.images import HALF_KEPT_S, ImageRefused, TicketWanted

TRANSFERS_MAX = 2
SENT_BYTES_A_S = 100 << 20  # and no more: guests run beside it
PIECE_BYTES = 256 * 1024
TICKETS_IN_VAIN_MAX = 5  # that no API took, one after the other


class _PartialDownload:
    """A half between two transfers of it."""

    def __init__(self, half: PartialImage) -> None:
        self.half = half
        self.transfer: Transfer | None = None  # that is under way, or waits for its turn
        self.job: asyncio.Future[None] | None = None  # of it
        self.since_s = 0.0  # when its last transfer ended
        self.in_vain = 0


def _is_unforeseen(job: asyncio.Future[None]) -> bool:
    """It has failed otherwise than a transfer may."""
    if not job.done() or job.cancelled():
        return False
    return not isinstance(job.exception(), NeedsTicket | ImageRefused | FetchCancelled | None)


class HttpImages:
    """Answers droveway.ports.images.Images. `verifier`: a secret of this agent's life, by which APIs know it.
    `tls_path`: where this host's certificate lies, which is shown to APIs that ask for one; read for each transfer,
    since it is renewed."""

    def __init__(
        self, host: str, verifier: str, clock: Clock, chance: Chance, tls_ca: str = "", tls_path: str = ""
    ) -> None:
        self._host, self._verifier, self._clock, self._chance = host, verifier, clock, chance
        self._challenge = challenge_of(verifier)
        self._tls_ca, self._tls_path = tls_ca, tls_path
        self._pool = ThreadPoolExecutor(TRANSFERS_MAX, "images")
        self._ended = threading.Event()
        self._kept: dict[Path, _PartialDownload] = {}

    # -- fetching -----------------------------------------------------------------------------------------------------
    async def fetch(self, image: ImageRef, target: Path, ticket: ImageTicket | None) -> None:
        while (kept := self._kept.get(target)) is not None and kept.job is not None:
            await asyncio.wait({kept.job})  # of one that was given up: it ends, and its half is taken away
        if ticket is None or not ticket.urls:
            raise TicketWanted(f"image {image.id} is to be fetched", self._challenge)
        tls = self._tls(ticket)
        if kept is None:
            kept = self._kept[target] = _PartialDownload(PartialImage(image, target, self._host))
        kept.transfer = transfer = Transfer(kept.half, self._verifier, self._clock, self._chance, tls, self._host)
        before = kept.half.size
        job = kept.job = asyncio.get_running_loop().run_in_executor(self._pool, transfer.run, ticket)
        try:
            await asyncio.shield(job)
        except NeedsTicket as why:
            kept.in_vain = kept.in_vain + 1 if kept.half.size == before else 0
            if kept.in_vain < TICKETS_IN_VAIN_MAX:
                kept.transfer, kept.job, kept.since_s = None, None, self._clock.monotonic_s()
                raise TicketWanted(str(why), self._challenge) from None
            await self._drop(target)
            raise ImageRefused(f"Host {self._host} gets image {image.id} with no ticket: {why}") from None
        except (ImageRefused, FetchCancelled) as why:
            await self._drop(target)
            raise why if isinstance(why, ImageRefused) else ImageRefused("This agent ends.") from None
        except asyncio.CancelledError:
            transfer.end()
            job.add_done_callback(lambda done: self._given_up(target, done))
            raise
        finally:
            if _is_unforeseen(job):  # the next caller would wait for a job that has ended
                await self._drop(target)
        del self._kept[target]
        kept.half.close()

    async def _drop(self, target: Path) -> None:
        """Not in the pool, which others may fill for long."""
        await asyncio.get_running_loop().run_in_executor(None, self._kept.pop(target).half.remove)

    def _given_up(self, target: Path, job: asyncio.Future[None]) -> None:
        if not job.cancelled():
            job.exception()  # retrieved: it is not awaited any more
        kept = self._kept.get(target)
        if kept is None:
            return
        kept.job = asyncio.get_running_loop().run_in_executor(None, kept.half.remove)
        kept.job.add_done_callback(lambda _: self._kept.pop(target, None))

    def _forget(self, target: Path) -> None:
        kept = self._kept.pop(target, None)
        if kept is not None:
            asyncio.get_running_loop().run_in_executor(None, kept.half.remove)

    def progress(self, image: ImageRef) -> str:
        for kept in self._kept.values():
            if kept.half.image.id == image.id:
                trouble = kept.transfer.trouble if kept.transfer is not None else ""
                so_far = f"image {image.id}: {kept.half.size >> 20} of {image.size_bytes >> 20} MiB are here"
                return f"{so_far} ({trouble})" if trouble else so_far
        return ""

    async def sweep(self) -> None:
        old_s = self._clock.monotonic_s() - HALF_KEPT_S
        for target in [one for one, kept in self._kept.items() if kept.transfer is None and kept.since_s < old_s]:
            await self._drop(target)

    def close(self) -> None:
        """The threads remove their halves a moment later; what they do not, the next start of the agent sweeps."""
        self._ended.set()
        for target, kept in list(self._kept.items()):
            if kept.transfer is None:
                self._forget(target)
            else:
                kept.transfer.end()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # -- sending ------------------------------------------------------------------------------------------------------
    async def send(self, image_id: str, source: Path, ticket: ImageTicket | None) -> None:
        if ticket is None or not ticket.urls:
            raise TicketWanted(f"image {image_id} is to be sent", self._challenge)
        send: Callable[[], None] = lambda: self._send(image_id, source, ticket)  # noqa: E731
        try:
            await asyncio.get_running_loop().run_in_executor(self._pool, send)
        except NeedsTicket as why:
            raise TicketWanted(str(why), self._challenge) from None

    def _send(self, image_id: str, source: Path, ticket: ImageTicket) -> None:
        """To one API after the other, until one has it all. Whatever broke off is forgotten there."""
        try:
            file = source.open("rb")
        except OSError as error:
            raise ImageRefused(f"Host {self._host} cannot read {source}: {error.strerror}.") from None
        whys = []
        with file:
            for url in shuffled(ticket.urls, self._chance):
                try:
                    self._send_to(url, image_id, file, ticket)
                except (http.client.HTTPException, OSError) as error:
                    whys.append(f"{url}: {words_of(error)}")
                else:
                    return
        raise ImageRefused(f"No API has taken image {image_id} from host {self._host}: {'; '.join(whys)}")

    def _send_to(self, url: str, image_id: str, file: BinaryIO, ticket: ImageTicket) -> None:
        connection = connect(url, self._tls(ticket))
        file.seek(0)
        headers = {
            TICKET_HEADER: ticket.token,
            VERIFIER_HEADER: self._verifier,
            "content-type": "application/octet-stream",
            "content-length": str(os.fstat(file.fileno()).st_size),
        }
        try:
            connection.request("PUT", path_of(url, image_id), self._paced(file), headers)
            reply = connection.getresponse()
            if reply.status == HTTPStatus.NO_CONTENT:
                return
            refusal = reason_of(url, reply)
        finally:
            connection.close()
        if reply.status in ANOTHER_TICKET:
            raise NeedsTicket(refusal)
        raise ImageRefused(refusal)

    def _paced(self, file: BinaryIO) -> Iterator[bytes]:
        """What is in it, no faster than is good for the guests beside it."""
        began_s, sent = self._clock.monotonic_s(), 0
        while piece := file.read(PIECE_BYTES):
            yield piece
            sent += len(piece)
            ahead_s = began_s + sent / SENT_BYTES_A_S - self._clock.monotonic_s()
            if ahead_s > 0 and self._ended.wait(ahead_s):
                raise ConnectionAbortedError("this agent ends")

    def _tls(self, ticket: ImageTicket) -> ssl.SSLContext | None:
        """Raises ImageRefused."""
        if not any(url.startswith("https://") for url in ticket.urls):
            return None
        own = Path(self._tls_path) if self._tls_path else None
        try:
            context = ssl.create_default_context(cafile=self._tls_ca or None)
            if own is not None and (own / "current").exists():
                context.load_verify_locations(own / "ca.pem")
                context.load_cert_chain(own / "current" / "cert.pem", own / "current" / "key.pem")
        except OSError as error:  # of ssl as well
            raise ImageRefused(
                f"Host {self._host} cannot use what it has for TLS ({self._tls_ca or self._tls_path}): "
                f"{error.strerror or error}"
            ) from None
        return context
