"""Writes what the failure detector concludes and hosts report: joins, verdicts, reports, and once a minute the
snapshot for Updated_At.

At rest nothing is written but that snapshot. What the store does not take is kept, the newest of each, and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import structlog

from droveway.control.engine.nudges import Nudges, wait
from droveway.control.liveness.detector import FailureDetector
from droveway.control.liveness.guest_passwords import GuestPasswords
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.control.liveness.pools import PoolReports
from droveway.control.liveness.reports import HostReports
from droveway.domain import service_kinds
from droveway.domain.faults import Busy, Stale
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import hosts, services
from droveway.store.fleet.services import Verdict
from droveway.store.rows import ServiceRow
from droveway.store.work import leases

log = structlog.get_logger("droveway.liveness")
SNAPSHOT_S, SNAPSHOT_A_HOST_S = 60.0, 0.0125  # at most 80 hosts a second, however many there are
# In one transaction; other writers wait for no more. Services, hosts, verdicts.
SNAPSHOT_AT_ONCE, JOIN_AT_ONCE, RECORD_AT_ONCE = 2500, 500, 1000
LEARN_S, LEARN_A_ROW_S = 60.0, 0.01  # between two readings of all rows: the more there are the rarer
AGAIN_S = 0.25  # after the store has refused
DETECTOR = leases.DETECTOR


class _Stamp(NamedTuple):
    """The beats of a host, which are those of all its services that have not ended, and when the last one arrived."""

    host: str
    services: tuple[str, ...]
    ended: frozenset[str]
    beats: int
    at_us: int

    def of_all(self) -> Iterator[tuple[str, int, int]]:
        """Where none has ended: a host, and its backends, which are hosts of their own in rows."""
        if not self.ended:
            for row_host in dict.fromkeys(service_kinds.row_of(self.host, name)[0] for name in self.services):
                yield row_host, self.beats, self.at_us

    def of_each(self) -> Iterator[tuple[str, str, int, int]]:
        if self.ended:
            for name in self.services:
                if name not in self.ended:
                    yield self.host, name, self.beats, self.at_us


class Verdicts:
    def __init__(
        self, store: Store, clock: Clock, nudges: Nudges, observer: Observer, settings: LivenessSettings
    ) -> None:
        self._store, self._clock, self._nudges, self._observer = store, clock, nudges, observer
        self._zone = settings.default_zone
        self.stamps = True  # Updated_At is written here, not by a membership driver
        self.epoch: int | None = None  # of the failure detector's lease, while this control holds it
        self.waiting: dict[tuple[str, str], Verdict] = {}
        self.stalled_since_s: float | None = None
        self.stalled_reason = ""
        self._put_since: dict[tuple[str, str], Verdict] = {}  # since the last reading of the rows began
        self._forgotten = asyncio.Event()
        self._snapshot_due_s = self._learn_due_s = clock.monotonic_s() + SNAPSHOT_S
        self._snapped: dict[str, int] = {}  # beats of each host at the last snapshot
        self.reports = HostReports(store, clock, nudges, observer)
        self.pools = PoolReports(store, observer)
        self.passwords = GuestPasswords(store, observer)

    def put(self, verdict: Verdict) -> None:
        """To be written; a newer one of the same service replaces it."""
        self.waiting[verdict.host, verdict.service] = self._put_since[verdict.host, verdict.service] = verdict
        self._observer.inbox.to_write.set()

    async def run(self, detector: FailureDetector) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write(detector), name="verdicts")
            group.create_task(self._snapshot_loop(detector), name="snapshots")

    async def _write(self, detector: FailureDetector) -> None:
        while True:
            began_s = self._clock.monotonic_s()
            try:
                await self._once(detector)
                self._note_stall("", began_s)
            except Busy as fault:
                self._note_stall(fault.reason, began_s)
                await self._clock.sleep(AGAIN_S)
                continue
            except Stale as fault:
                log.warning("this control is no longer the failure detector", because=fault.reason)
                self.give_up(detector)
            await wait(self._observer.inbox.to_write, SNAPSHOT_S)

    async def _snapshot_loop(self, detector: FailureDetector) -> None:
        """The slow part, beside the verdicts."""
        while True:
            due_s = min(self._snapshot_due_s, self._learn_due_s)
            await wait(self._forgotten, max(0.0, due_s - self._clock.monotonic_s()))
            try:
                await self.refresh(detector)
            except Busy as fault:
                log.info("snapshot of Updated_At postponed: the store is busy", because=fault.reason)
                await self._clock.sleep(AGAIN_S)

    def give_up(self, detector: FailureDetector) -> None:
        """Another control holds the lease."""
        self.epoch = None
        self.waiting.clear()
        detector.end()

    def _note_stall(self, because: str, began_s: float) -> None:
        if because and self.stalled_since_s is None:
            self.stalled_since_s = began_s
            log.warning("verdicts not written yet: the store is busy", because=because)
        elif not because and self.stalled_since_s is not None:
            after_s = self._clock.monotonic_s() - self.stalled_since_s
            log.info("verdicts are written again", after_s=round(after_s, 1))
            self.stalled_since_s = None
        self.stalled_reason = because

    async def _once(self, detector: FailureDetector) -> None:
        hosts_joining = iter(self._observer.joining().items())
        while joining := dict(islice(hosts_joining, JOIN_AT_ONCE)):
            protocols = {host: self._observer.protocol_of(host) for host in joining}
            for host in await self._store.run(_join, joining, protocols, self._zone):
                self.reports.forget(host)
            self._observer.note_joined(joining)
        verdicts = [verdict for verdict in self.waiting.values() if not self._observer.is_joining(verdict.host)]
        for start in range(0, len(verdicts), RECORD_AT_ONCE):
            if self.epoch is not None:
                await self._write_down(verdicts[start : start + RECORD_AT_ONCE], self.epoch)
        await self.reports.save()
        await self.pools.save()
        await self.passwords.save()

    async def _write_down(self, verdicts: Sequence[Verdict], epoch: int) -> None:
        await self._store.run(_record, verdicts, epoch, self.stamps)
        for verdict in verdicts:
            if self.waiting.get((verdict.host, verdict.service)) is verdict:
                del self.waiting[verdict.host, verdict.service]

    # -- the slow part ------------------------------------------------------------------------------------------------
    def learn_soon(self) -> None:
        """A service was deleted: read the rows again."""
        self._learn_due_s = self._clock.monotonic_s()
        self._forgotten.set()

    async def refresh(self, detector: FailureDetector) -> None:
        """The snapshot, and what is recorded, when they are due."""
        if self._clock.monotonic_s() >= self._snapshot_due_s:
            stamped = await self._snapshot()
            self._snapshot_due_s = self._clock.monotonic_s() + max(SNAPSHOT_S, stamped * SNAPSHOT_A_HOST_S)
        if self._clock.monotonic_s() >= self._learn_due_s:
            due_s, self._learn_due_s = self._learn_due_s, float("inf")  # unless it is requested meanwhile
            try:
                rows = await self.learn(detector)
            except Busy:
                self._learn_due_s = due_s
                raise
            next_s = self._clock.monotonic_s() + max(LEARN_S, rows * LEARN_A_ROW_S)
            self._learn_due_s = min(self._learn_due_s, next_s)

    async def _snapshot(self) -> int:
        """Of how many hosts something was written."""
        self.reports.keep_only_known()
        await self.reports.mark_old(is_active=self.epoch is not None)
        stamped = list[_Stamp]()
        if self.epoch is not None and self.stamps:
            stamped = [
                _Stamp(one.host, tuple(one.services), frozenset(one.ended), one.beats, one.heard_us)
                for one in self._observer.observations()
                if one.beats and one.beats != self._snapped.get(one.host)
            ]
        for some in _together(stamped):
            whole = [one for stamp in some for one in stamp.of_all()]
            await self._store.run(services.snapshot, [one for stamp in some for one in stamp.of_each()], whole)
        self._snapped = {host: count for host, count in self._snapped.items() if self._observer.is_known(host)}
        self._snapped.update((one.host, one.beats) for one in stamped)
        return len(stamped)

    async def learn(self, detector: FailureDetector) -> int:
        """What is recorded, and how many rows that is: another control may have written, a service may have been
        deleted."""
        self._put_since.clear()
        self._observer.forget_joined()
        rows = await self._store.read(services.on_hosts)
        detector.learn(rows, [*self._put_since.values(), *self.waiting.values()])
        return len(rows)

    async def load(self) -> Sequence[ServiceRow]:
        """Before the first beat: everything that is recorded of hosts. Returns the services' rows."""
        self._observer.inbox.put_peer_uris(await self._store.read(hosts.peer_uris))
        return await self._store.read(services.on_hosts)


def _together(stamped: Iterable[_Stamp]) -> Iterator[list[_Stamp]]:
    """What is written in one transaction: SNAPSHOT_AT_ONCE services, or one host."""
    some, count = list[_Stamp](), 0
    for one in stamped:
        if some and count + len(one.services) > SNAPSHOT_AT_ONCE:
            yield some
            some, count = [], 0
        some.append(one)
        count += len(one.services)
    if some:
        yield some


def _join(tx: Tx, joining: Mapping[str, Sequence[str]], protocols: Mapping[str, int], zone: str) -> list[str]:
    """The hosts that are new."""
    with_guests = [host for host, names in joining.items() if hosts.COMPUTE in names]
    new = hosts.join_all(tx, with_guests, zone, protocols) if with_guests else []
    services.register_all(tx, joining, zone)
    return new


def _record(tx: Tx, verdicts: Sequence[Verdict], epoch: int, stamps: bool) -> None:
    leases.must_hold(tx, DETECTOR, epoch)
    services.record_verdicts(tx, verdicts, stamps=stamps)
