"""HTTP for guests that are not trusted: what a request may be, and what one guest may cost. Over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from droveway.agents.metadata import passwords
from droveway.agents.metadata import service as bounds
from droveway.agents.metadata.service import Service

BIG = bytes(range(256)) * 1024
SHOWN = {"latest/user-data": b"hello", "openstack/latest/password": b"", "latest/meta-data/big": BIG}


class Scene:
    """Two networks with the same addresses, of two guests."""

    def __init__(self) -> None:
        self.metadata = Service("1")
        self.at: dict[str, tuple[str, int]] = {}
        self.writers: list[asyncio.StreamWriter] = []

    async def open(self) -> None:
        for network_id in ("red", "blue"):
            listening = socket.create_server(("127.0.0.1", 0))
            self.at[network_id] = listening.getsockname()
            await self.metadata.listen(network_id, "here", [listening.detach()])
        self.metadata.addresses = {"red": {"127.0.0.1": "vm-r"}, "blue": {"127.0.0.1": "vm-b"}}
        self.metadata.documents = {"vm-r": ("d", SHOWN), "vm-b": ("d", {"latest/user-data": b"blue"})}

    async def connect(self, network_id: str = "red") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.at[network_id])
        self.writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        for network_id in self.at:
            self.metadata.leave(network_id)
        for writer in self.writers:
            await closed(writer)

    async def ask(self, sent: bytes, network_id: str = "red") -> bytes:
        """Everything that is answered until it closes."""
        reader, writer = await self.connect(network_id)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                writer.write(sent)
                return await reader.read()
        return b""


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    await made.open()
    yield made
    await made.close()


def get(path: str = "/latest/user-data", *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {path} HTTP/{version}", "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode()


LAST = "Connection: close"


async def test_networks_send_guest_data_apart_and_headers_do_not(scene: Scene) -> None:
    forged = get("/latest/user-data", "X-Forwarded-For: 10.0.0.9", "X-Instance-ID: vm-b", LAST)
    assert (await scene.ask(forged)).endswith(b"\r\n\r\nhello")
    assert (await scene.ask(forged, "blue")).endswith(b"\r\n\r\nblue")
    scene.metadata.addresses = {"red": {"127.0.0.2": "vm-r"}}
    assert (await scene.ask(get("/", LAST))).startswith(b"HTTP/1.1 404 ")
    scene.metadata.addresses = {"red": {"127.0.0.1": "vm-x"}}
    answer = await scene.ask(get("/", LAST))
    assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1\r\n" in answer


async def test_a_connection_takes_one_request_after_the_other(scene: Scene) -> None:
    sent = get() + get("/nothing") + get(method="HEAD") + get("http://169.254.169.254/latest/user-data", LAST)
    answer = await scene.ask(sent)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"404", b"200", b"200"]
    assert answer.count(b"hello") == 2  # HEAD tells its length alone
    assert answer.count(b"Content-Length: 5\r\n") == 3
    assert (await scene.ask(get(version="1.0"))).endswith(b"hello")  # and closes
    many = await scene.ask(get() * (bounds.REQUESTS_MAX + 5))
    assert many.count(b"HTTP/1.1 200") == bounds.REQUESTS_MAX


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"\xff\xfe\x00 / HTTP/1.1\r\n\r\n", 405),
        (get("/latest/api/token", method="PUT"), 405),
        (get("/openstack/latest/user_data", "Content-Length: 5", method="POST") + b"hello", 405),
        (get("/openstack/2012-08-10/password", "Content-Length: 5", method="POST") + b"hello", 405),
        (get("/openstack/latest/password", method="POST"), 400),
        (get("/openstack/latest/password", "Content-Length: -5", method="POST"), 400),
        (get("/openstack/latest/password", "Content-Length: \u0665", method="POST"), 400),
        (get("/openstack/latest/password", "Content-Length: 0", method="POST"), 400),
        (get("/openstack/latest/password", "Transfer-Encoding: chunked", method="POST"), 400),
        (get("/openstack/latest/password", "Content-Length: 1021", method="POST"), 413),
        (get("/openstack/latest/password", "Content-Length: 5", method="POST") + b"he\x00lo", 400),
        (get("/openstack/latest/password", "Content-Length: 2", method="POST") + b"\xff\xfe", 400),
        (get("/", "Content-Length: 5") + b"GET /", 400),
        (get("/", "Transfer-Encoding: chunked"), 400),
        (get("/" + "x" * 600, LAST), 404),
        (get("/", "X: " + "y" * bounds.HEAD_MAX_BYTES), 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000, 431),
        (b"\r\n" * 10 + get("/", LAST), 200),
    ],
)
async def test_wrong_requests(scene: Scene, sent: bytes, status: int) -> None:
    answer = await scene.ask(sent)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:80]
    assert answer.count(b"HTTP/1.1 ") == 1  # what follows a body that was not taken is no request
    if status == 405:
        assert b"Allow: GET, HEAD\r\n" in answer


async def test_one_guest_has_so_many_connections_and_another_its_own(scene: Scene) -> None:
    held = [await scene.connect() for _ in range(bounds.CONNECTIONS_OF_ONE_MAX)]
    await asyncio.sleep(0.05)
    assert await scene.ask(get("/", LAST)) == b""
    assert (await scene.ask(get("/latest/user-data", LAST), "blue")).endswith(b"blue")
    await closed(held[0][1])
    await asyncio.sleep(0.05)
    assert (await scene.ask(get("/latest/user-data", LAST))).endswith(b"hello")


async def test_all_guests_together_have_so_many(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "CONNECTIONS_MAX", 3)
    held = [await scene.connect(name) for name in ("red", "blue", "blue")]
    await asyncio.sleep(0.05)
    assert await scene.ask(get("/", LAST)) == b""
    for _, writer in held:
        await closed(writer)
    await asyncio.sleep(0.05)
    assert (await scene.ask(get("/latest/user-data", LAST))).endswith(b"hello")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n", get()])
async def test_who_sends_nothing_more_is_left(scene: Scene, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Nor does it help to send a little from time to time."""
    monkeypatch.setattr(bounds, "REQUEST_S", 0.3)
    reader, writer = await scene.connect()
    writer.write(sent)
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def trickle() -> None:
        while True:
            await asyncio.sleep(0.05)
            writer.write(b"X")

    trickling = asyncio.create_task(trickle())
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            await reader.read()
    assert loop.time() - began >= 0.25
    trickling.cancel()
    await asyncio.sleep(0.05)
    assert scene.metadata._count == 0


