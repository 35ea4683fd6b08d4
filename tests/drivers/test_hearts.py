"""Whose beats count at control's end of the socket bus."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from droveway.drivers.bus import beats
from droveway.drivers.bus.hearts import HOSTS_MAX, Heart, Hearts
from droveway.ports.bus import Beat, HeartDisconnected, Notice
from tests.drivers.bus_worlds import Ends, SocketWorld, ends

BEAT = Beat("h1", "boot", 1000, 1000)


def beat(counter: int, generation: int = 1000, host: str = "h1", boot_id: str = "boot") -> bytes:
    return beats.encode(
        msgspec.structs.replace(BEAT, host=host, boot_id=boot_id, counter=counter, generation=generation)
    )


class World:
    def __init__(self) -> None:
        self.heard: list[Notice] = []
        self.hearts = Hearts(self.heard.append)

    def heart(self, pid: int) -> Heart:
        return Heart(pid)

    def counters(self) -> list[int]:
        return [notice.counter for notice in self.heard if isinstance(notice, Beat)]

    def gone(self) -> list[str]:
        return [notice.host for notice in self.heard if isinstance(notice, HeartDisconnected)]


def test_a_second_heart_is_refused_until_the_first_has_gone() -> None:
    world = World()
    first, second = world.heart(1), world.heart(2)
    with capture_logs() as logs:
        world.hearts.on_beat(first, beat(1))
        for counter in (7, 8, 9):
            world.hearts.on_beat(second, beat(counter, boot_id="of another machine"))
        world.hearts.on_beat(second, beat(10, generation=999))
    assert world.counters() == [1]
    (said,) = [line["because"] for line in logs if line["event"] == "heart refused"]
    assert "taken by the heart with pid 1" in said
    assert "the one with pid 2" in said
    world.hearts.drop(second, "it ended")
    assert world.gone() == []
    world.hearts.drop(first, "it ended")
    assert world.gone() == ["h1"]
    world.hearts.on_beat(world.heart(3), beat(11))
    assert world.counters() == [1, 11]


def test_a_restarted_heart_is_let_in_before_the_end_of_the_old_one_is_told() -> None:
    world = World()
    old, new = world.heart(1), world.heart(2)
    world.hearts.on_beat(old, beat(1))
    world.hearts.on_beat(new, beat(2000, generation=2000))
    world.hearts.on_beat(old, beat(2))
    world.hearts.drop(old, "it ended")
    world.hearts.on_beat(new, beat(2001, generation=2000))
    assert world.counters() == [1, 2000, 2001]
    assert world.gone() == []


def test_one_connection_may_carry_several_hosts_and_their_boots_change() -> None:
    world = World()
    heart = world.heart(1)
    for host in ("s1", "s2"):
        for boot_id in ("one", "two"):
            world.hearts.on_beat(heart, beat(1, host=host, boot_id=boot_id))
    assert len(world.counters()) == 4
    assert len(heart.reader._known) == 2
    # A heart that was started again after that knows the later boot.
    world.hearts.on_beat(world.heart(2), beat(5000, generation=5000, host="s1", boot_id="two"))
    world.hearts.drop(heart, "it ended")
    assert world.gone() == ["s2"]
    for number in range(HOSTS_MAX - 2):
        world.hearts.on_beat(heart, beat(1, host=f"n{number}"))
    with pytest.raises(ValueError, match="more than"):
        world.hearts.on_beat(heart, beat(1, host="one too many"))


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield reader, writer
    finally:
        writer.close()


async def test_over_the_socket_garbage_ends_the_connection_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bus.sock"

    async def story(e: Ends) -> None:
        async with connected(path) as (reader, writer):
            for payload in (beat(1), beat(2), b"\xb1 and no beat"):
                writer.write(len(payload).to_bytes(4, "big") + payload)
            assert await reader.read() == b""
        assert [one.counter for one in e.told(Beat) if isinstance(one, Beat)] == [1, 2]
        (gone,) = e.told(HeartDisconnected)
        assert isinstance(gone, HeartDisconnected)
        assert "no beat" in gone.reason
        async with connected(path) as (_, writer):
            writer.write(len(beat(3)).to_bytes(4, "big") + beat(3))
            await e.until(lambda: len(e.told(Beat)) == 3)
        await e.until(lambda: len(e.told(HeartDisconnected)) == 2)

    async with ends(SocketWorld(path)) as e:
        await story(e)
