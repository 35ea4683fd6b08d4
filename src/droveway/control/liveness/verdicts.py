"""Writes what the judge and the hosts say: joins, verdicts, reports, and once a minute the snapshot for Updated_At.

At rest nothing is written but that snapshot. What the store does not take is kept, the newest of each, and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice

import structlog

from droveway.control.engine.nudges import Nudges, wait
from droveway.control.liveness.judge import Judge
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.control.liveness.reports import HostReports
from droveway.domain.faults import Busy, Stale
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import hosts, services
from droveway.store.fleet.services import Verdict
from droveway.store.rows import ServiceRow
from droveway.store.work import leases

log = structlog.get_logger("droveway.liveness")
SNAPSHOT_S, SNAPSHOT_A_ROW_S = 60.0, 0.0125  # at most 80 rows a second, however many hosts there are
# In one transaction; whoever else writes waits for no more. Hosts, hosts, verdicts.
SNAPSHOT_AT_ONCE, JOIN_AT_ONCE, RECORD_AT_ONCE = 2500, 500, 1000
LEARN_S, LEARN_A_ROW_S = 60.0, 0.01  # between two readings of all rows: the more there are the rarer
AGAIN_S = 0.25  # after the store has refused
JUDGE = leases.JUDGE


class Verdicts:
    def __init__(
        self, store: Store, clock: Clock, nudges: Nudges, observer: Observer, settings: LivenessSettings
    ) -> None:
        self._store, self._clock, self._nudges, self._observer = store, clock, nudges, observer
        self._zone = settings.default_zone
        self.stamps = True  # Updated_At is written here, not by a membership driver
        self.epoch: int | None = None  # of the lease `judge`, while this control holds it
        self.waiting: dict[tuple[str, str], Verdict] = {}
        self.stalled_since_s: float | None = None
        self.stalled_reason = ""
        self._put_since: dict[tuple[str, str], Verdict] = {}  # since the last reading of the rows began
        self._forgotten = asyncio.Event()
        self._snapshot_due_s = self._learn_due_s = clock.monotonic_s() + SNAPSHOT_S
        self._snapped: dict[str, int] = {}  # beats of each host at the last snapshot
        self.reports = HostReports(store, clock, nudges, observer)

    def put(self, verdict: Verdict) -> None:
        """To be written; a newer one of the same service replaces it."""
        self.waiting[verdict.host, verdict.service] = self._put_since[verdict.host, verdict.service] = verdict
        self._observer.inbox.to_write.set()

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
                self._stalls(fault.reason, began_s)
                await self._clock.sleep(AGAIN_S)
                continue
            except Stale as fault:
                log.warning("this control is no longer the failure detector", because=fault.reason)
                self.give_up(judge)
            await wait(self._observer.inbox.to_write, SNAPSHOT_S)

    async def _look_back(self, judge: Judge) -> None:
        """The slow part, beside the verdicts."""
        while True:
            due_s = min(self._snapshot_due_s, self._learn_due_s)
            await wait(self._forgotten, max(0.0, due_s - self._clock.monotonic_s()))
            try:
                await self.look_back(judge)
            except Busy as fault:
                log.info("snapshot of Updated_At postponed: the store is busy", because=fault.reason)
                await self._clock.sleep(AGAIN_S)

    def give_up(self, judge: Judge) -> None:
        """Somebody else holds the lease."""
        self.epoch = None
        self.waiting.clear()
        judge.end()

    def _stalls(self, because: str, began_s: float) -> None:
        if because and self.stalled_since_s is None:
            self.stalled_since_s = began_s
            log.warning("verdicts not written yet: the store is busy", because=because)
        elif not because and self.stalled_since_s is not None:
            after_s = self._clock.monotonic_s() - self.stalled_since_s
            log.info("verdicts are written again", after_s=round(after_s, 1))
            self.stalled_since_s = None
        self.stalled_reason = because

    async def _once(self, judge: Judge) -> None:
        everybody = iter(self._observer.joining().items())
        while joining := dict(islice(everybody, JOIN_AT_ONCE)):
            protocols = {host: self._observer.protocol_of(host) for host in joining}
            for host in await self._store.run(_join, joining, protocols, self._zone):
                self.reports.forget(host)
            self._observer.note_joined(joining)
        verdicts = [verdict for verdict in self.waiting.values() if not self._observer.is_joining(verdict.host)]
        for start in range(0, len(verdicts), RECORD_AT_ONCE):
            if self.epoch is not None:
                await self._write_down(verdicts[start : start + RECORD_AT_ONCE], self.epoch)
        await self.reports.save()

    async def _write_down(self, verdicts: Sequence[Verdict], epoch: int) -> None:
        await self._store.run(_record, verdicts, epoch, self.stamps)
        for verdict in verdicts:
            if self.waiting.get((verdict.host, verdict.service)) is verdict:
                del self.waiting[verdict.host, verdict.service]

    # -- the slow part ------------------------------------------------------------------------------------------------
    def learn_soon(self) -> None:
        """Somebody has deleted a service: look at the rows again."""
        self._learn_due_s = self._clock.monotonic_s()
        self._forgotten.set()

    async def look_back(self, judge: Judge) -> None:
        """The snapshot, and what is recorded, when they are due."""
        if self._clock.monotonic_s() >= self._snapshot_due_s:
            rows = await self._snapshot()
            self._snapshot_due_s = self._clock.monotonic_s() + max(SNAPSHOT_S, rows * SNAPSHOT_A_ROW_S)
        if self._clock.monotonic_s() >= self._learn_due_s:
            due_s, self._learn_due_s = self._learn_due_s, float("inf")  # unless somebody asks meanwhile
            try:
                rows = await self.learn(judge)
            except Busy:
                self._learn_due_s = due_s
                raise
            next_s = self._clock.monotonic_s() + max(LEARN_S, rows * LEARN_A_ROW_S)
            self._learn_due_s = min(self._learn_due_s, next_s)

    async def _snapshot(self) -> int:
        """How many rows were written."""
        self.reports.keep_only_known()
        await self.reports.mark_old(is_judging=self.epoch is not None)
        beats = list[tuple[str, str, int, int]]()
        stamps = self.epoch is not None and self.stamps
        if stamps:
            beats = [
                (one.host, service, one.beats, one.heard_us)
                for one in self._observer.observations()
                if one.beats and one.beats != self._snapped.get(one.host)
                for service in one.services
                if service not in one.ended
            ]
        for start in range(0, len(beats), SNAPSHOT_AT_ONCE):
            await self._store.run(services.snapshot, beats[start : start + SNAPSHOT_AT_ONCE])
        self._snapped = {host: count for host, count in self._snapped.items() if self._observer.is_known(host)}
        self._snapped.update((host, count) for host, _, count, _ in beats)
        return len(beats)

    async def learn(self, judge: Judge) -> int:
        """What is recorded, and how many rows that is: another control may have written, somebody may have deleted a
        service."""
        self._put_since.clear()
        self._observer.forget_joined()
        rows = await self._store.read(services.on_hosts)
        judge.learn(rows, [*self._put_since.values(), *self.waiting.values()])
        return len(rows)

    async def load(self) -> Sequence[ServiceRow]:
        """Before the first beat: everything that is recorded of hosts. Returns the services' rows."""
        self._observer.inbox.put_peer_uris(await self._store.read(hosts.peer_uris))
        return await self._store.read(services.on_hosts)


def _join(tx: Tx, joining: Mapping[str, Sequence[str]], protocols: Mapping[str, int], zone: str) -> list[str]:
    """The hosts that are new."""
    with_guests = [host for host, names in joining.items() if hosts.COMPUTE in names]
    new = hosts.join_all(tx, with_guests, zone, protocols) if with_guests else []
    services.register_all(tx, joining, zone)
    return new


def _record(tx: Tx, verdicts: Sequence[Verdict], epoch: int, stamps: bool) -> None:
    leases.must_hold(tx, JUDGE, epoch)
    services.judged(tx, verdicts, stamps=stamps)
