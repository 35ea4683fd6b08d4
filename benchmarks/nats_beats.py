"""What a beat over NATS costs the process of control: our own reader beside a bare nats-py callback.

A real broker; the sender is a process of its own that speaks for 10,000 hosts with ten services each. Both receivers
get the same messages in the same run, first as steady beats (10,000 a second, few at a time, as in life), then as fast
as they come. Ours decodes each beat, checks whose it is, and keeps the books a judge needs; nats-py's callback counts.
CPU is user and system time of the receiving process.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats

from benchmarks.claims import Claim, median, progress
from benchmarks.liveness_rows.control_process import OTHERS
from droveway.drivers.bus import beats, broker_messages
from droveway.drivers.bus.broker import BrokerControlBus
from droveway.drivers.bus.nats_link import NatsLink, NatsSettings
from droveway.drivers.clock import SystemChance, SystemNames
from droveway.ports.bus import Beat, Hello, Notice, Welcome
from lab import servers

HOSTS, RATE_PER_S, STEADY_S = 10_000, 10_000, 5
FLOOD_BEATS = 300_000
SERVICES = ("nova-compute", *OTHERS)
BOOT_ID = "0b5c1e7e-7a4c-4d51-9f3e-2f6d5a1c8b90"
PACE_S = 0.005
ROUNDS = 3
NEEDS = ("nats",)


class Books:
    """What a judge keeps of each host: the rising counter, when it last rose by its own clock, and the progress."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Any]] = {}
        self.accepted = 0

    def on_notice(self, notice: Notice) -> Welcome | None:
        match notice:
            case Hello():
                self.seen[notice.host] = [notice.boot_id, 0, 0, 0.0, ()]
                return Welcome(1.0)
            case Beat(host, boot_id, counter, generation):
                row = self.seen.get(host)
                if row is not None and row[0] == boot_id and (generation, counter) > (row[1], row[2]):
                    row[1:] = generation, counter, time.monotonic(), notice.progress
                    self.accepted += 1
        return None


def measure() -> list[Claim]:
    with tempfile.TemporaryDirectory(prefix="droveway-bench-") as directory, servers.nats(Path(directory)) as broker:
        ours: dict[bool, list[float]] = {True: [], False: []}
        bare: dict[bool, list[float]] = {True: [], False: []}
        for number in range(ROUNDS):
            for steady in (True, False):
                progress(f"round {number + 1} of {ROUNDS}, {'steady' if steady else 'as fast as they come'}")
                ours[steady].append(asyncio.run(_ours(broker.port, steady)))
                bare[steady].append(asyncio.run(bare_us(broker.port, steady)))
    claims = []
    for steady, what in ((True, f"steady {RATE_PER_S:,}/s"), (False, "as fast as they come")):
        mine, theirs = median(ours[steady]), median(bare[steady])
        claims.append(
            Claim(
                f"CPU of control per beat over NATS, {what}",
                mine,
                10.0,
                "us",
                f"decoded and booked, {len(SERVICES)} services a beat; bare nats-py callback: {theirs:.2f}, "
                f"ratio {mine / theirs:.2f}; median of {ROUNDS}",
            )
        )
    return [*claims, Claim("of it: decoding", _decoding_us(), 2.0, "us", f"{len(SERVICES)} services")]


async def _ours(port: int, steady: bool) -> float:
    books = Books()
    settings = NatsSettings(servers=(f"nats://127.0.0.1:{port}",))
    bus = BrokerControlBus(NatsLink(settings, SystemChance()), SystemNames())
    await bus.serve(books.on_notice)
    try:
        with sending(port, steady) as sender:
            await until(lambda: len(books.seen) == HOSTS)
            await asyncio.sleep(0.5)
            go(sender)
            await until(lambda: books.accepted >= HOSTS)  # the first beat of each makes it known
            before, cpu_s = books.accepted, time.process_time()
            total = count(steady)
            await until(lambda: books.accepted >= total)
            assert bus.garbage == bus.foreign_beats == 0, "every beat was understood"
            return (time.process_time() - cpu_s) / (books.accepted - before) * 1e6
    finally:
        await bus.close()


async def bare_us(port: int, steady: bool) -> float:
    heard = 0

    async def on_message(_message: object) -> None:
        nonlocal heard
        heard += 1

    client = await nats.connect(f"nats://127.0.0.1:{port}")
    await client.subscribe("droveway.beat.*", cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await client.flush()
    try:
        with sending(port, steady) as sender:
            go(sender)
            await until(lambda: heard >= HOSTS)
            before, cpu_s = heard, time.process_time()
            await until(lambda: heard >= count(steady))
            return (time.process_time() - cpu_s) / (heard - before) * 1e6
    finally:
        await client.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - an event set by each beat would be part of what is measured
        await asyncio.sleep(0.02)


def count(steady: bool) -> int:
    return RATE_PER_S * STEADY_S if steady else FLOOD_BEATS


def _decoding_us() -> float:
    subject, payload = f"droveway.beat.{_name(1)}".encode(), beats.encode(_beat(1, 1))
    reader = beats.BeatReader()
    reader.know(subject, payload)
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(100_000):
            reader.read(subject, payload)
        times.append((time.process_time() - began) * 10)
    return median(times)


# -- the sender -------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def sending(port: int, steady: bool) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "benchmarks.nats_beats", str(port), str(int(steady))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def go(sender: subprocess.Popen[bytes]) -> None:
    assert sender.stdin is not None
    sender.stdin.write(b"\n")
    sender.stdin.flush()


def _name(number: int) -> str:
    return f"compute-{number:05d}"


def _beat(number: int, counter: int) -> Beat:
    count = len(SERVICES)
    return Beat(_name(number), BOOT_ID, counter, 1, SERVICES, (counter,) * count, (3,) * count)


def _send(port: int, steady: bool) -> None:
    """Hello for every host; then, when told to, the beats."""
    broker = socket.create_connection(("127.0.0.1", port))
    broker.recv(1 << 16)
    broker.sendall(b'CONNECT {"verbose":false}\r\n')
    for number in range(HOSTS):
        hello = broker_messages.HelloFrom("bench", Hello(_name(number), BOOT_ID, "bench"))
        broker.sendall(_publish(f"droveway.hello.{_name(number)}", broker_messages.encode(hello)))
    sys.stdin.read(1)
    due_s = time.monotonic()
    at_once = int(RATE_PER_S * PACE_S)
    for first in range(0, count(steady) + HOSTS, at_once):
        due_s += PACE_S
        whole = b"".join(
            _publish(f"droveway.beat.{_name(one % HOSTS)}", beats.encode(_beat(one % HOSTS, one // HOSTS + 1)))
            for one in range(first, first + at_once)
        )
        broker.sendall(whole)
        if steady:
            time.sleep(max(0.0, due_s - time.monotonic()))
    broker.sendall(b"PING\r\n")
    sys.stdin.read(1)  # stay until killed: what was sent arrives


def _publish(subject: str, payload: bytes) -> bytes:
    return b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(payload), payload)


if __name__ == "__main__":
    _send(int(sys.argv[1]), sys.argv[2] == "1")
