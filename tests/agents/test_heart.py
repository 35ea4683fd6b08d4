"""The heart as its process: what it tells of services that are killed, stopped, blocked or gone, and what it stands."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import droveway
from droveway.agents.heart.heart_bytes import JOIN
from lab.processes import wait_for
from tests.agents.heart_worlds import (
    INTERVAL_S,
    SOON_S,
    HeartDirectory,
    RecordingControlBus,
    died,
    has,
    is_lean,
    left,
    memory_kib,
    play,
    recorder,
    signalled,
)

pytestmark = pytest.mark.slow

EX_CONFIG = 78
KERNEL_TELLS_S = 0.05
MEMORY_MAX_KIB = 6 * 1024


@pytest.fixture
def place(tmp_path: Path) -> Iterator[HeartDirectory]:
    made = HeartDirectory(tmp_path)
    yield made
    made.end()


# -- what it is -------------------------------------------------------------------------------------------------------
def test_it_carries_nothing_heavy() -> None:
    source = str(Path(next(iter(droveway.__path__))).parent)
    look = f"import sys; sys.path.append({source!r}); import droveway.agents.heart.process; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", look], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "droveway.agents.heart.process" in loaded
    assert not loaded & {
        "msgspec",
        "asyncio",
        "click",
        "socket",
        "json",
        "re",
        "logging",
        "threading",
        "typing",
        "contextlib",
        "collections",
        "enum",
        "ssl",
    }


def test_it_is_small_and_at_rest_costs_little(place: HeartDirectory) -> None:
    async def story(recorder: RecordingControlBus) -> None:
        heart = place.heart()
        place.member()
        await recorder.beat(has())
        assert is_lean(heart.pid)
        memory = memory_kib(heart.pid)
        assert memory["Pss_Anon"] < MEMORY_MAX_KIB, memory
        before = _cpu_ms(heart.pid)
        await asyncio.sleep(2)
        assert _cpu_ms(heart.pid) - before <= 50  # 20 beats and 80 pulses

    play(place, story)


def _cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


@pytest.mark.alone
def test_it_beats_before_any_service_and_in_time(place: HeartDirectory) -> None:
    async def story(recorder: RecordingControlBus) -> None:
        place.heart()
        await recorder.beat()
        await asyncio.sleep(10 * INTERVAL_S)
        first, last = recorder.beats[0], recorder.beats[-1]
        assert (first.host, first.boot_id, first.services, first.notes) == ("h1", "boot-1", (), ())
        assert 8 <= len(recorder.beats) <= 14
        counters = [beat.counter for beat in recorder.beats]
        assert counters == sorted(set(counters))
        assert first.generation == last.generation <= first.counter
        assert abs(last.wall_us / 1e6 - time.time()) < 1

    play(place, story)


# -- what it sees -----------------------------------------------------------------------------------------------------
@pytest.mark.alone
def test_a_killed_service_is_reported_at_once_and_a_new_process_takes_its_place(place: HeartDirectory) -> None:
    async def story(recorder: RecordingControlBus) -> None:
        place.heart()
        took_s = []
        for _ in range(5):
            member = place.member(interval_s=3.0)  # no beat is due in the time that is measured
            await recorder.beat(has())
            killed_s = signalled(member, signal.SIGKILL)
            took_s.append(await recorder.beat(has(lateness=died)) - killed_s)
        assert max(took_s) < KERNEL_TELLS_S, took_s
        await recorder.beat(has(lateness=died))  # said again

    play(place, story)


def test_a_service_that_leaves_is_no_dead_one(place: HeartDirectory) -> None:
    async def story(recorder: RecordingControlBus) -> None:
        place.heart()
        member, other = place.member(), place.member("nova-network")
        await recorder.beat(has())
        await recorder.beat(has("nova-network"))
        signalled(member, signal.SIGTERM)
        await recorder.beat(has(lateness=left))
        assert member.wait(SOON_S) == 0
        await asyncio.sleep(3 * INTERVAL_S)
        assert has(lateness=left)(recorder.beats[-1])
        assert has("nova-network")(recorder.beats[-1])
        assert not any(has(lateness=died)(beat) for beat in recorder.beats)
        assert other.poll() is None

    play(place, story)


@pytest.mark.skipif(tuple(map(int, os.uname().release.split(".")[:2])) < (6, 15), reason="the kernel does not say")
def test_how_a_process_ended_is_reported_as_soon_as_its_parent_knows(place: HeartDirectory) -> None:
    async def story(recorder: RecordingControlBus) -> None:
        place.heart()
        await recorder.beat()
        for number in (signal.SIGKILL, signal.SIGSEGV):
            member = place.member()
            await recorder.beat(has())
            signalled(member, number)
            await recorder.beat(has(lateness=died))
            await asyncio.to_thread(member.wait, SOON_S)
            await recorder.beat(has(lateness=died, note=f"its process was killed by {number.name}; pid {member.pid}"))
        leaves = (
            f"import signal, socket; signal.signal(signal.SIGTERM, lambda *_: exit(3)); "
            f"s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
            f"s.connect('{place.socket_path}'); s.send(b'Jh1\\0boot-1\\0other'); signal.pause()"
        )
        leaving = place._start([sys.executable, "-c", leaves], ())
        await recorder.beat(has("other"))  # of one that is gone before the heart has looked at it, nobody can say how
        signalled(leaving, signal.SIGTERM)
        leaving.wait(SOON_S)
        await recorder.beat(has("other", lateness=died, note="its process ended with exit code 3"))

    play(place, story)


def test_a_stopped_process_is_named_so(place: HeartDirectory) -> None:
    async def story(recorder: RecordingControlBus) -> None:
        place.heart()
        member = place.member()
        await recorder.beat(has())
        signalled(member, signal.SIGSTOP)
        await recorder.beat(has(note=f"its process is stopped (SIGSTOP); pid {member.pid}"))
        progress = recorder.beats[-1].progress
        await recorder.beat()
        assert recorder.beats[-1].progress == progress
        signalled(member, signal.SIGCONT)
        await recorder.beat(lambda beat: not beat.notes and beat.progress > progress)

    play(place, story)


def test_a_blocked_loop_is_reported_with_its_task_and_line(place: HeartDirectory) -> None:
    async def story(recorder: RecordingControlBus) -> None:
        place.heart()
        member = place.member()
        await recorder.beat(has())
        signalled(member, signal.SIGUSR1)
        await recorder.beat(has(note="its loop is in task 'report' (heart_member.py:"))
        assert "in block_here)" in recorder.beats[-1].notes[0]
        await recorder.beat(has(lateness=lambda ms: 1000 < ms < 10_000))
        await recorder.beat(lambda beat: not beat.notes)

    play(place, story)


def test_a_process_that_cannot_say_where_it_is_is_seen_all_the_same(place: HeartDirectory) -> None:
    async def story(recorder: RecordingControlBus) -> None:
        place.heart()
        spin = (
            f"import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); "
            f"s.connect('{place.socket_path}'); s.send(b'Jh1\\0boot-1\\0spinner')\nwhile True: pass"
        )
        await recorder.beat()
        place._start([sys.executable, "-c", spin], ())
        await recorder.beat(has("spinner", note="its process runs but its loop does not turn (state R)"))

    play(place, story)


# -- restarts ---------------------------------------------------------------------------------------------------------
def test_a_killed_heart_comes_back_with_a_higher_counter_and_its_services(place: HeartDirectory) -> None:
    async def story(recorder: RecordingControlBus) -> None:
        heart = place.heart()
        place.member()
        await recorder.beat(has())
        signalled(heart, signal.SIGKILL)
        async with asyncio.timeout(SOON_S):
            while not recorder.gone:
                await asyncio.sleep(0.001)
        heart.wait(SOON_S)
        assert recorder.gone[0].host == "h1"
        old = recorder.beats[-1]
        place.heart()
        await recorder.beat(has(lateness=lambda ms: ms < 1000))
        new = recorder.beats[-1]
        assert new.counter > old.counter
        assert new.generation > old.generation
        assert len(recorder.gone) == 1

    play(place, story)


def test_control_may_go_and_come(place: HeartDirectory) -> None:
    async def story(first: RecordingControlBus) -> None:
        heart = place.heart()
        await first.beat()
        await first.bus.close()
        await asyncio.sleep(5 * INTERVAL_S)
        async with recorder(place.config) as second:
            await second.beat()
            assert second.beats[0].counter > first.beats[-1].counter
            assert heart.poll() is None

    play(place, story)


def test_it_ends_with_its_supervisor(place: HeartDirectory) -> None:
    read, write = os.pipe()
    heart = place.heart("--supervised", str(read), pass_fds=(read,))
    os.close(read)
    assert wait_for(lambda: is_lean(heart.pid) and place.socket_path.exists(), SOON_S), place.told()
    os.close(write)
    assert heart.wait(SOON_S) == 0


# -- bad input --------------------------------------------------------------------------------------------------------
GARBAGE = [
    b"x",
    b"P",
    b"P\0\0\0\0\0\0",
    b"",
    JOIN + b"h1\0boot-1",
    JOIN + b"h9\0boot-1\0a",
    JOIN + b"\xff\0\xff\0\xff",
    JOIN + b"h1\0boot-1\0" + b"a" * 2000,
    JOIN + b"h1\0boot-1\0" + b"a" * 100,
    JOIN + b"h1\0\0a",
    b"L",
]


def test_garbage_closes_that_connection_and_is_said_once(place: HeartDirectory) -> None:
    async def story(recorder: RecordingControlBus) -> None:
        place.heart()
        place.member()
        await recorder.beat(has())
        for message in GARBAGE * 3:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
                stranger.connect(str(place.socket_path))
                stranger.settimeout(SOON_S)
                if message:
                    stranger.send(message)
                    assert stranger.recv(10) == b""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(str(place.socket_path))
            stranger.send(JOIN + b"h1\0boot-1\0stranger")
            stranger.send(b"P" + bytes(6) + b"more")
            await recorder.beat(has("stranger"))
        await recorder.beat(has())
        assert recorder.beats[-1].services[0] == "nova-compute"

    play(place, story)
    assert place.told().count("h9") == 1, place.told()


def test_a_second_heart_does_not_start_in_the_same_place(place: HeartDirectory) -> None:
    async def story(recorder: RecordingControlBus) -> None:
        place.heart()
        await recorder.beat()
        second = place.heart()
        assert await asyncio.to_thread(second.wait, SOON_S) == 1
        assert "another heart of h1 is running; it must end first" in place.told()
        await recorder.beat()

    play(place, story)


def test_what_cannot_be_is_said_at_the_start(tmp_path: Path) -> None:
    home = tmp_path / ("x" * 90)
    home.mkdir()
    place = HeartDirectory(home)
    assert place.heart().wait(SOON_S) == EX_CONFIG
    assert "is longer than 107 bytes; choose a shorter state_path or host_state_path" in place.told()
    short = HeartDirectory(tmp_path)
    short.boot_id_path.unlink()
    assert short.heart().wait(SOON_S) == EX_CONFIG
    assert f"boot_id_path = {short.boot_id_path} cannot be read: No such file" in short.told()


# -- simulated hosts --------------------------------------------------------------------------------------------------
def test_simulated_hosts_share_a_heart_and_are_their_agents_boots(tmp_path: Path) -> None:
    hosts = "".join(f'[[host]]\nname = "{name}"\nhypervisor = "simulated"\n' for name in ("s1", "s2"))
    place, path = HeartDirectory(tmp_path, tail=hosts), tmp_path / "heart.sock"

    async def story(recorder: RecordingControlBus) -> None:
        place.heart("--host", "s1", "--host", "s2")
        assert await asyncio.to_thread(wait_for, path.exists, SOON_S)
        await asyncio.sleep(3 * INTERVAL_S)
        assert not recorder.beats  # no boot is known
        one = place.member(host="s1", boot_id="life-1", path=path)
        place.member(host="s2", boot_id="life-1", path=path)
        for name in ("s1", "s2"):
            await recorder.beat(lambda beat, name=name: beat.host == name and beat.boot_id == "life-1")
        signalled(one, signal.SIGKILL)
        await recorder.beat(lambda beat: beat.host == "s1" and has(lateness=died)(beat))
        counter = recorder.beats[-1].counter
        place.member(host="s1", boot_id="life-2", path=path)
        await recorder.beat(lambda beat: beat.boot_id == "life-2" and has()(beat) and beat.counter > counter)
        assert not has(lateness=died)(recorder.beats[-1])

    play(place, story)