async def test_who_does_not_take_its_answer_is_left(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SEND_S", 0.3)
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    opened.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(opened, scene.at["red"])
    await loop.sock_sendall(opened, get("/latest/meta-data/big") * 90)
    async with asyncio.timeout(4):  # sooner than a request would have had to be there
        while not scene.metadata._count:
            await asyncio.sleep(0.01)
        while scene.metadata._count:
            await asyncio.sleep(0.01)
    opened.close()


async def test_a_slow_taker_gets_all_of_it(scene: Scene) -> None:
    reader, writer = await scene.connect()
    writer.write(get("/latest/meta-data/big") + get("/latest/meta-data/big", LAST))
    received = bytearray()
    while part := await reader.read(40_000):
        received += part
        await asyncio.sleep(0.002)
    assert received.count(BIG) == 2


async def test_one_that_asks_too_often_is_told_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "BURST", 5.0)
    monkeypatch.setattr(bounds, "RATE_A_S", 20.0)
    answer = await scene.ask(get() * 20)
    assert answer.count(b"HTTP/1.1 200") in (5, 6) and answer.count(b"HTTP/1.1 429") == 1
    assert (await scene.ask(get("/latest/user-data", LAST), "blue")).endswith(b"blue")
    await asyncio.sleep(0.2)
    assert (await scene.ask(get("/latest/user-data", LAST))).endswith(b"hello")


async def test_what_is_remembered_of_askers_is_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "ASKERS_MAX", 10)
    for number in range(100):
        assert scene.metadata.may_ask(("red", f"10.0.0.{number}"), float(number))
    assert len(scene.metadata._asked) == 10


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written, self.is_closed = bytearray(), False

    def write(self, data: object) -> None:
        assert not self.is_closed
        self.written += data  # type: ignore[operator]

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0


WORDS = (
    b"GET",
    b"HEAD",
    b" ",
    b"/",
    b"latest/user-data",
    b"HTTP/1.1",
    b"\r\n",
    b"\r\n\r\n",
    b":",
    b"\0",
    b"\xff",
    b"?",
)
HEADERS = (b"Connection", b"close", b"Content-Length", b"-1", b"9" * 30, b"Transfer-Encoding", b"http://", b"%2e%2e")


