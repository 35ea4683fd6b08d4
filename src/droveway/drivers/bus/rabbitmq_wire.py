"""The bytes of one RabbitMQ connection: AMQP 0-9-1 frames in, messages handed over; one channel, and no more than that.

What a broker says rarely is read and written with pamqp; what it says for every message is read here by hand. Nothing
is queued: a message is handed over as it is read, and acknowledged soon, many in one go. A broker that waits for these
acknowledgements keeps the rest, up to the bounds of the queue.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from pamqp import base, exceptions, frame
from pamqp.commands import Basic, Channel, Connection
from pamqp.header import ContentHeader

from droveway.drivers.bus.broker_link import CLOSE_MAX_S, PINGS_MAX, OnMessage, Refused
from droveway.drivers.bus.rate_limited_log import RateLimitedLog
from droveway.ports.bus import MAX_MESSAGE_BYTES

GREETING = b"AMQP\x00\x00\x09\x01"
FRAME = struct.Struct(">BHI")
METHOD, HEADER, BODY, END = 1, 2, 3, 0xCE
DELIVER = b"\x00\x3c\x00\x3c"  # basic.deliver
PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
CONTENT = b"\x00\x3c\x00\x00"
ACK_HEAD, ACK_TAIL = b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50", b"\x01\xce"  # all up to this one
ACK_MAX, ACK_WITHIN_S = 100, 0.02  # messages that wait for it
NO_PROPERTIES, ONLY_REPLY_TO = b"\x00\x00", b"\x02\x00"
HAS_HEADERS = 0x20  # in the first of these bytes
FRAME_MIN, FRAME_MAX = 4096, 128 * 1024  # AMQP names the least
HEARTBEAT_MIN_S = 6  # the broker speaks twice in it, and leaves who says nothing for two of it
REFUSALS = {402, 403, 404, 405, 406, 530}  # what will not be otherwise at the next try


class MalformedFrame(Exception):
    """What arrived is not AMQP 0-9-1."""


Route = Callable[[bytes], Sequence[OnMessage]]
Reply = TypeVar("Reply", bound=base.Frame)
Read = TypeVar("Read")
# What pamqp raises over bytes that are no frame.
ODD = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    OSError,
    struct.error,
    exceptions.PAMQPException,
)


def _understood(read: Callable[[], Read]) -> Read:
    """What pamqp reads there; MalformedFrame when it cannot."""
    try:
        return read()
    except ODD:
        raise MalformedFrame from None


def _reply_of(received: bytes) -> bytes:
    header = ContentHeader()
    header.unmarshal(received)
    return (header.properties.reply_to or "").encode()


def framed(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%b%b\xce" % (FRAME.pack(kind, channel, len(payload)), payload)


def short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def heartbeat_s(ping_interval_s: float) -> int:
    return max(HEARTBEAT_MIN_S, math.ceil(3 * ping_interval_s))


class RabbitWire(asyncio.Protocol):
    """`ended`: why the connection is over."""

    max_payload_bytes = MAX_MESSAGE_BYTES

    def __init__(self, exchange: str, route: Route, on_blocked: Callable[[str], None]) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.is_refused = False
        self.frame_max = FRAME_MAX
        self._exchange, self._route, self._on_blocked = short(exchange.encode()), route, on_blocked
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._expected: tuple[type[base.Frame], asyncio.Future[base.Frame]] | None = None
        self._rest = b""  # of a frame that has not arrived whole
        self._subject: bytes | None = None  # of the message that is being read
        self._reply, self._is_returned, self._is_kept = b"", False, False
        self._parts: list[bytes] = []
        self._left = 0  # bytes of it still to come
        self._tag, self._unacknowledged = b"", 0  # of the last message read; how many there are
        self._ack_timer: asyncio.TimerHandle | None = None
        self._pings = 0  # since the broker last said anything
        self._is_blocked = self._is_open = False
        self._last_words = ""
        self._rate_limited = RateLimitedLog()

    # -- sending ------------------------------------------------------------------------------------------------------
    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():  # as in nats_wire.py
            self._transport.write(data)

    def send(self, channel: int, method: base.Frame) -> None:
        self.write(frame.marshal(method, channel))

    async def call(self, channel: int, method: base.Frame | None, reply: type[Reply]) -> Reply:
        """Say this (nothing: the greeting) and wait for its answer; Refused or OSError when the connection ends."""
        waiting: asyncio.Future[base.Frame] = asyncio.get_running_loop().create_future()
        self._expected = (reply, waiting)
        if self.ended.done():
            raise Refused(self.ended.result())
        self.write(GREETING if method is None else frame.marshal(method, channel))
        return cast("Reply", await waiting)

    def opened(self) -> None:
        """From now on only what a user of it does can be refused."""
        self._is_open = True

    def publish(self, subject: str, payload: bytes, reply: str) -> None:
        """With `reply` it is mandatory: it comes back when no queue takes it."""
        properties = ONLY_REPLY_TO + short(reply.encode()) if reply else NO_PROPERTIES
        most_bytes = self.frame_max - 8
        self.write(
            framed(METHOD, 1, PUBLISH + self._exchange + short(subject.encode()) + (b"\x01" if reply else b"\x00"))
            + framed(HEADER, 1, CONTENT + len(payload).to_bytes(8, "big") + properties)
            + b"".join(framed(BODY, 1, payload[at : at + most_bytes]) for at in range(0, len(payload), most_bytes))
        )

    def unsent_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def keep_pinging(self, interval_s: float) -> None:
        """Ask again and again whether the broker is there. Counts pings, not time: when it is this process that stood
        still, one ping is late, and the broker is not blamed. One that takes no messages reads no pings either; it
        still sends its heartbeats."""
        if self._pings >= PINGS_MAX + (heartbeat_s(interval_s) / interval_s if self._is_blocked else 0):
            self._last_words = f"it left {PINGS_MAX} pings unanswered"
            self.abort()
            return
        self._pings += 1
        self.send(1, Channel.Flow(active=True))
        self._timer = asyncio.get_running_loop().call_later(interval_s, self.keep_pinging, interval_s)

    def close(self) -> None:
        """What is written goes out first, unless the broker does not take it."""
        if self._transport is not None and not self.ended.done():
            self.send(0, Connection.Close(200, "", 0, 0))
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_later(CLOSE_MAX_S, self.abort)

    def abort(self) -> None:
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    def _stop_timer(self) -> None:
        for timer in (self._timer, self._ack_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._ack_timer = None

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do what asyncio.Transport says without being one.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._stop_timer()
        reason = self._last_words or (str(error) if error else "it closed the connection")
        if not self.ended.done():
            self.ended.set_result(reason)
        if self._expected is not None and not self._expected[1].done():
            is_cut = isinstance(error, OSError) and not self._last_words
            self._expected[1].set_exception(cast("OSError", error) if is_cut else Refused(reason))
            self._expected[1].exception()  # one that is not awaited any more is not reported

    def data_received(self, data: bytes) -> None:
        self._pings = 0
        if self._rest:
            data = self._rest + data
        try:
            self._rest = data[self._take(data) :]
        except MalformedFrame:
            self._no_protocol()
        if self._unacknowledged >= ACK_MAX:
            self._acknowledge()
        elif self._unacknowledged and self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_WITHIN_S, self._acknowledge)

    def _acknowledge(self) -> None:
        """All that has arrived."""
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        self._unacknowledged = 0
        self.write(b"%b%b%b" % (ACK_HEAD, self._tag, ACK_TAIL))

    def _take(self, data: bytes) -> int:
        """Everything that is whole; where the rest begins."""
        at, end, unpack = 0, len(data), FRAME.unpack_from
        while end - at >= 8:
            kind, _, size = unpack(data, at)
            start = at + 7
            stop = start + size
            if size > self.frame_max or (stop < end and data[stop] != END):
                raise MalformedFrame
            if stop >= end:
                break
            if kind == METHOD:
                if data.startswith(DELIVER, start):
                    self._deliver(data[start:stop])
                else:
                    self._method(data[at : stop + 1])
            elif kind == HEADER:
                self._header(data[start:stop])
            elif kind == BODY:
                self._body(data[start:stop])
            at = stop + 1
        return at

    def _deliver(self, received: bytes) -> None:
        try:
            at = 5 + received[4]  # behind the consumer's name
            tag = received[at : at + 8]
            at += 9
            at += 1 + received[at]  # the exchange
            self._subject, self._is_returned = received[at + 1 : at + 1 + received[at]], False
        except IndexError:
            raise MalformedFrame from None
        self._tag = tag
        self._unacknowledged += 1

    def _header(self, received: bytes) -> None:
        if len(received) < 14:
            raise MalformedFrame
        self._left = int.from_bytes(received[4:12], "big")
        self._is_kept = self._left <= MAX_MESSAGE_BYTES
        self._parts.clear()
        properties = received[12:14]
        if properties == NO_PROPERTIES:
            self._reply = b""
        elif properties == ONLY_REPLY_TO:
            self._reply = received[15 : 15 + received[14]] if len(received) > 14 else b""
        else:  # a stranger's
            self._reply = _understood(lambda: _reply_of(received))
            if properties[0] & HAS_HEADERS:
                self._drop_rerouted()
        if self._left == 0:
            self._hand_over(b"")

    def _drop_rerouted(self) -> None:
        """No end here sends headers. The broker adds them to a message that it routes anew, from a queue with a dead
        letter exchange or because its sender asked for copies (CC), and checks no topic permission for that: under such
        a subject anybody could speak for anybody."""
        self._is_kept = False
        subject = (self._subject or b"").decode(errors="replace")
        self._rate_limited.warn("a message with headers was dropped", subject, subject=subject)

    def _body(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._is_kept and piece:
            self._parts.append(piece)
        if self._left <= 0:
            self._hand_over(b"".join(self._parts) if self._is_kept else None)

    def _hand_over(self, payload: bytes | None) -> None:
        subject, self._subject = self._subject, None
        self._parts.clear()
        if subject is None or payload is None or self.ended.done():
            return
        if self._is_returned:
            for handler in self._route(self._reply):
                handler(self._reply, b"", None)
        else:
            for handler in self._route(subject):
                handler(subject, self._reply, payload)

    # -- what is said rarely ------------------------------------------------------------------------------------------
    def _method(self, data: bytes) -> None:
        method = _understood(lambda: frame.unmarshal(data)[2])
        match method:
            case Connection.Close() | Channel.Close():
                self._refused(method)
            case Connection.CloseOk():
                assert self._transport is not None, "it brought this"
                self._transport.close()
            case Connection.Blocked():
                self._is_blocked = True
                self._on_blocked(method.reason)
            case Connection.Unblocked():
                self._is_blocked = False
                self._on_blocked("")
            case Basic.Return():
                self._subject, self._is_returned = (method.routing_key or "").encode(), True
            case Basic.Cancel():
                self._last_words = "it has deleted the queue of this end"
                self.close()
            case base.Frame() if self._expected is not None and isinstance(method, self._expected[0]):
                if not self._expected[1].done():
                    self._expected[1].set_result(method)

    def _refused(self, received: Connection.Close | Channel.Close) -> None:
        self._last_words = received.reply_text
        self.is_refused = received.reply_code in REFUSALS
        if received.reply_code == 403 and not self._is_open:
            self._last_words = f"wrong rabbitmq.user or rabbitmq.password ({received.reply_text})"
        elif received.reply_code == 530:
            self._last_words = f"wrong rabbitmq.virtual_host, or its user may not enter it ({received.reply_text})"
        if isinstance(received, Connection.Close):
            self.send(0, Connection.CloseOk())
            if self._transport is not None:
                self._transport.close()
        else:
            self.send(1, Channel.CloseOk())
            self.close()

    def _no_protocol(self) -> None:
        self._last_words = "what listens there does not speak AMQP 0-9-1"
        self.abort()
