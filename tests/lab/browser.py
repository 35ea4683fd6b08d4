"""Headless Chromium, spoken to by its DevTools protocol: one page, what is typed into it, and what it shows."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

PROGRAM = shutil.which("chromium") or ""
STARTS_S, SOON_S, STEP_S = 60.0, 60.0, 0.2
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--window-size=1000,700",
    "--remote-debugging-port=0",
)


class Page:
    """`errors`: what the page has complained of."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.errors: list[str] = []
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while True:
            try:
                text = await self._socket.recv()
            except ConnectionClosed:
                return
            message = json.loads(text)
            if "id" in message:
                self._waiting.pop(message["id"]).set_result(message)
            elif message["method"] == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message["params"]["exceptionDetails"])[:500])
            elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.errors.append(message["params"]["entry"]["text"])

    async def do(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(SOON_S):
            found = await answer
        assert "error" not in found, f"{method}: {found['error']}"
        return dict(found["result"])

    async def go(self, url: str) -> None:
        await self.do("Page.navigate", url=url)

    async def value(self, expression: str) -> Any:
        found = await self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    async def type(self, text: str) -> None:
        """Key by key, as somebody at a keyboard."""
        for character in text:
            key = "Enter" if character == "\n" else character
            key_code = 13 if key == "Enter" else ord(character.upper())
            code = "Enter" if key == "Enter" else "Space" if key == " " else f"Key{character.upper()}"
            more = {"key": key, "code": code, "windowsVirtualKeyCode": key_code}
            typed = "\r" if key == "Enter" else character
            await self.do("Input.dispatchKeyEvent", type="keyDown", text=typed, **more)
            await self.do("Input.dispatchKeyEvent", type="keyUp", **more)
            await asyncio.sleep(0.02)

    async def picture(self, path: Path) -> None:
        found = await self.do("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))  # noqa: ASYNC240 - a test

    async def until(self, holds: Callable[[], Awaitable[Any]]) -> None:
        async with asyncio.timeout(SOON_S):
            while not await holds():
                await asyncio.sleep(STEP_S)

    async def state(self) -> str:
        """What the page of a console says of its session."""
        return str(await self.value("document.getElementById('state')?.textContent"))

    async def line_shows(self) -> str:
        """The text of a serial page."""
        rows = "[...document.querySelectorAll('.xterm-rows > div')]"
        return str(await self.value(f"{rows}.map(row => row.textContent).join('\\n')"))


@contextlib.asynccontextmanager
async def browser(directory: Path) -> AsyncIterator[Page]:
    """One page of a browser of its own, which ends with this."""
    profile = directory / "profile"
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *OPTIONS,
        f"--user-data-dir={profile}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        file = profile / "DevToolsActivePort"
        async with asyncio.timeout(STARTS_S):
            while not file.exists() or len(file.read_text().split()) < 2:
                await asyncio.sleep(STEP_S)
        port, path = file.read_text().split()
        async with connect(f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None) as whole:
            await whole.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
            async with asyncio.timeout(SOON_S):
                targets = json.loads(await whole.recv())["result"]["targetInfos"]
        (target,) = (one["targetId"] for one in targets if one["type"] == "page")
        async with connect(f"ws://127.0.0.1:{port}/devtools/page/{target}", max_size=None, proxy=None) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log"):
                await page.do(f"{domain}.enable")
            yield page
            page._listening.cancel()
    finally:
        process.terminate()
        await process.wait()
