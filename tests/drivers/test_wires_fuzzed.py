"""Every decoder that reads what a stranger sent: it ends, raises what it declares, and keeps a bound."""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pamqp import frame
from pamqp.commands import Basic, Channel, Connection
from pamqp.header import ContentHeader

from droveway.agents.heart import links, rabbitmq
from droveway.drivers.bus import beats, broker_messages
from droveway.drivers.bus.nats_wire import LINE_MAX, NatsWire
from droveway.drivers.bus.rabbitmq_wire import FRAME_MAX, RabbitWire, framed
from droveway.drivers.bus.socket_frames import decode_from_agent, decode_from_control, read_frame
from droveway.drivers.membership import etcd_wire, memcached_wire
from droveway.ports.bus import MAX_MESSAGE_BYTES

pytestmark = pytest.mark.slow

QUICK = settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
WORDS = [
    b"MSG",
    b"HMSG",
    b"INFO",
    b"PING",
    b"PONG",
    b"-ERR",
    b"+OK",
    b"a",
    b"1",
    b"2",
    b"-15",
    b"+3",
    b"0",
    b"1_0",
    b"9" * 30,
    b"\xb2",
    b"\r\n",
    b"\r\n",
    b"\r\n",
    b" ",
    b" ",
    b"NATS/1.0 503\r\n\r\n",
    b"{}",
    b'{"max_payload":-1}',
    b'{"max_payload":1e999}',
    b"[" * 2000,
    b"x" * 20,
    b"\0",
]
LINES = st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=6)), max_size=30).map(b"".join)


class Wire:
    """A transport that takes everything, and says whether it was ended."""

    def __init__(self) -> None:
        self.is_ended = False

    def write(self, data: bytes) -> None: ...
    def is_closing(self) -> bool:
        return self.is_ended

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.is_ended = True

    abort = close


def read(make: Callable[[list[tuple[bytes, ...]]], asyncio.Protocol], pieces: list[bytes]) -> tuple[bool, int]:
    """Whether the wire ended itself over these pieces, and how much it kept."""

    async def work() -> tuple[bool, int]:
        transport = Wire()
        wire = make([])
        wire.connection_made(transport)  # type: ignore[arg-type]
        for piece in pieces:
            if transport.is_ended:
                break
            wire.data_received(piece)
        kept = len(wire._rest) + sum(map(len, getattr(wire, "_parts", ())))  # type: ignore[attr-defined]
        with suppress(AttributeError):
            if wire._ack_timer is not None:  # type: ignore[attr-defined]
                wire._ack_timer.cancel()  # type: ignore[attr-defined]
        return transport.is_ended, kept

    return asyncio.run(work())


def nats(heard: list[tuple[bytes, ...]]) -> NatsWire:
    def handler(*said: bytes | None) -> None:
        heard.append(tuple(one or b"" for one in said))

    return NatsWire({b"1": handler, b"a": handler}, lambda _: None)


def amqp(heard: list[tuple[bytes, ...]]) -> RabbitWire:
    def handler(*said: bytes | None) -> None:
        heard.append(tuple(one or b"" for one in said))

    return RabbitWire("droveway", lambda _: [handler], lambda _: None)


# -- NATS -------------------------------------------------------------------------------------------------------------
@QUICK
@given(LINES, st.integers(1, 50))
@example(b"MSG a 1 -15\r\n", 50)
@example(b"HMSG a 1 x 5\r\nhello\r\n", 50)
@example(b"HMSG a 1 -5 5\r\nhello\r\n", 50)
@example(b"HMSG a 1 9 5\r\nhello\r\n", 50)
@example(b"MSG 1\r\n", 50)
@example(b"INFO " + b"[" * 60_000 + b"\r\n", 1 << 20)
@example(b'INFO {"max_payload": 1e999}\r\n', 50)
def test_a_nats_server_that_says_anything(data: bytes, at_once: int) -> None:
    pieces = [data[at : at + at_once] for at in range(0, len(data), at_once)]
    _, kept = read(nats, pieces)
    assert kept <= LINE_MAX + len(data[-at_once:]) + MAX_MESSAGE_BYTES


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a 1 -15",
        b"MSG a 1 +5",
        b"MSG a 1 1_0",
        b"MSG a 1 2 3 4",
        b"HMSG a 1 x 5",
        b"HMSG a 1 6 5",
        b"HMSG a 1 5",
        b"MSG a",
        b"NONSENSE",
        b'INFO {"max_payload": 3}',
        b"INFO " + b"[" * 60_000,
        b"INFO 7",
        b"INFO",
    ],
)
def test_what_is_no_nats_ends_the_connection(line: bytes) -> None:
    assert read(nats, [line + b"\r\nhello\r\n"]) == (True, 0)


