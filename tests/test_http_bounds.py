"""What a stranger may send, and how long it may take: the real server on a real socket, with short times."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from droveway.api.http.request import Request, Response
from droveway.domain.policy import Need
from droveway.process.http_protocol import PIPELINED_MAX
from tests.api.world import IMG
from tests.http_served import GET, Served, served, until

# -- what is sent -----------------------------------------------------------------------------------------------------
ONE = b"x-a: " + b"y" * 900 + b"\r\n"


@pytest.mark.parametrize(
    ("data", "status", "word"),
    [
        (b"GET /" + b"a" * 20_000, b"414", b"16384 bytes"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", b"414", b"16384 bytes"),
        (b"GET / HTTP/1.1\r\n" + ONE * 80, b"431", b"65536 bytes"),
        (b"GET / HTTP/1.1\r\n" + ONE * 80 + b"\r\n", b"431", b"65536 bytes"),
        (b"GET / HTTP/1.1\r\nx-a: " + b"y" * 100_000, b"431", b"65536 bytes"),
        (b"GET / HTTP/1.1\r\n" + b"y" * 100_000, b"431", b"65536 bytes"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 129 + b"\r\n", b"431", b"more than 128 headers"),
        (b"\r\n" * 50_000, b"431", b"65536 bytes"),
        (b"nonsense\r\n\r\n", b"400", b"no valid HTTP"),
        (b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", b"400", b"no valid HTTP"),
        (b"GET / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n", b"400", b"no valid HTTP"),
        (b"GET http://[::1 HTTP/1.1\r\n\r\n", b"400", b"no valid HTTP"),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", b"400", b"no valid HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400", b"no valid HTTP"),
    ],
)
def test_too_much_is_refused_with_a_reason(tmp_path: Path, data: bytes, status: bytes, word: bytes) -> None:
    async def story(api: Served) -> None:
        told = await api.ask(data)
        assert told.startswith(b"HTTP/1.1 " + status), told[:200]
        assert word in told
        assert told.endswith(b".\n")
        assert await api.answers()

    served(tmp_path, story)


def test_endless_headers_cost_no_memory(tmp_path: Path) -> None:
    async def story(api: Served) -> None:
        client = await api.client()
        await client.send(b"GET / HTTP/1.1\r\n")
        for _ in range(100):
            await client.send(b"x: " + b"y" * 1_000_000 + b"\r\n")
        assert (await client.all())[:12] in (b"HTTP/1.1 431", b"")  # or it was cut off while it still sent
        await until(lambda: api.held == 0)

    served(tmp_path, story)


@pytest.mark.parametrize("around", [b"0\r\nx-a: ", b"0\r\n", b"1\r\n{\r\n5;"])
def test_what_stands_around_a_body_is_bounded_too(tmp_path: Path, around: bytes) -> None:
    async def story(api: Served) -> None:
        client = await api.client()
        await client.send(
            b"POST /identity/v3/auth/tokens HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"transfer-encoding: chunked\r\n\r\n" + around
        )
        for _ in range(8):
            await client.send(b"y" * 30_000)
        assert (await client.all()).startswith(b"HTTP/1.1 431")
        assert await api.answers()

    served(tmp_path, story)


def test_what_is_within_the_bounds_is_answered(tmp_path: Path) -> None:
    async def story(api: Served) -> None:
        client = await api.client()
        for _ in range(3):
            for piece in (GET[:5], GET[5:30], GET[30:-2] + ONE * 60, b"\r\n"):
                await client.send(piece)
                await asyncio.sleep(0.02)
            assert await client.status() == 200
        await client.send(GET * PIPELINED_MAX)
        assert [await client.status() for _ in range(PIPELINED_MAX)] == [200] * PIPELINED_MAX
        await client.send(GET.replace(b"host: x", b"host: x\r\nconnection: Upgrade\r\nupgrade: h2c"))
        assert await client.status() == 200
        assert await client.all() == b""

    served(tmp_path, story)


def test_a_thousand_requests_at_once_are_not_all_kept(tmp_path: Path) -> None:
    async def story(api: Served) -> None:
        told = await api.ask(GET * 2000)
        assert told.count(b"HTTP/1.1 200") <= PIPELINED_MAX + 1

    served(tmp_path, story)


WORDS = [
    b"GET",
    b" ",
    b"/",
    b"/identity/v3",
    b" HTTP/1.1",
    b"\r\n",
    b"\n",
    b"\r",
    b":",
    b"host: x",
    b"content-length: ",
    b"transfer-encoding: chunked",
    b"ffffffff",
    b"-1",
    b"connection: upgrade",
    b"upgrade: websocket",
    b"\0",
    b"\xff",
    b"expect: 100-continue",
    b"PRI * HTTP/2.0",
    b"POST",
    b"%00",
    b"?",
    b"#",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"http://[",
    b"CONNECT x:1",
    b";",
    b"\t",
    b"5",
]


def test_whatever_bytes_come_they_are_answered_or_the_connection_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In pieces, broken off anywhere; nothing is a bug, nothing stays."""
    chance = random.Random(10)

    async def one(api: Served) -> None:
        client = await api.client()
        data = b"".join(chance.choices(WORDS, k=chance.randrange(1, 20)))
        if chance.random() < 0.5:
            at = chance.randrange(len(GET))
            data = GET[:at] + data + GET[at:]
        for start in range(0, len(data), 40):
            await client.send(data[start : start + 40])
        if chance.random() < 0.5:
            with contextlib.suppress(OSError, RuntimeError):
                client.writer.write_eof()
        told = await client.all()
        assert not told or told.startswith(b"HTTP/1.1 "), (data, told)
        assert b"Traceback" not in told and b"HTTP/1.1 500" not in told, (data, told)
        client.writer.close()

    async def story(api: Served) -> None:
        for _ in range(4):
            await asyncio.gather(*(one(api) for _ in range(200)))
        assert await api.answers()
        await until(lambda: api.held == 0)
        assert not [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")]

    served(tmp_path, story)


# -- when it is sent --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        (b"", b"", b""),
        (b"", b"\r\n", b""),
        (GET, b"", b"HTTP/1.1 200"),
        (b"GET / HT", b"", b"HTTP/1.1 408"),
        (GET[:-2], b"x-a: b\r\n", b"HTTP/1.1 408"),
        (b"POST /identity/v3/auth/tokens HTTP/1.1\r\ncontent-length: 1000\r\n\r\n", b"", b"HTTP/1.1 408"),
        (b"POST /identity/v3/auth/tokens HTTP/1.1\r\ncontent-length: 1000\r\n\r\n", b"x", b"HTTP/1.1 408"),
        (
            b"POST /identity/v3/auth/tokens HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            b"1\r\nx\r\n",
            b"HTTP/1.1 408",
        ),
    ],
)
def test_who_sends_nothing_or_hardly_anything_ends(tmp_path: Path, first: bytes, then: bytes, told: bytes) -> None:
    async def story(api: Served) -> None:
        client = await api.client()
        await client.send(first)
        began = time.monotonic()
        reading = asyncio.create_task(client.all())
        while not reading.done():
            await asyncio.sleep(0.05)
            await client.send(then)
        assert (await reading)[: len(told)] == told
        assert 0.2 < time.monotonic() - began < 2.5
        await until(lambda: api.held == 0)

    served(tmp_path, story)


