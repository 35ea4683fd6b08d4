"""What the rows share: clouds, flavors, and one migration from POST to completed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.claims import progress
from benchmarks.cloud_rows.bare_guest import BareGuest
from benchmarks.network_rows.simulated_ports import network_id
from lab.cloud import Cloud
from lab.compute import Compute
from lab.demo import own_cloud
from lab.processes import wait_for
from lab.quickstart import NETWORK

SETTLE_S, ENDS_S, READY_S = 5.0, 180.0, 30.0
LOOK_AFTER_S = 0.35


@contextlib.contextmanager
def real_cloud(*, apart: bool = False, storage: str | None = None) -> Iterator[tuple[Cloud, Compute]]:
    """Two real hosts; `apart`: each with an instance store of its own."""
    with own_cloud() as cloud:
        if storage is not None:
            cloud.choose(None, None, storage)
        if apart:
            cloud.instances = cloud.lab.directory / "instances"
        cloud.up(simulated=False, foreground=False, quiet=True)
        compute = Compute(cloud.port, cloud.clouds_yaml)
        assert wait_for(lambda: _has_networks(cloud, compute), READY_S), "the network agents are not up"
        yield cloud, compute
        compute.close()


def _has_networks(cloud: Cloud, compute: Compute) -> bool:
    """Its hosts can carry servers before they can carry interfaces."""
    found = compute.must("GET", f"{NETWORK}/agents")["agents"]
    return len([one for one in found if one["alive"]]) >= len(cloud.lab.hosts)


def flavor(compute: Compute, ram_mb: int, disk_gb: int = 1) -> str:
    """Of that size; made when it is not there."""
    name = f"of-{ram_mb}-{disk_gb}"
    if compute.call("GET", f"/compute/v2.1/flavors/{name}")[0] == 200:
        return name
    body = {"flavor": {"id": name, "name": name, "ram": ram_mb, "disk": disk_gb, "vcpus": 1}}
    return str(compute.must("POST", "/compute/v2.1/flavors", body)["flavor"]["id"])


def on_network(compute: Compute) -> dict[str, Any]:
    """Of a create: one interface."""
    return {"networks": [{"uuid": network_id(compute)}]}


def move(compute: Compute, server: str, timeout_s: float = ENDS_S) -> float:
    """POST to completed, in milliseconds."""
    began = time.monotonic()
    compute.migrate(server)
    time.sleep(LOOK_AFTER_S)  # none is done sooner, and a client that looks all the time slows it down
    status = compute.wait_migrated(server, timeout_s)["status"]
    took_ms = (time.monotonic() - began) * 1000
    assert status == "completed", f"the migration ended as {status}"
    compute.wait(server, "ACTIVE")
    return took_ms


def in_turn(pairs: int, what: str, ours: Callable[[], float], bare: Callable[[], float]) -> tuple[list[float], ...]:
    """What each pair gave, ours and bare libvirt's; which of the two goes first changes from pair to pair,
    and ours begins: a host on which no guest was lacks what it makes for the first one."""
    found: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs):
        acts = [(found[1], bare), (found[0], ours)]
        for into, act in acts if pair % 2 else reversed(acts):
            into.append(act())
        progress(f"{what}, pair {pair + 1} of {pairs}: ours {found[0][-1]:.0f} ms, bare libvirt {found[1][-1]:.0f}")
    return found


def side_by_side(compute: Compute, server: str, bare: BareGuest, pairs: int, what: str) -> tuple[list[float], ...]:
    """Both have booted; total times in milliseconds."""
    time.sleep(SETTLE_S)
    try:
        return in_turn(pairs, what, lambda: move(compute, server), bare.move)
    finally:
        bare.end()
