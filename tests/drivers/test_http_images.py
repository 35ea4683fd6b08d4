"""Fetching from APIs that break off, are full, slow or silent, or are none: what is here is kept, and it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from droveway.domain.image_tickets import TICKET_HEADER, VERIFIER_HEADER, ImageTicket
from droveway.domain.model import ImageRef
from droveway.drivers.clock import SystemChance, SystemClock
from droveway.drivers.images import http_fetch
from droveway.drivers.images.http import HttpImages
from droveway.ports.images import HALF_KEPT_S, ImageRefused, TicketWanted
from droveway.store.image import image_tickets
from tests.drivers.image_worlds import DATA, HttpWorld, play, sha512

IMAGE = ImageRef("an-image", "raw", len(DATA), sha512(DATA))
HALF = 3 << 20
Headers = dict[str, str]
Act = Callable[["Script", Headers, asyncio.StreamWriter], Awaitable[None]]


class Script:
    """A server whose first connection does the first act, and so on; the last one again and again."""

    def __init__(self, *acts: Act) -> None:
        self.acts, self.asked = list(acts), list[Headers]()
        self._at_work: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Script:
        self.server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0)
        self.port = int(self.server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for task, writer in list(self._at_work.items()):
            task.cancel()
            writer.transport.abort()
        if self._at_work:
            await asyncio.wait(self._at_work)
        await asyncio.sleep(0.01)

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._at_work[task] = writer
        try:
            await self._answer(reader, writer)
        finally:
            writer.close()
            del self._at_work[task]

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            self.asked.append(headers)
            await self.acts[min(len(self.asked), len(self.acts)) - 1](self, headers, writer)

    def ticket(self, *more: str) -> ImageTicket:
        return ImageTicket("a-ticket", (f"http://127.0.0.1:{self.port}", *more))


async def whole(_: Script, headers: Headers, writer: asyncio.StreamWriter) -> None:
    await part(len(DATA))(_, headers, writer)


def part(most: int, pause_s: float = 0.0) -> Act:
    """What is asked for, and breaks off after so many bytes."""

    async def act(_: Script, headers: Headers, writer: asyncio.StreamWriter) -> None:
        first = int(headers.get("range", "bytes=0-")[6:-1])
        status = b"206 Partial Content" if first else b"200 OK"
        writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n" % (status, len(DATA) - first))
        for at in range(first, min(first + most, len(DATA)), 1 << 18 if not pause_s else 1024):
            writer.write(DATA[at : min(at + (1 << 18 if not pause_s else 1024), first + most)])
            await writer.drain()
            await asyncio.sleep(pause_s)

    return act


def status(line: str, reason: str = "", **headers: str) -> Act:
    async def act(_: Script, __: Headers, writer: asyncio.StreamWriter) -> None:
        body = f'{{"error": {{"message": "{reason}"}}}}'.encode()
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {line}\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode() + body)
        await writer.drain()

    return act


def head(*lines: str) -> Act:
    async def act(_: Script, __: Headers, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(("HTTP/1.1 200 OK", *lines, "", "")).encode())
        await writer.drain()

    return act


async def says_nothing(_: Script, __: Headers, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(5)


async def no_http(_: Script, __: Headers, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n" * 3)


@pytest.fixture(autouse=True)
def hasty() -> Iterator[None]:
    """The bounds of minutes, in tenths of seconds."""
    names = ("CONNECT_S", "SLOW_WINDOW_S", "NOBODY_S", "WHOLE_S", "PAUSE_S", "PAUSE_MAX_S")
    before = {name: getattr(http_fetch, name) for name in names}
    for name, value in zip(names, (0.5, 0.4, 1.5, 20.0, 0.02, 0.1), strict=True):
        setattr(http_fetch, name, value)
    yield
    for name, value in before.items():
        setattr(http_fetch, name, value)


@contextlib.contextmanager
def driver() -> Iterator[HttpImages]:
    made = HttpImages("h1", "of h1", SystemClock(), SystemChance())
    try:
        yield made
    finally:
        made.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


def is_fetched(tmp_path: Path, *acts: Act) -> list[Headers]:
    """All of it is there in the end; what was asked."""

    async def play() -> list[Headers]:
        async with Script(*acts) as api:
            with driver() as images:
                await images.fetch(IMAGE, tmp_path / "target", api.ticket())
            assert (tmp_path / "target").read_bytes() == DATA
            return api.asked

    return asyncio.run(play())


def is_refused(tmp_path: Path, *acts: Act) -> str:
    async def play() -> str:
        async with Script(*acts) as api:
            with driver() as images, pytest.raises(ImageRefused) as refused:
                await images.fetch(IMAGE, tmp_path / "target", api.ticket())
            assert os.listdir(tmp_path) == []
            return refused.value.reason

    return asyncio.run(play())


def test_it_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    asked = is_fetched(tmp_path, part(HALF), part(1000), whole)
    assert [headers.get("range") for headers in asked] == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]
    assert {headers.get("if-match") for headers in asked[1:]} == {f'"{IMAGE.sha512}"'}
    assert {headers[TICKET_HEADER] for headers in asked} == {"a-ticket"}
    assert {headers[VERIFIER_HEADER] for headers in asked} == {"of h1"}


@pytest.mark.parametrize(
    "act",
    [
        status("503 Service Unavailable", "full", retry_after="0"),
        status("404 Not Found", "an older release"),
        status("500 Internal Server Error"),
        status("302 Found", location="http://elsewhere.example/"),
        says_nothing,
        no_http,
        head(),
        head("content-length: abc"),
        head("content-length: ²"),
        head("content-length: -5"),
        head("transfer-encoding: chunked"),
    ],
)
def test_whoever_does_not_give_it_is_asked_again(tmp_path: Path, act: Act) -> None:
    assert len(is_fetched(tmp_path, act, act, whole)) == 3


def test_a_url_that_is_none_is_one_api_less(tmp_path: Path) -> None:
    async def play() -> None:
        async with Script(whole) as api:
            for url in ("http://h:99999", "http://[::g]:80", "http://", "of no kind"):
                with driver() as images:
                    await images.fetch(IMAGE, tmp_path / "target", ImageTicket("a-ticket", (url, *api.ticket().urls)))
                (tmp_path / "target").unlink()

    asyncio.run(play())


def test_what_was_not_foreseen_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    async def play() -> None:
        async with Script(whole) as api:
            with driver() as images:
                understand = http_fetch.Transfer._understand
                http_fetch.Transfer._understand = lambda *_: 1 // 0  # type: ignore[assignment]
                try:
                    with pytest.raises(ZeroDivisionError):
                        await images.fetch(IMAGE, tmp_path / "target", api.ticket())
                finally:
                    http_fetch.Transfer._understand = understand  # type: ignore[method-assign]
                assert os.listdir(tmp_path) == []
                await images.fetch(IMAGE, tmp_path / "target", api.ticket())
            assert (tmp_path / "target").read_bytes() == DATA

    asyncio.run(play())


def test_an_api_that_cannot_be_reached_is_not_said_to_be_the_source(tmp_path: Path) -> None:
    async def play() -> None:
        (tmp_path / "source").write_bytes(DATA)
        with driver() as images:
            ticket = ImageTicket("a-ticket", ("http://no-such-name.invalid:1", "https://127.0.0.1:9"))
            with pytest.raises(ImageRefused, match=r"No API has taken image an-image from host h1: http.*; http"):
                await images.send("an-image", tmp_path / "source", ticket)
            with pytest.raises(ImageRefused, match=r"Host h1 cannot read .*missing: No such file"):
                await images.send("an-image", tmp_path / "missing", ticket)

    asyncio.run(play())


def test_one_that_trickles_is_left(tmp_path: Path) -> None:
    """Each byte in time, and too few of them."""
    asked = is_fetched(tmp_path, part(len(DATA), pause_s=0.1), whole)
    assert int(asked[1]["range"][6:-1]) < 64 * 1024


def test_another_api_goes_on(tmp_path: Path) -> None:
    async def play() -> None:
        async with Script(part(HALF), says_nothing) as one, Script(part(HALF), says_nothing) as other:
            with driver() as images:
                both = one.ticket(f"http://127.0.0.1:{other.port}", "http://127.0.0.1:9")
                await images.fetch(IMAGE, tmp_path / "target", both)
            assert (tmp_path / "target").read_bytes() == DATA
            assert len(one.asked) >= 1 and len(other.asked) >= 1

    asyncio.run(play())


def test_refusals_that_no_other_api_can_change(tmp_path: Path) -> None:
    assert f"it has {len(DATA)}" in is_refused(tmp_path, status("200 OK", "of another size"))
    assert "no server uses it" in is_refused(tmp_path, status("410 Gone", "no server uses it"))
    assert "begin again" in is_refused(tmp_path, part(HALF), status("412 Precondition Failed", "begin again"))


def test_a_download_without_end_ends(tmp_path: Path) -> None:
    """Nobody answers; or somebody always gives a little."""
    assert "from no API for" in is_refused(tmp_path, says_nothing)
    http_fetch.WHOLE_S, http_fetch.NOBODY_S = 1.0, 60.0
    assert "has not got image an-image within" in is_refused(tmp_path, part(200, pause_s=0.01))


def test_a_full_api_is_waited_for(tmp_path: Path) -> None:
    """It lives: the bound of those that nobody answers does not count."""
    http_fetch.NOBODY_S = 0.2
    full = status("503 Service Unavailable", "full", retry_after="0")
    assert len(is_fetched(tmp_path, *[full] * 10, whole)) == 11


def test_another_ticket_goes_on_with_the_same_half(tmp_path: Path) -> None:
    async def play() -> None:
        expired = status("401 Unauthorized", "the ticket has expired")
        async with Script(part(HALF), expired, whole) as api:
            with driver() as images:
                with pytest.raises(TicketWanted, match="expired"):
                    await images.fetch(IMAGE, tmp_path / "target", api.ticket())
                assert images.progress(IMAGE) == f"image an-image: 3 of {len(DATA) >> 20} MiB are here"
                assert (tmp_path / "target").stat().st_size == HALF
                await images.fetch(IMAGE, tmp_path / "target", api.ticket())
            assert (tmp_path / "target").read_bytes() == DATA
            assert api.asked[2]["range"] == f"bytes={HALF}-"

    asyncio.run(play())


class Ahead(SystemClock):
    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


def test_a_half_that_nobody_goes_on_with_is_swept(tmp_path: Path) -> None:
    async def play() -> None:
        clock = Ahead()
        images = HttpImages("h1", "of h1", clock, SystemChance())
        async with Script(part(HALF), status("401 Unauthorized", "expired")) as api:
            with pytest.raises(TicketWanted):
                await images.fetch(IMAGE, tmp_path / "target", api.ticket())
        clock.ahead_s = HALF_KEPT_S - 1
        await images.sweep()
        assert (tmp_path / "target").exists()
        clock.ahead_s = HALF_KEPT_S + 1
        await images.sweep()
        assert os.listdir(tmp_path) == [] and images.progress(IMAGE) == ""
        images.close()

    asyncio.run(play())


def test_an_agent_that_ends_leaves_nothing_behind(tmp_path: Path) -> None:
    async def play() -> None:
        async with Script(part(len(DATA), pause_s=0.01)) as api:
            images = HttpImages("h1", "of h1", SystemClock(), SystemChance())
            task = asyncio.create_task(images.fetch(IMAGE, tmp_path / "target", api.ticket()))
            await until(lambda: bool(api.asked) and "MiB" in images.progress(IMAGE))
            task.cancel()
            images.close()
            await asyncio.wait({task})
            await until(lambda: list(tmp_path.iterdir()) == [])

    asyncio.run(play())


def test_progress_says_what_is_wrong(tmp_path: Path) -> None:
    async def play() -> None:
        full = status("503 Service Unavailable", "16 images are being fetched", retry_after="0")
        async with Script(full) as api:
            with driver() as images:
                task = asyncio.create_task(images.fetch(IMAGE, tmp_path / "target", api.ticket()))
                await until(lambda: "16 images are being fetched" in images.progress(IMAGE))
                task.cancel()
                await asyncio.wait({task})

    asyncio.run(play())


def test_a_hundred_hosts_want_one_image_at_once(tmp_path: Path) -> None:
    """All get it, and the APIs never hold more than their bound."""

    http_fetch.CONNECT_S, http_fetch.NOBODY_S, http_fetch.PAUSE_MAX_S, http_fetch.WHOLE_S = 10.0, 30.0, 1.0, 120.0

    async def story(world: HttpWorld) -> None:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, world.world.api.image_streams.total())
                await asyncio.sleep(0.001)

        watching = asyncio.create_task(watch())
        hosts = [f"h{number}" for number in range(100)]
        tickets = [await world.ticket(host) for host in hosts]
        targets = [world.store / host for host in hosts]
        async with asyncio.timeout(120):
            await asyncio.gather(
                *(
                    world.driver(host).fetch(world.image, target, ticket)
                    for host, target, ticket in zip(hosts, targets, tickets, strict=True)
                )
            )
        watching.cancel()
        assert {sha512(target.read_bytes()) for target in targets} == {world.image.sha512}
        assert 2 <= most <= 4
        assert world.world.api.image_streams.total() == 0

    play("http", tmp_path, story, image_streams_max=4)


def test_an_api_dies_while_it_gives(tmp_path: Path) -> None:
    """The other one gives the rest, with the same ticket."""

    async def story(world: HttpWorld) -> None:
        images, target = world.driver(), world.store / "target"
        big = bytes(range(256)) * 400_000
        world.file().write_bytes(big)
        ref = ImageRef(world.image.id, "raw", len(big), sha512(big))
        await world.world.store.run(lambda tx: _resize(tx, ref))
        ticket = await world.ticket(most=len(big))
        task = asyncio.create_task(images.fetch(ref, target, ticket))
        await world.until(lambda: world.world.api.image_streams.total() > 0 and target.exists())
        dying = world.servings[0]
        for protocol in list(dying._server._held):
            protocol.abort()
        dying.end()
        await task
        assert sha512(target.read_bytes()) == ref.sha512

    play("http", tmp_path, story)


def _resize(tx: image_tickets.Tx, ref: ImageRef) -> None:
    from droveway.store.image import images

    images.change(tx, ref.id, None, {"size_bytes": ref.size_bytes, "sha512": ref.sha512})
