"""Choosing and claiming in the store: what the boot saga writes when it chooses, with 10,000 hosts, on SQLite and on a
real PostgreSQL, both of which force to the disk what they have answered."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.claims import Claim, progress
from droveway.control.engine.nudges import Nudges
from droveway.control.scheduling.placer import Decision, Placer
from droveway.control.scheduling.requests import to_boot
from droveway.domain.liveness import State
from droveway.domain.model import Flavor, Resources, SagaKind
from droveway.domain.placement import PlacementSettings
from droveway.drivers.clock import SystemClock, SystemNames
from droveway.store.compute import instances, placements
from droveway.store.compute.instances import NewInstance
from droveway.store.engine.transaction import DiskStore, Tx
from droveway.store.fleet import host_reports, hosts, services
from droveway.store.fleet.services import Verdict
from droveway.store.upgrade import bring_up_to_date
from lab import postgresql, servers

HOSTS, AT_ONCE, WARM, WISHES_AT_ONCE = 10_000, 32, 32, 200
SINGLES, BATCHED = 400, 1_600
FLAVOR = Flavor("1", "small", 2, 4_096, 20)
SETTINGS = PlacementSettings()
BARS_PER_S = {"SQLite": 300, "PostgreSQL": 150}
BATCH_PER_S = 500


def _fill(tx: Tx) -> None:
    names = [f"host-{number}" for number in range(1, HOSTS + 1)]
    hosts.join_all(tx, names, "nova")
    services.register_all(tx, dict.fromkeys(names, (hosts.COMPUTE,)), "nova")
    services.record_verdicts(tx, [Verdict(name, hosts.COMPUTE, State.ALIVE, "it answers", tx.now_us) for name in names])
    for name in names:
        said = Resources("KVM", 7_000_000, name, 32, 131_072, 131_072, 2_000, 2_000, machine_types=("pc", "q35"))
        host_reports.report(tx, name, msgspec.to_builtins(said), True, "")


def _wish(tx: Tx) -> str:
    return instances.create(tx, NewInstance("p", "u", "guest", "guest", FLAVOR, None))


def _place(tx: Tx, placer: Placer, instance_id: str) -> Decision:
    """What the saga does in its first step: read, choose, claim, keep the reasons."""
    decision = placer.choose(tx, to_boot(tx, instances.get(tx, instance_id), {}))
    assert decision.host is not None, decision.reason
    instances.set_(tx, instance_id, host=decision.host, held_cells=None)
    placements.record(
        tx, instance_id, "saga", "p", decision.host, decision.body(SagaKind.BOOT, placer.settings), is_first=True
    )
    return decision


class _Measured:
    """One store with its placer."""

    def __init__(self, url: str) -> None:
        self.store = DiskStore(url, SystemClock(), SystemNames())
        nudges = Nudges()
        self.store.on_commit(nudges.call)
        self.placer = Placer(self.store, SystemClock(), nudges, SETTINGS, 1.0)
        self.races = 0

    async def open(self) -> float:
        """How long the placer takes to know all hosts."""
        await self.store.run(_fill)
        began = time.perf_counter()
        await self.placer.load()
        return time.perf_counter() - began

    async def one(self, instance_id: str) -> None:
        decision = await self.store.run(_place, self.placer, instance_id)
        self.placer.kept(decision)
        self.races += len(decision.races)

    async def wishes(self, count: int) -> list[str]:
        made: list[str] = []
        for start in range(0, count, WISHES_AT_ONCE):
            some = min(WISHES_AT_ONCE, count - start)
            made += await asyncio.gather(*(self.store.run(_wish) for _ in range(some)))
        return made

    async def bare_ms(self, ids: Sequence[str]) -> float:
        """The floor: wall time of a transaction that changes one row, one by one."""
        began = time.perf_counter()
        for instance_id in ids:
            await self.store.run(instances.set_, instance_id, description="changed")
        return (time.perf_counter() - began) * 1000 / len(ids)

    async def each_ms(self, ids: Sequence[str], at_once: int) -> tuple[float, float]:
        """Wall time and CPU time of this process for one placement, so many being under way at once."""
        left = list(ids)

        async def client() -> None:
            while left:
                await self.one(left.pop())

        began, began_cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client() for _ in range(at_once)))
        times_s = time.perf_counter() - began, time.process_time() - began_cpu
        return times_s[0] * 1000 / len(ids), times_s[1] * 1000 / len(ids)


async def _rows(kind: str, url: str) -> list[Claim]:
    measured = _Measured(url)
    load_s = await measured.open()
    refreshing = asyncio.create_task(measured.placer.run())
    try:
        await measured.each_ms(await measured.wishes(WARM), 1)
        singles = await measured.wishes(SINGLES)
        bare_ms = await measured.bare_ms(singles)
        single_ms, single_cpu_ms = await measured.each_ms(singles, 1)
        batched_ms, batched_cpu_ms = await measured.each_ms(await measured.wishes(BATCHED), AT_ONCE)
        facts = await measured.store.read(hosts.facts_of_all)
    finally:
        refreshing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await refreshing
        await measured.store.close()
    guests = sum(one.instances for one in facts)
    assert guests == WARM + SINGLES + BATCHED, guests
    spread = max(one.instances for one in facts) - min(one.instances for one in facts)
    return [
        Claim(
            f"{kind}: place and claim among {HOSTS:,} hosts, one by one",
            single_ms,
            1000 / BARS_PER_S[kind],
            "ms",
            f"{1000 / single_ms:,.0f} a second, bar {BARS_PER_S[kind]}; wall, on the disk, reasons kept; a "
            f"write of one row alone {bare_ms:.2f} ms; CPU {single_cpu_ms:.2f} ms; {measured.races} races lost; "
            f"all hosts known after {load_s:.1f} s",
        ),
        Claim(
            f"{kind}: ... {AT_ONCE} at once",
            batched_ms,
            1000 / BATCH_PER_S,
            "ms",
            f"{1000 / batched_ms:,.0f} a second, bar {BATCH_PER_S}; CPU {batched_cpu_ms:.2f} ms; most on a host less "
            f"least: {spread}",
        ),
    ]


@contextlib.contextmanager
def _databases() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory(prefix="droveway-bench-") as directory, contextlib.ExitStack() as stack:
        urls = {"SQLite": f"sqlite:///{Path(directory)}/placement.sqlite"}
        obstacle = servers.obstacle("postgresql")
        if obstacle:
            progress(f"no PostgreSQL: {obstacle}")
        else:
            urls["PostgreSQL"] = stack.enter_context(postgresql.server(is_safe=True)).create("placement")
        yield urls


def measure() -> list[Claim]:
    claims = []
    with _databases() as urls:
        for kind, url in urls.items():
            progress(f"placing and claiming on {kind}")
            bring_up_to_date(url)
            claims += asyncio.run(_rows(kind, url))
    return claims
