"""Control, APIs and agents as programs apart, with a file each, over a real broker; and what each file may not hold."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from droveway.config.file import load
from droveway.domain.faults import WrongConfiguration
from lab import nodes, postgresql, servers
from lab.client import Client
from lab.cloud import Cloud
from lab.compute import Compute
from lab.demo import own_cloud
from lab.processes import wait_for

EX_CONFIG = 78
SOON_S = 60.0
AT_ONCE_S = 2.5  # half of what a saga waits for when no nudge tells of it


# -- what a file may hold ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("start", "text", "words"),
    [
        ("agent", 'role = "agent"\ndatabase = "sqlite:////tmp/d"', ["database", "role agent", "holds no database URL"]),
        ("agent", 'role = "agent"\n[api]\nlisten = "1.2.3.4:1"', ["api", "role agent", "take it out"]),
        ("agent", 'role = "agent"\nscheduler = {}', ["scheduler", "role agent"]),
        ("agent", 'role = "control"', ["this is the file of role control", "droveway agent", "agent or all"]),
        ("heart", 'role = "api"', ["this is the file of role api", "droveway heart"]),
        ("control", 'role = "agent"', ["this is the file of role agent", "droveway control"]),
        ("control", 'role = "control"\n[[host]]\nname = "a"\nhypervisor = "simulated"', ["host", "role control"]),
        ("api", 'role = "api"', ["role = api needs bus = nats or rabbitmq"]),
        ("api", 'role = "api"\nbus = "nats"\nname = "x"', ["name", "role api"]),
        ("api", 'role = "api"\nbus = "nats"\n[api]\nlisten = ""', ["api.listen is empty"]),
        ("control", '[api]\nlisten = ""', ["api.listen is empty"]),
        ("all", 'role = "boss"', ["role = 'boss'", "all, control, api, agent"]),
        ("all", 'images = "here"', ["images = 'here'", "absolute"]),
        ("all", '[api]\nurl = "control:8774"', ["api.url", "http://HOST:PORT"]),
        ("all", "[agents.nats]\nserver = 1", ["unknown key", "server", "servers"]),
    ],
)
def test_a_file_of_a_role_holds_only_what_it_needs(tmp_path: Path, start: str, text: str, words: list[str]) -> None:
    file = tmp_path / "d.toml"
    file.write_text(f'state_path = "{tmp_path}"\n{text}\n')
    with pytest.raises(WrongConfiguration) as said:
        load(file, start)
    assert all(word in said.value.reason for word in words), said.value.reason
    assert "\n" not in said.value.reason


def command(start: str, *files: Path) -> list[str]:
    told = [word for file in files for word in ("--config", str(file))]
    return [sys.executable, "-m", "droveway.main", start, *told]


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ('role = "control"\nname = "c"', 'role = "control"\nname = "c"\n[api]\nlisten = "127.0.0.1:1"', "control c is"),
        (
            'role = "agent"\n[[host]]\nname = "h"\nhypervisor = "simulated"',
            'role = "agent"\n[[host]]\nname = "h"\nhypervisor = "simulated"',
            "host h is",
        ),
        ('role = "control"\nbus = "nats"', 'role = "api"\nbus = "nats"', "api.listen = 127.0.0.1:8774 is"),
    ],
)
def test_two_files_that_say_the_same_of_themselves_do_not_start(
    tmp_path: Path, one: str, other: str, words: str
) -> None:
    files = [tmp_path / "one.toml", tmp_path / "other.toml"]
    for file, text in zip(files, (one, other), strict=True):
        file.write_text(f'state_path = "{tmp_path}"\n{text}\n')
    ended = subprocess.run(command("all", *files), capture_output=True, text=True, timeout=SOON_S, check=False)
    assert ended.returncode == EX_CONFIG
    assert words in ended.stderr and "in two of the files" in ended.stderr


def test_an_agent_that_is_given_a_database_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "d.toml"
    file.write_text(
        f'state_path = "{tmp_path}"\ndatabase = "sqlite:///{tmp_path}/d"\n[[host]]\nname = "a"\n'
        'hypervisor = "simulated"\n'
    )
    done = subprocess.run(command("agent", file), capture_output=True, text=True, timeout=SOON_S, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (EX_CONFIG, 1), done.stderr
    assert "an agent holds no database URL" in done.stderr


def test_an_api_alone_on_the_socket_bus_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "d.toml"
    file.write_text(f'state_path = "{tmp_path}"\n')
    done = subprocess.run(command("api", file), capture_output=True, text=True, timeout=SOON_S, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (EX_CONFIG, 1), done.stderr
    assert "bus = socket cannot serve an API of its own" in done.stderr


@pytest.mark.parametrize(
    ("start", "never"),
    [
        (
            "droveway.main, droveway.process.agent, droveway.agents.compute, droveway.drivers.bus.broker_agent",
            {"sqlalchemy", "psycopg", "numpy", "uvicorn", "droveway.store", "droveway.api", "droveway.control"},
        ),
        ("droveway.process.api", {"numpy", "droveway.control.control", "droveway.scheduler.plan"}),
    ],
)
def test_no_role_carries_what_another_needs(start: str, never: set[str]) -> None:
    look = f"import {start}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=SOON_S, check=True)
    assert never & set(done.stdout.split()) == set()


# -- the roles as programs --------------------------------------------------------------------------------------------
class Roles:
    """A cloud of simulated hosts whose roles are apart, and more controls and APIs beside it."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.compute = Compute(cloud.port, cloud.clouds_yaml)
        self.image = self.compute.image_id()

    def file(self, role: str, **lines: str) -> Path:
        """The file of that role with other values."""
        text = (self.cloud.home / f"{role}.toml").read_text()
        text = re.sub(r"(?m)^agents_listen = .*$", "", text)  # which the first API has
        for key, value in lines.items():
            text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
            if not count:
                text = f"{key} = {value}\n{text}"
        made = self.cloud.home / f"{role}-{abs(hash(tuple(lines.items())))}.toml"
        made.write_text(text)
        return made

    @contextlib.contextmanager
    def running(self, start: str, file: Path) -> Iterator[subprocess.Popen[bytes]]:
        with self.cloud.log.open("ab") as log:
            one = subprocess.Popen(command(start, file), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        try:
            yield one
        finally:
            one.terminate()
            one.wait(SOON_S)

    @contextlib.contextmanager
    def another_api(self) -> Iterator[Compute]:
        (port,) = nodes.free_ports(1)
        with self.running("api", self.file("api", listen=f'"127.0.0.1:{port}"')):
            assert wait_for(Client(port).answers, SOON_S)
            made = Compute(port, self.cloud.clouds_yaml)
            yield made
            made.close()

    def create_s(self, compute: Compute, name: str) -> float:
        """How long a server takes to become ACTIVE."""
        began = time.monotonic()
        server = compute.create(name, self.image)
        compute.wait(server, "ACTIVE")
        took_s = time.monotonic() - began
        compute.delete(server)
        return took_s


@pytest.fixture(scope="module", params=["nats", "rabbitmq"])
def roles(request: pytest.FixtureRequest) -> Iterator[Roles]:
    obstacle = servers.obstacle(request.param)
    if obstacle is not None:
        pytest.skip(obstacle)
    with own_cloud() as cloud:
        cloud.choose(request.param, None)
        cloud.up(simulated=True, foreground=False, quiet=True)
        made = Roles(cloud)
        yield made
        made.compute.close()
        print(cloud.log.read_text()[-10_000:])


servers_too = pytest.mark.servers


@servers_too
def test_an_api_apart_does_everything(roles: Roles) -> None:
    assert nodes.claim(f"port-{roles.cloud.port}") is None, "another cloud may choose the same port"
    compute = roles.compute
    server = compute.create("all", roles.image)
    compute.wait(server, "ACTIVE")
    (why,) = compute.must("GET", "/droveway/v1/services/sim1/why?binary=nova-compute")["services"]
    assert why["verdict"]["word"] == "up"
    assert compute.must("GET", "/droveway/v1/hosts/sim1/tasks")["host"] == "sim1"
    tasks = compute.must("GET", "/droveway/v1/hosts/control/tasks")["tasks"]
    assert "age_out" in [one["name"] for one in tasks]
    assert compute.call("GET", "/droveway/v1/hosts/nowhere/tasks")[0] == 404
    said = compute.must("POST", f"/compute/v2.1/servers/{server}/action", {"os-getConsoleOutput": {}})
    assert "BOOTED" in said["output"]
    assert "droveway_beats_total" in metrics(roles.cloud.port)
    compute.migrate(server)
    assert compute.wait_migrated(server)["status"] == "completed"
    compute.delete(server)


def metrics(port: int) -> str:
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON_S)
    asked.request("GET", "/metrics")
    answer = asked.getresponse()
    assert answer.status == 200
    text = answer.read().decode()
    asked.close()
    return text


