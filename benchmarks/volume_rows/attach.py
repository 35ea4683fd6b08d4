"""Attaching and detaching, to imagined guests that run: CPU of the whole program, and from POST until it is in use.
To a real guest: lab, in tests/lab/test_server_volumes.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from benchmarks.claims import Claim, median, progress
from lab.client import Client
from lab.compute import Compute

SERVERS, EACH, RUNS, ONE_BY_ONE, LOOK_S = 8, 6, 3, 20, 0.002
CPU_BAR_MS, P50_BAR_MS = 10.0, 50.0
NOVA_AND_CINDER_MS = {"attach": "266 to 316", "detach": "185 to 210"}
NOVA = "/compute/v2.1"


class Cloud(Protocol):
    """Of benchmarks/volumes.py."""

    port: int
    home: Path
    compute: Compute

    def post(self, kind: str, **body: Any) -> str: ...
    def statuses(self, kind: str) -> dict[str, str]: ...
    def wait(self, kind: str, ids: list[str], wanted: str | None) -> None: ...
    def cpu_ms(self, work: Callable[[], object], count: int) -> float: ...


def measure(cloud: Cloud) -> Iterator[Claim]:
    progress(f"{SERVERS * EACH} volumes to {SERVERS} servers, and back")
    servers = _servers(cloud)
    volumes = [cloud.post("volumes", size=1) for _ in range(SERVERS * EACH)]
    cloud.wait("volumes", volumes, "available")
    pairs = [(servers[number % SERVERS], one) for number, one in enumerate(volumes)]
    _attach(cloud, pairs)
    _detach(cloud, pairs)
    used: dict[str, list[float]] = {"attach": [], "detach": []}
    for _ in range(RUNS):
        used["attach"].append(cloud.cpu_ms(lambda: _attach(cloud, pairs), len(pairs)))
        used["detach"].append(cloud.cpu_ms(lambda: _detach(cloud, pairs), len(pairs)))
    for what, found in used.items():
        note = f"best of {RUNS}, median {median(found):.1f}; Nova and Cinder: {NOVA_AND_CINDER_MS[what]} ms"
        yield Claim(f"{what} a volume, simulated: CPU", min(found), CPU_BAR_MS, "ms", note)
    yield _one_by_one(cloud, servers[0], volumes[0])
    for server in servers:
        cloud.compute.delete(server)
    for one in volumes:
        cloud.compute.must("DELETE", f"/volume/v3/volumes/{one}")
    cloud.wait("volumes", volumes, None)


def _servers(cloud: Cloud) -> list[str]:
    client, path = Client(cloud.port), cloud.home / "tiny.raw"
    client.log_in(cloud.home / "clouds.yaml")
    path.write_bytes(bytes(4096))
    client.upload("tiny", path)
    image = cloud.compute.image_id()
    made = [cloud.compute.create(f"s{number}", image) for number in range(SERVERS)]
    for server in made:
        cloud.compute.wait(server, "ACTIVE")
    return made


def _of(server: str) -> str:
    return f"{NOVA}/servers/{server}/os-volume_attachments"


def _attach(cloud: Cloud, pairs: list[tuple[str, str]]) -> None:
    for server, one in pairs:
        cloud.compute.must("POST", _of(server), {"volumeAttachment": {"volumeId": one}})
    cloud.wait("volumes", [one for _, one in pairs], "in-use")


def _detach(cloud: Cloud, pairs: list[tuple[str, str]]) -> None:
    for server, one in pairs:
        cloud.compute.must("DELETE", f"{_of(server)}/{one}")
    cloud.wait("volumes", [one for _, one in pairs], "available")


def _one_by_one(cloud: Cloud, server: str, volume: str) -> Claim:
    took_ms = []
    for _ in range(ONE_BY_ONE):
        began_s = time.monotonic()
        cloud.compute.must("POST", _of(server), {"volumeAttachment": {"volumeId": volume}})
        while cloud.compute.must("GET", f"/volume/v3/volumes/{volume}")["volume"]["status"] != "in-use":
            time.sleep(LOOK_S)
        took_ms.append((time.monotonic() - began_s) * 1000)
        _detach(cloud, [(server, volume)])
    return Claim(
        "attach, simulated: POST until in use, p50", median(took_ms), P50_BAR_MS, "ms", f"least {min(took_ms):.1f}"
    )
