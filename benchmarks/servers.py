"""Servers as they are read at the API: a list of 1,000 with a port each, and one of them by 16 clients, beside Nova as
measured on the same kind of machine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import update

from benchmarks.claims import Claim, median, progress
from benchmarks.fleet_rows import clients
from benchmarks.liveness_rows.rig import end
from benchmarks.network_rows.api import Cloud
from droveway.domain.network.quota import NO_NETWORK_LIMITS
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.compute import flavors, instances, server_ports
from droveway.store.compute.instances import NewInstance
from droveway.store.compute.server_ports import NicRequest
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.schema import sagas

NEEDS = ()
SERVERS, CLIENTS = 1_000, 16
LISTS, RUNS, SHOWS = 5, 5, 4_000
IMAGE = "00000000-0000-4000-8000-000000000001"
DETAIL = "/compute/v2.1/servers/detail"


def measure() -> Iterator[Claim]:
    with tempfile.TemporaryDirectory() as directory:
        cloud = Cloud(Path(directory))
        try:
            progress(f"{SERVERS:,} servers with a port each")
            ids = _fill(cloud)
            yield from _lists(cloud, ids[0])
            yield from _shows(cloud, ids[0])
        finally:
            cloud.compute.close()
            end(cloud.process)


def _fill(cloud: Cloud) -> list[str]:
    """Rows as a boot leaves them; no guest is made."""
    network = cloud.make("networks", name="n")["id"]
    cloud.make("subnets", network_id=network, cidr="10.0.0.0/16", ip_version=4)
    project = cloud.compute.must("GET", "/identity/v3/auth/projects")["projects"][0]["id"]

    def write(tx: Tx, first: int, count: int) -> list[str]:
        flavor, made = flavors.as_model(flavors.get(tx, "tiny", None)), []
        for number in range(first, first + count):
            new = NewInstance(project, "u", f"s{number}", f"s{number}", flavor, IMAGE, metadata={"role": "web"})
            server_id = instances.create(tx, new)
            tx.execute(update(sagas).where(sagas.c.subject_id == server_id).values(status="done", ended=True))
            nics = (NicRequest(network_id=network),)
            server_ports.create(tx, instances.get(tx, server_id), nics, (), NO_NETWORK_LIMITS)
            values = {"host": "h1", "vm_state": "active", "task_state": None, "power_state": 1}
            instances.set_(tx, server_id, launched_at_us=tx.now_us, **values)
            made.append(server_id)
        return made

    async def fill() -> list[str]:
        store = DiskStore(f"sqlite:///{cloud.home}/droveway.sqlite", SystemClock(), SystemNames())
        try:
            return [one for first in range(0, SERVERS, 100) for one in await store.run(write, first, 100)]
        finally:
            await store.close()

    return asyncio.run(fill())


def _lists(cloud: Cloud, server_id: str) -> Iterator[Claim]:
    def listed() -> None:
        found = cloud.compute.must("GET", DETAIL)["servers"]
        assert len(found) == SERVERS, f"{len(found)} of {SERVERS} servers"
        assert all(server["addresses"] for server in found), "each has its port"

    def changed() -> None:
        cloud.compute.must(
            "PUT", f"/compute/v2.1/servers/{server_id}/metadata", {"metadata": {"n": str(next(numbers))}}
        )

    def fresh() -> None:
        changed()
        listed()

    numbers = itertools.count()
    fresh()
    change_ms = min(cloud.cpu_ms(lambda: [changed() for _ in range(LISTS)], LISTS) for _ in range(RUNS))
    used = [cloud.cpu_ms(lambda: [fresh() for _ in range(LISTS)], LISTS) - change_ms for _ in range(RUNS)]
    note = f"best of {RUNS}, median {median(used):.1f}; one was changed before each; Nova: 4,500 ms"
    yield Claim(f"GET {SERVERS:,} servers with a port each: CPU", min(used), 35.0, "ms", note)
    again = [cloud.cpu_ms(lambda: [listed() for _ in range(LISTS)], LISTS) for _ in range(RUNS)]
    note = f"best of {RUNS}, median {median(again):.1f}; with nothing written in between"
    yield Claim("... the same again: CPU", min(again), 10.0, "ms", note)


class _Shows(clients.Api):
    """What the clients send: the same server, again and again."""

    def __init__(self, cloud: Cloud, server_id: str) -> None:
        super().__init__(cloud.port, cloud.compute.token, "")
        self._bytes = self.request("GET", f"/compute/v2.1/servers/{server_id}")

    def create(self, number: int, count: int = 1) -> bytes:
        return self._bytes


def _shows(cloud: Cloud, server_id: str) -> Iterator[Claim]:
    progress(f"{CLIENTS} clients")
    api = _Shows(cloud, server_id)
    rates, used = [], []
    clients.storm(api, SHOWS // 8, CLIENTS)
    for _ in range(RUNS):
        took_s = 0.0

        def ask() -> None:
            nonlocal took_s
            began_s = time.monotonic()
            answers = clients.storm(api, SHOWS, CLIENTS)
            took_s = time.monotonic() - began_s
            with contextlib.suppress(StopIteration):
                wrong = next(one for one in answers if one.status != 200)
                raise AssertionError(json.loads(wrong.body))

        used.append(cloud.cpu_ms(ask, SHOWS))
        rates.append(SHOWS / took_s)
    note = f"best of {RUNS}, median {median(rates):.0f}; clients on the same machine; Nova: 10"
    yield Claim(f"GET a server by {CLIENTS} clients, one process", max(rates), 2_000.0, "/s", note, is_floor=True)
    yield Claim("GET a server: CPU", min(used), 0.45, "ms", f"best of {RUNS}, median {median(used):.2f}; Nova: 68 ms")
