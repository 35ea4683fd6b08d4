"""`./dev up --storage`: volumes on lab hosts that reach them over a network, and root disks in Ceph: attached, moved
with their server, given back; an agent killed in the middle; and nothing left but what is kept."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import block, processes
from lab.cloud import Cloud
from lab.compute import Compute, ticks
from lab.demo import own_cloud
from lab.hosts import obstacle
from lab.processes import wait_for
from lab.servers import obstacle as missing
from lab.storage import ROOTS
from tests.lab.witness import home_is_clean

REASON = obstacle()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}")]
SOON_S = 90.0
NOVA, CINDER = "/compute/v2.1", "/volume/v3"
NEEDS = {"ceph": missing("ceph"), "lvm": missing("lvm") or missing("nbdkit")}
KINDS = [pytest.param(kind, marks=pytest.mark.skipif(why is not None, reason=str(why))) for kind, why in NEEDS.items()]


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    with own_cloud() as made:
        made.choose(None, None, request.param)
        made.up(simulated=False, foreground=False, quiet=True)
        yield made
        made.down()
        home_is_clean(made)
        assert not processes.with_environment(f"DROVEWAY_STORAGE={made.home}")
        assert block.loops(made.home) == []


class Guest:
    """A server that runs, and its volumes."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.compute = cloud, Compute(cloud.port, cloud.clouds_yaml)
        self.id = self.compute.create("roaming", self.compute.image_id())
        self.compute.wait(self.id, "ACTIVE")
        assert wait_for(lambda: len(self.ticks()) > 2, SOON_S), "it has booted, and takes what is plugged in"

    def ticks(self) -> list[int]:
        body = {"os-getConsoleOutput": {"length": None}}
        return ticks(self.compute.must("POST", f"{NOVA}/servers/{self.id}/action", body)["output"])

    def volume(self) -> str:
        made = self.compute.must("POST", f"{CINDER}/volumes", {"volume": {"size": 1}})["volume"]["id"]
        self.until(made, "available")
        return str(made)

    def status(self, volume: str) -> str:
        return str(self.compute.must("GET", f"{CINDER}/volumes/{volume}")["volume"]["status"])

    def until(self, volume: str, wanted: str) -> None:
        assert wait_for(lambda: self.status(volume) == wanted, SOON_S), self.status(volume)

    @property
    def path(self) -> str:
        return f"{NOVA}/servers/{self.id}/os-volume_attachments"

    def attach(self, volume: str) -> None:
        self.compute.must("POST", self.path, {"volumeAttachment": {"volumeId": volume}})

    def backend_is_up(self) -> bool:
        services = self.compute.must("GET", f"{CINDER}/os-services?binary=cinder-volume")["services"]
        return [one["state"] for one in services] == ["up"]

    def has(self) -> list[str]:
        return [row["volumeId"] for row in self.compute.must("GET", self.path)["volumeAttachments"]]


def killed_at(cloud: Cloud, service: str, what: Callable[[], Any]) -> None:
    """The agent of that service dies a moment after that was asked for; the supervisor starts it again."""
    found = [one for one in processes.everyone() if str(cloud.config) in (words := one.command()) and service in words]
    assert found, f"{service} runs"
    what()
    time.sleep(0.05)
    for one in found:
        one.send(signal.SIGKILL)


@pytest.mark.parametrize("cloud", KINDS, indirect=True)
def test_an_agent_is_killed_at_an_attachment_and_volumes_move_with_their_server(cloud: Cloud) -> None:
    guest = Guest(cloud)
    one, two = guest.volume(), guest.volume()
    guest.attach(one)
    guest.until(one, "in-use")
    backend = f"cinder-volume@{cloud.choice.storage}"
    killed_at(cloud, backend, lambda: guest.attach(two))
    guest.until(two, "in-use")
    assert wait_for(guest.backend_is_up, SOON_S), "a move is refused while a backend of its volumes is down"
    source = guest.compute.host_of(guest.id)
    guest.compute.migrate(guest.id)
    moved = guest.compute.wait_migrated(guest.id)
    assert moved["status"] == "completed", cloud.log.read_text()[-3000:]
    server = guest.compute.wait(guest.id, "ACTIVE")
    assert server["OS-EXT-SRV-ATTR:host"] != source
    said = len(guest.ticks())
    assert wait_for(lambda: len(guest.ticks()) > said, SOON_S), "it goes on there"
    assert sorted(guest.has()) == sorted((one, two))
    for volume in (one, two):
        assert guest.compute.call("DELETE", f"{guest.path}/{volume}")[0] == 202
        guest.until(volume, "available")
    guest.compute.delete(guest.id)
    assert guest.compute.call("DELETE", f"{CINDER}/volumes/{one}")[0] == 202
    assert wait_for(lambda: guest.compute.call("GET", f"{CINDER}/volumes/{one}")[0] == 404, SOON_S)
    assert guest.compute.must("GET", "/droveway/v1/audit")["findings"] == []
    if cloud.choice.storage == "ceph":
        left = cloud.storage.ceph().ask("rbd", "-p", ROOTS, "ls").split()
        assert [name for name in left if not name.startswith("image-")] == []
    guest.compute.close()


@pytest.mark.full
@pytest.mark.parametrize("cloud", KINDS, indirect=True)
def test_volumes_are_kept_while_the_cloud_is_down(cloud: Cloud) -> None:
    guest = Guest(cloud)
    one = guest.volume()
    guest.compute.delete(guest.id)
    guest.compute.close()
    cloud.down()
    cloud.up(simulated=False, foreground=False, quiet=True)
    again = Compute(cloud.port, cloud.clouds_yaml)
    assert again.must("GET", f"{CINDER}/volumes/{one}")["volume"]["status"] == "available"
    again.close()
