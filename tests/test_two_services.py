"""Two services on one host, as processes over each bus: each dies, hangs, is stopped, restarted, forced down and
deleted by itself, and `why` tells each by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import servers
from lab.client import Client
from lab.compute import Compute
from lab.processes import Process, everyone, wait_for
from tests.drivers.bus_worlds import broker, ready

COMPUTE, SCRIPTS = "nova-compute", "droveway-scripts"
OTHER = {COMPUTE: SCRIPTS, SCRIPTS: COMPUTE}
SOON_S = 40.0
OK = 200
BEATS_S = 2.0  # time for several heartbeats
EX_CONFIG = 78


class Cloud:
    """Control, and one simulated host with its heart and two services, each a process that this test started."""

    def __init__(self, home: Path, more: str) -> None:
        self.home, self.file = home, home / "droveway.toml"
        (port,) = servers.free_ports(1)
        self.port = port
        self.file.write_text(
            f'state_path = "{home}"\nreport_interval = 0.25\nservice_down_time = 3.0\nservice_hung_time = 1.5\n{more}\n'
            f'[api]\nlisten = "127.0.0.1:{port}"\nclouds_yaml = "{home}/clouds.yaml"\n'
            f'[[host]]\nname = "h1"\nhypervisor = "simulated"\nservices = ["{COMPUTE}", "{SCRIPTS}"]\n'
            '[[periodic]]\nname = "check-disks"\ncommand = "exit 3"\nevery_s = 1\ntimeout_s = 5\n'
        )
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.start("control", "control")
        client = Client(port)
        assert wait_for(client.answers, SOON_S), self.said()
        client.log_in(home / "clouds.yaml")
        self.compute = Compute(port, home / "clouds.yaml")
        self.start("heart", "heart")
        for service in OTHER:
            self.start_service(service)

    def start(self, name: str, *words: str) -> None:
        command = [sys.executable, "-m", "droveway.main", *words, "--config", str(self.file)]
        with (self.home / "said").open("ab") as log:
            self.running[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

    def start_service(self, service: str) -> None:
        self.start(service, "agent", "--host", "h1", "--service", service)

    def said(self) -> str:
        return (self.home / "said").read_text()

    def rows(self) -> dict[str, dict[str, Any]]:
        found = self.compute.must("GET", "/droveway/v1/services?host=h1")["services"]
        return {row["binary"]: row for row in found}

    def states(self) -> dict[str, str]:
        return {binary: row["state"] for binary, row in self.rows().items()}

    def become(self, service: str, state: str) -> None:
        """And the other one is alive."""
        wanted = {service: state, OTHER[service]: "alive"}
        assert wait_for(lambda: self.states() == wanted, SOON_S), (self.states(), wanted, self.said()[-3000:])

    def why(self, service: str) -> dict[str, Any]:
        (told,) = self.compute.must("GET", f"/droveway/v1/services/h1/why?binary={service}")["services"]
        return dict(told)

    def bad(self, service: str) -> set[str]:
        return {one["about"] for one in self.why(service)["evidence"] if one["is_bad"]}

    def signal(self, service: str, number: signal.Signals) -> None:
        self.running[service].send_signal(number)

    def end(self) -> None:
        self.compute.close()
        for process in self.running.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(SOON_S)


@pytest.fixture(params=["socket", *(pytest.param(name, marks=pytest.mark.servers) for name in ("nats", "rabbitmq"))])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cloud]:
    with contextlib.ExitStack() as stack:
        more = ""
        if request.param == "nats":
            more = f'bus = "nats"\n[nats]\nservers = ["{stack.enter_context(broker(tmp_path / "nats")).url}"]'
        elif request.param == "rabbitmq":
            one = ready(request.getfixturevalue("rabbit_that_stays"))
            more = f'bus = "rabbitmq"\n[rabbitmq]\nprefix = "two"\nservers = ["{one.url}"]'
        home = tmp_path / "cloud"
        home.mkdir()
        made = Cloud(home, more)
        stack.callback(made.end)
        yield made


def test_each_of_two_services_lives_and_ends_by_itself(cloud: Cloud) -> None:
    cloud.become(SCRIPTS, "alive")
    zones = {binary: row["zone"] for binary, row in cloud.rows().items()}
    assert zones == {COMPUTE: "nova", SCRIPTS: "internal"}
    _tells_its_scripts(cloud)
    for service in (SCRIPTS, COMPUTE):
        _dies(cloud, service)
        _hangs(cloud, service)
        _is_forced_down(cloud, service)
        _is_stopped_and_deleted(cloud, service)


def _tells_its_scripts(cloud: Cloud) -> None:
    """They run there, and not in the compute agent; and it reports that they fail."""

    def tasks() -> list[dict[str, Any]]:
        """None while its heartbeats have come and its agent's first message has not."""
        status, answer = cloud.compute.call("GET", "/droveway/v1/hosts/h1/tasks")
        return list(answer["tasks"]) if status == OK else []

    assert wait_for(lambda: any(task["runs"] for task in tasks()), SOON_S)
    assert {(task["name"], task["service"]) for task in tasks()} == {("check-disks", SCRIPTS)}
    assert wait_for(lambda: "report" in cloud.bad(SCRIPTS), SOON_S)
    (told,) = [one for one in cloud.why(SCRIPTS)["evidence"] if one["about"] == "report"]
    assert "1 of 1 script failed when last run: check-disks (" in told["reason"]
    assert "report" not in cloud.bad(COMPUTE)
    assert "hypervisor" not in {one["about"] for one in cloud.why(SCRIPTS)["evidence"]}
    with urllib.request.urlopen(f"http://127.0.0.1:{cloud.port}/metrics", timeout=SOON_S) as reply:
        metrics = reply.read().decode()
    assert f'droveway_task_errors_total{{host="h1",service="{SCRIPTS}",task="check-disks"}}' in metrics


