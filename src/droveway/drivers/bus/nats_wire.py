"""The bytes of one NATS connection: lines and payloads in, handlers called; the client protocol's core and no more.

Nothing is queued here: a message is handed to its handler as it is read. A handler that is slow fills the kernel's
buffers, then the broker's, which ends the connection at its own bound.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any, cast

from droveway.drivers.bus.broker_link import CLOSE_MAX_S, PINGS_MAX, OnMessage, Refused
from droveway.ports.bus import MAX_MESSAGE_BYTES

LINE_MAX = 64 * 1024  # INFO names every server of a cluster
DEFAULT_MAX_PAYLOAD, LEAST_MAX_PAYLOAD = 1 << 20, 1024
DIGITS_MAX = 10  # of a size; a message of so many bytes is over every bound
NOBODY_LISTENS = b"NATS/1.0 503"


class NatsWire(asyncio.Protocol):
    """`informed`, `accepted`: how far the introduction has come; `ended`: why the connection is over."""

    is_refused = False

    def __init__(self, handlers: Mapping[bytes, OnMessage], on_complaint: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        self._handlers, self._on_complaint = handlers, on_complaint
        self.informed: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.accepted: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[str] = loop.create_future()
        self.max_payload_bytes = DEFAULT_MAX_PAYLOAD
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rest = b""  # of a message that has not arrived whole
        self._skip = 0  # bytes still to come of one that is over the bound
        self._pings = 0  # without answer
        self._last_words = ""

    # -- sending ------------------------------------------------------------------------------------------------------
    def write(self, data: bytes) -> None:
        # Between its end and the word of it (connection_lost) uvloop's transport raises where asyncio's drops.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def publish(self, subject: str, payload: bytes, reply: str) -> None:
        self.write(b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(payload), payload))

    def unsent_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def start_tls(self, context: ssl.SSLContext, hostname: str) -> None:
        assert self._transport is not None, "TLS begins on a connection"
        loop = asyncio.get_running_loop()
        self._transport = await loop.start_tls(self._transport, self, context, server_hostname=hostname)

    def keep_pinging(self, interval_s: float) -> None:
        """Ask again and again whether the broker is there. Counts pings, not time: when it is this process that
        stood still, one ping is late, and the broker is not blamed."""
        if self._pings >= PINGS_MAX:
            self._last_words = f"it left {PINGS_MAX} pings unanswered"
            self.abort()
            return
        self._pings += 1
        self.write(b"PING\r\n")
        self._timer = asyncio.get_running_loop().call_later(interval_s, self.keep_pinging, interval_s)

    def close(self) -> None:
        """What is written goes out first, unless the broker does not take it."""
        if self._transport is not None and not self.ended.done():
            self._transport.close()
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(CLOSE_MAX_S, self.abort)

    def abort(self) -> None:
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do what asyncio.Transport says without being one.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_timer()
        reason = self._last_words or (str(error) if error else "it closed the connection")
        for waiting in (self.informed, self.accepted):
            if not waiting.done():
                is_told = bool(self._last_words) or not isinstance(error, OSError)
                waiting.set_exception(Refused(reason) if is_told or error is None else error)
                waiting.exception()  # one that is not awaited any more is not reported
        if not self.ended.done():
            self.ended.set_result(reason)

    def data_received(self, data: bytes) -> None:
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._rest:
            data = self._rest + data
        self._rest = data[self._take(data) :]

    def _take(self, data: bytes) -> int:
        """Everything that is whole; where the rest begins."""
        at, handlers, find = 0, self._handlers, data.find
        while True:
            eol = find(b"\r\n", at)
            if eol < 0:
                if len(data) - at > LINE_MAX:
                    self._no_protocol()
                    return len(data)
                return at
            is_plain = data.startswith(b"MSG ", at)
            if not is_plain and not data.startswith(b"HMSG ", at):
                self._line(data[at:eol])
                at = eol + 2
                continue
            words, start = data[at:eol].split(), eol + 2
            count = len(words) if is_plain else len(words) - 1
            if not 4 <= count <= 5 or not words[-1].isdigit():
                self._no_protocol()
                return len(data)
            sid, size = words[2], int(words[-1][:DIGITS_MAX])
            stop = start + size
            if stop + 2 > len(data):
                if size <= MAX_MESSAGE_BYTES:
                    return at
                self._skip = stop + 2 - len(data)
                return len(data)
            at = stop + 2
            handler = handlers.get(sid)
            if handler is None or size > MAX_MESSAGE_BYTES:
                continue
            if is_plain:
                handler(words[1], words[3] if len(words) == 5 else b"", data[start:stop])
            else:
                headers = start + (int(words[-2]) if words[-2].isdigit() else size + 1)
                if headers > stop:
                    self._no_protocol()
                    return len(data)
                payload = None if data.startswith(NOBODY_LISTENS, start) else data[headers:stop]
                handler(words[1], words[3] if len(words) == 6 else b"", payload)

    def _line(self, line: bytes) -> None:
        verb, _, text = line.partition(b" ")
        match verb.upper():
            case b"PING":
                self.write(b"PONG\r\n")
            case b"PONG":
                self._pings = 0
                if not self.accepted.done():
                    self.accepted.set_result(None)
            case b"INFO":
                self._inform(text)
            case b"-ERR":
                self._complaint(text.decode(errors="replace").strip(" '"))
            case b"+OK" | b"":
                pass
            case _:
                self._no_protocol()

    def _inform(self, text: bytes) -> None:
        try:
            info = json.loads(text)
            max_payload_bytes = int(info.get("max_payload", self.max_payload_bytes))
            if max_payload_bytes < LEAST_MAX_PAYLOAD:
                raise ValueError("nothing of ours would fit")
            self.max_payload_bytes = max_payload_bytes
        except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError):
            self._no_protocol()
            return
        if not self.informed.done():
            self.informed.set_result(info)

    def _complaint(self, text: str) -> None:
        if text.lower().startswith("permissions violation"):
            self._on_complaint(text)
            return
        self._last_words = text  # the broker ends the connection after any other
        if text.lower().startswith("authorization violation"):
            self._last_words = "wrong nats.user or nats.password (Authorization Violation)"

    def _no_protocol(self) -> None:
        self._last_words = "what listens there does not speak NATS"
        self.abort()
