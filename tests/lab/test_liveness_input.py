"""What reaches the liveness layer and should not: a second agent, garbage, beats of the past, a wrong configuration.

And what two hosts are too few for: a broker that hangs, which no storm hold covers. Simulated hosts over a real broker.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from droveway.drivers.bus import beats
from droveway.ports.bus import Beat
from lab import servers
from lab.compute import Compute
from lab.processes import wait_for
from tests.test_starts import EX_CONFIG, Program

REASON = servers.obstacle("nats")
pytestmark = [pytest.mark.servers, pytest.mark.skipif(REASON is not None, reason=str(REASON))]
COMPUTE = "nova-compute"
SOON_S = 60.0


class Wire:
    """A stranger at the broker: hears beats and says what it likes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=SOON_S)
        self._socket.sendall(b'CONNECT {"verbose":false,"echo":false}\r\nSUB droveway.beat.> 1\r\nPING\r\n')
        self._lines = self._socket.makefile("rb")

    def say(self, subject: str, payload: bytes) -> None:
        self._socket.sendall(f"PUB {subject} {len(payload)}\r\n".encode() + payload + b"\r\n")

    def next(self, host: str) -> tuple[str, Beat]:
        """The next beat of that host, and its subject."""
        until_s = time.monotonic() + SOON_S
        while line := self._lines.readline():
            assert time.monotonic() < until_s, f"host {host} does not beat, others do"
            if line.startswith(b"MSG"):
                subject, *_, length = line.decode().split()[1:]
                payload = self._lines.read(int(length) + 2)[:-2]
                with contextlib.suppress(ValueError):
                    beat = beats.decode(payload)
                    if beat.host == host:
                        return subject, beat
        raise AssertionError("the broker closed the connection")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