@given(st.lists(st.sampled_from((*WORDS, *HEADERS, get(), get("/", LAST))), max_size=30), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_whatever_is_sent_is_answered_by_whole_answers_or_not_at_all(words: list[bytes], step: int) -> None:
    async def story() -> None:
        served = Service("1")
        served.addresses, served.documents = {"red": {"127.0.0.1": "vm-r"}}, {"vm-r": ("d", SHOWN)}
        wire, connection = Wire(), bounds.Connection(served, "red")
        connection.connection_made(wire)
        sent = b"".join(words)
        for start in range(0, len(sent), step):
            if not wire.is_closed:
                connection.data_received(sent[start : start + step])
        left = bytes(wire.written)
        while left:
            head, _, left = left.partition(b"\r\n\r\n")
            assert re.match(rb"HTTP/1\.1 (200|400|404|405|429) [A-Z]", head), head
            size = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
            if left and not left.startswith(b"HTTP/1.1 "):  # the answer to HEAD has no body
                left = left[size:]
        connection.connection_lost(None)
        assert served._count == 0

    asyncio.run(story())


async def test_a_network_that_goes_takes_its_connections_along(scene: Scene) -> None:
    reader, writer = await scene.connect()
    writer.write(get())
    assert await reader.readuntil(b"hello")
    scene.metadata.leave("red")
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    with pytest.raises(ConnectionRefusedError):
        await scene.connect()
    assert list(scene.metadata.places) == ["blue"]


def post(body: bytes, path: str = "/openstack/2013-04-04/password", *headers: str) -> bytes:
    return get(path, f"Content-Length: {len(body)}", *headers, method="POST") + body


async def _posted(scene: Scene, body: bytes) -> asyncio.Task[bytes]:
    """Asked, and not answered yet."""
    task = asyncio.create_task(scene.ask(post(body)))
    async with asyncio.timeout(10):
        while not scene.metadata.passwords.waiting():
            await asyncio.sleep(0.01)
    return task


async def test_a_password_is_answered_when_the_guest_is_told_it_back(scene: Scene) -> None:
    first = await _posted(scene, b"c2VjcmV0\n")
    assert scene.metadata.passwords.waiting() == {"vm-r": "c2VjcmV0\n"}
    assert (await scene.ask(post(b"other"))).startswith(b"HTTP/1.1 409 ")
    same = asyncio.create_task(scene.ask(post(b"c2VjcmV0\n", "/openstack/latest/password?", "Expect: 100-continue")))
    scene.metadata.set_documents("vm-r", "e", SHOWN)  # something else that it is told
    await asyncio.sleep(0.05)
    assert not first.done() and scene.metadata.passwords.waiting()
    scene.metadata.set_documents("vm-r", "f", SHOWN | {"openstack/latest/password": b"c2VjcmV0\n"})
    assert (await first).startswith(b"HTTP/1.1 200 ")
    again = await same
    assert again.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
    assert scene.metadata.passwords.waiting() == {}
    assert (await scene.ask(get("/openstack/latest/password", LAST))).endswith(b"c2VjcmV0\n")
    assert (await scene.ask(post(b"other"))).startswith(b"HTTP/1.1 409 ")
    assert (await scene.ask(post(b"c2VjcmV0\n"))).startswith(b"HTTP/1.1 200 ")
    scene.metadata.set_documents("vm-r", "g", SHOWN)  # deleted: it may be set anew
    (await _posted(scene, b"other")).cancel()


async def test_a_password_that_is_not_stored_in_time_is_no_success(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "HOLD_S", 0.05)
    answer = await scene.ask(post(b"c2VjcmV0"))
    assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1" in answer
    assert scene.metadata.passwords.waiting() == {"vm-r": "c2VjcmV0"}, "it is on its way"
    scene.metadata.set_documents("vm-r", "f", SHOWN | {"openstack/latest/password": b"of another try"})
    assert (await scene.ask(post(b"c2VjcmV0"))).startswith(b"HTTP/1.1 409 ")


async def test_a_guest_that_leaves_is_told_no_success(scene: Scene) -> None:
    posted = await _posted(scene, b"c2VjcmV0")
    scene.metadata.set_documents("vm-r", "", None)
    assert (await posted).startswith(b"HTTP/1.1 503 ")
    assert scene.metadata.passwords.waiting() == {}


async def test_passwords_on_their_way_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAITING_MAX", 1)
    held = await _posted(scene, b"c2VjcmV0")
    assert (await scene.ask(post(b"x"), "blue")).startswith(b"HTTP/1.1 503 ")
    held.cancel()
