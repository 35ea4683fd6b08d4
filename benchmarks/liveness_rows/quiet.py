"""10,000 services on 1,000 hosts: what a list of them costs, what is written while nothing happens, and that nobody is
taken for dead whatever happens to those who watch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.engine import Engine

from benchmarks.claims import Claim, median, progress
from benchmarks.liveness_rows.rig import IS_LONG, READY_S, Control, Crowd, crowded, tail, wait_for
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.drivers.membership.db import DbServiceGroup, DbSettings
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.fleet import services
from droveway.store.upgrade import bring_up_to_date
from lab.compute import Compute
from lab.servers import Server

HOSTS, SERVICES = 1_000, 10
LISTS, LISTED = 10, 5
REST_S = 600 if IS_LONG else 120
HOGS, HOGGED_S = 8, 15.0
STOPPED_S, SILENT_S, BROKER_AWAY_S, CLOCK_S = 10.0, 3.0, 5.0, 6.0
AFTER_S = 8.0  # more than service_down_time, a second opinion and a look
LIBFAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def measure(beside: Callable[[], list[Claim]]) -> list[Claim]:
    """`beside` is measured while those who are at rest need no attention: it saves two minutes."""
    with tempfile.TemporaryDirectory(prefix="droveway-bench-") as directory:
        place = Path(directory)
        shift = place / "shift"
        shift.write_text("+0")
        environment = {}
        if LIBFAKETIME.exists():
            environment = {
                "LD_PRELOAD": str(LIBFAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(shift),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        with (
            ThreadPoolExecutor(1) as pool,
            crowded(place / "quiet", HOSTS // 2, services=SERVICES) as (broker, control, crowd),
        ):
            progress(f"lists of {HOSTS * SERVICES // 2:,} and {HOSTS * SERVICES:,} services")
            compute = control.compute()
            half_ms = _list_ms(control, compute)
            others = Crowd(broker.port, HOSTS // 2, HOSTS // 2, services=SERVICES)
            try:
                wait_for(lambda: control.is_up(HOSTS * SERVICES), READY_S, lambda: tail(control.said), pause_s=0.5)
                time.sleep(AFTER_S)
                claims = _lists(control, compute, half_ms)
                others_claims = pool.submit(beside)
                claims += _rest(control, [crowd, others])
                claims = others_claims.result() + claims
                claims += _trials(broker, control, [crowd, others])
            finally:
                others.end()
        if environment:
            claims.append(_clocks(place, environment, shift))
        else:
            progress(f"{LIBFAKETIME} is missing (apt-get install libfaketime): control's own clock stays as it is")
        return [
            *claims,
            Claim(
                "db driver: statements a flush",
                _statements_a_flush(place),
                1,
                "",
                f"{HOSTS * SERVICES:,} services, one beat each",
            ),
        ]


# -- lists ------------------------------------------------------------------------------------------------------------
def _list_ms(control: Control, compute: Compute) -> float:
    """CPU of control for one list; what the beats cost meanwhile is taken off."""
    compute.services()
    cpu_s, began_s = control.cpu_s(), time.monotonic()
    time.sleep(3.0)
    at_rest = (control.cpu_s() - cpu_s) / (time.monotonic() - began_s)
    times_ms = []
    for _ in range(LISTS):
        cpu_s, began_s = control.cpu_s(), time.monotonic()
        compute.services()
        times_ms.append((control.cpu_s() - cpu_s - at_rest * (time.monotonic() - began_s)) * 1000)
    return median(times_ms)


def _lists(control: Control, compute: Compute, half_ms: float) -> list[Claim]:
    whole_ms = _list_ms(control, compute)
    environment = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(control.home / "clouds.yaml")}
    command = [sys.executable, "-m", "droveway.main", "service", "list"]
    times_s = []
    for _ in range(LISTED):
        began_s = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        times_s.append(time.monotonic() - began_s)
        assert done.stdout.count("nova-compute") == HOSTS, "the list is whole"
    return [
        Claim(
            f"GET /os-services, {HOSTS * SERVICES:,} services: CPU",
            whole_ms,
            80,
            "ms",
            f"median of {LISTS}; Nova: 5,800",
        ),
        Claim("... against half as many", whole_ms / half_ms, 2.4, "times", f"{half_ms:.0f} ms: linear is 2.0"),
        Claim("droveway service list, from start to end", median(times_s), 1.0, "s", f"median of {LISTED}"),
    ]


# -- at rest ----------------------------------------------------------------------------------------------------------
def _rest(control: Control, crowds: list[Crowd]) -> list[Claim]:
    """Nothing happens, but that one beat in a hundred does not arrive. Suspicion is not written."""
    progress(f"{HOSTS * SERVICES:,} services at rest for {REST_S} s, 1 % of their beats dropped")
    before, downs, dropped = control.commits, len(control.downs), _sum(crowds, "dropped")
    beats = _sum(crowds, "beats")
    _tell(crowds, "drop 0.01")
    time.sleep(REST_S)
    _tell(crowds, "drop 0")
    a_minute = (control.commits - before) / REST_S * 60
    time.sleep(AFTER_S)
    beats, dropped = _sum(crowds, "beats") - beats, _sum(crowds, "dropped") - dropped
    return [
        Claim(
            "database writes a minute at rest",
            a_minute,
            15,
            "",
            f"commits, counted for {REST_S} s from outside (PRAGMA data_version); every host reports once a minute",
        ),
        Claim(
            "false downs: 1 % of beats dropped",
            len(control.downs) - downs,
            0,
            "",
            f"{dropped:,} of {beats + dropped:,} beats, before the bus, in {REST_S} s; hosts' clocks a day off",
        ),
    ]


def _sum(crowds: list[Crowd], what: str) -> int:
    return sum(getattr(crowd.counted(), what) for crowd in crowds)


def _tell(crowds: list[Crowd], line: str) -> None:
    for crowd in crowds:
        crowd.tell(line)


def _statements_a_flush(place: Path) -> float:
    """What the db driver sends to the database for one flush of everybody's beat."""
    url, written, is_watched = f"sqlite:///{place}/db.sqlite", list[str](), False

    def join(tx: Tx) -> None:
        for number in range(HOSTS * SERVICES):
            services.register(tx, f"h{number}", "nova-compute", "nova")

    def note(statement: str) -> None:
        """SQLite's own trace: one of many rows is told once for each of them."""
        if is_watched and statement.split(maxsplit=1)[0].upper() in ("INSERT", "UPDATE", "DELETE"):
            written.append(statement)

    def trace(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_trace_callback(note)

    async def flush() -> None:
        nonlocal is_watched
        store = DiskStore(url, SystemClock(), SystemNames())
        await store.run(join)
        group = DbServiceGroup(DbSettings(report_interval_s=1.0, initial_delay_s=1.0), SystemClock(), store)
        is_watched = True
        try:
            await group.open(lambda _group, _member: None, lambda _up, _reason: None)
            for number in range(HOSTS * SERVICES):
                group.beat(f"h{number}/nova-compute")
            await asyncio.sleep(1.8)
        finally:
            is_watched = False
            await group.close()
            await store.close()

    bring_up_to_date(url)
    event.listen(Engine, "connect", trace)
    try:
        asyncio.run(flush())
    finally:
        event.remove(Engine, "connect", trace)
    return len(written)


# -- what must make nobody down ---------------------------------------------------------------------------------------
def _trials(broker: Server, control: Control, crowds: list[Crowd]) -> list[Claim]:
    def stopped() -> None:
        control.process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_S)
        control.process.send_signal(signal.SIGCONT)

    def silence() -> None:
        for crowd in crowds:
            crowd.signal(signal.SIGSTOP)
        time.sleep(SILENT_S)
        for crowd in crowds:
            crowd.signal(signal.SIGCONT)

    def broker_restarts() -> None:
        broker.kill()
        time.sleep(BROKER_AWAY_S)
        broker.start()

    return [
        _trial(f"{HOGS} CPU hogs for {HOGGED_S:.0f} s", _hogged, control, crowds),
        _trial(f"observer stopped for {STOPPED_S:.0f} s (SIGSTOP)", stopped, control, crowds),
        _trial(f"{SILENT_S:.0f} s of total silence (senders stopped)", silence, control, crowds),
        _trial(f"broker killed, back after {BROKER_AWAY_S:.0f} s", broker_restarts, control, crowds),
    ]


