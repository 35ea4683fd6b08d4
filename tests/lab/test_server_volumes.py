"""Volumes of real guests on hosts that share nothing but the volumes: attached while the guest runs, begun from, moved
with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.cloud import Cloud
from lab.compute import Compute, ticks
from lab.demo import own_cloud
from lab.hosts import obstacle
from lab.processes import wait_for

REASON = obstacle()
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}"),
]
SOON_S = 60.0
NOVA, CINDER = "/compute/v2.1", "/volume/v3"


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


def volume(compute: Compute, **more: Any) -> str:
    made = compute.must("POST", f"{CINDER}/volumes", {"volume": {"size": 1, **more}})["volume"]["id"]
    until(lambda: status(compute, made), "available")
    return str(made)


def status(compute: Compute, volume_id: str) -> str:
    return str(compute.must("GET", f"{CINDER}/volumes/{volume_id}")["volume"]["status"])


def until(what: Callable[[], str], wanted: str) -> float:
    """How long it took."""
    began_s = time.monotonic()
    assert wait_for(lambda: what() == wanted, SOON_S), what()
    return time.monotonic() - began_s


def shown(compute: Compute, server: str) -> dict[str, Any]:
    return dict(compute.must("GET", f"{NOVA}/servers/{server}")["server"])


def ticks_of(compute: Compute, server: str) -> list[int]:
    body = {"os-getConsoleOutput": {"length": None}}
    return ticks(compute.must("POST", f"{NOVA}/servers/{server}/action", body)["output"])


def test_a_guest_gets_volumes_while_it_runs_begins_from_one_and_moves_with_it(apart: Cloud, compute: Compute) -> None:
    image = compute.image_id("tiny")
    root = {"uuid": image, "source_type": "image", "destination_type": "volume", "volume_size": 1, "boot_index": 0}
    body: dict[str, Any] = {"name": "roaming", "flavorRef": "tiny", "networks": "none"}
    body["block_device_mapping_v2"] = [{**root, "delete_on_termination": True}]
    server = str(compute.must("POST", f"{NOVA}/servers", {"server": body})["server"]["id"])
    until(lambda: str(shown(compute, server)["status"]), "ACTIVE")
    before = shown(compute, server)["OS-EXT-SRV-ATTR:host"]
    assert wait_for(lambda: len(ticks_of(compute, server)) > 3, SOON_S), "it has booted from its volume"

    one = volume(compute)
    path = f"{NOVA}/servers/{server}/os-volume_attachments"
    began_s = time.monotonic()
    compute.must("POST", path, {"volumeAttachment": {"volumeId": one}})
    until(lambda: status(compute, one), "in-use")
    print(f"POST to in-use: {(time.monotonic() - began_s) * 1000:.0f} ms")

    compute.migrate(server)
    assert compute.wait_migrated(server)["status"] == "completed"
    compute.wait(server, "ACTIVE")
    after = shown(compute, server)["OS-EXT-SRV-ATTR:host"]
    assert (shown(compute, server)["status"], after != before) == ("ACTIVE", True)
    said = len(ticks_of(compute, server))
    assert wait_for(lambda: len(ticks_of(compute, server)) > said, SOON_S), "it goes on there"
    listed = compute.must("GET", path)["volumeAttachments"]
    assert [row["device"] for row in listed] == ["/dev/vda", "/dev/vdb"]

    assert compute.call("DELETE", f"{path}/{one}")[0] == 202
    until(lambda: status(compute, one), "available")
    own = shown(compute, server)["os-extended-volumes:volumes_attached"][0]["id"]
    compute.must("DELETE", f"{NOVA}/servers/{server}")
    assert wait_for(lambda: compute.call("GET", f"{CINDER}/volumes/{own}")[0] == 404, SOON_S), "it went with its server"
    assert compute.call("DELETE", f"{CINDER}/volumes/{one}")[0] == 202
