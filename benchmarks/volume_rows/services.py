"""How soon the death of a volume service is shown, and what an idle one holds: real processes on the socket bus."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.claims import Claim, median, progress
from benchmarks.liveness_rows.rig import end, start, tail, wait_for
from droveway.domain.service_kinds import VOLUME
from lab import servers
from lab.client import Client
from lab.compute import Compute

HOST, BACKEND = "block2", "lvmdriver-b21"
SERVICE = f"{VOLUME}@{BACKEND}"
READY_S, WITHIN_S, LOOK_S = 60.0, 30.0, 0.005
KILLS, DOWN_BAR_S, CINDER_DOWN_S = 10, 0.5, 50
RESTS_S = 1.5  # between two deaths: a few heartbeats


class Backend:
    """A control, and a host with one backend; heart, service and control each a process."""

    def __init__(self, home: Path) -> None:
        (self.port,) = servers.free_ports(1)
        self.home, self.log = home, home / "said"
        (home / "droveway.toml").write_text(
            f'state_path = "{home}"\nlog_level = "warning"\n'
            f'[api]\nlisten = "127.0.0.1:{self.port}"\nclouds_yaml = "{home}/clouds.yaml"\n'
            f'[[host]]\nname = "{HOST}"\nhost_state_path = "{home}/{HOST}"\nservices = ["{SERVICE}"]\n'
            f'[[host.backend]]\nname = "{BACKEND}"\ndriver = "dir"\npath = "{home}/volumes"\n'
        )
        (home / "volumes").mkdir()
        self.control = start(self._command("control"), self.log)
        wait_for(lambda: Client(self.port).answers(), READY_S, lambda: tail(self.log))
        wait_for((home / "clouds.yaml").exists, READY_S, lambda: tail(self.log))
        self.api = Compute(self.port, home / "clouds.yaml")
        self.heart = start(self._command("heart"), self.log)
        self.begin()

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "droveway.main", *words, "--config", f"{self.home}/droveway.toml"]

    def begin(self) -> None:
        self.service = start(self._command("agent", "--host", HOST, "--service", SERVICE), self.log)
        wait_for(lambda: self.shown() == ("up", "alive"), READY_S, lambda: tail(self.log))

    def shown(self) -> tuple[str, str]:
        found = self.api.must("GET", f"/droveway/v1/services?binary={VOLUME}")["services"]
        return (found[0]["word"], found[0]["state"]) if found else ("", "")

    def reason(self) -> str:
        where = f"/droveway/v1/services/{HOST}@{BACKEND}/why?binary={VOLUME}"
        return str(self.api.must("GET", where)["services"][0]["verdict"]["reason"])

    def end(self) -> None:
        self.api.close()
        for process in (self.service, self.heart, self.control):
            end(process)


def rows() -> Iterator[Claim]:
    with tempfile.TemporaryDirectory() as directory:
        backend = Backend(Path(directory))
        try:
            yield _killed(backend)
        finally:
            backend.end()


def _killed(backend: Backend) -> Claim:
    """The listing is asked for in a row, so a look at it is in the figure."""
    took_s, reasons = [], set[str]()
    for number in range(KILLS):
        progress(f"a volume service is killed, {number + 1} of {KILLS}")
        time.sleep(RESTS_S)
        began_s = time.monotonic()
        backend.service.kill()
        while backend.shown()[0] == "up":
            assert time.monotonic() - began_s < WITHIN_S, tail(backend.log)
            time.sleep(LOOK_S)
        took_s.append(time.monotonic() - began_s)
        reasons.add(backend.reason())
        end(backend.service)
        backend.begin()
    said = "; ".join(sorted(reasons))[:120]
    note = f"most of {KILLS}, median {median(took_s):.3f}; said: {said}; Cinder: {CINDER_DOWN_S} s"
    return Claim("kill -9 of a volume service -> down with the reason", max(took_s), DOWN_BAR_S, "s", note)
