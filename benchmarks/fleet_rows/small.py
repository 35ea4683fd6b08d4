"""A small cloud as anybody starts it: `droveway all` with SQLite, the socket bus and ten simulated hosts."""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.claims import Claim, cpu_seconds, progress
from benchmarks.fleet_rows import creates
from benchmarks.fleet_rows.clients import Api
from benchmarks.fleet_rows.rig import READY_S, image_of, tree
from benchmarks.liveness_rows.rig import end, start, tail, wait_for
from lab import servers
from lab.client import Client
from lab.compute import Compute

HOSTS, CREATES, ROUNDS, LEAST = 10, 100, 3, 60.0


class Small:
    """What a storm looks at: the same as a Cloud of the fleet has."""

    def __init__(self, home: Path) -> None:
        self.home, self.said, self.count_of_hosts = home, home / "said", HOSTS
        (self.port,) = servers.free_ports(1)
        hosts = "".join(f'[[host]]\nname = "h{number}"\nhypervisor = "simulated"\n' for number in range(HOSTS))
        config = home / "droveway.toml"
        config.write_text(
            f'state_path = "{home}"\nlog_level = "warning"\n{hosts}[api]\nlisten = "127.0.0.1:{self.port}"\n'
            f'clouds_yaml = "{home}/clouds.yaml"\n'
        )
        self.process = start([sys.executable, "-m", "droveway.main", "all", "--config", str(config)], self.said)
        client = Client(self.port)
        wait_for(client.answers, READY_S, lambda: f"the program does not answer: {tail(self.said)}")
        client.log_in(home / "clouds.yaml")
        wait_for(lambda: client.usable_hosts() == HOSTS, READY_S, lambda: f"not all hosts join: {tail(self.said)}")
        self._database = sqlite3.connect(f"file:{home}/droveway.sqlite?mode=ro", uri=True, timeout=10)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        return self._database.execute(query).fetchall()

    def number(self, query: str) -> int:
        return int(self.ask(query)[0][0])

    def guests(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for host, one in self.ask("select host, id from instances where deleted is false and vm_state = 'active'"):
            found.setdefault(host, {})[one] = 1
        return found

    def cpu(self) -> dict[str, float]:
        used: dict[str, float] = {}
        for pid in tree(self.process.pid):
            words = shlex.split(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
            role = next((word for word in words if word in {"control", "agent", "heart"}), "supervisor")
            used[role] = used.get(role, 0.0) + cpu_seconds([pid])
        return used

    def wait_for(self, query: str, least: int, timeout_s: float) -> None:
        wait_for(lambda: self.number(query) >= least, timeout_s, lambda: tail(self.said))

    def close(self) -> None:
        self._database.close()
        end(self.process)


@contextlib.contextmanager
def small() -> Iterator[Small]:
    with tempfile.TemporaryDirectory(prefix="droveway-bench-") as directory:
        cloud = Small(Path(directory))
        try:
            yield cloud
        finally:
            cloud.close()


def measure() -> list[Claim]:
    progress(f"{CREATES} creations by {creates.CLIENTS} clients, {HOSTS} hosts, socket bus and SQLite")
    storms = []
    for _ in range(ROUNDS):
        with small() as cloud:
            compute = Compute(cloud.port, cloud.home / "clouds.yaml")
            api = Api(cloud.port, creates.unlimited(compute), image_of(cloud.port, cloud.home))
            time.sleep(1.0)
            storms.append(creates.Storm(cloud, api, CREATES))
    storms.sort(key=lambda one: one.rate)
    worst = max(storms, key=lambda one: one.spread)
    what = f"{CREATES} creations by {creates.CLIENTS} clients, {HOSTS} hosts, socket bus and SQLite"
    claims = storms[ROUNDS // 2].claims(what, LEAST, 20.0, f"median of {ROUNDS} runs; Nova: 2.2/s")
    even = ", ".join(f"{hosts} hosts got {number}" for number, hosts in sorted(worst.per_host.items()))
    return [
        *claims[:2],
        Claim(
            "... spread over the hosts: worst run", worst.spread, 0, "", f"{even}; Nova: 54, 31, 15 and none on seven"
        ),
        *claims[3:],
    ]
