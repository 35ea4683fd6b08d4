"""One connection of the API: uvicorn's protocol on httptools, with bounds on what a stranger may send, take and keep.

What a connection waits for decides how long it may:

    waits for          until                                        else
    a head             header_timeout_s from its first byte         408, or closed when nothing has come
    a next request     idle_timeout_s from the last reply           closed
    more of a body     a window of body_timeout_s brings enough     408
    the application    no bound here: the application has its own   -
    room to send       a window of send_timeout_s takes enough      dropped
    the client's end   LINGER_S after the last word to it           dropped

A refusal is told where HTTP still allows it: before a reply has begun, and not in the place of another one's.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from droveway.config.http_bounds import HttpBounds

LINGER_S = 1.0  # for a client that is still sending, and would lose the refusal if the connection were closed under it
LINGER_MAX_BYTES = 4 << 20
PIPELINED_MAX = 16


class Refusal(NamedTuple):
    status: int
    reason: str


class _Refused(Exception):
    """Raised in a callback of the parser, which ends the parsing."""


def reply_of(refusal: Refusal) -> bytes:
    """The whole reply. Which service was meant is not known yet, so it is plain text."""
    body = f"{refusal.reason}\n".encode()
    retry = b"retry-after: 1\r\n" if refusal.status == 503 else b""
    return b"%scontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n%s" % (
        STATUS_LINE[refusal.status],
        len(body),
        retry,
        body,
    )


class RateWindow:
    """Whether enough moves in each span of time. Called again and again with how much has moved since the beginning."""

    def __init__(self, length_s: float, min_bytes_per_s: int) -> None:
        self._length_s, self._enough = length_s, max(1, int(min_bytes_per_s * length_s))
        self._since_s, self._seen = -1.0, 0

    def rest(self) -> None:
        """Nothing is waited for now."""
        self._since_s = -1.0

    def is_too_slow(self, now_s: float, moved: int) -> bool:
        if self._since_s < 0 or moved - self._seen >= self._enough:
            self._since_s, self._seen = now_s, moved
        return now_s - self._since_s > self._length_s


class ConnectionRegistry(Protocol):
    """The owner of the connections."""

    def asked(self, protocol: BoundedProtocol) -> None:
        """It has sent the whole head of a request, for the first time."""

    def closed(self, protocol: BoundedProtocol) -> None:
        """It is gone."""


class _WebSocket(WebSocketsSansIOProtocol):  # type: ignore[misc, unused-ignore]
    """uvicorn's websocket, whose owner is told of its end."""

    def __init__(self, closed: Callable[[], None], **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._closed = closed

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._closed()


class BoundedProtocol(HttpToolsProtocol):  # type: ignore[misc, unused-ignore]
    """Its keeper calls `look` again and again."""

    def __init__(self, bounds: HttpBounds, keeper: ConnectionRegistry, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self.url, self.headers = b"", []
        self._bounds, self._keeper = bounds, keeper
        self._has_asked = False  # a whole head has come at least once
        self._is_made = self._has_to_go = self._in_head = self._lingers = self._is_websocket = False
        self._since_s = self.loop.time()  # when it began to wait for a head, or for a next request
        self._received = self._head_fed = self._head_bytes = 0  # fed: since the last whole head or piece of a body
        self._refusal: Refusal | None = None
        self._body = RateWindow(bounds.body_timeout_s, bounds.min_bytes_per_s)
        self._sending = RateWindow(bounds.send_timeout_s, bounds.min_bytes_per_s)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # -- the transport ------------------------------------------------------------------------------------------------
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._keeper.closed(self)

    def abort(self) -> None:
        """Now, or as soon as it is made."""
        self._has_to_go = True
        if self._is_made:
            self.transport.abort()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._is_made = True
        secured = transport.get_extra_info("ssl_object")
        if secured is not None:  # whose certificate it is stands in every request (api/http/request.py)
            self.app_state = {**self.app_state, "certificate": secured.getpeercert()}
        elif transport.get_extra_info("socket").family == socket.AF_UNIX:
            self.app_state = {**self.app_state, "is_of_this_machine": True}
        if self._has_to_go:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._lingers:
            if self._received > LINGER_MAX_BYTES:
                self.transport.abort()
            return
        self._head_fed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self._become_websocket()
            elif self.cycle is not None:  # not spoken here: the request is answered as it stands, and is the last
                self.cycle.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(self._refusal or Refusal(400, "This is no valid HTTP/1.1 request."))
        else:
            if self._head_fed > self._bounds.max_header_bytes + self._bounds.max_url_bytes:
                self._refuse(self._long_headers())

    def _become_websocket(self) -> None:
        """It keeps its place among the connections, and its bound on what its client does not take. What it is about
        has bounds of its own (api/consoles/sessions.py); pings find out whether its client still is there."""
        self._is_websocket = True
        self.ws_protocol_class: Any = partial(_WebSocket, lambda: self._keeper.closed(self))
        self.handle_websocket_upgrade()

    # -- the parser ---------------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        if not self._is_answering:
            self._since_s = self.loop.time()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        most = self._bounds.max_url_bytes
        if len(self.url) > most:
            self._stop(Refusal(414, f"The URL is longer than {most} bytes, the most that is accepted."))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._bounds.max_header_bytes:
            self._stop(self._long_headers())
        most = self._bounds.max_headers
        if len(self.headers) > most:
            self._stop(Refusal(431, f"There are more than {most} headers, the most that are accepted."))

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= PIPELINED_MAX:
            self._stop(Refusal(503, f"More than {PIPELINED_MAX} requests were sent before the first was answered."))
        super().on_headers_complete()
        self._in_head, self._head_fed = False, 0
        if not self._has_asked:
            self._has_asked = True
            self._keeper.asked(self)

    def on_body(self, body: bytes) -> None:
        """What stands around it, extensions of chunks and trailers, is bounded as a head is."""
        super().on_body(body)
        self._head_fed = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head_fed = 0

    def _long_headers(self) -> Refusal:
        most = self._bounds.max_header_bytes
        return Refusal(431, f"The headers are longer than {most} bytes, the most that is accepted.")

    def _stop(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise _Refused

    # -- the end ------------------------------------------------------------------------------------------------------
    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # `look` does that
        self._since_s = self.loop.time()
        if self.cycle.response_complete and self.cycle.more_body:
            self._linger()  # the rest is a body that is not read

    def _refuse(self, refusal: Refusal) -> None:
        """Tell it, unless that would stand in the place of another reply; and let go."""
        if self._is_answering:
            if self._in_head or self.cycle.response_started or self.pipeline:
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not self.transport.is_closing():
            self.transport.write(reply_of(refusal))
            self._linger()

    def _linger(self) -> None:
        """Nothing more is said; what still comes is read and forgotten, for a moment, so that the reply is not lost."""
        self._lingers, self._received, self._since_s = True, 0, self.loop.time()
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.transport.can_write_eof():  # TLS cannot: it is closed when this lingers no more
                self.transport.write_eof()

    # -- time ---------------------------------------------------------------------------------------------------------
    def look(self, now_s: float) -> None:
        """End the connection if what it waits for has taken too long."""
        if not self._is_made:
            return
        if self._is_websocket:
            if self._takes_nothing(now_s):
                self.transport.abort()
        elif self._takes_nothing(now_s) or (self._lingers and now_s - self._since_s > LINGER_S):
            self.transport.abort()
        elif not self._lingers and self._is_answering:
            self._look_at_body(now_s)
        elif not self._lingers:
            self._look_between(now_s - self._since_s)

    def _look_at_body(self, now_s: float) -> None:
        """Nothing is missing while the application does not take what has come, or has not asked for it yet."""
        if not self.cycle.more_body or self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._body.rest()
        elif self._body.is_too_slow(now_s, self._received):
            self._refuse(
                Refusal(
                    408,
                    "The rest of the body did not arrive, or too slowly: less than "
                    f"{self._bounds.min_bytes_per_s} bytes a second.",
                )
            )

    def _look_between(self, waited_s: float) -> None:
        head_s = self._bounds.header_timeout_s
        if self._in_head:
            if waited_s > head_s:
                self._refuse(Refusal(408, f"The request's headers did not arrive within {head_s:g} s."))
        elif waited_s > (self._bounds.idle_timeout_s if self._has_asked else head_s):
            self.transport.close()

    def _takes_nothing(self, now_s: float) -> bool:
        """Bytes wait to be sent, and too few are received by the other end."""
        if not self.transport.get_write_buffer_size():
            self._sending.rest()
            return False
        try:
            return self._sending.is_too_slow(now_s, _acknowledged_bytes(self.transport.get_extra_info("socket")))
        except OSError:  # it is gone, and we are about to be told
            return True


def _acknowledged_bytes(connection: Any) -> int:
    """What the other end's kernel has taken so far (tcpi_bytes_acked)."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
    return int.from_bytes(info[120:128], sys.byteorder)


def look_interval_s(bounds: HttpBounds) -> float:
    shortest_s = min(bounds.header_timeout_s, bounds.idle_timeout_s, bounds.body_timeout_s, bounds.send_timeout_s)
    return max(0.02, min(1.0, shortest_s / 4))
