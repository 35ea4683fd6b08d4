"""Block Storage as clients see it, on simulated backends: from a request until what was asked for is there, CPU of the
whole program; beside Cinder 29 with a fake driver as measured on the same kind of machine. And on real ones.

    --only ROWS     of: api,services,drivers,ceph,lvm,boots,io (api, services: without a real backend; from ceph
                    on: real guests)
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import update

from benchmarks.claims import Claim, cpu_seconds, median, progress
from benchmarks.fleet_rows import clients
from benchmarks.fleet_rows.rig import tree
from benchmarks.liveness_rows.rig import end, start, tail, wait_for
from benchmarks.volume_rows import attach, drivers, real, services
from droveway.domain.service_kinds import VOLUME
from droveway.domain.volume.quota import NO_VOLUME_LIMITS, VolumeQuotas
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.schema import sagas
from droveway.store.volume import making, volumes
from droveway.store.volume.making import NewVolume
from lab import servers
from lab.client import Client
from lab.compute import Compute

ROWS = ("api", "services", "drivers", *real.ROWS)
VOL = "/volume/v3"
READY_S, WITHIN_S, LOOK_S = 60.0, 60.0, 0.002
WARM, EACH, RUNS, ONE_BY_ONE = 20, 50, 3, 40
STORM, CLIENTS, STORMS = 100, 16, 5
LISTED, LISTS = 1_000, 5
CPU_BAR_MS, P50_BAR_MS, RATE_BAR, LIST_BAR_MS = 8.0, 15.0, 150.0, 20.0
CINDER_CPU_MS = {"volume": 168, "snapshot": 76, "copy": 208, "deletion": 73}


class Cloud:
    """The whole program: one process of API and control, and a volume service each for two backends."""

    def __init__(self, home: Path) -> None:
        (self.port,) = servers.free_ports(1)
        self.home, self.said = home, home / "said"
        unlimited = "\n".join(f"{name} = -1" for name in VolumeQuotas.__struct_fields__)
        hosts = "".join(
            f'[[host]]\nname = "{host}"\nhypervisor = "simulated"\nservices = ["nova-compute", "{VOLUME}@{backend}"]\n'
            f'[[host.backend]]\nname = "{backend}"\ndriver = "simulated"\ntotal_gb = 100000.0\n'
            for host, backend in (("h1", "fast"), ("h2", "slow"))
        )
        (home / "droveway.toml").write_text(
            f'state_path = "{home}"\nlog_level = "warning"\n[volume.quota]\n{unlimited}\n'
            f'[api]\nlisten = "127.0.0.1:{self.port}"\nclouds_yaml = "{home}/clouds.yaml"\n{hosts}'
        )
        command = [sys.executable, "-m", "droveway.main", "all", "--config", f"{home}/droveway.toml"]
        self.process = start(command, self.said)
        wait_for(lambda: Client(self.port).answers(), READY_S, lambda: tail(self.said))
        wait_for((home / "clouds.yaml").exists, READY_S, lambda: tail(self.said))
        self.compute = Compute(self.port, home / "clouds.yaml")
        wait_for(self._is_up, READY_S, lambda: tail(self.said))

    def _is_up(self) -> bool:
        found = self.compute.must("GET", f"{VOL}/os-services?binary={VOLUME}")["services"]
        return len(found) == 2 and all(one["state"] == "up" for one in found)

    def post(self, kind: str, **body: Any) -> str:
        made: str = self.compute.must("POST", f"{VOL}/{kind}", {kind[:-1]: body})[kind[:-1]]["id"]
        return made

    def statuses(self, kind: str) -> dict[str, str]:
        """Of all that there are."""
        return {one["id"]: one["status"] for one in self.compute.must("GET", f"{VOL}/{kind}/detail")[kind]}

    def wait(self, kind: str, ids: Sequence[str], wanted: str | None) -> None:
        """Until they are all so, or gone; asked for seldom, for the asking costs CPU as well."""

        def is_over() -> bool:
            there = self.statuses(kind)
            assert "error" not in there.values(), "one of them failed"
            return all(there.get(one) == wanted for one in ids)

        wait_for(is_over, WITHIN_S, lambda: tail(self.said))

    def cpu_ms(self, work: Callable[[], object], count: int) -> float:
        """Of all its processes, for each of so many."""
        pids = tree(self.process.pid)
        before = cpu_seconds(pids)
        work()
        return (cpu_seconds(pids) - before) * 1000 / count


def needs(arguments: Sequence[str] = ()) -> tuple[str, ...]:
    wanted = set(_wanted(arguments))
    found = ["hosts"] if wanted & set(real.ROWS) else []
    found += ["ceph"] if wanted - {"api", "services", "lvm"} else []
    return (*found, "lvm", "nbdkit") if "lvm" in wanted else tuple(found)


def measure(arguments: Sequence[str] = ()) -> Iterator[Claim]:
    return _rows(_wanted(arguments))


def _wanted(arguments: Sequence[str]) -> tuple[str, ...]:
    parser = argparse.ArgumentParser(
        prog="./dev bench volumes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(ROWS))
    found = tuple(parser.parse_args(arguments).only.split(","))
    for row in found:
        if row not in ROWS:
            parser.error(f"there are no rows {row}; there are {', '.join(ROWS)}")
    return found


def _rows(wanted: Sequence[str]) -> Iterator[Claim]:
    if "api" in wanted:
        yield from _simulated()
    if "services" in wanted:
        yield from services.rows()
    if "drivers" in wanted:
        yield from drivers.measure()
    yield from real.measure([row for row in wanted if row in real.ROWS])


def _simulated() -> Iterator[Claim]:
    with tempfile.TemporaryDirectory() as directory:
        cloud = Cloud(Path(directory))
        try:
            yield from _each(cloud)
            yield from _one_by_one(cloud)
            yield from _storm(cloud)
            yield from _lists(cloud)
            yield from attach.measure(cloud)
        finally:
            cloud.compute.close()
            end(cloud.process)


# -- what each costs --------------------------------------------------------------------------------------------------
def _each(cloud: Cloud) -> Iterator[Claim]:
    progress(f"{EACH} volumes, snapshots, copies and deletions")
    used: dict[str, list[float]] = {name: [] for name in CINDER_CPU_MS}
    _round(cloud, WARM)
    for _ in range(RUNS):
        for name, cost_ms in _round(cloud, EACH).items():
            used[name].append(cost_ms)
    words = {
        "volume": "POST volume until available",
        "snapshot": "POST snapshot until available",
        "copy": "volume from a snapshot until available",
        "deletion": "DELETE volume until gone",
    }
    for name, found in used.items():
        note = f"best of {RUNS}, median {median(found):.1f}; Cinder: {CINDER_CPU_MS[name]} ms"
        yield Claim(f"{words[name]}: CPU", min(found), CPU_BAR_MS, "ms", note)


def _round(cloud: Cloud, count: int) -> dict[str, float]:
    ids: dict[str, list[str]] = {"volume": [], "snapshot": [], "copy": []}

    def make() -> None:
        ids["volume"] = [cloud.post("volumes", size=1, name=f"v{number}") for number in range(count)]
        cloud.wait("volumes", ids["volume"], "available")

    def snapshot() -> None:
        ids["snapshot"] = [cloud.post("snapshots", volume_id=one) for one in ids["volume"]]
        cloud.wait("snapshots", ids["snapshot"], "available")

    def copy() -> None:
        ids["copy"] = [cloud.post("volumes", snapshot_id=one) for one in ids["snapshot"]]
        cloud.wait("volumes", ids["copy"], "available")

    def remove() -> None:
        for one in ids["copy"]:
            cloud.compute.must("DELETE", f"{VOL}/volumes/{one}")
        cloud.wait("volumes", ids["copy"], None)

    steps = {"volume": make, "snapshot": snapshot, "copy": copy, "deletion": remove}
    found = {name: cloud.cpu_ms(step, count) for name, step in steps.items()}
    for one in ids["volume"]:
        cloud.compute.must("DELETE", f"{VOL}/volumes/{one}?cascade=True")
    cloud.wait("volumes", ids["volume"], None)
    return found


def _one_by_one(cloud: Cloud) -> Iterator[Claim]:
    progress(f"{ONE_BY_ONE} volumes one by one")
    took_ms = []
    for _ in range(ONE_BY_ONE):
        began_s = time.monotonic()
        volume_id = cloud.post("volumes", size=1)
        while cloud.compute.must("GET", f"{VOL}/volumes/{volume_id}")["volume"]["status"] != "available":
            time.sleep(LOOK_S)
        took_ms.append((time.monotonic() - began_s) * 1000)
        cloud.compute.must("DELETE", f"{VOL}/volumes/{volume_id}")
    note = f"least {min(took_ms):.1f}; Cinder: 188 ms at best"
    yield Claim("POST volume until available: p50", median(took_ms), P50_BAR_MS, "ms", note)


# -- many clients -----------------------------------------------------------------------------------------------------
class _Posts(clients.Api):
    def __init__(self, cloud: Cloud) -> None:
        super().__init__(cloud.port, cloud.compute.token, "")
        self._bytes = self.request("POST", f"{VOL}/volumes", {"volume": {"size": 1}})

    def create(self, number: int, count: int = 1) -> bytes:
        return self._bytes


def _storm(cloud: Cloud) -> Iterator[Claim]:
    progress(f"{STORM} volumes by {CLIENTS} clients")
    posts, rates = _Posts(cloud), []
    for _ in range(STORMS):
        before = set(cloud.statuses("volumes"))
        began_s = time.monotonic()
        answers = clients.storm(posts, STORM, CLIENTS)
        assert all(one.status == 202 for one in answers), answers[0].body
        ids = sorted(set(cloud.statuses("volumes")) - before)
        assert len(ids) == STORM, f"{len(ids)} of {STORM} volumes"
        cloud.wait("volumes", ids, "available")
        rates.append(STORM / (time.monotonic() - began_s))
        for one in ids:
            cloud.compute.must("DELETE", f"{VOL}/volumes/{one}")
        cloud.wait("volumes", ids, None)
    note = f"best of {STORMS}, median {median(rates):.0f}; until all are available; Cinder: 9"
    yield Claim(f"{STORM} volumes by {CLIENTS} clients", max(rates), RATE_BAR, "/s", note, is_floor=True)


# -- lists ------------------------------------------------------------------------------------------------------------
def _lists(cloud: Cloud) -> Iterator[Claim]:
    progress(f"a list of {LISTED:,}")
    _fill(cloud)

    def listed() -> None:
        found = cloud.compute.must("GET", f"{VOL}/volumes/detail")["volumes"]
        assert len(found) == LISTED, f"{len(found)} of {LISTED} volumes"

    listed()
    used = [cloud.cpu_ms(lambda: [listed() for _ in range(LISTS)], LISTS) for _ in range(RUNS)]
    note = f"best of {RUNS}, median {median(used):.1f}; Cinder: 412 ms"
    yield Claim(f"GET {LISTED:,} volumes in detail: CPU", min(used), LIST_BAR_MS, "ms", note)


def _fill(cloud: Cloud) -> None:
    """Rows as a creation leaves them; nothing is made."""
    project = cloud.compute.must("GET", "/identity/v3/auth/projects")["projects"][0]["id"]
    kind = cloud.compute.must("GET", f"{VOL}/types/default")["volume_type"]

    def write(tx: Tx, first: int, count: int) -> None:
        for number in range(first, first + count):
            new = NewVolume(project, "u", 1, f"v{number}", volume_type=(kind["id"], kind["name"]), metadata={"a": "b"})
            row = making.create(tx, new, NO_VOLUME_LIMITS)
            tx.execute(update(sagas).where(sagas.c.subject_id == row["id"]).values(status="done", ended=True))
            volumes.set_(tx, row["id"], host="h1@fast", status="available", launched_at_us=tx.now_us)

    async def fill() -> None:
        store = DiskStore(f"sqlite:///{cloud.home}/droveway.sqlite", SystemClock(), SystemNames())
        try:
            for first in range(0, LISTED, 100):
                await store.run(write, first, 100)
        finally:
            await store.close()

    left = len(cloud.statuses("volumes"))
    assert left == 0, f"{left} volumes are left"
    asyncio.run(fill())
