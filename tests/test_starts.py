"""The program as its processes: what the supervisor promises, and what it says when it cannot start."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from lab.client import Client
from lab.compute import Compute
from lab.nodes import free_ports
from lab.processes import Process, everyone, wait_for

EX_CONFIG = 78
SOON_S = 30.0


class Program:
    """`droveway all` with two simulated hosts, in a directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.config = home, home / "droveway.toml"
        self.boot = home / "boot_id"  # of the machine of its hosts
        (self.port,) = free_ports(1)
        self.configure()
        self.running: subprocess.Popen[bytes] | None = None
        self.said = home / "said"

    def configure(self, more: str = "", api: str = "") -> None:
        if not self.boot.exists():
            self.boot.write_text("first-boot\n")
        kind = f'hypervisor = "simulated"\nboot_id_path = "{self.boot}"\n'
        hosts = "".join(f'[[host]]\nname = "{name}"\n{kind}' for name in ("s1", "s2"))
        self.config.write_text(
            f'state_path = "{self.home}"\n{more}\n[api]\nlisten = "127.0.0.1:{self.port}"\n'
            f'clouds_yaml = "{self.home}/clouds.yaml"\n{api}\n{hosts}'
        )

    def start(self, files: int = 0) -> subprocess.Popen[bytes]:
        """`files`: how many each process may have open."""
        bound = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh"] if files else []
        command = [*bound, sys.executable, "-m", "droveway.main", "all", "--config", str(self.config)]
        with self.said.open("ab") as said:
            self.running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/")
        return self.running

    def is_up(self) -> Compute:
        client = Client(self.port)
        assert wait_for(client.answers, SOON_S), self.said.read_text()
        client.log_in(self.home / "clouds.yaml")
        assert wait_for(lambda: client.usable_hosts() == 2, SOON_S), self.said.read_text()
        return Compute(self.port, self.home / "clouds.yaml")

    def ends(self) -> int:
        """By itself, soon; its exit code."""
        assert self.running is not None
        return self.running.wait(SOON_S)

    def processes(self, *words: str) -> list[Process]:
        wanted = ["droveway.main", str(self.config), *words]
        return [one for one in everyone() if all(word in one.command() for word in wanted)]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    yield made
    if made.running is not None and made.running.poll() is None:
        made.running.terminate()
        made.running.wait(SOON_S)
    assert wait_for(lambda: made.processes() == [], SOON_S)


def upload(program: Program, compute: Compute) -> str:
    image = program.home / "blank.raw"
    image.write_bytes(bytes(2**20))
    client = Client(program.port)
    client.token = compute.token
    client.upload("tiny", image)
    return compute.image_id()


def test_sigterm_ends_everything_in_order(program: Program) -> None:
    started = program.start()
    program.is_up().close()
    assert len(program.processes()) == 4
    started.send_signal(signal.SIGTERM)
    assert program.ends() == 0
    assert program.processes() == []
    assert not (program.home / "bus.sock").exists()
    assert "Traceback" not in program.said.read_text()


@pytest.mark.parametrize("part", ["control", "heart", "agent"])
def test_what_is_killed_is_started_again(program: Program, part: str) -> None:
    program.start()
    compute = program.is_up()
    image = upload(program, compute)
    server = compute.create("kept", image)
    compute.wait(server, "ACTIVE")
    (killed,) = program.processes(part)
    killed.send(signal.SIGKILL)
    assert wait_for(lambda: program.processes(part) not in ([], [killed]), SOON_S)
    compute.close()
    compute = program.is_up()  # with the token file and the password it had
    compute.wait(server, "ACTIVE")
    compute.delete(server)
    compute.close()
    assert "(killed by SIGKILL); started again in 0.5 s" in program.said.read_text()


def test_the_children_end_when_the_supervisor_is_killed(program: Program) -> None:
    started = program.start()
    program.is_up().close()
    assert len(program.processes()) == 4
    started.kill()
    assert program.ends() == -signal.SIGKILL
    assert wait_for(lambda: program.processes() == [], 30)


def test_a_second_program_in_the_same_place_does_not_start(program: Program) -> None:
    """It ends and says why; the first one serves on."""
    program.start()
    program.is_up().close()
    first = program.running
    assert first is not None
    second = program.start()
    program.running = first
    assert second.wait(SOON_S) == EX_CONFIG
    (control,) = program.processes("control")
    assert f"control 'control' (pid {control.pid}, bus socket) works on sqlite:///{program.home}" in one_reason(program)
    assert program.said.read_text().count("supervisor: ") == 3, "nothing of the second one was started"
    assert wait_for(lambda: len(program.processes()) == 4, SOON_S)
    program.is_up().close()


def test_a_hangup_ends_nothing_and_is_said(program: Program) -> None:
    """Of the supervisor, whose terminal was closed, or of each part."""
    started = program.start()
    program.is_up().close()
    before = program.processes()
    for one in before:
        one.send(signal.SIGHUP)
    started.send_signal(signal.SIGHUP)
    assert wait_for(lambda: program.said.read_text().count("SIGHUP") >= 3, SOON_S), program.said.read_text()
    program.is_up().close()
    assert program.processes() == before
    assert "supervisor: SIGHUP: nothing ends" in program.said.read_text()
    assert "started again" not in program.said.read_text()