@servers_too
@pytest.mark.alone
def test_what_is_asked_of_any_api_is_begun_at_once(roles: Roles) -> None:
    with roles.another_api() as other, roles.running("control", roles.file("control", name='"second"')):
        assert wait_for(lambda: ("second", "nova-conductor") in other.services(), SOON_S)
        took_s = [roles.create_s(one, f"n{n}") for n in range(5) for one in (roles.compute, other)]
        assert max(took_s) < AT_ONCE_S, took_s


@servers_too
def test_a_token_that_one_api_ends_is_none_to_another(roles: Roles) -> None:
    with roles.another_api() as other:
        headers = {"x-auth-token": other.token, "x-subject-token": other.token}

        def status(method: str, port: int) -> int:
            asked = http.client.HTTPConnection("127.0.0.1", port, timeout=SOON_S)
            asked.request(method, "/identity/v3/auth/tokens", headers=headers)
            found = asked.getresponse().status
            asked.close()
            return found

        assert status("GET", roles.cloud.port) == 200
        assert status("DELETE", other._port) == 204
        assert status("GET", roles.cloud.port) == 401


@servers_too
def test_the_judge_answers_why_and_another_when_it_is_gone(roles: Roles) -> None:
    with roles.running("control", roles.file("control", name='"aaa"')) as first:  # the first one by name
        assert wait_for(lambda: ("aaa", "nova-conductor") in roles.compute.services(), SOON_S)
        compute = roles.compute
        path = "/droveway/v1/services/sim1/why?binary=nova-compute"
        assert compute.must("GET", path)["services"][0]["verdict"]["word"] == "up"
        (control,) = processes_of(roles, "control", "control.toml")
        control.send(signal.SIGSTOP)  # it is still connected to the broker, and does not answer
        try:
            began = time.monotonic()
            assert compute.must("GET", path)["services"][0]["verdict"]["word"] == "up"
            assert time.monotonic() - began < 6
        finally:
            control.send(signal.SIGCONT)
        assert first.poll() is None


