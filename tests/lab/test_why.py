"""Every cause of a `down` is produced for real on lab hosts, and `service why` names it; what is no cause is held out.

Three hosts, real libvirtds, and a real broker that they reach by their links. The tests share one scene: each leaves
everybody alive.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from collections.abc import Iterator

import pytest

from lab import servers
from lab.hosts import obstacle
from lab.processes import wait_for
from tests.lab import on_host
from tests.lab.scene import COMPUTE, HUNG_S, INTERVAL_S, Scene, scene

REASON = obstacle() or servers.obstacle("nats") or servers.obstacle("faketime")
pytestmark = [
    pytest.mark.lab,
    pytest.mark.servers,
    pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}"),
]
SEEN_S = 0.5  # a death that the kernel tells of
GONE_S = 3.5  # a host of which nothing comes any more
HUNG_SHOWN_S = HUNG_S + 3 * INTERVAL_S + SEEN_S  # the beat after the last turn still shows it, the next one begins to
# count, and the count is read when a beat arrives: it is over at most one later
BACK_S = 60.0
BROKER_AWAY_S, STORE_STALLS_S = 20.0, 30.0
DAY_S = 86_400
TAKEN_OVER_S = 60.0  # the lease runs for 15 s; whoever waits looks every few seconds


@pytest.fixture(scope="module")
def _scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("broker")) as made:
        yield made


@pytest.fixture
def here(_scene: Scene) -> Iterator[Scene]:
    _scene.are_up()
    yield _scene
    _scene.are_up()


# -- one process ------------------------------------------------------------------------------------------------------
def test_a_heart_that_is_frozen_or_killed_takes_nobody_down(here: Scene) -> None:
    """The agent answers when it is asked, so it is up; a killed heart is back within a moment."""
    here.kill("heart", "h2")
    with here.frozen("heart", "h1"):
        here.is_judged("h1", "suspect", 8)  # the judge has given everybody time when it began
        here.stay_up(4)
        said = here.told("h1")
        assert "yet its agent answers: its heart does not report" in said
        assert "network     its agent answers when asked over the bus" in said
        assert "do: look at its heart: 'droveway heart --host h1' must run there" in said
    assert here.why("h2")["verdict"]["state"] == "alive"


def test_an_agent_that_is_killed_is_dead_at_once(here: Scene) -> None:
    here.kill("agent", "h1")
    assert here.is_shown("h1", "dead", 3) <= SEEN_S
    assert here.services()["h1"]["word"] == "down"
    said = here.told("h1")
    assert "the kernel of its host" in said
    assert "do: look why it ended in that host's log" in said
    here.is_shown("h1", "alive", BACK_S)  # its supervisor has started it again


def test_an_agent_that_is_stopped_is_hung(here: Scene) -> None:
    with here.frozen("agent", "h1"):
        assert here.is_shown("h1", "hung", 10) <= HUNG_SHOWN_S
        said = here.told("h1")
        assert "its process is stopped (SIGSTOP)" in said
        assert "do: look what it is stuck in" in said
        assert here.why("h1")["verdict"]["word"] == "down"
    here.is_shown("h1", "alive", BACK_S)


def test_a_clock_that_is_a_day_off(here: Scene) -> None:
    """Nobody goes down by it, and it is told."""
    offset = here.lab.host("h1").outside(str(on_host.OFFSET))
    for seconds, way in ((DAY_S, "ahead of"), (-DAY_S, "behind")):
        offset.write_text(f"{seconds:+d}")
        here.kill("heart", "h1")
        here.stay_up(2)
        told = wait_for(lambda: f"its clock is {DAY_S}.0 s {way}" in here.evidence("h1", "clock"), 30)  # noqa: B023
        assert told, here.told("h1")
        assert here.why("h1")["verdict"]["word"] == "up"
        assert "set that host's clock by NTP" in here.advice("h1")
        here.told("h1")
    offset.unlink()
    here.kill("heart", "h1")
    assert wait_for(lambda: "agrees" in here.evidence("h1", "clock"), 30)


# -- one host ---------------------------------------------------------------------------------------------------------
def test_a_host_whose_cable_is_pulled(here: Scene) -> None:
    here.lab.cut("h2")
    assert here.is_shown("h2", "host gone", 8) <= GONE_S
    said = here.told("h2")
    assert "does not reach its hypervisor either" in said
    assert "its agent does not answer when asked" in said
    assert "do: look at the machine and its link" in said
    here.lab.mend("h2")
    here.is_shown("h2", "alive", BACK_S)


def test_a_host_that_loses_its_power(here: Scene) -> None:
    """Everything on it and its link end at once: nobody is left to say so."""
    pulled_s = time.monotonic()
    here.lab.power_off("h2", silent=True)
    here.is_shown("h2", "host gone", 8)
    assert time.monotonic() - pulled_s <= GONE_S + SEEN_S  # to end its processes takes the lab a moment
    assert "does not reach its hypervisor either" in here.told("h2")
    here.lab.power_on("h2")
    here.is_shown("h2", "alive", BACK_S)


def test_a_libvirtd_that_is_dead_or_hangs_is_no_dead_service(here: Scene) -> None:
    """The agent lives and answers; nothing new is placed there."""
    hangs = here.lab.host("h3").libvirtd
    assert hangs is not None
    hangs.send(signal.SIGSTOP)
    here.lab.stop_libvirtd("h1")
    try:
        refused = wait_for(lambda: here.usable() == {"h2"}, 30)
        here.stay_up(HUNG_S + 1)
        assert refused, here.usable()
        for host in ("h1", "h3"):
            said = here.told(host)
            assert f":-) {COMPUTE} on {host} is up" in said
            assert "! hypervisor" in said
            assert "its loop turns" in said
            assert "do: start libvirtd on that host, or look why it hangs" in said
        server = here.compute.create("refused", here.compute.image_id(), host="h1")
        assert "h1: its hypervisor does not answer" in here.compute.wait(server, "ERROR")["fault"]["message"]
        here.compute.delete(server)
    finally:
        hangs.send(signal.SIGCONT)
        here.lab.start_libvirtd("h1")


# -- what all share ---------------------------------------------------------------------------------------------------
def test_a_loop_that_is_blocked_while_the_database_stalls(here: Scene) -> None:
    """A long task in the loop of one agent; and a database that takes nothing: `why` tells what the lists cannot."""
    here.process("agent", "h3").send(signal.SIGUSR1)
    began_s = time.monotonic()
    assert here.is_shown("h3", "hung", 10) <= HUNG_SHOWN_S
    said = here.told("h3")
    assert f"its loop is in task '{on_host.TASK}' (on_host.py:" in said
    assert "in report)" in said
    store = sqlite3.connect(here.cloud.home / "droveway.sqlite", isolation_level=None, timeout=10)
    with contextlib.closing(store):
        store.execute("BEGIN IMMEDIATE")
        stalled_s = time.monotonic()
        here.kill("agent", "h1")  # something to write
        here.is_judged("h1", "dead", SEEN_S)
        here.stay_up(on_host.BLOCKS_S - (time.monotonic() - began_s), "h1", "h2")
        here.is_judged("h3", "alive", 5)  # its loop turns again, and the list cannot know yet
        assert here.services()["h3"]["state"] == "hung"
        here.stay_up(STORE_STALLS_S - (time.monotonic() - stalled_s), "h1", "h2")
        said = here.evidence("h2", "database")
        print(said)
        assert said.startswith("! it has taken nothing for 3")
        assert "database is locked" in said
        store.execute("ROLLBACK")
    here.is_shown("h3", "alive", BACK_S)
    assert wait_for(lambda: here.evidence("h2", "database") == "", 30)


def test_a_broker_that_is_dead_or_hangs_takes_nobody_down(here: Scene) -> None:
    recorded = here.events()
    for away, back in ((here.broker.kill, here.broker.start), (here.broker.freeze, here.broker.thaw)):
        away()
        gone_s = time.monotonic()
        here.stay_up(BROKER_AWAY_S)
        said = here.told("h1")
        assert f":-) {COMPUTE} on h1 is up" in said
        assert "! broker" in said
        assert "the last state is kept" in said
        assert "do: bring the broker back" in said
        heard = float(here.evidence("h1", "broker").partition("received for ")[2].partition(" s")[0])
        assert time.monotonic() - gone_s - 3 <= heard <= time.monotonic() - gone_s + 1
        back()
        assert wait_for(lambda: here.evidence("h1", "broker") == "", 30)
        here.stay_up(4)  # the judge's grace is over
        here.are_up()
    assert here.events() == recorded


def test_control_is_dead_and_another_one_judges(here: Scene) -> None:
    port = here.cloud.port + 1
    text = here.cloud.config.read_text().replace(f":{here.cloud.port}", f":{port}")
    config = here.cloud.home / "c2.toml"
    config.write_text('name = "c2"\n' + text.replace("clouds_yaml", "# clouds_yaml"))
    with here.another_control(config, port) as (second, other):
        assert other.evidence("h1", "detector").startswith("failure detector: control")
        with here.without_supervisor():
            here.kill("control")
            dead_s = time.monotonic()
            silent = here.droveway("service", "why", "h1", COMPUTE)
            assert silent.returncode == 1
            assert silent.stderr.count("\n") == 1
            assert "does not answer" in silent.stderr
            print(silent.stderr)
            other.stay_up(10)
            told = other.evidence("h1", "detector")
            print(told)
            assert "failure detector: control, whose counter last moved" in told
            assert float(told.partition("moved ")[2].partition(" s")[0]) >= 8
            assert wait_for(lambda: other.evidence("h1", "detector") == "failure detector: c2", TAKEN_OVER_S)
            print(f"taken over after {time.monotonic() - dead_s:.1f} s")
            other.stay_up(4)
            other.kill("agent", "h1")
            other.is_shown("h1", "dead", BACK_S)  # its kernel has told: by silence alone it would be another state
            other.is_judged("h1", "dead", BACK_S)
        assert wait_for(here.answers, BACK_S)
        assert here.evidence("h1", "detector").startswith("failure detector: c2")
        second.send_signal(signal.SIGTERM)
        assert second.wait(BACK_S) == 0
    assert wait_for(lambda: here.evidence("h1", "detector") == "failure detector: control", TAKEN_OVER_S)
