"""Volume services as processes: each lives, dies, hangs and loses its pool by itself, and `why` says which it is."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import servers
from lab.client import Client
from lab.compute import Compute
from lab.processes import wait_for

HOST, VOLUME = "block2", "cinder-volume"
FILES, FULL = f"{VOLUME}@files", f"{VOLUME}@lvmdriver-b21"
SOON_S = 40.0


class Cloud:
    """Control and a host with two backends, each a process of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.file, self.volumes = home, home / "droveway.toml", home / "volumes"
        self.volumes.mkdir()
        (self.port,) = servers.free_ports(1)
        self.file.write_text(
            f'state_path = "{home}"\nreport_interval = 0.25\nservice_down_time = 3.0\nservice_hung_time = 1.5\n'
            f'[api]\nlisten = "127.0.0.1:{self.port}"\nclouds_yaml = "{home}/clouds.yaml"\n'
            f'[[host]]\nname = "{HOST}"\nhost_state_path = "{home}/{HOST}"\nservices = ["{FILES}", "{FULL}"]\n'
            f'[[host.backend]]\nname = "files"\ndriver = "dir"\npath = "{self.volumes}"\n'
            '[[host.backend]]\nname = "lvmdriver-b21"\ndriver = "simulated"\ntotal_gb = 0\n'
        )
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.start("control", "control")
        client = Client(self.port)
        assert wait_for(client.answers, SOON_S), self.log()
        client.log_in(home / "clouds.yaml")
        self.api = Compute(self.port, home / "clouds.yaml")
        self.start("heart", "heart")
        for service in (FILES, FULL):
            self.start_service(service)

    def start(self, name: str, *words: str) -> None:
        command = [sys.executable, "-m", "droveway.main", *words, "--config", str(self.file)]
        with (self.home / "log").open("ab") as log:
            self.running[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

    def start_service(self, service: str) -> None:
        self.start(service, "agent", "--host", HOST, "--service", service)

    def log(self) -> str:
        return (self.home / "log").read_text()[-3000:]

    def states(self) -> dict[str, str]:
        found = self.api.must("GET", f"/droveway/v1/services?binary={VOLUME}")["services"]
        return {str(row["host"]).partition("@")[2]: str(row["state"]) for row in found}

    def become(self, **states: str) -> None:
        wanted = {name.replace("_", "-"): state for name, state in states.items()}
        assert wait_for(lambda: self.states() == wanted, SOON_S), (self.states(), wanted, self.log())

    def why(self, service: str) -> dict[str, Any]:
        where = f"{HOST}@{service.partition('@')[2]}"
        (found,) = self.api.must("GET", f"/droveway/v1/services/{where}/why?binary={VOLUME}")["services"]
        return dict(found)

    def says(self, service: str, sentence: str) -> bool:
        return wait_for(
            lambda: any(one["is_bad"] and sentence in one["reason"] for one in self.why(service)["evidence"]), SOON_S
        )

    def end(self) -> None:
        self.api.close()
        for process in self.running.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(SOON_S)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    made = Cloud(tmp_path)
    try:
        yield made
    finally:
        made.end()


def test_why_a_volume_service_is_of_no_use(cloud: Cloud) -> None:
    cloud.become(files="alive", lvmdriver_b21="alive")
    rows = cloud.api.must("GET", f"/droveway/v1/services?binary={VOLUME}")["services"]
    assert {row["host"]: row["zone"] for row in rows} == {f"{HOST}@files": "nova", f"{HOST}@lvmdriver-b21": "nova"}
    assert cloud.says(FULL, "its pool is full: none of 0 GiB is free"), cloud.why(FULL)

    cloud.volumes.rename(cloud.home / "away")  # its pool is out of reach; its heart beats on
    assert cloud.says(FILES, f"{cloud.volumes} is not there"), cloud.why(FILES)
    assert cloud.states()["files"] == "alive"
    (cloud.home / "away").rename(cloud.volumes)
    assert wait_for(lambda: not any(one["is_bad"] for one in cloud.why(FILES)["evidence"]), SOON_S), cloud.why(FILES)

    cloud.running[FILES].kill()
    cloud.running[FILES].wait(SOON_S)
    cloud.become(files="dead", lvmdriver_b21="alive")
    assert cloud.says(FILES, "the kernel of its host says that its process has ended")
    cloud.start_service(FILES)
    cloud.become(files="alive", lvmdriver_b21="alive")

    cloud.running[FILES].send_signal(signal.SIGSTOP)
    cloud.become(files="hung", lvmdriver_b21="alive")
    cloud.running[FILES].send_signal(signal.SIGCONT)
    cloud.become(files="alive", lvmdriver_b21="alive")

    cloud.running["heart"].kill()  # the machine is silent, with everything on it
    for service in (FILES, FULL):
        cloud.running[service].kill()
    assert wait_for(lambda: not {"alive", "hung"} & set(cloud.states().values()), SOON_S), cloud.states()


def test_a_killed_volume_service_is_down_within_half_a_second(cloud: Cloud) -> None:
    cloud.become(files="alive", lvmdriver_b21="alive")
    began_s = time.monotonic()
    cloud.running[FILES].kill()
    while cloud.states()["files"] == "alive":
        assert time.monotonic() - began_s < SOON_S, cloud.log()
    assert time.monotonic() - began_s < 2.0  # the bar of 0.5 s is measured alone: benchmarks/volumes.py
