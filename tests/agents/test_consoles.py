"""An agent that carries consoles: a guest never waits for who looks at it, and an agent goes nowhere but to an API."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from droveway.agents import consoles
from droveway.agents.consoles import TOO_SLOW, WAITING_MAX_BYTES, Consoles
from droveway.api.http.origins import origin_of
from droveway.domain.consoles import LAST_WORDS_BYTES, ConsoleKind, last_words
from droveway.drivers.consoles.websocket import WebsocketUplinks
from droveway.ports.bus import OpenConsole
from droveway.ports.consoles import UplinkRefused
from droveway.ports.hypervisor import Hypervisor, HypervisorRefused

SOON_S = 30.0


class Flood:
    """A console whose guest writes as long as somebody reads."""

    def __init__(self) -> None:
        self.read_bytes = 0
        self.is_closed = False

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        self.read_bytes += 1 << 16
        return bytes(1 << 16)

    async def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        self.is_closed = True


class Stuck:
    """A way to the API on which nothing is taken."""

    def __init__(self) -> None:
        self.reason = ""
        self.closed = asyncio.Event()

    async def receive(self) -> bytes | None:
        await asyncio.Event().wait()
        return None

    async def send(self, data: bytes) -> None:
        await asyncio.Event().wait()

    async def close(self, reason: str = "") -> None:
        self.reason = reason
        self.closed.set()


class Host:
    """A hypervisor and its ways to APIs, as far as consoles are concerned."""

    def __init__(self) -> None:
        self.streams: list[Flood] = []
        self.uplinks: list[Stuck] = []

    async def open_console(self, instance_id: str, kind: ConsoleKind) -> Flood:
        self.streams.append(Flood())
        return self.streams[-1]

    async def connect(self, url: str, session: str) -> Stuck:
        if session == "refused":
            raise UplinkRefused("it is refused")
        self.uplinks.append(Stuck())
        return self.uplinks[-1]


def carrier(host: Host) -> Consoles:
    return Consoles("h1", cast(Hypervisor, host), cast(Any, host))


async def test_a_line_is_read_on_until_too_much_waits_and_then_the_session_ends_not_the_guest() -> None:
    host = Host()
    carries = carrier(host)
    await carries.open("i", OpenConsole(ConsoleKind.SERIAL, "u", "s"))
    async with asyncio.timeout(SOON_S):
        await host.uplinks[0].closed.wait()
    assert host.uplinks[0].reason == TOO_SLOW
    assert host.streams[0].is_closed
    assert host.streams[0].read_bytes > WAITING_MAX_BYTES
    await carries.close()


async def test_a_screen_is_read_no_faster_than_it_is_taken() -> None:
    host = Host()
    carries = carrier(host)
    await carries.open("i", OpenConsole(ConsoleKind.VNC, "u", "s"))
    for _ in range(100):
        await asyncio.sleep(0)
    assert host.streams[0].read_bytes <= 3 << 16
    await carries.close()
    assert host.uplinks[0].reason == consoles.ENDS


async def test_what_cannot_be_brought_is_closed_again_and_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()
    carries = carrier(host)
    with pytest.raises(HypervisorRefused, match="it is refused"):
        await carries.open("i", OpenConsole(ConsoleKind.VNC, "u", "refused"))
    assert host.streams[0].is_closed
    monkeypatch.setattr(consoles, "SESSIONS_MAX", 1)
    await carries.open("i", OpenConsole(ConsoleKind.VNC, "u", "s"))
    with pytest.raises(HypervisorRefused, match="carries 1 consoles already"):
        await carries.open("i", OpenConsole(ConsoleKind.VNC, "u", "s"))
    await carries.close()


@pytest.mark.parametrize(
    "url", ["http://api.test:8775", "unix:", "unix:/run/else.sock", "ws://x", "wss://x", "file:///etc/passwd", ""]
)
async def test_an_agent_goes_to_no_address_of_another_kind(url: str, tmp_path: Path) -> None:
    with pytest.raises(UplinkRefused, match="takes its consoles to https://HOST:PORT alone"):
        await WebsocketUplinks("h1", "", str(tmp_path)).connect(url, "s")


async def test_what_is_wrong_on_the_way_is_said_without_the_name_of_the_session(tmp_path: Path) -> None:
    here = WebsocketUplinks("h1", str(tmp_path / "nobody.sock"), str(tmp_path))
    for url, words in (("unix:", "does not reach the API"), ("https://127.0.0.1:1", "cannot use its certificate")):
        with pytest.raises(UplinkRefused, match=words) as refused:
            await here.connect(url, "a-secret-name")
        assert "a-secret-name" not in refused.value.reason
    assert "a-secret-name" not in repr(OpenConsole(ConsoleKind.VNC, "u", "a-secret-name"))


def test_last_words_fit_into_the_close_of_a_websocket() -> None:
    assert last_words("short") == "short"
    for text in ("é" * 200, "x" * 200, "€" * 41 + "x"):
        cut = last_words(text)
        assert len(cut.encode()) <= LAST_WORDS_BYTES
        assert cut.endswith("…") or cut == text


def test_an_origin_is_written_as_browsers_do() -> None:
    for url, origin in (
        ("http://cloud.test:80/compute", "http://cloud.test"),
        ("https://Cloud.test:443", "https://cloud.test"),
        ("http://[::1]:8774", "http://[::1]:8774"),
        ("https://cloud.test:8443/x?y", "https://cloud.test:8443"),
    ):
        assert origin_of(url) == origin
