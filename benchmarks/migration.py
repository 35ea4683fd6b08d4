"""Live migration beside bare libvirt, in turn on the same two hosts: total time, the guest's longest silence, a guest
that writes faster than it is copied, and what a migration costs control.

`--quick`: a fifth of the pairs, for a look; its rows are no figures for the docs.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.claims import Claim, median, progress
from benchmarks.cloud_rows.bare_guest import BareGuest
from benchmarks.cloud_rows.program import ROUNDS, cpu_ms, program
from benchmarks.network_rows import moved
from droveway.domain.migration_ladder import POLICY_KEY
from lab.cloud import Cloud
from lab.compute import Compute
from lab.demo import own_cloud
from lab.processes import wait_for

NEEDS = ("hosts",)
PAIRS, MOVES, WRITERS = 10, 60, 3
QUICK = 5  # times fewer
SETTLE_S, BOOTS_S, ENDS_S = 5.0, 120.0, 120.0
LOOK_AFTER_S, DONE_S = 0.35, 0.04
LINK_MIB_S, WRITTEN_MIB = 16, 256
WRITES = (
    f"#!/bin/sh\ndd if=/dev/urandom of=/tmp/blob bs=1M count={WRITTEN_MIB}\necho WRITTEN >/dev/console\n"
    f"while :; do dd if=/dev/urandom of=/tmp/blob bs=1M count={WRITTEN_MIB} conv=notrunc 2>/dev/null; done &\n"
)


def measure(arguments: list[str]) -> Iterator[Claim]:
    fewer = QUICK if "--quick" in arguments else 1
    with own_cloud() as cloud:
        cloud.up(simulated=False, foreground=False, quiet=True)
        compute = Compute(cloud.port, cloud.clouds_yaml)
        for ram_mb in (128, 512):
            yield _total(cloud, compute, ram_mb, PAIRS // fewer)
        yield _writing(cloud, compute, -(-WRITERS // fewer))
        if fewer == 1:
            yield _silence(cloud)
    with own_cloud() as cloud:
        yield _cost(cloud, MOVES // fewer)


def _flavor(compute: Compute, ram_mb: int) -> str:
    name = f"of-{ram_mb}"
    body = {"flavor": {"id": name, "name": name, "ram": ram_mb, "disk": 1, "vcpus": 1}}
    return str(compute.must("POST", "/compute/v2.1/flavors", body)["flavor"]["id"])


def _total(cloud: Cloud, compute: Compute, ram_mb: int, pairs: int) -> Claim:
    """POST to completed of an idle guest on a shared store, and libvirt's own call."""
    server = compute.create("mover", compute.image_id(), _flavor(compute, ram_mb))
    compute.wait(server, "ACTIVE")
    bare = BareGuest(cloud, server)
    time.sleep(SETTLE_S)  # both have booted
    ours_ms: list[float] = []
    bare_ms: list[float] = []
    try:
        for pair in range(pairs):
            progress(f"{ram_mb} MiB, pair {pair + 1} of {pairs}")
            acts: list[Callable[[], None]] = [
                lambda: bare_ms.append(bare.move()),
                lambda: ours_ms.append(_move(compute, server)),
            ]
            for act in acts if pair % 2 else reversed(acts):
                act()
    finally:
        bare.end()
    compute.delete(server)
    floor = median(bare_ms)
    note = f"{pairs} pairs in turn; bare libvirt {floor:.0f} ms, ratio {median(ours_ms) / floor:.2f}"
    return Claim(f"{ram_mb} MiB idle, shared store, POST to completed", median(ours_ms), floor * 1.1 + 60, "ms", note)


def _move(compute: Compute, server: str, timeout_s: float = ENDS_S) -> float:
    """POST to completed, in milliseconds."""
    began = time.monotonic()
    compute.migrate(server)
    time.sleep(LOOK_AFTER_S)  # none is done sooner, and a client that looks all the time slows it down
    status = compute.wait_migrated(server, timeout_s)["status"]
    took_ms = (time.monotonic() - began) * 1000
    assert status == "completed", f"the migration ended as {status}"
    compute.wait(server, "ACTIVE")
    return took_ms


def _writing(cloud: Cloud, compute: Compute, times: int) -> Claim:
    """512 MiB, of which 256 are written over and over; the link takes 16 MiB a second before post-copy."""
    own: dict[str, Any] = {"config_drive": True, "user_data": base64.b64encode(WRITES.encode()).decode()}
    server = compute.create("writer", compute.image_id(), "of-512", metadata={POLICY_KEY: "post-copy"}, **own)
    compute.wait(server, "ACTIVE")
    console = cloud.lab.shared / "instances" / server / "console.log"
    wrote = wait_for(lambda: console.exists() and "WRITTEN" in console.read_text(errors="replace"), BOOTS_S)
    assert wrote, f"the guest has not written {WRITTEN_MIB} MiB within {BOOTS_S:.0f} s"
    took_s = []
    for number in range(times):
        progress(f"a guest that writes, {number + 1} of {times}")
        host = cloud.lab.host(compute.host_of(server))
        limited = host.run("virsh", "-q", "-c", "qemu:///system", "migrate-setspeed", server, str(LINK_MIB_S))
        assert limited.returncode == 0, limited.stderr
        took_s.append(_move(compute, server) / 1000)
    compute.delete(server)
    note = f"median of {times}; auto-converge alone took 123 s with bare libvirt (measured once)"
    return Claim("512 MiB writing 256 MiB over 16 MiB/s, post-copy", median(took_s), 15, "s", note)


def _silence(cloud: Cloud) -> Claim:
    ours_ms, bare_ms = moved.gaps(cloud)
    floor = median(bare_ms)
    note = f"{len(ours_ms)} pairs in turn; bare libvirt {floor:.0f} ms, ours at worst {max(ours_ms):.0f}"
    return Claim("longest silence, as pings every 20 ms see it", median(ours_ms), floor * 1.15 + 10, "ms", note)


def _cost(cloud: Cloud, moves: int) -> Claim:
    progress("live migrations on simulated hosts")
    cloud.up(simulated=True, foreground=False, quiet=True)
    compute = Compute(cloud.port, cloud.clouds_yaml)
    servers = [compute.create(f"g{number}", compute.image_id()) for number in range(10)]
    for server in servers:
        compute.wait(server, "ACTIVE")

    def move(number: int) -> None:
        compute.migrate(servers[number % len(servers)])
        time.sleep(DONE_S)
        status = compute.wait_migrated(servers[number % len(servers)])["status"]
        assert status == "completed", f"the migration ended as {status}"

    took_ms = cpu_ms(program(cloud), moves, move)
    return Claim("CPU of the program a simulated migration", took_ms, 13, "ms", f"median of {ROUNDS} rounds; Nova: 764")
