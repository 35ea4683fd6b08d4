"""The consoles of real guests in a real browser: type a command, see the answer; and a guest that moves meanwhile."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from lab.hosts import obstacle
from tests.console_served import heard, last_words
from tests.lab.browser import PROGRAM, Page, browser
from tests.lab.witness import Witness

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]
NOVNC = Path("/usr/share/novnc/core/rfb.js")
needs_browser = pytest.mark.skipif(
    not (PROGRAM and NOVNC.exists()), reason="the packages chromium and novnc are not installed"
)
SOON_S = 60.0
MOST_BYTES = 1 << 20


@pytest.fixture
def seen(witness: Witness) -> str:
    """A guest of the test's own: what is typed at a console stands among its ticks."""
    return witness.booted("seen")


def url_of(witness: Witness, server: str, kind: str) -> str:
    action, name = {"serial": ("os-getSerialConsole", "serial"), "vnc": ("os-getVNCConsole", "novnc")}[kind]
    body = {action: {"type": name}}
    path = f"/compute/v2.1/servers/{server}/action"
    return str(witness.compute.must("POST", path, body, "2.5")["console"]["url"])


def socket_at(url: str) -> Any:
    return connect(url.replace("http", "ws", 1), proxy=None, compression=None)


async def connected(page: Page) -> bool:
    return (await page.state()).startswith("connected")


def listening(witness: Witness) -> str:
    """Every TCP port on which a QEMU of a host listens."""
    lines = [line for host in witness.cloud.lab.hosts for line in host.run("ss", "-ltnp").stdout.splitlines()]
    return "\n".join(line for line in lines if "qemu" in line)


@needs_browser
def test_a_command_typed_in_a_browser_is_answered_on_the_line_and_on_the_screen(
    witness: Witness, seen: str, tmp_path: Path
) -> None:
    async def story() -> None:
        async with browser(tmp_path) as page:
            await page.go(url_of(witness, seen, "serial"))
            await page.until(lambda: connected(page))
            await page.type("\n")

            async def is_answered() -> bool:
                await page.type("uname\n")
                await asyncio.sleep(0.5)
                return "Linux" in await page.line_shows()

            await page.until(is_answered)
            await page.picture(tmp_path / "serial.png")
            assert "token" not in str(await page.value("location.href"))

            await page.go(url_of(witness, seen, "vnc"))
            await page.until(lambda: connected(page))
            await asyncio.sleep(1.0)
            before = await _pixels(page)
            await page.type("\nuname\n")

            async def has_changed() -> bool:
                return await _pixels(page) > before

            await page.until(has_changed)
            await page.picture(tmp_path / "vnc.png")
            assert page.errors == []
            await page.do("Page.reload")

            async def says_once() -> bool:
                return "good once" in await page.state()

            await page.until(says_once)

    asyncio.run(story())
    assert listening(witness) == ""


async def _pixels(page: Page) -> int:
    """How many of the screen are lit."""
    counted = (
        "(() => { const c = document.querySelector('canvas'); if (!c || !c.width) return 0;"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0;"
        "for (let i = 0; i < d.length; i += 4) n += d[i] > 100; return n; })()"
    )
    return int(await page.value(counted) or 0)


def test_a_guest_that_moves_ends_its_sessions_with_a_sentence_and_the_next_url_works_there(
    witness: Witness, seen: str
) -> None:
    async def story() -> None:
        async with (
            socket_at(url_of(witness, seen, "serial")) as line,
            socket_at(url_of(witness, seen, "vnc")) as screen,
        ):
            await heard(screen, b"RFB")
            await line.send(b"\n")
            early = url_of(witness, seen, "serial")
            await asyncio.to_thread(witness.compute.migrate, seen)
            moved = "The server has moved to another host: ask for another URL."
            assert (await last_words(line), await last_words(screen)) == (moved, moved)
            async with socket_at(early) as socket:  # of before the move
                assert await last_words(socket) == moved
        await asyncio.to_thread(witness.compute.wait_migrated, seen)
        async with socket_at(url_of(witness, seen, "serial")) as line:
            await line.send(b"\n\necho moved$((20 + 3))\n")
            await heard(line, b"moved23")

    asyncio.run(story())


def test_the_terminal_is_a_serial_console_until_ctrl_bracket(witness: Witness, seen: str) -> None:
    own, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "droveway.main", "console", "seen"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "OS_CLIENT_CONFIG_FILE": str(witness.cloud.clouds_yaml)},
    )
    os.close(theirs)
    try:
        got, until_s = b"", time.monotonic() + SOON_S
        while b"in42here" not in got:
            assert time.monotonic() < until_s, got
            if b"leaves" in got:
                os.write(own, b"\recho in$((6 * 7))here\r")
                time.sleep(0.5)
            got += os.read(own, MOST_BYTES)
        os.write(own, b"\x1d")
        assert process.wait(SOON_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(own)
