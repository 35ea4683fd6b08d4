"""How the program ends: in order, once, and not by what only concerns its log."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from droveway.domain.service_kinds import OF_CONTROL
from droveway.process.run import run
from lab.client import Client
from lab.processes import wait_for
from tests.test_starts import EX_CONFIG, SOON_S, Program


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path)
    yield made
    if made.running is not None and made.running.poll() is None:
        made.running.terminate()
        made.running.wait(SOON_S)
    assert wait_for(lambda: made.processes() == [], SOON_S)


@pytest.fixture
def umask() -> Iterator[None]:
    """`run` sets that of this process."""
    before = os.umask(0o022)
    yield
    os.umask(before)


# -- run() ------------------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("by", ["the supervisor's end", "SIGTERM", "both"])
def test_what_is_being_put_in_order_is_not_cut_short(by: str) -> None:
    """The end of the supervisor's pipe can be read for ever, and SIGTERM may come more than once."""
    alive, supervisor = os.pipe()
    done: list[int] = []

    async def work() -> None:
        try:
            await asyncio.sleep(SOON_S)
        finally:
            for number in range(3):
                if by != "the supervisor's end":
                    os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0.05)
                done.append(number)

    def stop() -> None:
        time.sleep(0.2)
        if by != "SIGTERM":
            os.close(supervisor)
        if by != "the supervisor's end":
            os.kill(os.getpid(), signal.SIGTERM)

    stopping = threading.Thread(target=stop)
    stopping.start()
    run(work(), alive)
    stopping.join(30)
    assert done == [0, 1, 2]
    os.close(alive)
    if by == "SIGTERM":
        os.close(supervisor)


# -- control ----------------------------------------------------------------------------------------------------------
def test_a_request_under_way_is_answered_and_the_services_go_down(program: Program) -> None:
    started = program.start()
    program.is_up().close()
    client = Client(program.port)
    client.log_in(program.home / "clouds.yaml")
    headers = {"x-auth-token": client.token, "content-type": "application/json"}
    with closing(http.client.HTTPConnection("127.0.0.1", program.port, timeout=SOON_S)) as connection:
        body = b'{"name": "tiny", "disk_format": "raw", "container_format": "bare"}'
        connection.putrequest("POST", "/image/v2/images")
        for name, value in (headers | {"content-length": str(len(body))}).items():
            connection.putheader(name, value)
        connection.endheaders(body[:10])
        time.sleep(0.2)  # until it has been taken in
        started.send_signal(signal.SIGTERM)
        assert wait_for(lambda: _is_refused(program.port), SOON_S)
        connection.send(body[10:])
        assert connection.getresponse().status == 201
    assert program.ends() == 0
    with closing(sqlite3.connect(program.home / "droveway.sqlite")) as database:
        own = database.execute("SELECT is_up, reason FROM services WHERE host = 'control'").fetchall()
        assert own == [(0, "it was stopped")] * len(OF_CONTROL)
        assert database.execute("SELECT count(*) FROM images").fetchone() == (1,)
    assert "Traceback" not in program.said.read_text()


def _is_refused(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return False
    except OSError:
        return True


def test_nobody_else_may_read_what_it_keeps(program: Program) -> None:
    before = os.umask(0o022)
    program.start()
    os.umask(before)
    client = Client(program.port)
    program.is_up().close()
    client.log_in(program.home / "clouds.yaml")
    image = program.home / "blank.raw"
    image.write_bytes(bytes(2**20))
    client.upload("tiny", image)
    secret = ("clouds.yaml", "admin-password", "bus.sock", "droveway.sqlite", "images", "simulated-disks.json")
    for path in [*(program.home / name for name in secret), *(program.home / "images").iterdir()]:
        if path.exists():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


# -- the supervisor ---------------------------------------------------------------------------------------------------
PREFIX = """
import os, signal, sys, time
if os.fork() == 0:  # the agent, behind a prefix that ends at once by the signal, as nsenter does
    def stop(*_):
        time.sleep(0.5)
        open(sys.argv[1], "w").write("in order")
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
    open(sys.argv[1] + ".began", "w")
    while True:
        time.sleep(60)
while True:
    time.sleep(60)
"""


def _with_host(program: Program, *enter: str) -> None:
    words = ", ".join(f"'''{word}'''" for word in enter)
    host = (
        f'[[host]]\nname = "h1"\nhypervisor = "libvirt"\nenter = [{words}]\n'
        f'peer_uri = "qemu+tls://h1/system"\ndata_uri = "tcp://h1"\n'
        f'instances_path = "{program.home}/i"\nhost_state_path = "{program.home}/h1"\n'
    )
    program.config.write_text(program.config.read_text() + host)


def test_what_a_prefix_has_forked_may_end_in_order(program: Program) -> None:
    ended = program.home / "ended"
    _with_host(program, sys.executable, "-c", PREFIX, str(ended))
    started = program.start()
    program.is_up().close()
    assert wait_for((program.home / "ended.began").exists, SOON_S)
    started.send_signal(signal.SIGTERM)
    assert program.ends() == 0
    assert ended.read_text() == "in order"
    assert "did not end within" not in program.said.read_text()


def test_what_cannot_be_started_is_tried_again_and_the_others_run(program: Program) -> None:
    _with_host(program, f"{program.home}/enter")
    program.start()
    program.is_up().close()
    assert wait_for(lambda: program.said.read_text().count("agent h1 cannot be started (") > 1, SOON_S)
    enter = program.home / "enter"
    enter.write_text(f"#!/bin/sh\ntouch {program.home}/entered\nexec sleep 60\n")
    enter.chmod(0o755)
    assert wait_for((program.home / "entered").exists, SOON_S)


def test_a_full_disk_under_the_log_ends_nothing(program: Program) -> None:
    command = [sys.executable, "-m", "droveway.main", "all", "--config", str(program.config)]
    program.said.write_text("")
    with open("/dev/full", "w") as full:
        program.running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=full, stderr=full, cwd="/")
        program.is_up().close()
        (agents,) = program.processes("agent")
        agents.send(signal.SIGKILL)  # which the supervisor tells, and the other processes too
        assert wait_for(lambda: program.processes("agent") not in ([], [agents]), SOON_S)
        program.is_up().close()
        program.running.terminate()
        assert program.ends() == 0
        program.configure("report_interval = nan")
        assert subprocess.run(command, stderr=full, timeout=SOON_S, check=False).returncode == EX_CONFIG