def processes_of(roles: Roles, start: str, file: str) -> list[nodes.processes.Process]:
    wanted = ["droveway.main", start, str(roles.cloud.home / file)]
    everyone = nodes.processes.everyone()
    return [one for one in everyone if all(word in one.command() for word in wanted)]


@servers_too
def test_without_a_control_an_api_says_so(roles: Roles) -> None:
    (control,) = processes_of(roles, "control", "control.toml")
    with open(roles.cloud.pid) as kept:
        supervisor = nodes.processes.Process(*map(int, kept.read().split()))
    supervisor.send(signal.SIGSTOP)  # so that it is not started again
    try:
        control.send(signal.SIGKILL)
        assert wait_for(lambda: not control.is_alive(), SOON_S)
        status, body = roles.compute.call("GET", "/droveway/v1/services/sim1/why?binary=nova-compute")
        assert (status, "No control answers" in str(body)) == (503, True), body
        server = roles.compute.create("waits", roles.image)  # written, and begun when there is a control
    finally:
        supervisor.send(signal.SIGCONT)
    roles.compute.wait(server, "ACTIVE")
    roles.compute.delete(server)


@servers_too
def test_a_control_elsewhere_does_not_claim_the_first_admin(roles: Roles, tmp_path: Path) -> None:
    """Its state_path holds no password, so it makes none up that fits nobody."""
    yaml = tmp_path / "clouds.yaml"
    database = f'"sqlite:///{roles.cloud.home}/droveway.sqlite"'
    file = roles.file(
        "control", name='"elsewhere"', state_path=f'"{tmp_path}"', database=database, clouds_yaml=f'"{yaml}"'
    )
    with roles.running("control", file):
        assert wait_for(lambda: ("elsewhere", "nova-conductor") in roles.compute.services(), SOON_S)
        assert not (tmp_path / "admin-password").exists()
        assert not yaml.exists()