class Two:
    """Two simulated hosts over NATS, and what is said of them."""

    def __init__(self, program: Program, broker: servers.Server) -> None:
        self.program, self.broker = program, broker
        self.compute: Compute | None = None
        self.bus = f'bus = "nats"\nnats = {{servers = ["nats://{broker.address}"]}}\n'

    def up(self) -> None:
        self.program.configure(self.bus)
        self.program.start()
        self.compute = self.program.is_up()
        self.are_up()

    def ask(self, method: str, path: str) -> Any:
        assert self.compute is not None, "it is up"
        return self.compute.must(method, path)

    def why(self, host: str = "s1") -> dict[str, Any]:
        return dict(self.ask("GET", f"/droveway/v1/services/{host}/why?binary={COMPUTE}")["services"][0])

    def evidence(self, about: str) -> str:
        return "; ".join(one["reason"] for one in self.why()["evidence"] if one["about"] == about)

    def are_up(self) -> None:
        assert wait_for(lambda: {self.why(one)["verdict"]["state"] for one in ("s1", "s2")} == {"alive"}, SOON_S)

    def stay_up(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = {self.why(one)["verdict"]["word"] for one in ("s1", "s2")}
            assert found == {"up"}, self.why()
            time.sleep(0.1)

    def went_down(self) -> int:
        """How often anybody did."""
        path = f"file:{self.program.home}/droveway.sqlite?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True)) as store:
            said = store.execute("SELECT body FROM events WHERE kind = 'service' AND subject_id LIKE 's_/%'")
            return sum(json.loads(body)["became"] == "down" for (body,) in said)


@pytest.fixture(scope="module")
def _two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    home = tmp_path_factory.mktemp("two")
    with servers.nats(home) as broker:
        made = Two(Program(home), broker)
        try:
            made.up()
            yield made
        finally:
            if made.compute is not None:
                made.compute.close()
            if made.program.running is not None:
                made.program.running.terminate()
                made.program.running.wait(SOON_S)
            print(made.program.said.read_text()[-20_000:])


@pytest.fixture
def two(_two: Two) -> Iterator[Two]:
    _two.are_up()
    yield _two
    _two.are_up()


@pytest.fixture
def wire(two: Two) -> Iterator[Wire]:
    made = Wire(two.broker.port)
    yield made
    made.close()


def test_a_broker_that_hangs_under_too_few_hosts_for_a_storm(two: Two) -> None:
    """Control knows that its broker hangs before it would believe the silence."""
    two.stay_up(4)  # the time that a judge gives everybody when it begins is over
    for _ in range(2):  # the beats' phase is another each time
        two.broker.freeze()
        two.stay_up(5)
        assert "the last state is kept" in two.evidence("broker")
        two.broker.thaw()
        two.are_up()
        two.stay_up(1)
    assert two.went_down() == 0


def test_a_second_agent_of_the_same_name(two: Two, tmp_path: Path) -> None:
    """Refused, with both addresses; let in once the first one is gone for good."""
    (first,) = two.program.processes("agent")
    elsewhere = tmp_path / "elsewhere.toml"
    elsewhere.write_text(
        two.program.config.read_text().replace(f'state_path = "{two.program.home}"', f'state_path = "{tmp_path}"')
    )
    said = tmp_path / "said"
    with said.open("wb") as into:
        second = subprocess.Popen(
            [sys.executable, "-m", "droveway.main", "agent", "--host", "s1", "--config", str(elsewhere)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=into,
            stderr=into,
        )
    try:
        here = socket.gethostname()
        refusal = (
            f"nova-compute on host s1 is taken by the agent at {here} pid {first.pid}; the one at {here} pid "
            f"{second.pid} is refused: stop one of them or give it another name"
        )
        assert wait_for(lambda: refusal in said.read_text(), SOON_S), said.read_text()
        two.stay_up(1)
        assert first.is_alive()
    finally:
        second.kill()
        second.wait(SOON_S)
    first.send(signal.SIGKILL)
    assert wait_for(lambda: two.program.processes("agent") not in ([], [first]), SOON_S)
    two.are_up()  # the restarted one was let in


def test_garbage_and_beats_of_the_past(two: Two, wire: Wire) -> None:
    subject, old = wire.next("s1")
    (agent,) = two.program.processes("agent")
    two.program.boot.write_text("another-boot\n")
    agent.send(signal.SIGKILL)  # it is started again, on a machine that has booted meanwhile
    assert wait_for(lambda: wire.next("s1")[1].boot_id != old.boot_id, SOON_S)
    two.are_up()
    before = two.went_down()

    for garbage in (b"", b"\x00", b"\xb1", bytes(4096), b"\xb1\xff\xff\xff" + bytes(100), b'{"host": "s1"}'):
        wire.say(subject, garbage)
    wire.say("droveway.beat.s2", beats.encode(old))  # under another's name
    newest = old.counter + 10**6
    wire.say(subject, beats.encode(msgspec.structs.replace(old, counter=newest)))
    assert wait_for(lambda: f"a heartbeat of an older boot ({old.boot_id[:8]}) arrived" in two.evidence("beat"), 30)

    _, beat = wire.next("s1")
    wire.say(subject, beats.encode(msgspec.structs.replace(beat, counter=beat.counter - 1)))
    assert wait_for(lambda: "a heartbeat was replayed or came out of order" in two.evidence("beat"), 30)

    for number in range(5):  # one alone may be a late one of a boot that nobody remembers
        rival = msgspec.structs.replace(beat, boot_id="elsewhere", counter=newest + number)
        wire.say(subject, beats.encode(rival))
    assert wait_for(
        lambda: "another machine sends heartbeats under this name (boot elsewher" in two.evidence("beat"), 5
    )
    assert wait_for(lambda: "two machines go by this host name: rename one of them" in two.why()["advice"], 30)
    two.stay_up(4)
    assert two.went_down() == before


def test_a_service_is_deleted_while_its_host_beats(two: Two) -> None:
    (row,) = two.ask("GET", f"/compute/v2.1/os-services?host=s1&binary={COMPUTE}")["services"]
    assert two.compute is not None
    status, body = two.compute.call("DELETE", f"/compute/v2.1/os-services/{row['id']}")
    assert status == 409
    assert body["conflictingRequest"]["message"] == f"Service {COMPUTE} on s1 is up; stop it before it is deleted"


def test_service_down_time_is_changed_while_hosts_beat(two: Two, wire: Wire) -> None:
    """Control starts again with another value; the hosts, which do not, are given the new interval."""
    before = two.went_down()
    two.program.configure(two.bus + "report_interval = 0.25\nservice_down_time = 1.0\n")
    (control,) = two.program.processes("control")
    control.send(signal.SIGKILL)
    try:
        assert wait_for(lambda: two.program.processes("control") not in ([], [control]), SOON_S)
        two.program.is_up().close()
        two.are_up()
        two.stay_up(2)
        assert wait_for(lambda: _eight_s(wire) < 4.0, SOON_S), "eight beats: the old interval still holds"
        assert "one each 0.25 s" in two.evidence("beat")
        assert two.went_down() == before
    finally:
        two.program.configure(two.bus)


def _eight_s(wire: Wire) -> float:
    """How long eight beats take, by the clock of their sender."""
    _, first = wire.next("s1")
    for _ in range(8):
        _, last = wire.next("s1")
    return (last.wall_us - first.wall_us) / 1e6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('servicegroup_driver = "consul"', ["servicegroup_driver = 'consul'", "zookeeper", "memcached"]),
        ('bus = "rabbit"', ["bus = 'rabbit' must be socket"]),
        ("report_interval = 5.0\nservice_down_time = 5.0", ["report_interval = 5.0", "service_down_time = 5.0"]),
        ("service_down_time = nan", ["service_down_time = nan must be from"]),
    ],
)
def test_a_wrong_configuration_does_not_start(tmp_path: Path, more: str, words: list[str]) -> None:
    program = Program(tmp_path)
    program.configure(more)
    program.start()
    assert program.ends() == EX_CONFIG
    said = program.said.read_text()
    print(said)
    assert said.count("\n") == 1
    for word in words:
        assert word in said


@pytest.mark.alone  # how soon it is judged is asked
def test_a_heart_that_is_frozen_where_the_database_judges(tmp_path: Path) -> None:
    """The article's rule, to the letter: no beat is written for service_down_time, so it is down; nobody is asked."""
    program = Program(tmp_path)
    program.configure('servicegroup_driver = "db"\nreport_interval = 0.5\nservice_down_time = 2.0')
    program.start()
    with contextlib.closing(program.is_up()) as compute:
        path = f"/droveway/v1/services/s1/why?binary={COMPUTE}"

        def state() -> str:
            return str(compute.must("GET", path)["services"][0]["verdict"]["state"])

        try:
            assert wait_for(lambda: state() == "alive", SOON_S)
            (heart,) = program.processes("heart")
            heart.send(signal.SIGSTOP)
            began_s = time.monotonic()
            assert wait_for(lambda: state() == "not reporting", 30)
            assert 1.0 < time.monotonic() - began_s < 6.0
            (why,) = compute.must("GET", path)["services"]
            print(json.dumps(why, indent=1))
            assert why["verdict"]["word"] == "down"
            assert "by the members of db" in json.dumps(why["evidence"])
            assert "agent and heart" in json.dumps(why["advice"])
            heart.send(signal.SIGCONT)
            assert wait_for(lambda: state() == "alive", SOON_S)
        finally:
            assert program.running is not None
            program.running.terminate()
            program.running.wait(SOON_S)
