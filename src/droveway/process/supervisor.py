"""`droveway all`: a small parent of control, hearts and agents. It starts them again when they end, and they end with
it.

Each child holds the reading end of a pipe whose writing end only the supervisor has: when the supervisor is gone,
however it went, every child reads the end and stops. It imports little on purpose: it must never be the one that fails.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from droveway.config.file import Config
from droveway.domain.service_kinds import COMPUTE

EX_CONFIG = 78  # a child says: my configuration is wrong, starting me again will not help
RESTART_FIRST_S, RESTART_MAX_S, HEALTHY_S = 0.5, 30.0, 10.0
STOP_GRACE_S = 10.0
GROUP_POLL_S = 0.02


class Child:
    """One process under supervision, with its back-off."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name, self.command = name, command
        self.process: subprocess.Popen[bytes] | None = None
        self.pidfd = -1
        self.started_s = 0.0
        self.delay_s = RESTART_FIRST_S
        self.start_at_s = 0.0


class Supervisor:
    def __init__(self, files: Sequence[tuple[Config, Path]]) -> None:
        self._alive_read, self._alive_write = os.pipe()
        self._base = [sys.executable, "-m", "droveway.main"]
        self._controls: list[Child] = []
        self._apis: list[Child] = []
        self._hearts: list[Child] = []
        self._agents: list[Child] = []
        for config, path in files:
            tail = ["--config", str(path), "--supervised", str(self._alive_read)]
            if config.role in ("all", "control"):
                self._controls.append(Child("control", [*self._base, "control", *tail]))
            elif config.role == "api":
                self._apis.append(Child(f"api {config.api.listen}", [*self._base, "api", *tail]))
            self._add_hosts(config, tail)
        self._children = [*self._controls, *self._apis, *self._hearts, *self._agents]
        self._selector = selectors.DefaultSelector()
        self._stopping = self._has_hung_up = False
        self._exit_code = 0

    def _add_hosts(self, config: Config, tail: list[str]) -> None:
        """A heart a host, and a process a service."""
        base = self._base
        simulated: dict[str, list[str]] = {}  # by service; they share one imagined world, so one process
        for host in config.host:
            named = ["--host", host.name]
            if host.shares_a_process:
                for service in host.services:
                    simulated.setdefault(service, []).extend(named)
                continue
            self._hearts.append(Child(f"heart {host.name}", [*host.enter, *base, "heart", *named, *tail]))
            for service in host.services:
                self._agents.append(
                    Child(
                        f"{_called(service)} {host.name}",
                        [*host.enter, *base, "agent", *named, *_which(service), *tail],
                    )
                )
        hosts = [word for host in config.host if host.shares_a_process for word in ("--host", host.name)]
        if hosts:
            self._hearts.append(Child("heart (simulated)", [*base, "heart", *hosts, *tail]))
        for service, names in simulated.items():
            self._agents.append(
                Child(f"{_called(service, 's')} (simulated)", [*base, "agent", *names, *_which(service), *tail])
            )

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or until a child's configuration is wrong. Returns the exit code."""
        woken_read, woken_write = os.pipe()
        os.set_blocking(woken_write, False)
        signal.set_wakeup_fd(woken_write)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)
        self._selector.register(woken_read, selectors.EVENT_READ, None)
        while not self._stopping:
            now_s = time.monotonic()  # noqa: TID251 - the supervisor is the edge of the program, like the clock itself
            for child in self._children:
                if child.process is None and now_s >= child.start_at_s:
                    self._start(child, now_s)
            waits = [child.start_at_s - now_s for child in self._children if child.process is None]
            for key, _ in self._selector.select(max(0.01, min(waits)) if waits else None):
                if key.data is None:
                    os.read(woken_read, 64)
                    self._say_hangup()
                else:
                    self._reap(key.data)
        self._stop_all()
        return self._exit_code

    def _on_signal(self, number: int, _frame: object) -> None:
        self._stopping = True

    def _on_hangup(self, _number: int, _frame: object) -> None:
        """A terminal was closed, or a file is to be read again: neither is a reason to end hosts' agents."""
        self._has_hung_up = True

    def _start(self, child: Child, now_s: float) -> None:
        try:
            # A session of its own: killing the group reaches what the child's prefix (nsenter) has forked.
            process = subprocess.Popen(
                child.command, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[self._alive_read]
            )
        except OSError as error:  # no memory, no process left: there may be one in a moment
            self._start_again(child, now_s, f"cannot be started ({child.command[0]}: {error.strerror})")
            return
        try:
            child.pidfd = os.pidfd_open(process.pid)
        except OSError as error:
            _kill_group(process.pid, signal.SIGKILL)
            process.wait()
            self._start_again(child, now_s, f"cannot be watched ({error.strerror})")
            return
        child.process, child.started_s = process, now_s
        self._selector.register(child.pidfd, selectors.EVENT_READ, child)
        self._say(f"{child.name} started, pid {process.pid}")

    def _reap(self, child: Child) -> None:
        assert child.process is not None
        code = child.process.wait()
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        _kill_group(child.process.pid, signal.SIGKILL)
        child.process = None
        now_s = time.monotonic()  # noqa: TID251 - see run()
        if code == EX_CONFIG:
            self._say(f"{child.name} says that its configuration is wrong; everything stops")
            self._stopping, self._exit_code = True, EX_CONFIG
            return
        if now_s - child.started_s > HEALTHY_S:
            child.delay_s = RESTART_FIRST_S
        self._start_again(child, now_s, f"ended ({_how(code)})")

    def _start_again(self, child: Child, now_s: float, why: str) -> None:
        self._say(f"{child.name} {why}; started again in {child.delay_s:g} s")
        child.start_at_s = now_s + child.delay_s
        child.delay_s = min(child.delay_s * 2, RESTART_MAX_S)

    def _stop_all(self) -> None:
        """Agents first, all at once, then hearts, which tell that the agents left, the APIs and control last; what does
        not end in time is killed."""
        for part in (self._agents, self._hearts, self._apis, self._controls):
            deadline_s = time.monotonic() + STOP_GRACE_S  # noqa: TID251 - see run()
            running = [(child.name, child.process) for child in part if child.process is not None]
            for _, process in running:
                _kill_group(process.pid, signal.SIGTERM)
                _kill_group(process.pid, signal.SIGCONT)  # a process that was stopped by hand receives it too
            for name, process in running:
                if not _group_ends(process, deadline_s):
                    self._say(f"{name} did not end within {STOP_GRACE_S:g} s: killed")
                    _kill_group(process.pid, signal.SIGKILL)
                process.wait()

    def _say_hangup(self) -> None:
        if self._has_hung_up:
            self._has_hung_up = False
            self._say("SIGHUP: nothing ends by it; APIs read their certificates again, the configuration is as before")
            for child in (*self._controls, *self._apis):
                if child.process is not None:
                    _kill_group(child.process.pid, signal.SIGHUP)

    def _say(self, reason: str) -> None:
        sys.stderr.write(f"supervisor: {reason}\n")
        sys.stderr.flush()


def _called(service: str, plural: str = "") -> str:
    return f"agent{plural}" if service == COMPUTE else service


def _which(service: str) -> list[str]:
    return [] if service == COMPUTE else ["--service", service]


def _group_ends(process: subprocess.Popen[bytes], deadline_s: float) -> bool:
    """Whether the process and everyone it has forked ends in time. A prefix like nsenter ends at once by the signal
    that the agent behind it has only begun to obey."""
    try:
        process.wait(max(0.0, deadline_s - time.monotonic()))  # noqa: TID251 - see run()
    except subprocess.TimeoutExpired:
        return False
    while _is_somebody_left(process.pid):
        if time.monotonic() > deadline_s:  # noqa: TID251 - see run()
            return False
        time.sleep(GROUP_POLL_S)
    return True


def _is_somebody_left(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _kill_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # real-time signals have no names
        return f"killed by signal {-code}"
