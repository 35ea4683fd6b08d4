"""Two hosts that share nothing boot an image that was just uploaded: it reaches each of them over HTTP."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import image
from lab.client import Client
from lab.cloud import Cloud
from lab.compute import Compute, ticks
from lab.demo import own_cloud
from lab.hosts import Host, obstacle
from lab.processes import everyone, wait_for

REASON = obstacle()
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}"),
]
BOOTS_S = 120.0


@pytest.fixture(scope="module")
def apart() -> Iterator[Cloud]:
    """A cloud whose hosts each keep their guests on a directory of their own."""
    with own_cloud() as made:
        made.instances = made.lab.directory / "instances"
        made.up(simulated=False, foreground=False, quiet=True)
        yield made
        print(made.log.read_text()[-10_000:])


@pytest.fixture
def compute(apart: Cloud) -> Iterator[Compute]:
    made = Compute(apart.port, apart.clouds_yaml)
    yield made
    made.close()


def of_its_own(host: Host) -> Path:
    """The instance store of that host, as this machine sees it."""
    return host.state / "instances"


def bases(host: Host) -> list[str]:
    return sorted(path.name for path in (of_its_own(host) / "_base").glob("*"))


def uploaded(cloud: Cloud, name: str, padding: int) -> str:
    """An image of other bytes than any before: the tiny one, and a tail that the guest does not look at."""
    path = cloud.home / f"{name}.qcow2"
    path.write_bytes(image.image(cloud.home / "cache").read_bytes() + os.urandom(padding))
    client = Client(cloud.port)
    client.log_in(cloud.clouds_yaml)
    client.upload(name, path)
    compute = Compute(cloud.port, cloud.clouds_yaml)
    found = compute.image_id(name)
    compute.close()
    return found


def boot(compute: Compute, name: str, image_id: str, host: str) -> str:
    return compute.create(name, image_id, availability_zone=f"nova:{host}")


def ticks_of(compute: Compute, server: str) -> list[int]:
    body = {"os-getConsoleOutput": {"length": None}}
    return ticks(compute.must("POST", f"/compute/v2.1/servers/{server}/action", body)["output"])


def test_both_boot_what_was_just_uploaded(apart: Cloud, compute: Compute) -> None:
    image_id = uploaded(apart, "both", padding=100_000)
    servers = {host.name: boot(compute, f"on-{host.name}", image_id, host.name) for host in apart.lab.hosts}
    for name, server in servers.items():
        assert compute.wait(server, "ACTIVE", BOOTS_S)["OS-EXT-SRV-ATTR:host"] == name
        assert wait_for(lambda: ticks_of(compute, server), BOOTS_S)  # noqa: B023
    one, other = apart.lab.hosts
    assert bases(one) == bases(other) and len(bases(one)) == 1
    inodes = {(of_its_own(host) / "_base" / bases(host)[0]).stat().st_ino for host in apart.lab.hosts}
    assert len(inodes) == 2  # they share nothing
    for server in servers.values():
        compute.delete(server)
    assert "ticket" not in apart.log.read_text()


def test_the_agent_and_the_program_are_killed_while_it_is_fetched(apart: Cloud, compute: Compute) -> None:
    """Large enough that both meet it half way."""
    image_id = uploaded(apart, "large", padding=300 << 20)
    host = apart.lab.hosts[0]
    server = boot(compute, "after-all", image_id, host.name)
    halves = of_its_own(host) / "_base"
    assert wait_for(lambda: any(_size(path) > 1 << 20 for path in halves.glob(".new-*")), BOOTS_S)
    for start in ("agent", "control"):
        _kill(apart, start, host.name)
        time.sleep(0.3)
    assert wait_for(lambda: Client(apart.port).answers(), BOOTS_S)
    compute.close()
    compute.wait(server, "ACTIVE", BOOTS_S)
    assert wait_for(lambda: ticks_of(compute, server), BOOTS_S)
    assert list(halves.glob(".new-*")) == []
    compute.delete(server)


def _size(path: Path) -> int:
    """0 when it has gone meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _kill(cloud: Cloud, start: str, host: str) -> None:
    """The process that does the work, not what waits for it."""
    wanted = ["droveway.main", start, str(cloud.config), *([host] if start == "agent" else [])]
    for one in everyone():
        if all(word in one.command() for word in wanted) and one.name() != "nsenter":
            one.send(signal.SIGKILL)


def test_a_guest_takes_its_disk_along_and_back_whatever_is_killed(apart: Cloud, compute: Compute) -> None:
    """It counts on, and in one place: the other host keeps nothing of it."""
    one, other = apart.lab.hosts
    server = boot(compute, "moves", uploaded(apart, "moved", padding=1000), one.name)
    compute.wait(server, "ACTIVE", BOOTS_S)
    assert wait_for(lambda: len(ticks_of(compute, server)) > 1, BOOTS_S)
    assert compute.act(server, {"os-migrateLive": {"host": None, "block_migration": False}}, "2.96")[0] == 202
    assert compute.wait_migrated(server)["status"] == "error"  # they do not share their stores
    for source, destination, killed in ((one, other, ""), (other, one, "control")):
        counted = ticks_of(compute, server)[-1]
        compute.migrate(server, destination.name)
        if killed:
            _kill(apart, killed, source.name)
            assert wait_for(lambda: Client(apart.port).answers(), BOOTS_S)
            compute.close()
        assert compute.wait_migrated(server)["status"] == "completed"
        assert compute.host_of(server) == destination.name
        assert wait_for(lambda: not (of_its_own(source) / server).exists(), BOOTS_S)  # noqa: B023
        assert (of_its_own(destination) / server / "disk").exists()
        assert not (of_its_own(destination) / server / ".arriving").exists()
        assert wait_for(lambda: ticks_of(compute, server)[-1:] > [counted], BOOTS_S)  # noqa: B023
    compute.delete(server)
    assert wait_for(lambda: not any((of_its_own(host) / server).exists() for host in apart.lab.hosts), BOOTS_S)