def test_a_size_beyond_every_bound_is_skipped_and_nothing_is_kept() -> None:
    ended, kept = read(nats, [b"MSG a 1 " + b"9" * 4000 + b"\r\n", *[b"x" * 65_536] * 100])
    assert (ended, kept) == (False, 0)
    ended, kept = read(nats, [b"x" * 40_000] * 3)
    assert (ended, kept) == (True, 0)


# -- RabbitMQ ---------------------------------------------------------------------------------------------------------
def delivered(subject: bytes, size: int, *bodies: bytes) -> bytes:
    deliver = frame.marshal(Basic.Deliver("c", 1, exchange="droveway", routing_key=subject.decode()), 1)
    header = framed(2, 1, b"\x00\x3c\x00\x00" + size.to_bytes(8, "big") + b"\0\0")
    return deliver + header + b"".join(framed(3, 1, body) for body in bodies)


GOOD = [
    delivered(b"droveway.beat.h1", 5, b"hello"),
    delivered(b"x", 1 << 60, b"hello"),
    delivered(b"x", 10, b"", b""),
    frame.marshal(Connection.Close(320, "bye", 0, 0), 0),
    frame.marshal(Channel.FlowOk(True), 1),
    frame.marshal(Basic.Return(312, "NO_ROUTE", "droveway", "x"), 1),
    frame.marshal(ContentHeader(body_size=5), 1),
    framed(1, 1, b"\x00\x3c\x00\x3c"),
    framed(1, 1, b"\xff\xff\xff\xff"),
    framed(2, 1, b"\x00"),
    framed(8, 0, b""),
]


@QUICK
@given(
    st.lists(
        st.one_of(
            st.sampled_from(GOOD),
            st.binary(max_size=12),
            st.binary(max_size=40).map(lambda body: framed(1, 1, body)),
            st.binary(max_size=40).map(lambda body: framed(2, 1, body)),
        ),
        max_size=8,
    ),
    st.integers(0, 400),
    st.integers(0, 255),
    st.integers(1, 60),
)
def test_a_rabbitmq_server_that_says_anything(parts: list[bytes], where: int, byte: int, at_once: int) -> None:
    data = bytearray(b"".join(parts))
    if data:
        data[where % len(data)] = byte
    read(amqp, [bytes(data[at : at + at_once]) for at in range(0, len(data), at_once)])


@pytest.mark.parametrize(
    "data",
    [
        framed(1, 1, b"\x00\x3c\x00\x3c"),
        framed(1, 1, b"\x00\x3c\x00\x3c\xffabc"),
        framed(2, 1, b"\0" * 13),
        framed(1, 1, b"\xff\xff\xff\xff"),
        b"HTTP/1.1 400 Bad",
        struct.pack(">BHI", 1, 1, FRAME_MAX + 1) + b"\0",
    ],
)
def test_what_is_no_amqp_ends_the_connection(data: bytes) -> None:
    ended, _ = read(amqp, [data])
    assert ended


def test_pieces_without_end_keep_nothing() -> None:
    head = delivered(b"x", 1 << 62)
    ended, kept = read(amqp, [head, *[framed(3, 1, b"y" * 60_000)] * 50])
    assert (ended, kept) == (False, 0)
    tracemalloc.start()
    read(amqp, [delivered(b"x", 10), *[framed(3, 1, b"") * 1000] * 200])
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