def _trial(what: str, act: Callable[[], None], control: Control, crowds: list[Crowd]) -> Claim:
    progress(what)
    downs, beats = len(control.downs), _sum(crowds, "beats")
    act()
    time.sleep(AFTER_S)
    counted = [crowd.counted() for crowd in crowds]
    beats, late_s = sum(one.beats for one in counted) - beats, max(one.late_s for one in counted)
    news = control.downs[downs:]
    said = f"; first: {news[0].reason}" if news else ""
    return Claim(f"false downs: {what}", len(news), 0, "", f"{beats:,} beats, senders late by {late_s:.1f} s{said}")


def _hogged() -> None:
    with contextlib.ExitStack() as hogs:
        for _ in range(HOGS):
            hogs.enter_context(_hog())
        time.sleep(HOGGED_S)


@contextlib.contextmanager
def _hog() -> Iterator[None]:
    hog = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        hog.kill()
        hog.wait()


def _clocks(place: Path, environment: dict[str, str], shift: Path) -> Claim:
    """Control's own wall clock jumps, a day ahead, a day back; the hosts' are a day off either way all the time."""

    def jump() -> None:
        for to in ("+1d", "-1d", "+0"):
            shift.write_text(to)
            time.sleep(CLOCK_S)

    with crowded(place / "clocks", HOSTS // 10, services=SERVICES, environment=environment) as (_, control, crowd):
        return _trial("clocks a day ahead and back, control's and the hosts'", jump, control, [crowd])
