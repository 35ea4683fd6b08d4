"""The program with another bus, and with each membership driver as the judge of who is alive; against real servers."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from droveway.domain.service_kinds import OF_CONTROL
from lab import servers
from lab.compute import Compute
from lab.processes import wait_for
from tests.drivers.bus_worlds import ready
from tests.drivers.membership_worlds import ZookeeperWorld, zookeeper_settings
from tests.test_starts import Program, upload

pytestmark = pytest.mark.servers
FAST = "report_interval = 0.5\nservice_down_time = 2.0\n"
CHOICES: dict[str, tuple[Callable[[Path], AbstractContextManager[servers.Server]] | None, str]] = {
    "zk": (servers.zookeeper, FAST + '[zookeeper]\naddress = "{address}"\ntick_time = 0.2\nsession_timeout = 2.0\n'),
    "etcd": (servers.etcd, FAST + '[etcd]\naddress = "{address}"\nlease = 2\n'),
    "mc": (servers.memcached, FAST + '[memcached]\naddress = "{address}"\n'),
    "db": (None, FAST),
}


@contextmanager
def program(home: Path, more: str) -> Iterator[Program]:
    one = Program(home)
    one.configure(more)
    one.start()
    try:
        yield one
    finally:
        if one.running is not None and one.running.poll() is None:
            one.running.terminate()
            one.running.wait(30)


def signal_agents(one: Program, number: signal.Signals) -> None:
    """To the process of the simulated hosts' agents. Stopped it is as silent as dead, and nobody starts another one."""
    for process in one.processes("agent"):
        process.send(number)


def state(compute: Compute) -> set[str]:
    found = compute.services()
    return {found[(host, "nova-compute")] for host in ("s1", "s2")}


def own_beats(home: Path) -> list[int]:
    """How often control's own services have beaten."""
    with closing(sqlite3.connect(home / "droveway.sqlite", timeout=10)) as database:
        rows = database.execute("select report_count from services where binary <> 'nova-compute'")
        return [int(count) for (count,) in rows]


@pytest.mark.parametrize("driver", CHOICES)
def test_a_membership_driver_judges(tmp_path: Path, driver: str) -> None:
    start, text = CHOICES[driver]

    def story(address: str) -> None:
        more = f'servicegroup_driver = "{driver}"\n' + text.format(address=address)
        with ExitStack() as opened, program(tmp_path, more) as one:
            compute = opened.enter_context(closing(one.is_up()))
            assert wait_for(lambda: state(compute) == {"up"}, 30), one.said.read_text()
            time.sleep(3.0)  # longer than service_down_time: whoever beats stays up
            assert state(compute) == {"up"}
            if driver == "db":
                counts = own_beats(tmp_path)
                assert len(counts) == len(OF_CONTROL)
                assert min(counts) >= 4, "control's own rows do not beat"
                assert set(compute.services().values()) == {"up"}
            signal_agents(one, signal.SIGSTOP)
            assert wait_for(lambda: state(compute) == {"down"}, 30), "the silence of the agents was not seen"
            signal_agents(one, signal.SIGCONT)
            assert wait_for(lambda: state(compute) == {"up"}, 30), "the agents did not come back"

    if start is None:
        story("")
        return
    with start(tmp_path / "server") as server:
        story(server.address)


def test_a_membership_server_that_dies_kills_nobody(tmp_path: Path) -> None:
    with servers.zookeeper(tmp_path / "server") as zookeeper:
        more = 'servicegroup_driver = "zookeeper"\n' + CHOICES["zk"][1].format(address=zookeeper.address)
        with ExitStack() as opened, program(tmp_path, more) as one:
            compute = opened.enter_context(closing(one.is_up()))
            assert wait_for(lambda: state(compute) == {"up"}, 30)
            zookeeper.kill()
            deadline = time.monotonic() + 6.0
            while time.monotonic() < deadline:
                assert state(compute) == {"up"}
                time.sleep(0.1)


def test_a_membership_server_that_lost_its_data_judges_again(tmp_path: Path) -> None:
    with servers.zookeeper(tmp_path / "server") as zookeeper:
        more = 'servicegroup_driver = "zookeeper"\n' + CHOICES["zk"][1].format(address=zookeeper.address)
        world = ZookeeperWorld(zookeeper_settings(zookeeper.address)).serve(zookeeper)
        with ExitStack() as opened, program(tmp_path, more) as one:
            compute = opened.enter_context(closing(one.is_up()))
            assert wait_for(lambda: state(compute) == {"up"}, 30)
            world.lose_data()
            deadline = time.monotonic() + 6.0
            while time.monotonic() < deadline:
                assert state(compute) == {"up"}
                time.sleep(0.1)
            signal_agents(one, signal.SIGSTOP)
            assert wait_for(lambda: state(compute) == {"down"}, 30), "nobody is judged any more"
            signal_agents(one, signal.SIGCONT)
            assert wait_for(lambda: state(compute) == {"up"}, 30)


def test_the_articles_own_trial(tmp_path: Path) -> None:
    """Move a stored heartbeat back by an hour: the service shows down, until its next beat."""
    with (
        ExitStack() as opened,
        program(tmp_path, 'servicegroup_driver = "db"\nreport_interval = 3.0\nservice_down_time = 9.0\n') as one,
    ):
        compute = opened.enter_context(closing(one.is_up()))
        assert wait_for(lambda: state(compute) == {"up"}, 30)
        time.sleep(8.0)  # a control that has just started grants everybody some grace

        def is_down_after_the_move() -> bool:
            with closing(sqlite3.connect(tmp_path / "droveway.sqlite", timeout=10)) as database:
                database.execute("update services set updated_at_us = updated_at_us - 3600000000 where host = 's1'")
                database.commit()
            return wait_for(lambda: compute.services()[("s1", "nova-compute")] == "down", 2)

        # The next beat may come sooner than the next question: then it is moved again.
        assert any(is_down_after_the_move() for _ in range(6))
        assert wait_for(lambda: state(compute) == {"up"}, 30)


@pytest.mark.parametrize(("bus", "scheme"), [("nats", "nats"), ("rabbitmq", "amqp")])
def test_the_whole_program_over_a_broker(request: pytest.FixtureRequest, bus: str, scheme: str, tmp_path: Path) -> None:
    with ExitStack() as serving:
        if bus == "nats":
            broker = serving.enter_context(servers.nats(tmp_path / "server"))
        else:
            broker = ready(request.getfixturevalue("rabbit_that_stays"))
        told = f'bus = "{bus}"\n[{bus}]\nprefix = "program"\nservers = ["{scheme}://{broker.address}"]\n'
        with ExitStack() as opened, program(tmp_path, told) as one:
            compute = opened.enter_context(closing(one.is_up()))
            server = compute.create("g", upload(one, compute))
            compute.wait(server, "ACTIVE")
            compute.migrate(server)
            assert compute.wait_migrated(server)["status"] == "completed"
            compute.wait(server, "ACTIVE")
            signal_agents(one, signal.SIGSTOP)
            assert wait_for(lambda: state(compute) == {"down"}, 30)
            signal_agents(one, signal.SIGCONT)
            assert wait_for(lambda: state(compute) == {"up"}, 30)
            compute.delete(server)
