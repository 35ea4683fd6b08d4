"""A guest's console behind a unix socket on its host."""

from __future__ import annotations

import asyncio
import contextlib

from droveway.domain.consoles import PIECE_BYTES
from droveway.ports.hypervisor import HypervisorRefused

CONNECT_S = 3.0


class SocketConsole:
    """Answers droveway.ports.consoles.ConsoleStream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(PIECE_BYTES)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # uvloop's word for a connection that is gone
            self._writer.close()


async def connect(path: str, instance_id: str) -> SocketConsole:
    """Raises HypervisorRefused."""
    try:
        async with asyncio.timeout(CONNECT_S):
            return SocketConsole(*await asyncio.open_unix_connection(path, limit=PIECE_BYTES))
    except (OSError, TimeoutError) as error:
        why = getattr(error, "strerror", "") or "it does not answer"
        raise HypervisorRefused(f"The console of guest {instance_id} cannot be opened at {path}: {why}.") from None
