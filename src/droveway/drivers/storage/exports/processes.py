"""Servers that outlive the service that started them, known by pid and start time: a bare pid may be another's by now.

All of it blocks, and shortly.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import NamedTuple

ENDS_WITHIN_S = 10.0


class ServerProcess(NamedTuple):
    pid: int
    started_ticks: int  # since the machine's boot

    def is_alive(self) -> bool:
        return of_pid(self.pid) == self

    def command(self) -> list[str]:
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_text(errors="replace").split("\0")
        except OSError:
            return []

    def descriptor(self) -> int:
        """One that becomes readable when it ends; -1 when it has ended."""
        try:
            found = os.pidfd_open(self.pid)
        except OSError:
            return -1
        if self.is_alive():
            return found
        os.close(found)
        return -1

    def end(self) -> None:
        """At once: what a client was not answered it sends again, and what it was answered the kernel has."""
        descriptor = self.descriptor()
        if descriptor < 0:
            return
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            waiting.poll(ENDS_WITHIN_S * 1000)
        finally:
            os.close(descriptor)


def of_pid(pid: int) -> ServerProcess | None:
    """A zombie has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else ServerProcess(pid, int(fields[19]))


def connections(port: int) -> list[str]:
    """Who is connected to that port of this host, as ADDRESS:PORT of the kernel."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                _, local, remote, state, *_ = line.split()
                if state == "01" and int(local.rpartition(":")[2], 16) == port:
                    found.append(remote)
    return found