async def new_image(api: Served, token: str) -> str:
    made = await api.world.ask(
        "POST", f"{IMG}/images", token=token, json={"name": "i", "disk_format": "raw", "container_format": "bare"}
    )
    return str(made.json()["id"])


def put(image: str, token: str, length: int) -> bytes:
    return (
        f"PUT {IMG}/images/{image}/file HTTP/1.1\r\nx-auth-token: {token}\r\n"
        f"content-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def test_a_stalled_upload_ends_and_the_image_is_queued_again(tmp_path: Path) -> None:
    async def story(api: Served) -> None:
        token = await api.world.token()
        image = await new_image(api, token)
        client = await api.client()
        await client.send(put(image, token, 1 << 20) + bytes(5000))
        assert (await client.all()).startswith(b"HTTP/1.1 408")
        async with asyncio.timeout(30):  # the answer does not wait for the file to be closed
            while (await api.world.ask("GET", f"{IMG}/images/{image}", token=token)).json()["status"] != "queued":
                await asyncio.sleep(0.01)
        assert not [path for path in api.world.images.iterdir() if path.name.startswith(".upload")]

    served(tmp_path, story)


def test_an_upload_that_is_slow_but_goes_on_is_taken(tmp_path: Path) -> None:
    async def story(api: Served) -> None:
        token = await api.world.token()
        image = await new_image(api, token)
        client = await api.client()
        await client.send(put(image, token, 20 * 1024))
        for _ in range(20):
            await client.send(bytes(1024))
            await asyncio.sleep(0.05)
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")

    served(tmp_path, story)


# -- what is taken ----------------------------------------------------------------------------------------------------
def endless(api: Served, path: str, reply: Callable[[], Response]) -> None:
    """One more route, that anybody may ask."""
    from droveway.api.http.router import Route

    async def handler(_api: Any, _request: Request) -> Response:
        return reply()

    api.world.app._router._add(Route("GET", path, handler, Need.PUBLIC))
    api.serving._server.config.app._router = api.world.app._router


async def _pieces(size: int) -> AsyncIterator[bytes]:
    while True:
        yield bytes(size)


@pytest.mark.alone  # its task ends with its connection
@pytest.mark.parametrize("kind", ["download", "events", "list"])
def test_who_takes_nothing_of_a_reply_ends(tmp_path: Path, kind: str) -> None:
    async def story(api: Served) -> None:
        reply = {
            "download": lambda: Response(200, stream=_pieces(1 << 20)),
            "events": lambda: Response(200, stream=_pieces(100)),
            "list": lambda: Response(200, body=bytes(32 << 20)),
        }[kind]
        endless(api, "/endless", reply)
        with socket.socket() as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            silent.setblocking(False)
            await asyncio.get_running_loop().sock_connect(silent, ("127.0.0.1", api.port))
            silent.send(b"GET /endless HTTP/1.1\r\n\r\n")
            await until(lambda: api.held == 1)
            await until(lambda: api.held == 0)
        await until(lambda: not api.serving._server.server_state.tasks)  # one that has ended is forgotten a turn later

    served(tmp_path, story)


def test_who_takes_slowly_gets_all_of_it(tmp_path: Path) -> None:
    async def story(api: Served) -> None:
        endless(api, "/long", lambda: Response(200, body=bytes(1 << 20)))
        client = await api.client(limit=1024)
        await client.send(b"GET /long HTTP/1.1\r\nconnection: close\r\n\r\n")
        taken = 0
        while piece := await client.reader.read(1 << 15):
            taken += len(piece)
            await asyncio.sleep(0.03)  # some 1 MiB a second, for three times as long as a window
        assert taken > 1 << 20

    served(tmp_path, story)
