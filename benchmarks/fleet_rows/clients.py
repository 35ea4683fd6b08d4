"""Many clients of the API at once, each on a kept connection; lean, because they share the machine with what they
measure. One process of asyncio: about 0.1 ms of CPU a request."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

VERSION = "2.96"


class Posted(msgspec.Struct, frozen=True):
    """One request that was answered."""

    at_s: float
    took_s: float
    status: int
    body: bytes


class Api:
    """Where to post, as whom, and what is asked for."""

    def __init__(self, port: int, token: str, image: str, flavor: str = "tiny") -> None:
        self.port, self.token, self.image, self.flavor = port, token, image, flavor

    def create(self, number: int, count: int = 1) -> bytes:
        """The bytes of a request for `count` servers."""
        server: dict[str, Any] = {
            "name": f"storm-{number}",
            "imageRef": self.image,
            "flavorRef": self.flavor,
            "networks": "none",
        }
        if count > 1:
            server |= {"min_count": count, "max_count": count}
        return self.request("POST", "/compute/v2.1/servers", {"server": server})

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        text = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-auth-token: {self.token}\r\n"
            f"openstack-api-version: compute {VERSION}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\n\r\n"
        )
        return head.encode() + text


def storm(api: Api, requests: int, clients: int, *, at_once: int = 1) -> list[Posted]:
    """So many requests, each for `at_once` servers, by so many clients, each as fast as it is answered."""
    numbers = iter(range(requests))
    return _run(api, clients, lambda: next(numbers, None), at_once)


def until(api: Api, is_over: Callable[[], bool], clients: int, pause_s: float = 0.0) -> list[Posted]:
    """The same until `is_over`."""
    numbers: Iterator[int] = itertools.count()
    return _run(api, clients, lambda: None if is_over() else next(numbers), 1, pause_s)


def _run(
    api: Api, clients: int, next_number: Callable[[], int | None], at_once: int, pause_s: float = 0.0
) -> list[Posted]:
    async def all_of_them() -> list[Posted]:
        return [one for some in await asyncio.gather(*(client() for _ in range(clients))) for one in some]

    async def client() -> list[Posted]:
        done = []
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        try:
            while (number := next_number()) is not None:
                began_s = time.monotonic()
                writer.write(api.create(number, at_once))
                status, body = await _answer(reader)
                done.append(Posted(began_s, time.monotonic() - began_s, status, body))
                if pause_s:
                    await asyncio.sleep(pause_s)
        finally:
            writer.close()
        return done

    return asyncio.run(all_of_them())


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    at = head.find(b"content-length:")
    size = 0 if at < 0 else int(head[at + 15 : head.index(b"\r\n", at)])
    return int(head[9:12]), await reader.readexactly(size) if size else b""
