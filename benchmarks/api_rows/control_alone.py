"""A control with its API and nobody else to be served, on SQLite, which forces to the disk what was answered."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.claims import cpu_seconds
from benchmarks.liveness_rows.rig import end, start, tail, wait_for
from lab import servers
from lab.client import Client

READY_S = 60.0


class ControlAlone:
    """One connection to it that stays, and the CPU of its process."""

    def __init__(self, home: Path) -> None:
        (self.port,) = servers.free_ports(1)
        self.home, self._log = home, home / "log"
        (home / "droveway.toml").write_text(
            f'state_path = "{home}"\nlog_level = "warning"\n[identity]\nwrong_logins_per_user = 1000000\n'
            f"wrong_logins_per_address = 1000000\n"
            f'[api]\nlisten = "127.0.0.1:{self.port}"\nclouds_yaml = "{home}/clouds.yaml"\n'
        )
        command = [sys.executable, "-m", "droveway.main", "control", "--config", f"{home}/droveway.toml"]
        self.process = start(command, self._log)
        wait_for(lambda: Client(self.port).answers(), READY_S, lambda: tail(self._log))
        wait_for((home / "clouds.yaml").exists, READY_S, lambda: tail(self._log))
        self.auth = yaml.safe_load((home / "clouds.yaml").read_text())["clouds"]["droveway"]["auth"]
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.token = ""

    def ask(self, method: str, path: str, body: Any = None, status: int = 200, **headers: str) -> tuple[bytes, Any]:
        """The body and the headers of the answer, which must have that status."""
        given = {"X-Auth-Token": self.token, "Content-Type": "application/json"} | headers
        self._connection.request(method, path, None if body is None else json.dumps(body), given)
        reply = self._connection.getresponse()
        text = reply.read()
        assert reply.status == status, f"{method} {path}: {reply.status} {text[:300]!r}"
        return text, reply.headers

    def cpu_ms(self, work: Callable[[], object], count: int = 1) -> float:
        """Of the process, for each of so many."""
        before = cpu_seconds([self.process.pid])
        work()
        return (cpu_seconds([self.process.pid]) - before) * 1000 / count

    def close(self) -> None:
        self._connection.close()
        end(self.process)


@contextlib.contextmanager
def control_alone() -> Iterator[ControlAlone]:
    with tempfile.TemporaryDirectory() as directory:
        cloud = ControlAlone(Path(directory))
        try:
            yield cloud
        finally:
            cloud.close()
