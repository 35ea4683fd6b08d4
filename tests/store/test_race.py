"""Two processes at one database: of each thing that only one may have, one gets it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from droveway.domain.model import Flavor
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.compute import instances
from droveway.store.compute.instances import NewInstance
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.fleet import host_reports, hosts, services
from tests.api.world import RESOURCES
from tests.store.racer import HOST, ROUNDS

ROOT = Path(__file__).resolve().parent.parent.parent
SAGAS = 50


def seed(tx: Tx) -> None:
    hosts.join(tx, HOST, "nova")
    services.register(tx, HOST, "nova-compute", "nova")
    tx.execute(services.services.update().values(is_up=True))
    host_reports.report(tx, HOST, msgspec.to_builtins(RESOURCES), True, "")
    for number in range(SAGAS):
        instances.create(tx, NewInstance("p", "u", f"g{number}", f"g{number}", Flavor("1", "f", 1, 1, 1), None))


async def claims_of(url: str) -> int:
    store = DiskStore(url, SystemClock(), SystemNames())
    row = await store.read(hosts.get, HOST)
    await store.close()
    return int(row["claims"])


async def seeded(url: str) -> None:
    store = DiskStore(url, SystemClock(), SystemNames())
    await store.run(seed)
    await store.close()


@pytest.mark.servers
def test_two_processes_never_get_the_same(url: str) -> None:
    asyncio.run(seeded(url))
    before = asyncio.run(claims_of(url))
    racers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.store.racer", url, name],
            cwd=ROOT,
            env=os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("one", "two")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == b"ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()
        racer.stdin = None
    one, two = (json.loads(racer.communicate(timeout=60)[0]) for racer in racers)

    def both(what: str) -> list[Any]:
        return sorted([*one[what], *two[what]])

    assert both("leases") == list(range(ROUNDS))
    assert both("numbers") == list(range(1, 2 * ROUNDS + 1))
    assert len(both("sagas")) == len(set(both("sagas"))) == SAGAS
    assert len(both("claims")) == len(set(both("claims"))) == asyncio.run(claims_of(url)) - before
    assert min(len(one["claims"]), len(two["claims"])) > 0
