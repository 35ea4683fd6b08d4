"""What a beat costs control: its real observer and judge behind the real bus, beside a bare nats-py callback."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks import nats_beats
from benchmarks.claims import Claim, median, progress
from benchmarks.liveness_rows.control_process import know_them
from droveway.control.engine.nudges import Nudges
from droveway.control.liveness.detector import FailureDetector
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.drivers.bus.broker import BrokerControlBus
from droveway.drivers.bus.nats_link import NatsLink, NatsSettings
from droveway.drivers.clock import SystemChance, SystemClock, SystemNames
from droveway.process import serving
from droveway.store.fleet.services import Verdict
from lab import servers

ROUNDS = 3


def measure() -> list[Claim]:
    ours, bare = [], []
    serving.keep_the_loop_light()  # as control does; the floor is measured with the same loop and collector
    with tempfile.TemporaryDirectory(prefix="droveway-bench-") as directory, servers.nats(Path(directory)) as broker:
        for number in range(ROUNDS):
            progress(f"CPU of a beat, round {number + 1} of {ROUNDS}")
            ours.append(uvloop.run(_judged(broker.port)))
            bare.append(uvloop.run(nats_beats.bare_us(broker.port, steady=True)))
    mine, floor = median(ours), median(bare)
    return [
        Claim(
            "CPU of control per beat over NATS",
            mine,
            10.0,
            "us",
            f"observer and judge, {len(nats_beats.SERVICES)} services a beat, {nats_beats.RATE_PER_S:,}/s; "
            f"bare nats-py callback: {floor:.2f}, ratio {mine / floor:.2f}; median of {ROUNDS}",
        )
    ]


async def _judged(port: int) -> float:
    """Microseconds a beat, once everybody is known and alive."""
    know_them()
    clock, settings, verdicts = SystemClock(), LivenessSettings(), list[Verdict]()
    observer = Observer(clock, Nudges(), settings)
    bus = BrokerControlBus(NatsLink(NatsSettings(servers=(f"nats://127.0.0.1:{port}",)), SystemChance()), SystemNames())
    detector = FailureDetector(observer, bus, clock, settings, verdicts.append)
    detector.begin([])
    await bus.serve(observer.on_notice)
    looking = asyncio.create_task(detector.run())
    numbers, known = observer.numbers, nats_beats.HOSTS * len(nats_beats.SERVICES)
    try:
        with nats_beats.sending(port, steady=True) as sender:
            await nats_beats.until(lambda: len(observer.expected()) == nats_beats.HOSTS)
            await asyncio.sleep(0.5)
            nats_beats.go(sender)
            await nats_beats.until(lambda: len(verdicts) == known and not detector.holds)
            # Whoever was just found alive has been looked at; from here on beats are only beats.
            await nats_beats.until(lambda: numbers.beats >= 3 * nats_beats.HOSTS)
            before, cpu_s = numbers.beats, time.process_time()
            async with asyncio.timeout(30):
                await nats_beats.until(lambda: numbers.beats >= nats_beats.count(steady=True))
            took_us = (time.process_time() - cpu_s) / (numbers.beats - before) * 1e6
        assert numbers.refused == bus.garbage == 0, "every beat counted"
        assert all(verdict.is_up for verdict in verdicts), "nobody was taken for dead"
        return took_us
    finally:
        looking.cancel()
        await bus.close()