def test_agents_come_back_while_silent_connections_take_all_they_can(program: Program) -> None:
    """With 1,024 files in all, 2,000 connections from whoever takes each file that becomes free."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    program.start(files=1024)
    program.is_up().close()
    kept: deque[socket.socket] = deque()
    ending = threading.Event()

    def hold() -> None:
        while not ending.is_set():
            with suppress(OSError):
                kept.append(socket.create_connection(("127.0.0.1", program.port), 1))
            if len(kept) > 2000:
                kept.popleft().close()
                time.sleep(0.002)  # some are enough: the processor is not what is to be taken

    holding = threading.Thread(target=hold)
    holding.start()
    try:
        assert wait_for(lambda: len(kept) >= 2000, SOON_S)
        with closing(sqlite3.connect(program.home / "droveway.sqlite")) as database:
            count = "SELECT count(*) FROM events WHERE json_extract(body, '$.became') = 'down'"
            assert database.execute(count).fetchone() == (0,)
            (agents,) = program.processes("agent")
            agents.send(signal.SIGKILL)
            assert wait_for(lambda: program.processes("agent") not in ([], [agents]), SOON_S)
            program.is_up().close()
            query = count.replace("count(*)", "subject_id")
            downs = [subject for (subject,) in database.execute(query)]
            assert set(downs) <= {"s1/nova-compute", "s2/nova-compute"}  # which was so
            time.sleep(4.0)  # longer than service_down_time
            program.is_up().close()
            assert database.execute(count).fetchone()[0] <= 2
    finally:
        ending.set()
        holding.join(SOON_S)
        assert not holding.is_alive()
        for one in kept:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    said = program.said.read_text()
    assert "API listens" in said
    assert "too many connections" in said


# -- what does not start ----------------------------------------------------------------------------------------------
def one_reason(program: Program) -> str:
    """What the program itself said: one line, no traceback."""
    said = program.said.read_text()
    assert "Traceback" not in said
    (reason,) = [line for line in said.splitlines() if line.startswith("droveway: ")]
    return reason


@pytest.mark.parametrize(
    ("more", "api", "words"),
    [
        ("report_intervall = 1.0", "", ["unknown key", "report_intervall", "report_interval"]),
        ("", "listn = 1", ["unknown key", "listn", "listen"]),
        ("report_interval = 'soon'", "", ["report_interval", "float", "str"]),
        ("report_interval = 3.0\nservice_down_time = 3.0", "", ["report_interval = 3.0", "service_down_time = 3.0"]),
        ("report_interval = 9.0", "", ["report_interval = 9.0", "must be smaller", "service_down_time = 27"]),
    ],
)
def test_a_wrong_configuration(program: Program, more: str, api: str, words: list[str]) -> None:
    """Nothing is started at all."""
    program.configure(more, api)
    program.start()
    assert program.ends() == EX_CONFIG
    assert program.said.read_text().count("\n") == 1
    reason = one_reason(program)
    for word in words:
        assert word in reason


def test_a_port_that_is_taken(program: Program) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", program.port))
        stranger.listen()
        program.start()
        assert program.ends() == EX_CONFIG
    reason = one_reason(program)
    assert f"api.listen = 127.0.0.1:{program.port} cannot be used: Address already in use" in reason
    assert "choose another port" in reason


def test_a_database_from_a_newer_version(program: Program) -> None:
    program.start()
    program.is_up().close()
    assert program.running is not None
    program.running.terminate()
    assert program.ends() == 0
    path = program.home / "droveway.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    before = path.read_bytes()
    program.start()
    assert program.ends() == EX_CONFIG
    reason = one_reason(program)
    assert "is from a newer droveway (revision 9999; this one knows up to" in reason
    assert "upgrade this program, or restore the backup" in reason
    assert path.read_bytes() == before


@pytest.mark.parametrize("is_new", [True, False])
def test_a_database_that_is_read_only(program: Program, is_new: bool) -> None:
    """On a file system that is mounted so; without root, in a directory that may not be written."""
    place = program.home / "database"
    place.mkdir()
    program.configure(f'database = "sqlite:///{place}/droveway.sqlite"')
    if not is_new:
        program.start()
        program.is_up().close()
        assert program.running is not None
        program.running.terminate()
        assert program.ends() == 0
    command = [sys.executable, "-m", "droveway.main", "all", "--config", str(program.config)]
    if os.geteuid() == 0:
        frozen = f"mount --bind {place} {place} && mount -o remount,ro,bind {place}"
        command = ["unshare", "--mount", "sh", "-c", f'{frozen} && exec "$@"', "sh", *command]
    else:
        for path in (*place.iterdir(), place):
            path.chmod(0o555 if path.is_dir() else 0o444)
    done = subprocess.run(command, capture_output=True, text=True, timeout=SOON_S, check=False, cwd="/")
    program.said.write_text(done.stderr)
    place.chmod(0o755)
    assert done.returncode == EX_CONFIG, done.stderr
    reason = one_reason(program)
    assert f"the database sqlite:///{place}/droveway.sqlite cannot be" in reason


def test_a_database_that_is_none(program: Program) -> None:
    (program.home / "droveway.sqlite").write_text("no database, whatever its name says\n" * 100)
    program.start()
    assert program.ends() == EX_CONFIG
    assert "cannot be opened: file is not a database" in one_reason(program)


def test_exit_code_78_of_a_child_stops_everything(program: Program) -> None:
    """Control alone finds that it cannot work: the agents, which have started, end too."""
    (program.home / "images").write_text("a file where a directory must be")
    program.start()
    assert program.ends() == EX_CONFIG
    assert program.processes() == []
    said = program.said.read_text()
    assert "control says that its configuration is wrong; everything stops" in said
    assert f"state_path = {program.home} cannot be used: {program.home}/images" in one_reason(program)


def test_credentials_that_cannot_be_written(program: Program) -> None:
    program.config.write_text(program.config.read_text().replace("clouds.yaml", "nowhere/clouds.yaml"))
    program.start()
    assert program.ends() == EX_CONFIG
    reason = one_reason(program)
    assert f"api.clouds_yaml = {program.home}/nowhere/clouds.yaml cannot be written: No such file" in reason
