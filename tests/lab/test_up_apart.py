"""`./dev up --bus … --store …`: the roles apart over real servers, as its user meets them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from lab import processes, servers
from lab.backing import Backing
from lab.cloud import CLONE, Cloud, CloudFailed
from lab.compute import Compute
from lab.demo import own_cloud
from lab.hosts import obstacle
from tests.lab.test_up import UP_S, dev
from tests.lab.witness import home_is_clean, paused

pytestmark = [pytest.mark.lab, pytest.mark.servers]
REASON = obstacle() or next(filter(None, map(servers.obstacle, ("nats", "rabbitmq", "postgresql"))), None)
needs_all = pytest.mark.skipif(REASON is not None, reason=f"cannot be had here: {REASON}")
APART = ("--bus", "nats", "--store", "postgresql")


@pytest.fixture
def own() -> Iterator[Cloud]:
    """A cloud of its own that nobody has started yet."""
    with own_cloud() as made:
        yield made
        made.down()
        home_is_clean(made)
        assert ours(made) == []


def ours(cloud: Cloud) -> list[str]:
    """Its servers that run, by name."""
    return sorted(one.name() for one in processes.with_environment(f"DROVEWAY_SERVERS={cloud.home}"))


def is_up(cloud: Cloud, *words: str) -> tuple[str, Cloud]:
    done = dev(cloud, "up", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, Cloud(cloud.home)


def tick(cloud: Cloud) -> None:
    """A server on a host of it; what an API said and did."""
    compute = Compute(cloud.port, cloud.clouds_yaml)
    server = compute.create("one", compute.image_id())
    compute.wait(server, "ACTIVE")
    compute.delete(server)
    compute.close()


@needs_all
@pytest.mark.parametrize("bus", ["nats", "rabbitmq"])
def test_real_hosts_over_a_real_broker_and_database(own: Cloud, bus: str) -> None:
    said, cloud = is_up(own, "--bus", bus, "--store", "postgresql")
    assert "control.toml, api.toml, agent-h1.toml, agent-h2.toml" in said
    assert "database" not in (cloud.home / "agent-h1.toml").read_text()
    for path in cloud.configs:
        assert path.stat().st_mode & 0o077 == 0, path
    tick(cloud)
    assert "already up" in is_up(own)[0]
    assert dev(own, "down").returncode == 0
    home_is_clean(own)
    assert ours(own) == []


@needs_all
def test_it_keeps_what_it_was_made_with(own: Cloud) -> None:
    is_up(own, "--simulated", *APART)
    for other in (("--bus", "rabbitmq"), ("--store", "sqlite"), ("--bus", "socket", "--store", "sqlite")):
        refused = dev(own, "up", *other)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused.stderr
        assert "was made with --bus nats --store postgresql" in refused.stderr
    compute = Compute(own.port, own.clouds_yaml)
    server = compute.create("kept", compute.image_id())
    compute.wait(server, "ACTIVE")
    compute.close()
    assert dev(own, "down").returncode == 0
    _, cloud = is_up(own, "--simulated")  # without a word it is what it was, and what it stored is there
    compute = Compute(cloud.port, cloud.clouds_yaml)
    assert compute.wait(server, "ACTIVE")["name"] == "kept"
    compute.delete(server)
    compute.close()


@needs_all
@pytest.mark.parametrize("after_s", [0.6, 2.0, 4.0])
def test_up_is_interrupted_and_run_again(own: Cloud, after_s: float) -> None:
    started = subprocess.Popen(
        [str(CLONE / "dev"), "up", "--simulated", *APART],
        env={**os.environ, "DROVEWAY_DIR": str(own.home)},
        process_group=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    paused(after_s)
    os.killpg(started.pid, signal.SIGINT)
    started.wait(UP_S)
    _, cloud = is_up(own, "--simulated", *APART)
    tick(cloud)


@needs_all
def test_a_second_up_starts_a_server_that_was_killed(own: Cloud) -> None:
    _, cloud = is_up(own, "--simulated", *APART)
    for name in ("nats", "postgresql"):
        running = processes.recorded(cloud.home / "servers" / name / "pid")
        assert running is not None
        running.send(signal.SIGKILL)
        assert processes.wait_for(lambda: not running.is_alive(), 30)  # noqa: B023
    paused(0.5)
    _, cloud = is_up(own, "--simulated")
    tick(cloud)


def test_a_directory_that_others_may_not_enter_is_said(own: Cloud) -> None:
    if os.geteuid() != 0 or servers.obstacle("postgresql") is not None:
        pytest.skip("only root starts servers as other users")
    closed = own.home / "closed"
    closed.mkdir(0o700)
    cloud = Cloud(closed / "cloud")
    cloud.choose("nats", "postgresql")
    cloud.home.mkdir()
    with pytest.raises(Exception, match=f"may not enter {closed}: set DROVEWAY_DIR"):
        Backing(cloud.home, cloud.choice).start()


def test_another_choice_is_refused(own: Cloud) -> None:
    own.config.write_text("")
    with pytest.raises(CloudFailed, match="was made with --bus socket --store sqlite"):
        own.choose("nats", None)
    own.choose("socket", None)
