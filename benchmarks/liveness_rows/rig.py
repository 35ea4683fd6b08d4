"""What the rows are measured on: a control process watched from outside, and crowds of simulated hosts."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from benchmarks.claims import cpu_seconds, median
from benchmarks.liveness_rows import control_process, crowd_process
from benchmarks.liveness_rows.crowd_process import Plan
from lab import servers
from lab.client import Client
from lab.compute import Compute

CLONE = Path(__file__).resolve().parents[2]
LOOK_S = 0.005
READY_S = 120.0
CROWDS_AT_LEAST = 2
IS_LONG = os.environ.get("DROVEWAY_BENCH_LONG", "") not in ("", "0")


class Down(msgspec.Struct, frozen=True):
    """A verdict as it was first seen in the store, by the machine's monotonic clock."""

    at_s: float
    host: str
    binary: str
    state: str
    reason: str


class Control:
    """`droveway control` in a directory of its own, and what it writes: its database is looked at every 5 ms."""

    def __init__(self, home: Path, more: str = "", environment: Mapping[str, str] = MappingProxyType({})) -> None:
        self.home, self.config = home, home / "droveway.toml"
        (self.port,) = servers.free_ports(1)
        self.config.write_text(
            f'state_path = "{home}"\nlog_level = "warning"\n{more}\n[api]\nlisten = "127.0.0.1:{self.port}"\n'
            f'clouds_yaml = "{home}/clouds.yaml"\n'
        )
        self.downs: list[Down] = []
        self.ups: list[tuple[float, str]] = []  # when, host/binary
        self.commits = 0
        self._ended = threading.Event()
        self.said = home / "said"
        program = [sys.executable, str(control_process.__file__)]
        changed = [f"{name}={value}" for name, value in environment.items()]
        command = [*changed, *program, "control", "--config", str(self.config)]
        self.process = start(["env", *command], self.said)
        wait_for(Client(self.port).answers, READY_S, lambda: f"control does not answer: {tail(self.said)}")
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_s(self) -> float:
        return cpu_seconds([self.pid])

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        end(self.process)

    def compute(self) -> Compute:
        return Compute(self.port, self.home / "clouds.yaml")

    def is_up(self, count: int) -> bool:
        """Whether at least so many services of hosts are recorded as alive."""
        with contextlib.closing(self._open()) as database:
            (found,) = database.execute(
                "select count(*) from services where state = 'alive' and host <> 'control'"
            ).fetchone()
        return bool(found >= count)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self.home}/droveway.sqlite?mode=ro", uri=True, timeout=10, isolation_level=None)

    def _watch(self) -> None:
        with contextlib.closing(self._open()) as database:
            (cursor,) = database.execute("select coalesce(max(id), 0) from events").fetchone()
            (version,) = database.execute("pragma data_version").fetchone()
            while not self._ended.wait(LOOK_S):
                (now,) = database.execute("pragma data_version").fetchone()
                if now == version:
                    continue
                version, at_s = now, time.monotonic()
                self.commits += 1
                news = database.execute(
                    "select id, subject_id, body from events where id > ? and kind = 'service' order by id", (cursor,)
                ).fetchall()
                for number, subject, body in news:
                    cursor = number
                    self._note(at_s, subject, json.loads(body))

    def _note(self, at_s: float, subject: str, body: dict[str, Any]) -> None:
        host, _, binary = subject.partition("/")
        if body.get("became") == "down":
            self.downs.append(Down(at_s, host, binary, body["state"], body["because"]))
        elif body.get("became") == "up":
            self.ups.append((at_s, subject))


class Crowd:
    """Many hosts, over a few processes."""

    def __init__(
        self,
        port: int,
        count: int,
        first: int = 0,
        *,
        services: int = 10,
        processes: int = CROWDS_AT_LEAST,
        reports: bool = True,
    ) -> None:
        self.died: dict[str, float] = {}  # when each died, or will
        self._counted: queue.Queue[list[str]] = queue.Queue()
        self.processes = []
        share = count // processes
        for number in range(processes):
            plan = Plan(port, first + number * share, share, services, reports=reports, seed=first + number)
            command = [sys.executable, "-m", crowd_process.__name__, msgspec.json.encode(plan).decode()]
            process = subprocess.Popen(command, cwd=CLONE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._hear, args=(process,), daemon=True).start()
            self.processes.append(process)

    def _hear(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            word, *words = line.split()
            if word == "dies":
                self.died[words[0]] = float(words[1])
            else:
                self._counted.put(words)

    def tell(self, line: str) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()

    def counted(self) -> Counted:
        self.tell("count")
        rows = [self._counted.get(timeout=READY_S) for _ in self.processes]
        beats, dropped, cut_short, let_in = (sum(int(row[at]) for row in rows) for at in range(4))
        return Counted(beats, dropped, cut_short, let_in, max(float(row[4]) for row in rows))

    def signal(self, number: signal.Signals) -> None:
        for process in self.processes:
            process.send_signal(number)

    def end(self) -> None:
        for process in self.processes:
            end(process)


class Counted(msgspec.Struct, frozen=True):
    beats: int
    dropped: int  # before the bus, on purpose
    cut_short: int  # the kernel did not take them
    let_in: int  # hosts
    late_s: float  # at worst, since the last count: how late the crowd itself was


@contextlib.contextmanager
def crowded(
    home: Path, hosts: int, *, services: int = 10, environment: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[servers.Server, Control, Crowd]]:
    """A broker, a control, and that many hosts, all of them up."""
    home.mkdir(parents=True, exist_ok=True)
    with servers.nats(home / "broker") as broker:
        control = Control(home, f'bus = "nats"\n[nats]\nservers = ["nats://127.0.0.1:{broker.port}"]', environment)
        try:
            crowd = Crowd(broker.port, hosts, services=services)
            try:
                wait_for(lambda: control.is_up(hosts * services), READY_S, lambda: f"{tail(control.said)}", pause_s=0.5)
                yield broker, control, crowd
            finally:
                crowd.end()
        finally:
            control.end()


# -- processes --------------------------------------------------------------------------------------------------------
def start(command: Sequence[str], said: Path) -> subprocess.Popen[bytes]:
    """Dies with the thread that started it."""
    with said.open("ab") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.kill()
    process.wait()


def wait_for(condition: Callable[[], bool], timeout_s: float, said: Callable[[], str], pause_s: float = 0.02) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {said()}")
        time.sleep(pause_s)


def tail(said: Path) -> str:
    return said.read_text(errors="replace")[-1000:] if said.exists() else ""


def p99(values: Sequence[float]) -> float:
    """The value that one in a hundred exceeds."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]


def spread(values: Sequence[float], unit: str = "s") -> str:
    return f"{len(values)} of them: median {median(values):.2f} {unit}, worst {max(values):.2f} {unit}"
