"""Which processes are ours: named by pid and start time, found by the network namespace they live in.

A bare pid may have gone to a stranger since it was written down; nothing here signals one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
POLL_S = 0.01


class Process(NamedTuple):
    pid: int
    started_ticks: int  # since the machine's boot: the same pid with another value is another process

    def is_alive(self) -> bool:
        return process(self.pid) == self

    def name(self) -> str:
        try:
            return (PROC / str(self.pid) / "comm").read_text().strip()
        except OSError:
            return ""

    def command(self) -> list[str]:
        """Its command line; empty when it has ended."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
        except OSError:
            return []

    def parent(self) -> int:
        fields = _fields(self.pid)
        return int(fields[1]) if fields else 0

    def send(self, number: signal.Signals) -> None:
        """Signal it if it is still the one that was meant."""
        try:
            handle = os.pidfd_open(self.pid)
        except (ProcessLookupError, OSError):
            return
        try:
            if self.is_alive():
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)


def process(pid: int) -> Process | None:
    """The process that has that pid now; a zombie has ended and counts as none."""
    fields = _fields(pid)
    return None if not fields or fields[0] in "ZX" else Process(pid, int(fields[19]))


def recorded(path: Path) -> Process | None:
    """The living process that a file names by `pid start-time`, if it lives."""
    try:
        pid, started = path.read_text().split()
    except (OSError, ValueError):
        return None
    found = Process(int(pid), int(started))
    return found if found.is_alive() else None


def record(path: Path, pid: int) -> None:
    found = process(pid)
    if found is not None:
        path.write_text(f"{found.pid} {found.started_ticks}\n")


def everyone() -> Iterator[Process]:
    for entry in os.listdir(PROC):
        if entry.isdigit():
            found = process(int(entry))
            if found is not None:
                yield found


def in_network(namespaces: list[Path]) -> list[Process]:
    """Everyone who lives in one of these network namespaces, but the caller."""
    wanted = set()
    for namespace in namespaces:
        try:
            seen = namespace.stat()
        except OSError:
            continue
        wanted.add((seen.st_dev, seen.st_ino))
    found = []
    for one in everyone():
        try:
            seen = os.stat(PROC / str(one.pid) / "ns" / "net")
        except OSError:
            continue
        if (seen.st_dev, seen.st_ino) in wanted and one.pid != os.getpid():
            found.append(one)
    return found


def with_environment(entry: str) -> list[Process]:
    """Everyone who carries that `NAME=value` in the environment they were started with, but the caller."""
    wanted = entry.encode()
    found = []
    for one in everyone():
        try:
            environment = (PROC / str(one.pid) / "environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0") and one.pid != os.getpid():
            found.append(one)
    return found


def end(find: Callable[[], list[Process]], number: signal.Signals, timeout_s: float) -> bool:
    """Signal whoever `find` returns, newcomers too, until it returns nobody. False when some are left at the end."""
    deadline = time.monotonic() + timeout_s
    told: set[Process] = set()
    while found := find():
        for one in found:
            if one not in told:
                one.send(number)
                told.add(one)
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def wait_for(condition: Callable[[], bool], timeout_s: float, look_s: float = POLL_S) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(look_s)
    return True


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is done. A handler, not a mask: a child would inherit the mask."""
    interrupted = []
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt


def _fields(pid: int) -> list[str]:
    """/proc/PID/stat after the name, which may itself hold spaces and brackets: state, parent, …"""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return stat[stat.rindex(")") + 2 :].split()