# -- what is wrong with the servers -----------------------------------------------------------------------------------
@servers_too
@pytest.mark.parametrize("role", ["control", "api", "agent"])
def test_a_wrong_password_of_the_broker_is_said_and_tried_again(roles: Roles, role: str, tmp_path: Path) -> None:
    """It may be put right at the broker, so nobody gives up; and the judge blames nobody."""
    source = "agent-simulated" if role == "agent" else role
    lines = {"password": '"wrong"', "state_path": f'"{tmp_path}"'}
    if role != "agent":
        lines |= {"database": f'"sqlite:///{tmp_path}/d.sqlite"', "listen": '""' if role == "control" else free()}
    said = tmp_path / "said"
    with said.open("wb") as out:
        one = subprocess.Popen(
            command(role, roles.file(source, **lines)), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/"
        )
    try:
        assert wait_for(lambda: "refused this end" in said.read_text(), SOON_S), said.read_text()
        assert re.search("Authorization Violation|ACCESS_REFUSED|Login was refused", said.read_text())
        assert one.poll() is None
    finally:
        one.terminate()
        assert one.wait(SOON_S) == 0
    assert "Traceback" not in said.read_text()


def free() -> str:
    return f'"127.0.0.1:{nodes.free_ports(1)[0]}"'


@servers_too
def test_a_control_with_the_agents_user_says_what_it_may_not(roles: Roles, tmp_path: Path) -> None:
    agents = (roles.cloud.home / "agent-simulated.toml").read_text()
    (password,) = re.findall(r'(?m)^password = (".*")$', agents)
    file = roles.file(
        "control",
        user='"agents"',
        password=password,
        state_path=f'"{tmp_path}"',
        name='"third"',
        database=f'"sqlite:///{tmp_path}/d.sqlite"',
    )
    said = tmp_path / "said"
    with said.open("wb") as out:
        one = subprocess.Popen(command("control", file), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/")
    try:
        refused = "ermissions Violation for Subscription|ACCESS_REFUSED"
        assert wait_for(lambda: re.search(refused, said.read_text()) is not None, SOON_S), said.read_text()
        assert "agents" in said.read_text()
        assert one.poll() is None
    finally:
        one.terminate()
        one.wait(SOON_S)


@servers_too
def test_a_wrong_password_of_the_database_ends_the_start(roles: Roles) -> None:
    obstacle = servers.obstacle("postgresql")
    if obstacle is not None:
        pytest.skip(obstacle)
    with postgresql.server() as pg:
        pg.create("cloud")
        file = roles.file("api", database=f'"{pg.url("cloud", password="wrong")}"', listen=free())
        done = subprocess.run(command("api", file), capture_output=True, text=True, timeout=SOON_S, check=False)
    assert done.returncode == EX_CONFIG, done.stderr
    assert "password authentication failed" in done.stderr
    assert "wrong@" not in done.stderr
