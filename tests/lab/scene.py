"""Three lab hosts and the program over a real broker that they reach by their links, as the tests of liveness need it.

The program, the broker and the test itself live in the lab's own network namespace, where the bridge ends: a host whose
cable is pulled is silent for all of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab import network, servers
from lab.client import Client
from lab.cloud import Cloud
from lab.compute import Compute
from lab.demo import own_cloud
from lab.processes import Process, everyone, process, wait_for
from tests.lab import on_host

COMPUTE = "nova-compute"
HUNG_S = 3.0
INTERVAL_S = 1.0  # between two heartbeats
USABLE_S = 40.0


class Scene:
    """What the program says of its hosts, and the processes behind them."""

    def __init__(self, cloud: Cloud, broker: servers.Server, port: int) -> None:
        self.cloud, self.lab, self.broker, self.port = cloud, cloud.lab, broker, port
        self.compute = Compute(port, cloud.clouds_yaml)

    # -- what is said -------------------------------------------------------------------------------------------------
    def services(self) -> dict[str, dict[str, Any]]:
        """The hosts' agents, as the list shows them."""
        found = self.compute.must("GET", f"/droveway/v1/services?binary={COMPUTE}")["services"]
        return {one["host"]: one for one in found}

    def why(self, host: str, binary: str = COMPUTE) -> dict[str, Any]:
        (found,) = self.compute.must("GET", f"/droveway/v1/services/{host}/why?binary={binary}")["services"]
        return dict(found)

    def evidence(self, host: str, about: str, binary: str = COMPUTE) -> str:
        """What speaks against the service is marked with an exclamation mark."""
        said = self.why(host, binary)["evidence"]
        return "; ".join("! " * one["is_bad"] + one["reason"] for one in said if one["about"] == about)

    def advice(self, host: str) -> str:
        return "; ".join(self.why(host)["advice"])

    def told(self, host: str) -> str:
        """What an operator reads. Printed too: shown when the test has failed."""
        said = self.droveway("service", "why", host, COMPUTE).stdout
        print(said)
        return said

    def droveway(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The operator's command."""
        return subprocess.run(
            [sys.executable, "-m", "droveway.main", *words],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, "OS_CLIENT_CONFIG_FILE": str(self.cloud.clouds_yaml), "COLUMNS": "400"},
        )

    def events(self) -> int:
        """How many transitions are recorded."""
        with contextlib.closing(sqlite3.connect(f"file:{self.cloud.home}/droveway.sqlite?mode=ro", uri=True)) as store:
            return int(store.execute("SELECT count(*) FROM events WHERE kind = 'service'").fetchone()[0])

    # -- waiting ------------------------------------------------------------------------------------------------------
    def is_shown(self, host: str, state: str, within_s: float) -> float:
        """Until the list shows that state; how long it took."""
        began = time.monotonic()
        shown = wait_for(lambda: self.services()[host]["state"] == state, within_s)
        took_s = time.monotonic() - began
        assert shown, f"{host} is not {state} after {within_s:g} s: {self.services()[host]}\n{self.told(host)}"
        print(f"{host} is {state} after {took_s:.2f} s")
        return took_s

    def is_judged(self, host: str, state: str, within_s: float) -> float:
        """Until `why` says so, which is before the list does when the state is one that is not recorded."""
        began = time.monotonic()
        judged = wait_for(lambda: self.why(host)["verdict"]["state"] == state, within_s)
        assert judged, f"{host} is not {state} after {within_s:g} s: {self.told(host)}"
        return time.monotonic() - began

    def stay_up(self, seconds: float, *hosts: str) -> None:
        """All of them, all the time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            down = {
                host: row["reason"]
                for host, row in self.services().items()
                if row["word"] == "down" and host in (hosts or self.hosts)
            }
            assert not down
            time.sleep(0.1)

    def are_up(self, *hosts: str) -> None:
        """Alive, heard, and of use to the scheduler."""
        for host in hosts or self.hosts:
            self.is_judged(host, "alive", USABLE_S)
        assert wait_for(lambda: set(hosts or self.hosts) <= self.usable(), USABLE_S), self.usable()

    def usable(self) -> set[str]:
        found = self.compute.must("GET", "/compute/v2.1/os-hypervisors/detail", version="2.87")["hypervisors"]
        return {one["hypervisor_hostname"] for one in found if one["state"] == "up" and self.has_hypervisor(one)}

    def has_hypervisor(self, found: dict[str, Any]) -> bool:
        return not self.evidence(found["hypervisor_hostname"], "hypervisor").startswith("!")

    # -- what is done to it -------------------------------------------------------------------------------------------
    @property
    def hosts(self) -> list[str]:
        return [host.name for host in self.lab.hosts]

    def process(self, start: str, host: str = "") -> Process:
        """The one that does the work, not the prefix that waits for it; of a host's agents the compute agent."""
        wanted = ["droveway.main", start, str(self.cloud.config), *([host] if host else [])]
        found = [one for one in everyone() if all(word in one.command() for word in wanted)]
        (one,) = [one for one in found if one.name() != "nsenter" and "--service" not in one.command()]
        return one

    @contextlib.contextmanager
    def frozen(self, start: str, host: str) -> Iterator[Process]:
        one = self.process(start, host)
        prefix = process(one.parent())  # nsenter stops when its child does, and hands on what wakes it
        one.send(signal.SIGSTOP)
        try:
            yield one
        finally:
            if prefix is not None and prefix.name() == "nsenter":
                prefix.send(signal.SIGCONT)
            one.send(signal.SIGCONT)

    @contextlib.contextmanager
    def without_supervisor(self) -> Iterator[None]:
        """Nobody starts again what ends."""
        wanted = ["all", str(self.cloud.config)]
        (supervisor,) = [one for one in everyone() if all(word in one.command() for word in wanted)]
        supervisor.send(signal.SIGSTOP)
        try:
            yield
        finally:
            supervisor.send(signal.SIGCONT)

    def answers(self) -> bool:
        """Whether its API does."""
        return Client(self.port).answers()

    @contextlib.contextmanager
    def another_control(self, config: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Scene]]:
        """Beside the one there is; and the scene as that one sees it."""
        command = [sys.executable, "-m", "droveway.main", "control", "--config", str(config)]
        with self.cloud.log.open("ab") as log:
            started = subprocess.Popen(command, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            assert wait_for(Client(port).answers, USABLE_S)
            other = Scene(self.cloud, self.broker, port)
            yield started, other
            other.compute.close()
        finally:
            started.kill()
            started.wait(USABLE_S)

    def kill(self, start: str, host: str = "") -> Process:
        one = self.process(start, host)
        one.send(signal.SIGKILL)
        return one


@contextlib.contextmanager
def scene(directory: Path) -> Iterator[Scene]:
    with own_cloud() as cloud:
        cloud.lab.up(3, wait=False)
        with network.inside(cloud.lab.control), servers.nats(directory, listen="0.0.0.0") as broker:
            cloud.settings |= {
                "bus": "nats",
                "nats": {"servers": [f"nats://{cloud.lab.address}:{broker.port}"]},
                "service_hung_time": HUNG_S,
            }
            cloud.prefix = (sys.executable, str(Path(on_host.__file__)), servers.probe("faketime"))
            cloud.up(simulated=False, foreground=False, quiet=True)
            made = Scene(cloud, broker, cloud.port)
            try:
                yield made
            finally:
                made.compute.close()
                print(cloud.log.read_text()[-20_000:])
                cloud.end_program()
