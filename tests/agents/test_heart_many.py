"""A heart with many hosts: all are heard, and a control that does not read gets whole beats when it does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from droveway.agents.heart.heart_bytes import JOIN
from droveway.drivers.bus import beats
from lab.processes import wait_for
from tests.agents.heart_worlds import INTERVAL_S, SOON_S, HeartDirectory, RecordingControlBus, play

pytestmark = pytest.mark.slow

HOSTS = [f"s{number}" for number in range(400)]


def simulated(home: Path) -> HeartDirectory:
    return HeartDirectory(
        home, tail="".join(f'[[host]]\nname = "{name}"\nhypervisor = "simulated"\n' for name in HOSTS)
    )


def join_all(stack: contextlib.ExitStack, path: Path) -> None:
    for name in HOSTS:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        sock.connect(str(path))  # waits where too many want to
        sock.send(JOIN + f"{name}\0life\0nova-compute".encode())


def named() -> list[str]:
    return [word for name in HOSTS for word in ("--host", name)]


@pytest.mark.alone  # so many intervals of a fraction of a second are kept where something has time for them
def test_all_are_heard_in_every_interval(tmp_path: Path) -> None:
    place, path = simulated(tmp_path), tmp_path / "heart.sock"

    async def story(recorder: RecordingControlBus) -> None:
        place.heart(*named())
        assert await asyncio.to_thread(wait_for, path.exists, SOON_S)
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(join_all, stack, path)
            async with asyncio.timeout(SOON_S):
                while len({beat.host for beat in recorder.beats}) < len(HOSTS):
                    await asyncio.sleep(INTERVAL_S)
            recorder.beats.clear()
            await asyncio.sleep(20 * INTERVAL_S)
            heard = Counter(beat.host for beat in recorder.beats)
            assert len(heard) == len(HOSTS)
            assert min(heard.values()) >= 12, min(heard.values())

    play(place, story)


def test_a_control_that_does_not_read_costs_beats_and_nothing_else(tmp_path: Path) -> None:
    place, path = simulated(tmp_path), tmp_path / "heart.sock"
    with contextlib.ExitStack() as stack:
        stack.callback(place.end)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(place.config.bus_path))
        listener.listen()
        heart = place.heart(*named())
        assert wait_for(path.exists, SOON_S)
        control, _ = listener.accept()
        stack.enter_context(control)
        join_all(stack, path)
        time.sleep(30 * INTERVAL_S)
        assert heart.poll() is None
        began_s = time.time()
        with control.makefile("rb") as file:
            late = 0
            while True:
                beat = beats.decode(file.read(int.from_bytes(file.read(4), "big")))
                if beat.wall_us / 1e6 > began_s + 1:
                    break
                late += beat.wall_us / 1e6 < began_s
        # The kernel's buffer was full of them, and one round waited; 30 rounds were due.
        assert late < 15 * len(HOSTS)
