"""The consoles of an imagined guest: a line that gives back what it is given, and a screen that greets and does so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from droveway.domain.consoles import PIECE_BYTES, ConsoleKind

GREETING = {ConsoleKind.VNC: b"RFB 003.008\n", ConsoleKind.SERIAL: b""}
LOOK_S = 0.1
WAITING_MAX = 16  # pieces


class EchoConsole:
    """Answers droveway.ports.consoles.ConsoleStream. `runs`: whether its guest still runs where it was opened."""

    def __init__(self, kind: ConsoleKind, runs: Callable[[], bool]) -> None:
        self._runs, self._rest, self._is_closed = runs, GREETING[kind], False
        self._given: asyncio.Queue[bytes] = asyncio.Queue(WAITING_MAX)

    @property
    def _has_ended(self) -> bool:
        return self._is_closed or not self._runs()

    async def read(self) -> bytes:
        while not self._rest:
            if self._has_ended:
                return b""
            try:
                async with asyncio.timeout(LOOK_S):
                    self._rest = await self._given.get()
            except TimeoutError:
                continue
        piece, self._rest = self._rest[:PIECE_BYTES], self._rest[PIECE_BYTES:]
        return piece

    async def write(self, data: bytes) -> None:
        if self._has_ended:
            raise ConnectionResetError("the guest is gone")
        await self._given.put(data)

    def close(self) -> None:
        self._is_closed = True