# -- the heart's ends -------------------------------------------------------------------------------------------------
@QUICK
@given(st.lists(st.one_of(LINES, st.sampled_from(GOOD), st.binary(max_size=20)), max_size=6))
@example([framed(1, 0, b"\x00\x0a\x00\x32")])
@example([framed(1, 1, b"\x00\x14\x00\x28\x01")])
def test_a_heart_whose_broker_says_anything(pieces: list[bytes]) -> None:
    server, tls = (("127.0.0.1", 1),), ("", "", "")
    for link in (
        links.NatsLink(server, b"CONNECT {}\r\n", False, tls, 1.0),
        rabbitmq.RabbitLink(server, (b"", b"", b""), "x", False, tls, 1.0),
    ):
        for piece in pieces:
            link._take(piece)
        assert len(link._unread) <= LINE_MAX + sum(map(len, pieces))


# -- messages ---------------------------------------------------------------------------------------------------------
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.sampled_from(["hello", "beat", "report", "answer", "gone", "h1"]),
)
KEYS = st.sampled_from(["type", "host", "boot_id", "agent", "hello", "guest", "guests", "x"])
ANY = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=12,
)
DECODERS = (
    decode_from_agent,
    decode_from_control,
    broker_messages.decode_hello,
    broker_messages.decode_answer,
    broker_messages.decode_notice,
    broker_messages.decode_for_agent,
)


@QUICK
@given(st.one_of(st.binary(max_size=60), ANY.map(msgspec.msgpack.encode)))
@example(b"\x82\xa4type\xa4gone\xa4host\xa1\xff")
def test_a_message_that_is_anything(data: bytes) -> None:
    for decode in DECODERS:
        with suppress(msgspec.DecodeError):
            decode(data)


@pytest.mark.parametrize("start", [b"\x81\xa4type", b"\x82\xa4type\xa4gone\xa1x"])
def test_a_message_that_is_nested_without_end(start: bytes) -> None:
    for decode in DECODERS:
        with pytest.raises(msgspec.DecodeError):
            decode(start + b"\x91" * 100_000)


@QUICK
@given(st.binary(max_size=120), st.integers(0, 200), st.integers(0, 255))
def test_a_beat_that_is_anything(data: bytes, where: int, byte: int) -> None:
    good = bytearray(beats.encode(beats.Beat("h1", "boot", 7, 1, ("nova-compute",), (1,), (2,), 3, ("note",))))
    good[where % len(good)] = byte
    reader = beats.BeatReader()
    for payload in (data, bytes(good), bytes(good) + data, bytes(good)[: where % len(good)]):
        beats.identity(payload)
        assert reader.read(b"x", payload) is None
        with suppress(ValueError):
            beats.decode(payload)
        with suppress(ValueError):
            reader.know(b"x", payload)
            reader.read(b"x", payload)
        reader.forget(b"x")


@QUICK
@given(st.binary(max_size=64))
@example((MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"))
async def test_a_frame_that_is_anything(data: bytes) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    with suppress(EOFError, ValueError):
        while True:
            await read_frame(reader)


# -- what membership servers answer -----------------------------------------------------------------------------------
@QUICK
@given(st.binary(max_size=60))
@example(b"\x08" + b"\x80" * 100_000)
@example(b"\x12\xff\xff\xff\xff\x0fab")
def test_an_etcd_message_that_is_anything(data: bytes) -> None:
    with suppress(ValueError):
        found = etcd_wire.decode(data)
        assert sum(len(one) for values in found.values() for one in values if isinstance(one, bytes)) <= len(data)


@QUICK
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    b"VALUE k 0 3 1\r\nabc\r\n",
                    b"VALUE k 0 -3 1\r\n",
                    b"END\r\n",
                    b"VALUE\r\n",
                    b"VALUE k 0 99999999999 1\r\n",
                    b"SERVER_ERROR x\r\n",
                    b"STAT pid 1\r\n",
                ]
            ),
            st.binary(max_size=10),
        ),
        max_size=8,
    ).map(b"".join)
)
async def test_a_memcached_answer_that_is_anything(data: bytes) -> None:
    reader = asyncio.StreamReader(limit=2 << 20)
    reader.feed_data(data)
    reader.feed_eof()
    with suppress(OSError, ValueError, LookupError):
        await memcached_wire._items(reader, b"END")


async def test_a_memcached_answer_without_end_is_left() -> None:
    reader = asyncio.StreamReader(limit=2 << 20)
    reader.feed_data(b"STAT a 1\r\n" * 3000)
    with pytest.raises(ValueError, match="more than 2000 items"):
        await memcached_wire._items(reader, b"END")
