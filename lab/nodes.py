"""One process of a server, and the ports it may have."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from lab import processes

# Below the range from which the kernel takes the local ports of outgoing connections: a server that is restarted must
# find its port free.
FIRST_PORT, LAST_PORT = 20_000, 32_000
BLOCK = 50  # ports that a process holds at a time
READY_S, ENDS_S, POLL_S = 60.0, 10.0, 0.02
LOG_SHOWN = 2000


class ServerFailed(Exception):
    """A server did not start or end; the message holds the end of its log."""


class Node:
    """One process of a server, which keeps its ports and its directory over restarts."""

    def __init__(
        self,
        directory: Path,
        port: int,
        command: list[str],
        is_serving: Callable[[int], bool],
        user: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory, self.port = directory, port
        self._command, self._is_serving = command, is_serving
        self._as = ["--reuid", user, "--regid", user, "--init-groups"] if user else []
        self._environment = {**os.environ, **(environment or {})}
        self._dies_with_us = ["--pdeathsig", "KILL"]
        self._popen: subprocess.Popen[bytes] | None = None
        self._process: processes.Process | None = None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerFailed(f"{self._command[0]} is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def reap(self) -> None:
        """After somebody else has ended it: a child must be waited for."""
        if self._popen is not None:
            self._popen.wait(ENDS_S)

    def stays(self, environment: Mapping[str, str]) -> None:
        """Let it outlive whoever starts it; by what it carries in its environment it is found again."""
        self._dies_with_us = []
        self._environment |= environment

    def begin(self) -> None:
        """Start without waiting: the nodes of an ensemble only serve together."""
        with (self.directory / "log").open("ab") as log:
            self._popen = subprocess.Popen(
                ["setpriv", *self._as, *self._dies_with_us, "--", *self._command],
                cwd=self.directory,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        self._process = processes.process(self._popen.pid)

    def wait(self) -> None:
        """Until it really serves: a port that answers is not enough."""
        deadline = time.monotonic() + READY_S
        while not self._is_serving(self.port):
            if self._popen is None or self._popen.poll() is not None:
                raise ServerFailed(f"{self._command[0]} has ended: {self._log()}")
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self._command[0]} does not serve after {READY_S:.0f} s: {self._log()}")
            time.sleep(POLL_S)

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send(number)

    def end(self, number: signal.Signals) -> None:
        """Signal it and wait for its end; one that is stopped (SIGSTOP) or does not obey is killed."""
        if self._popen is None:
            return
        self.send(number)
        self.send(signal.SIGCONT)
        try:
            self._popen.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._popen.wait(ENDS_S)
        self._popen = self._process = None

    def _log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-LOG_SHOWN:]


def free_ports(count: int) -> list[int]:
    """Loopback ports nobody listens on now, and which nobody else is given: neither in this process, nor in another one
    while this one lives. So the program they are for may take its time to listen, and may be started again."""
    found: list[int] = []
    while len(found) < count:
        if not _left:
            _take_block()
        port = _left.pop()
        if is_free(port):
            found.append(port)
    return found


def keep_port(port: int) -> bool:
    """Whether that one, which `free_ports` gave to an earlier process, is free still and nobody else's: it is held."""
    if port in _left:
        _left.remove(port)
    return _holds(port - (port - FIRST_PORT) % BLOCK) and is_free(port)


_blocks: dict[int, int] = {}  # by the first port of each, the descriptor that holds it until this process ends
_left: list[int] = []  # ports of those blocks that were not given yet


def _take_block() -> None:
    for first in random.sample(range(FIRST_PORT, LAST_PORT, BLOCK), (LAST_PORT - FIRST_PORT) // BLOCK):
        if first not in _blocks and _holds(first):
            _left.extend(range(first, first + BLOCK))
            return
    raise ServerFailed(f"all ports between {FIRST_PORT} and {LAST_PORT} are held by tests and clouds that run")


def _holds(first: int) -> bool:
    if first not in _blocks and (held := claim(f"ports-{first}")) is not None:
        _blocks[first] = held.detach()
    return first in _blocks


def claim(name: str) -> socket.socket | None:
    """That name, which one holder at a time has in a network namespace: an abstract socket, held until it is closed in
    every process that has it. None while another one holds it."""
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(f"\0droveway-{name}")
    except OSError:
        held.close()
        return None
    return held


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a port whose old connections still linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