def _dies(cloud: Cloud, service: str) -> None:
    cloud.signal(service, signal.SIGKILL)
    cloud.running[service].wait(SOON_S)
    cloud.become(service, "dead")
    assert "process" in cloud.bad(service) and "process" not in cloud.bad(OTHER[service])
    cloud.start_service(service)
    cloud.become(service, "alive")


def _hangs(cloud: Cloud, service: str) -> None:
    cloud.signal(service, signal.SIGSTOP)
    cloud.become(service, "hung")
    assert "stopped (SIGSTOP)" in cloud.why(service)["verdict"]["reason"]
    assert "loop" not in cloud.bad(OTHER[service])
    cloud.signal(service, signal.SIGCONT)
    cloud.become(service, "alive")


def _is_forced_down(cloud: Cloud, service: str) -> None:
    path = f"/compute/v2.1/os-services/{cloud.rows()[service]['id']}"
    cloud.compute.must("PUT", path, {"forced_down": True})
    assert {binary: row["word"] for binary, row in cloud.rows().items()} == {service: "down", OTHER[service]: "up"}
    cloud.compute.must("PUT", path, {"forced_down": False})
    status, told = cloud.compute.call("PUT", path, {"status": "disabled"})
    assert (status, cloud.rows()[OTHER[service]]["disabled"]) == (200 if service == COMPUTE else 400, False)
    if service == COMPUTE:
        cloud.compute.must("PUT", path, {"status": "enabled"})
    else:
        assert "control gives it no work that could be kept back" in str(told)


def _is_stopped_and_deleted(cloud: Cloud, service: str) -> None:
    cloud.signal(service, signal.SIGTERM)
    assert cloud.running[service].wait(SOON_S) == 0
    cloud.become(service, "stopped")
    row = cloud.rows()[service]
    cloud.compute.must("DELETE", f"/compute/v2.1/os-services/{row['id']}")
    time.sleep(BEATS_S)  # in which its heart still says how it ended
    assert cloud.states() == {OTHER[service]: "alive"}
    cloud.start_service(service)
    cloud.become(service, "alive")
    assert cloud.rows()[service]["id"] != row["id"]


# -- what does not start ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("services", "asked", "words"),
    [
        ('["nova-compute", "nova-compute"]', COMPUTE, "host h1: services: nova-compute stands there 2 times"),
        ('["nova-computer"]', COMPUTE, "'nova-computer' is no service of a host; there is nova-compute"),
        ('["nova-compute@fast"]', COMPUTE, "names a backend, and nova-compute has none"),
        ('["nova-scheduler"]', COMPUTE, "'nova-scheduler' is no service of a host"),
        ("[]", COMPUTE, "services is empty"),
        ('["nova-compute"]', SCRIPTS, "host h1 does not carry droveway-scripts, but nova-compute: name one of them"),
        ('["nova-compute"]', "x", "--service 'x' is no service of a host"),
    ],
)
def test_wrong_names_do_not_start(tmp_path: Path, services: str, asked: str, words: str) -> None:
    file = tmp_path / "d.toml"
    file.write_text(
        f'state_path = "{tmp_path}"\n[[host]]\nname = "h1"\nhypervisor = "simulated"\nservices = {services}\n'
    )
    command = [sys.executable, "-m", "droveway.main", "agent", "--config", str(file), "--service", asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SOON_S, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (EX_CONFIG, 1), done.stderr
    assert words in done.stderr


def test_the_supervisor_starts_each_service_and_starts_it_again(tmp_path: Path) -> None:
    file = tmp_path / "d.toml"
    (port,) = servers.free_ports(1)
    host = f'name = "h1"\nhypervisor = "simulated"\nservices = ["{COMPUTE}", "{SCRIPTS}"]\n'
    file.write_text(f'state_path = "{tmp_path}"\n[api]\nlisten = "127.0.0.1:{port}"\n[[host]]\n{host}')
    command = [sys.executable, "-m", "droveway.main", "all", "--config", str(file)]
    with (tmp_path / "said").open("wb") as log:
        everything = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

    def running(*words: str) -> list[Process]:
        wanted = ["droveway.main", "agent", str(file), *words]
        return [one for one in everyone() if all(word in one.command() for word in wanted)]

    try:
        assert wait_for(lambda: len(running()) == 2, SOON_S)
        (scripts,) = running("--service", SCRIPTS)
        os.kill(scripts.pid, signal.SIGKILL)
        assert wait_for(lambda: [one for one in running(SCRIPTS) if one.pid != scripts.pid], SOON_S)
        assert "supervisor: droveway-scripts (simulated) ended (killed by SIGKILL)" in (tmp_path / "said").read_text()
        assert "supervisor: agents (simulated) ended" not in (tmp_path / "said").read_text()
    finally:
        everything.terminate()
        assert everything.wait(SOON_S) == 0
    assert running() == []
