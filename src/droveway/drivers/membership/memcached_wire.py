"""The few commands of memcached's text protocol that a member needs, over one connection.

Why not a library: aiomcache 0.8.2 spins for ever when the server closes in the middle of an answer, and leaves the
answer of a request that was given up to the next one, which here would be another member's counter. A connection that
is late or odd is thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable, Iterator, Mapping

KEYS_AT_ONCE = 500
ITEMS_MAX, VALUE_MAX_BYTES = 2000, 1 << 20  # of one answer: the keys asked for, or the server's statistics
Values = dict[str, tuple[bytes, int]]  # each with the number by which `cas` knows it


class MemcachedConnection:
    """What fails raises OSError (TimeoutError is one); the next request connects anew."""

    def __init__(self, address: str, timeout_s: float, tls: ssl.SSLContext | None = None, login: bytes = b"") -> None:
        """`login`: user and password with a space between, for a server that was started with -Y."""
        host, _, port = address.rpartition(":")
        self._host, self._port, self._timeout_s = host.strip("[]"), int(port), timeout_s
        self._tls, self._login = tls, login
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._one = asyncio.Lock()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()  # TLS would wait for the other end's goodbye; nothing is unsent
            self._streams = None

    async def get(self, keys: Iterable[str]) -> Values:
        wanted = list(keys)
        found: Values = {}
        for start in range(0, len(wanted), KEYS_AT_ONCE):
            request = f"gets {' '.join(wanted[start : start + KEYS_AT_ONCE])}\r\n".encode()
            items = await self._ask([request], ends=b"END")
            with self._understood():
                for item in items:
                    head, _, value = item.partition(b"\r\n")
                    key, _, _, number = head.removeprefix(b"VALUE ").split(b" ")
                    found[key.decode()] = (value, int(number))
        return found

    async def set(self, values: Mapping[str, bytes], ttl_s: int) -> None:
        """All of them in one round."""
        if values:
            await self._ask([_store("set", key, value, ttl_s) for key, value in values.items()])

    async def swap(self, key: str, value: bytes, seen: int | None) -> bool:
        """Write what has not changed since it was read; `seen` None: what does not exist. False when it has."""
        verb, number = ("add", "") if seen is None else ("cas", f" {seen}")
        return await self._ask([_store(verb, key, value, 0, number)]) == [b"STORED"]

    async def delete(self, key: str) -> None:
        await self._ask([f"delete {key}\r\n".encode()])

    async def started(self) -> tuple[bytes, int]:
        """Which run of the server this is (its pid), and how long it has been up by its own clock."""
        items = await self._ask([b"stats\r\n"], ends=b"END")
        with self._understood():
            fields = dict(item.split(b" ", 2)[1:] for item in items)
            return fields[b"pid"], int(fields[b"uptime"])

    @contextlib.contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except (asyncio.LimitOverrunError, ValueError, LookupError) as error:
            self.close()
            raise OSError(f"memcached answered oddly: {error}") from None

    async def _ask(self, requests: list[bytes], ends: bytes | None = None) -> list[bytes]:
        """One answer a request, or with `ends` the items before that line."""
        async with self._one:
            answers: list[bytes] | None = None
            try:
                async with asyncio.timeout(self._timeout_s):
                    reader, writer = self._streams or await self._connect()
                    writer.write(b"".join(requests))
                    await writer.drain()
                    with self._understood():
                        answers = (
                            [await _line(reader) for _ in requests] if ends is None else await _items(reader, ends)
                        )
                return answers
            finally:
                if answers is None:  # cancelled too: the answer is still on its way, and not for the next one
                    self.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._streams = await asyncio.open_connection(self._host, self._port, limit=2 << 20, ssl=self._tls)
        if self._login:
            reader, writer = self._streams
            writer.write(_store("set", "login", self._login, 0))
            await _line(reader)  # raises when it was refused
        return self._streams


def _store(verb: str, key: str, value: bytes, ttl_s: int, number: str = "") -> bytes:
    return f"{verb} {key} 0 {ttl_s} {len(value)}{number}\r\n".encode() + value + b"\r\n"


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\n"):
        raise ConnectionResetError("memcached closed the connection")
    line = line.rstrip(b"\r\n")
    if line.startswith((b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")):
        raise ConnectionAbortedError(f"memcached refused: {line.decode(errors='replace')}")
    return line


async def _items(reader: asyncio.StreamReader, ends: bytes) -> list[bytes]:
    items = []
    while (line := await _line(reader)) != ends:
        if line.startswith(b"VALUE "):
            size = int(line.split(b" ")[3])
            if size > VALUE_MAX_BYTES:
                raise ValueError(f"a value of {size} bytes")
            try:
                line += b"\r\n" + (await reader.readexactly(size + 2))[:-2]
            except asyncio.IncompleteReadError:
                raise ConnectionResetError("memcached closed the connection") from None
        items.append(line)
        if len(items) > ITEMS_MAX:
            raise ValueError(f"more than {ITEMS_MAX} items")
    return items
