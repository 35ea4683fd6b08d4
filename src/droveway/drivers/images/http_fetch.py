"""One transfer of image data over HTTP, in a thread: from whichever API gives it, and on where it broke off.

an API says        then
200, 206           its bytes are taken
401, 403, 409      another ticket is wanted: this one has expired, is spent, or is another agent's
410, 412           refused: no server uses the image any more, or its bytes are others now
503                it is full: a pause, longer each time, and never the same on two hosts
anything else      the next API is asked
nothing, too slow  the next API is asked, for what is missing
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import msgspec

from droveway.domain.image_tickets import PATH, TICKET_HEADER, VERIFIER_HEADER, ImageTicket
from droveway.drivers.images.half import PIECE_BYTES, PartialImage
from droveway.ports.clock import Chance, Clock
from droveway.ports.images import ImageRefused

CONNECT_S = 10.0  # to be answered; and between two pieces
SLOW_WINDOW_S, SLOW_BYTES_PER_S = 30.0, 64 * 1024
NOBODY_S = 120.0  # without a byte, and without an API that says it is full
WHOLE_S = 3600.0  # of one fetch, with all its pauses
PAUSE_S, PAUSE_MAX_S = 0.5, 15.0
REASON_MAX_BYTES = 4096
ANOTHER_TICKET = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT)


class NeedsTicket(Exception):
    """An API does not take this ticket; what it said."""


class FetchCancelled(Exception):
    """The caller has cancelled it."""


class _TryNextApi(Exception):
    """This API does not give it now; why. `again_s`: it lives, and asks to be left alone for so long."""

    def __init__(self, why: str, again_s: float = 0.0) -> None:
        super().__init__(why)
        self.again_s = again_s


class Transfer:
    """One fetch. `end` may be called from any thread."""

    def __init__(
        self, half: PartialImage, verifier: str, clock: Clock, chance: Chance, tls: ssl.SSLContext | None, host: str
    ) -> None:
        self.half, self.trouble = half, ""
        self._verifier, self._clock, self._chance, self._tls, self._host = verifier, clock, chance, tls, host
        self._ended = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._sources: list[str] = []  # the APIs that have given a part of it

    def end(self) -> None:
        self._ended.set()
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):  # a thread that waits in it is woken
                connection.sock.shutdown(socket.SHUT_RDWR)

    def run(self, ticket: ImageTicket) -> None:
        """Until all is there and is right. Raises ImageRefused, NeedsTicket, Ended."""
        half, began_s = self.half, self._clock.monotonic_s()
        alive_s, failures = began_s, 0
        urls = shuffled(ticket.urls, self._chance)
        while half.missing:
            before, url = half.size, urls[failures % len(urls)]
            try:
                self._from(url, ticket)
                self.trouble = ""
            except _TryNextApi as why:
                self.trouble = str(why)
                now_s = self._clock.monotonic_s()
                alive_s = now_s if why.again_s or half.size > before else alive_s
                failures = failures + 1 if half.size == before else 1
                self._check_bounds(began_s, alive_s, now_s)
                self._pause(failures, len(urls), why.again_s)
        half.check(" and ".join(self._sources))

    def _check_bounds(self, began_s: float, alive_s: float, now_s: float) -> None:
        image = self.half.image.id
        if now_s - alive_s > NOBODY_S:
            raise ImageRefused(
                f"Host {self._host} gets image {image} from no API for {NOBODY_S:.0f} s: {self.trouble}; see that "
                "agents.api_urls names APIs as hosts reach them."
            )
        if now_s - began_s > WHOLE_S:
            raise ImageRefused(
                f"Host {self._host} has not got image {image} within {WHOLE_S / 60:.0f} minutes: {self.trouble}"
            )

    def _pause(self, failures: int, urls: int, again_s: float) -> None:
        """None before the other APIs have been asked. Spread out: a hundred hosts that were sent away come back one by
        one."""
        if failures % urls and not again_s:
            return
        longest_s = min(PAUSE_S * 2.0 ** min(failures // urls, 10), PAUSE_MAX_S)
        least_s = min(max(again_s, longest_s / 4), PAUSE_MAX_S)
        if self._ended.wait(self._chance.uniform(least_s, max(longest_s, 2 * least_s))):
            raise FetchCancelled

    def _from(self, url: str, ticket: ImageTicket) -> None:
        """What that API gives of what is missing."""
        half = self.half
        headers = {TICKET_HEADER: ticket.token, VERIFIER_HEADER: self._verifier}
        if half.size:
            headers |= {"range": f"bytes={half.size}-", "if-match": f'"{half.image.sha512}"'}
        try:
            self._connection = made = connect(url, self._tls)
            made.request("GET", path_of(url, half.image.id), headers=headers)
            if self._ended.is_set():
                raise FetchCancelled
            reply = made.getresponse()
            self._understand(url, reply)
            if url not in self._sources:
                self._sources.append(url)
            self._read(url, reply)
        except (OSError, http.client.HTTPException) as error:
            if self._ended.is_set():
                raise FetchCancelled from None
            raise _TryNextApi(f"{url}: {words_of(error)}") from None
        finally:
            self._close()

    def _understand(self, url: str, reply: Any) -> None:
        half, status = self.half, reply.status
        if status == (HTTPStatus.PARTIAL_CONTENT if half.size else HTTPStatus.OK):
            refusal = reply.headers.get("content-length", "")
            announced = int(refusal) if refusal.isascii() and refusal.isdigit() and len(refusal) < 19 else -1
            if announced < 0:
                raise http.client.HTTPException("it does not say how much it gives")
            if announced != half.missing:
                raise ImageRefused(
                    f"Image {half.image.id} is damaged: {url} has {half.size + announced} bytes of it for host "
                    f"{self._host}, and it has {half.image.size_bytes}."
                )
            return
        refusal = reason_of(url, reply)
        if status in ANOTHER_TICKET:
            raise NeedsTicket(refusal)
        if status in (HTTPStatus.GONE, HTTPStatus.PRECONDITION_FAILED):
            raise ImageRefused(refusal)
        raise _TryNextApi(refusal, _again_s(reply) if status == HTTPStatus.SERVICE_UNAVAILABLE else 0.0)

    def _read(self, url: str, reply: Any) -> None:
        half = self.half
        window_s, window_bytes = self._clock.monotonic_s(), half.size
        while half.missing:
            buffer, filled = half.buffer(), 0
            try:
                while filled < len(buffer):
                    count = reply.fp.readinto1(buffer[filled:])  # what is there: `readinto` would wait for all of it
                    if not count:
                        raise _TryNextApi(f"{url}: it broke off")
                    filled += count
                    if self._ended.is_set():
                        raise FetchCancelled
                    now_s = self._clock.monotonic_s()
                    if now_s - window_s >= SLOW_WINDOW_S:
                        if half.size + filled - window_bytes < SLOW_BYTES_PER_S * (now_s - window_s):
                            raise _TryNextApi(f"{url}: it gives less than {SLOW_BYTES_PER_S // 1024} KiB a second")
                        window_s, window_bytes = now_s, half.size + filled
            finally:
                if filled:
                    half.take(buffer[:filled])

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def connect(url: str, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    """Raises InvalidURL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise http.client.InvalidURL(str(error)) from None
    if host is None:
        raise http.client.InvalidURL("it names no host")
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=CONNECT_S, context=tls, blocksize=PIECE_BYTES)
    return http.client.HTTPConnection(host, port, timeout=CONNECT_S, blocksize=PIECE_BYTES)


def path_of(url: str, image_id: str) -> str:
    return f"{urlsplit(url).path.rstrip('/')}{PATH}/{image_id}"


def reason_of(url: str, reply: Any) -> str:
    """What an API says of a refusal; what is no API says nothing that is repeated."""
    try:
        return f"{url}: {msgspec.json.decode(reply.read(REASON_MAX_BYTES), type=_Body).error.message}"
    except (msgspec.DecodeError, OSError, http.client.HTTPException):
        return f"{url}: HTTP status {reply.status}"


class _Error(msgspec.Struct):
    message: str


class _Body(msgspec.Struct):
    error: _Error


def words_of(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"it speaks no HTTP ({type(error).__name__})"


def _again_s(reply: Any) -> float:
    refusal = reply.headers.get("retry-after", "")
    return float(refusal) if refusal.isascii() and refusal.isdigit() and len(refusal) < 4 and int(refusal) else 1.0


def shuffled(urls: Sequence[str], chance: Chance) -> list[str]:
    """Each host asks another API first."""
    return sorted(urls, key=lambda _: chance.uniform(0.0, 1.0))
