"""The first cloud: how fast it is up, how much memory it holds, what a server and a migration cost.

The peer is Nova 34.0.0, whose figures for the same acts stand in the notes (measured once on this kind of machine, with
its fake driver). Live migration is compared in the same run with bare libvirt moving a guest of the same shape
between the same two hosts, in turn.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.claims import Claim, median, progress, pss_mib
from benchmarks.cloud_rows.bare_guest import BareGuest
from benchmarks.cloud_rows.program import ROUNDS, by_service, cpu_ms, program
from lab.client import Client
from lab.cloud import CLONE, Cloud
from lab.compute import Compute
from lab.demo import own_cloud

CREATES, MOVES, PAIRS, SEEDS = 100, 60, 16, 200
# Of servers alone as before there were networks and volumes; a dir backend a host, and one backup service.
MEMORY_MIB = {"servers": 220, "networks": 80, "volumes": 2 * 30 + 25}
RATE_MIN = 400  # of the simulation, on a busy machine
DONE_S = 0.04
SETTLE_S = 5.0
LOOK_AFTER_S = 0.35
NEEDS = ("hosts",)


def measure() -> Iterator[Claim]:
    with own_cloud() as cloud:
        yield from _first_minutes(cloud)
        yield from _real_migrations(cloud)
    with own_cloud() as cloud:
        yield from _simulated(cloud)
    yield from _seeds()


# -- up, and at rest --------------------------------------------------------------------------------------------------
def _first_minutes(cloud: Cloud) -> list[Claim]:
    """`./dev up` is started as a user would; everything is timed from that moment, from outside."""
    progress("./dev up")
    began = time.monotonic()
    environment = {**os.environ, "DROVEWAY_DIR": str(cloud.home)}
    up = subprocess.Popen([str(CLONE / "dev"), "up"], env=environment, stdout=subprocess.DEVNULL)
    while not (cloud.home / "port").exists() or not Client(cloud.port).answers():
        time.sleep(0.01)
    answers_s = time.monotonic() - began
    while not cloud.clouds_yaml.exists():
        time.sleep(0.01)
    compute = Compute(cloud.port, cloud.clouds_yaml)
    while not _image_is_active(compute):
        time.sleep(0.02)
    while Client.usable_hosts(_logged_in(cloud)) == 0:
        time.sleep(0.02)
    server = compute.create("first", compute.image_id())
    compute.wait(server, "ACTIVE")
    active_s = time.monotonic() - began
    console = cloud.lab.shared / "instances" / server / "console.log"
    while not console.exists() or "BOOTED" not in console.read_text(errors="replace"):
        time.sleep(0.01)
    booted_s = time.monotonic() - began
    up.wait(60)
    compute.delete(server)
    time.sleep(SETTLE_S)
    return [
        Claim("./dev up: API answers", answers_s, 4.0, "s"),
        Claim("./dev up: first real guest ACTIVE", active_s, 7.0, "s"),
        Claim("./dev up: its BOOTED on the console", booted_s, 10.0, "s"),
        *(
            Claim(f"memory at rest, two hosts: {what}", pss_mib(pids), MEMORY_MIB[what], "MiB", _in_memory(what, pids))
            for what, pids in by_service(cloud).items()
        ),
    ]


def _in_memory(what: str, pids: list[int]) -> str:
    peer = "; Nova: 1,438 with one host" if what == "servers" else ""
    return f"PSS of {len(pids)} processes without libvirtd and dnsmasq{peer}"


def _image_is_active(compute: Compute) -> bool:
    found = compute.must("GET", "/image/v2/images?name=tiny")["images"]
    return any(one["status"] == "active" for one in found)


def _logged_in(cloud: Cloud) -> Client:
    client = Client(cloud.port)
    client.log_in(cloud.clouds_yaml)
    return client


# -- real migrations --------------------------------------------------------------------------------------------------
def _real_migrations(cloud: Cloud) -> list[Claim]:
    """One guest of each kind, moved in turn: ours by POST, the other by libvirt alone on the same two hosts."""
    cloud.up(simulated=False, foreground=False, quiet=True)
    compute = Compute(cloud.port, cloud.clouds_yaml)
    server = compute.create("mover", compute.image_id())
    compute.wait(server, "ACTIVE")
    bare = BareGuest(cloud, server)
    time.sleep(SETTLE_S)  # both have booted
    ours_ms: list[float] = []
    bare_ms: list[float] = []
    try:
        for pair in range(PAIRS):
            progress(f"live migration, pair {pair + 1} of {PAIRS}")
            acts = [lambda: bare_ms.append(bare.move()), lambda: ours_ms.append(_move(compute, server))]
            for act in acts if pair % 2 else reversed(acts):  # whoever goes first pays for the pause before it
                act()
    finally:
        bare.end()
    compute.delete(server)
    floor = median(bare_ms)
    return [
        Claim(
            "real live migration, POST to completed",
            median(ours_ms),
            floor * 1.15 + 100,
            "ms",
            f"median of {PAIRS} interleaved pairs; bare libvirt: {floor:.0f} ms, ratio {median(ours_ms) / floor:.2f}",
        ),
    ]


def _move(compute: Compute, server: str) -> float:
    """POST to completed, in milliseconds."""
    began = time.monotonic()
    compute.migrate(server)
    time.sleep(LOOK_AFTER_S)  # no migration is done sooner, and a client that looks all the time slows it down
    status = compute.wait_migrated(server)["status"]
    took_ms = (time.monotonic() - began) * 1000
    assert status == "completed", f"the migration ended as {status}"
    compute.wait(server, "ACTIVE")
    return took_ms


# -- on simulated hosts -----------------------------------------------------------------------------------------------
def _simulated(cloud: Cloud) -> list[Claim]:
    """What the program itself costs: hosts that take no time, one request after the other.

    Latency is measured with a client that looks every few milliseconds; CPU in rounds of their own, with a client that
    looks once when it must be done, because each look costs the program too.
    """
    progress("servers on simulated hosts")
    cloud.up(simulated=True, foreground=False, quiet=True)
    compute = Compute(cloud.port, cloud.clouds_yaml)
    image = compute.image_id()
    servers, times_ms = [], []
    for _ in range(CREATES):
        began = time.monotonic()
        servers.append(compute.create("one", image))
        compute.wait(servers[-1], "ACTIVE", pause_s=0.005)
        times_ms.append((time.monotonic() - began) * 1000)
    pids = program(cloud)
    create_ms = cpu_ms(pids, CREATES, lambda _: compute.wait(_created(compute, image), "ACTIVE"))
    progress("live migrations on simulated hosts")
    move_ms = cpu_ms(pids, MOVES, lambda number: _moved(compute, servers[number % 10]))
    return [
        Claim("POST /servers to ACTIVE, simulated hosts: p50", median(times_ms), 40, "ms", "Nova: 415"),
        Claim(
            "POST /servers to ACTIVE: CPU of the program",
            create_ms,
            12,
            "ms",
            f"median of {ROUNDS} rounds, one look each; Nova: 430",
        ),
        Claim(
            "POST os-migrateLive to completed: CPU",
            move_ms,
            15,
            "ms",
            f"median of {ROUNDS} rounds, one look each; Nova: 764",
        ),
    ]


def _created(compute: Compute, image: str) -> str:
    server = compute.create("one", image)
    time.sleep(DONE_S)
    return server


def _moved(compute: Compute, server: str) -> None:
    compute.migrate(server)
    time.sleep(DONE_S)
    status = compute.wait_migrated(server)["status"]
    assert status == "completed", f"the migration ended as {status}"


# -- simulation -------------------------------------------------------------------------------------------------------
def _seeds() -> list[Claim]:
    """A rate, not a time: a seed that plays more may take longer, and each command of it may not."""
    progress(f"{SEEDS} simulation seeds")
    command = [sys.executable, "-m", "droveway.simulation", "--seeds", str(SEEDS)]
    said = subprocess.run(command, check=True, cwd=Path(CLONE), stdout=subprocess.PIPE, text=True, timeout=900).stdout
    sys.stderr.write(said)
    found = re.search(r"^([\d,]+) commands to hosts a CPU second \((.*)\)$", said, re.MULTILINE)
    assert found is not None, "the simulation says its rate"
    rate = float(found[1].replace(",", ""))
    return [Claim("simulation: commands to hosts a CPU second", rate, RATE_MIN, "1/s", found[2], is_floor=True)]
