"""Writes what the judge and the hosts say: joins, verdicts, reports, and once a minute the snapshot for Updated_At.

At rest nothing is written but that snapshot. What the store does not take is kept, the newest of each, and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec
import structlog
from sqlalchemy import RowMapping

from droveway.control.judge import Judge
from droveway.control.nudges import Nudges, wait
from droveway.control.observer import LivenessSettings, Observer
from droveway.domain.faults import Busy, Stale
from droveway.ports.bus import Report
from droveway.ports.clock import Clock
from droveway.store import hosts, leases, services
from droveway.store.services import Verdict
from droveway.store.transaction import Store, Tx

log = structlog.get_logger("droveway.liveness")
SNAPSHOT_S = 60.0
SNAPSHOT_AT_ONCE = 2500  # hosts in one transaction: a verdict does not wait for all of them
LEARN_S, LEARN_A_ROW_S = 60.0, 0.01  # between two readings of all rows: the more there are the rarer
AGAIN_S = 0.25  # after the store has refused
JUDGE = "judge"  # the lease


class Verdicts:
    def __init__(self, store: Store, clock: Clock, nudges: Nudges, observer: Observer,
                 settings: LivenessSettings) -> None:  # fmt: skip
        self._store, self._clock, self._nudges, self._observer = store, clock, nudges, observer
        self._zone = settings.default_zone
        self.stamps = True  # Updated_At is written here, not by a membership driver
        self.epoch: int | None = None  # of the lease `judge`, while this control holds it
        self.waiting: dict[tuple[str, str], Verdict] = {}
        self.stalled_since_s: float | None = None
        self.stalled_because = ""
        self._put_since: dict[tuple[str, str], Verdict] = {}  # since the last reading of the rows began
        self._forgotten = asyncio.Event()
        self._snapshot_due_s = self._learn_due_s = clock.monotonic_s() + SNAPSHOT_S
        self._snapped: dict[str, int] = {}  # beats of each host at the last snapshot
        self._gists: dict[str, Report] = {}  # of what each host last reported, in the store
        self._repeated: dict[str, Report] = {}  # said again since the last snapshot

    def put(self, verdict: Verdict) -> None:
        """To be written; a newer one of the same service replaces it."""
        self.waiting[verdict.host, verdict.binary] = self._put_since[verdict.host, verdict.binary] = verdict
        self._observer.to_write.set()

    async def run(self, judge: Judge) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write(judge), name="verdicts")
            group.create_task(self._look_back(judge), name="snapshots")

    async def _write(self, judge: Judge) -> None:
        while True:
            began_s = self._clock.monotonic_s()
            try:
                await self._once(judge)
                self._stalls("", began_s)
            except Busy as fault:
                self._stalls(fault.sentence, began_s)
                await self._clock.sleep(AGAIN_S)
                continue
            except Stale as fault:
                log.warning("this control judges no more", because=fault.sentence)
                self.give_up(judge)
            await wait(self._observer.to_write, SNAPSHOT_S)

    async def _look_back(self, judge: Judge) -> None:
        """The slow part, beside the verdicts."""
        while True:
            due_s = min(self._snapshot_due_s, self._learn_due_s)
            await wait(self._forgotten, max(0.0, due_s - self._clock.monotonic_s()))
            try:
                await self.look_back(judge)
            except Busy as fault:
                log.info("the snapshot waits for the store", because=fault.sentence)
                await self._clock.sleep(AGAIN_S)

    def give_up(self, judge: Judge) -> None:
        """Somebody else holds the lease."""
        self.epoch = None
        self.waiting.clear()
        judge.end()

    def _stalls(self, because: str, began_s: float) -> None:
        if because and self.stalled_since_s is None:
            self.stalled_since_s = began_s
            log.warning("verdicts wait for the store", because=because)
        elif not because and self.stalled_since_s is not None:
            after_s = self._clock.monotonic_s() - self.stalled_since_s
            log.info("the store takes verdicts again", after_s=round(after_s, 1))
            self.stalled_since_s = None
        self.stalled_because = because

    async def _once(self, judge: Judge) -> None:
        joining = {host: tuple(sorted(binaries)) for host, binaries in self._observer.joining.items()}
        if joining:
            for host in await self._store.run(_join, joining, self._zone):
                self._gists.pop(host, None)  # its row is a new one
            self._joined(joining)
        verdicts = [verdict for verdict in self.waiting.values() if verdict.host not in self._observer.joining]
        if verdicts and self.epoch is not None:
            await self._store.run(_record, verdicts, self.epoch, self.stamps)
            for verdict in verdicts:
                if self.waiting.get((verdict.host, verdict.binary)) is verdict:
                    del self.waiting[verdict.host, verdict.binary]
        if self._observer.unsaved:
            await self._save_reports()

    def _joined(self, joining: Mapping[str, Sequence[str]]) -> None:
        for host, binaries in joining.items():
            self._observer.joined.setdefault(host, set()).update(binaries)
            left = self._observer.joining.get(host, set()) - set(binaries)
            if left:
                self._observer.joining[host] = left
            else:
                self._observer.joining.pop(host, None)

    async def _save_reports(self) -> None:
        """News at once. What says the same again waits for the snapshot: every host reports once a minute."""
        observer = self._observer
        reports = {host: report for host, report in observer.unsaved.items() if host not in observer.joining}
        observer.unsaved = {host: report for host, report in observer.unsaved.items() if host in observer.joining}
        if not reports:
            return
        news = {host: report for host, report in reports.items() if _gist(report) != self._gists.get(host)}
        if news:
            try:
                await self._store.run(_save, news)
            except Busy:
                observer.unsaved = reports | observer.unsaved
                raise
        for host, report in reports.items():
            if host not in news:
                self._repeated[host] = report
                continue
            self._repeated.pop(host, None)
            self._gists[host] = _gist(report)
            if report.resources is not None:
                observer.peer_uris[host] = report.resources.peer_uri
        observer.reports.update({host: report for host, report in reports.items() if report.is_complete})
        self._nudges.call("guests")

    # -- the slow part ------------------------------------------------------------------------------------------------
    def learn_soon(self) -> None:
        """Somebody has deleted a service: look at the rows again."""
        self._learn_due_s = self._clock.monotonic_s()
        self._forgotten.set()

    async def look_back(self, judge: Judge) -> None:
        """The snapshot, and what is recorded, when they are due."""
        if self._clock.monotonic_s() >= self._snapshot_due_s:
            await self._snapshot()
            self._snapshot_due_s = self._clock.monotonic_s() + SNAPSHOT_S
        if self._clock.monotonic_s() >= self._learn_due_s:
            due_s, self._learn_due_s = self._learn_due_s, float("inf")  # unless somebody asks meanwhile
            try:
                rows = await self.learn(judge)
            except Busy:
                self._learn_due_s = due_s
                raise
            next_s = self._clock.monotonic_s() + max(LEARN_S, rows * LEARN_A_ROW_S)
            self._learn_due_s = min(self._learn_due_s, next_s)

    async def _snapshot(self) -> None:
        self._gists = {host: gist for host, gist in self._gists.items() if host in self._observer.seen}
        seen, beats = self._observer.seen, list[tuple[str, int, int]]()
        stamps = self.epoch is not None and self.stamps
        if stamps:
            beats = [(host, one.beats, one.heard_us) for host, one in seen.items()
                     if one.beats and one.beats != self._snapped.get(host)]  # fmt: skip
        repeated = list(self._repeated.items())
        for start in range(0, max(len(beats), len(repeated)), SNAPSHOT_AT_ONCE):
            part = slice(start, start + SNAPSHOT_AT_ONCE)
            await self._store.run(_snap, beats[part], dict(repeated[part]))
        for host, report in repeated:
            if self._repeated.get(host) is report:
                del self._repeated[host]
        self._snapped = {host: count for host, count in self._snapped.items() if host in seen}
        self._snapped.update((host, count) for host, count, _ in beats)

    async def learn(self, judge: Judge) -> int:
        """What is recorded, and how many rows that is: another control may have written, somebody may have deleted a
        service."""
        self._put_since.clear()
        self._observer.joined.clear()
        rows = await self._store.read(services.on_hosts)
        judge.learn(rows, [*self._put_since.values(), *self.waiting.values()])
        return len(rows)

    async def load(self) -> Sequence[RowMapping]:
        """Before the first beat: everything that is recorded of hosts. Returns the services' rows."""
        self._observer.peer_uris = await self._store.read(hosts.peer_uris)
        return await self._store.read(services.on_hosts)


