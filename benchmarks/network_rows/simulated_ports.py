"""Servers with a port on simulated hosts: what the program itself costs."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.claims import Claim, median, progress
from benchmarks.cloud_rows.program import ROUNDS, cpu_ms, program
from lab.cloud import Cloud
from lab.compute import Compute
from lab.quickstart import INSIDE, NETWORK

CREATES = 100
DONE_S = 0.04


def network_id(compute: Compute) -> str:
    return str(compute.must("GET", f"{NETWORK}/networks?name={INSIDE}")["networks"][0]["id"])


def measure(cloud: Cloud) -> Iterator[Claim]:
    progress("servers with a port on simulated hosts")
    cloud.up(simulated=True, foreground=False, quiet=True)
    compute = Compute(cloud.port, cloud.clouds_yaml)
    image, networks = compute.image_id(), [{"uuid": network_id(compute)}]
    times_ms = []
    for _ in range(CREATES):
        began = time.monotonic()
        server = compute.create("one", image, networks=networks)
        compute.wait(server, "ACTIVE", pause_s=0.005)
        times_ms.append((time.monotonic() - began) * 1000)

    def create(_: int) -> None:
        server = compute.create("one", image, networks=networks)
        time.sleep(DONE_S)
        compute.wait(server, "ACTIVE")

    pids = program(cloud)
    used_ms = cpu_ms(pids, CREATES, create)
    yield Claim(
        "create with a port, simulated hosts, POST to ACTIVE: p50",
        median(times_ms),
        20,
        "ms",
        "Nova with Neutron: 1,570",
    )
    note = f"median of {ROUNDS} rounds, one look each; Nova with Neutron: 1,165"
    yield Claim("create with a port: CPU of the program", used_ms, 10, "ms", note)
