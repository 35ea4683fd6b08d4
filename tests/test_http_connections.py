"""How many connections there may be, of all and of one address: the real server on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from pathlib import Path

import pytest

from droveway.config.http_bounds import FILES_MAX, HttpBounds, connections_of, raise_open_files
from droveway.domain.faults import WrongConfiguration
from droveway.process.http_protocol import LINGER_S
from droveway.process.http_server import _address
from tests.http_served import GET, Client, Served, served, until


# -- how many there are -----------------------------------------------------------------------------------------------
def test_silent_connections_make_room_for_who_comes(tmp_path: Path) -> None:
    async def story(api: Served) -> None:
        for _ in range(200):
            await api.client()
        assert await api.answers()
        assert api.held <= 20

    served(tmp_path, story, HttpBounds(max_connections=20))


def test_beyond_the_bound_of_those_who_asked_503_at_once(tmp_path: Path) -> None:
    async def story(api: Served) -> None:
        kept = []
        for _ in range(16):
            client = await api.client()
            await client.send(GET)
            assert await client.status() == 200
            kept.append(client)
        told = await api.ask(b"")
        assert told.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in told
        await kept[0].send(GET)
        assert await kept[0].status() == 200
        kept[1].writer.close()
        await until(lambda: api.held < 16)
        assert await api.answers()

    served(tmp_path, story, HttpBounds(max_connections=16))


def test_one_address_does_not_take_the_place_of_the_others(tmp_path: Path) -> None:
    async def story(api: Served) -> None:
        async def asked(local: str) -> Client:
            client = await api.client(local_addr=(local, 0))
            await client.send(GET)
            assert await client.status() == 200
            return client

        for _ in range(5):
            await asked("127.0.0.1")
        assert b"from this address" in await api.ask(b"")
        for _ in range(5):
            await asked("127.0.0.2")

    served(tmp_path, story, HttpBounds(max_connections_per_address=5))


def test_the_bus_does_not_share_the_bound(tmp_path: Path) -> None:
    """With as many connections as the listener takes there are files left for agents, a quarter at least."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def story(api: Served) -> None:
        for _ in range(400):
            await api.client()
        others = [socket.socket() for _ in range(20)]
        for other in others:
            other.close()
        assert await api.answers()

    files = raise_open_files()
    try:
        assert connections_of(HttpBounds(), 1024) == 384
        assert connections_of(HttpBounds(), 1024, hosts=50) == 284
        assert connections_of(HttpBounds(), FILES_MAX) == 4096
        with pytest.raises(WrongConfiguration, match="too few for an API; raise RLIMIT_NOFILE"):
            connections_of(HttpBounds(), 80)
        assert raise_open_files() == files <= FILES_MAX
        served(tmp_path, story, HttpBounds(max_connections=100))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 4096), before[1]))


def test_no_file_left_is_survived(tmp_path: Path) -> None:
    """Whoever took them: the listener waits and goes on."""

    async def story(api: Served) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        client = socket.socket()
        client.setblocking(False)
        held: list[socket.socket] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    held.append(socket.socket())
            with contextlib.suppress(BlockingIOError):  # not by the loop, which may open a file of its codec first
                client.connect(("127.0.0.1", api.port))
            await asyncio.sleep(0.3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for each in held:
                each.close()
        assert await api.answers()
        client.close()

    served(tmp_path, story)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2::1", "20010db800010002"),
        ("2001:db8:1:2:ffff::9", "20010db800010002"),
        ("fe80::1%eth0", "fe80000000000000"),
    ],
)
def test_whose_connection_it_is(peer: str, address: str) -> None:
    assert _address((peer, 1)) == address


def test_the_end_does_not_wait_for_the_silent(tmp_path: Path) -> None:
    async def story(api: Served) -> None:
        for _ in range(10):
            await api.client()
        await api.client()
        began = time.monotonic()
        api.serving.end()
        await until(lambda: api.held == 0)
        assert time.monotonic() - began < LINGER_S

    served(tmp_path, story, HttpBounds())