def _join(tx: Tx, joining: Mapping[str, Sequence[str]], zone: str) -> list[str]:
    """The hosts that are new."""
    new = []
    for host, binaries in joining.items():
        if hosts.join(tx, host, zone):
            new.append(host)
        for binary in binaries:
            services.register(tx, host, binary, zone)
    return new


def _record(tx: Tx, verdicts: Sequence[Verdict], epoch: int, stamps: bool) -> None:
    leases.must_hold(tx, JUDGE, epoch)
    services.judged(tx, verdicts, stamps=stamps)


def _gist(report: Report) -> Report:
    """Without what differs from one report to the next on a host where nothing happens."""
    resources = report.resources
    if resources is not None:
        resources = msgspec.structs.replace(resources, memory_free_mb=0, disk_free_gb=0)
    return msgspec.structs.replace(report, sequence=0, resources=resources, guests=(), admitted=())


def _snap(tx: Tx, beats: Sequence[tuple[str, int, int]], repeated: Mapping[str, Report]) -> None:
    services.snapshot(tx, beats)
    _save(tx, repeated)


def _save(tx: Tx, reports: Mapping[str, Report]) -> None:
    for host, report in reports.items():
        resources = None if report.resources is None else msgspec.to_builtins(report.resources)
        hosts.report(tx, host, resources, report.hypervisor_up, report.sentence)
