"""Takes in what hosts report. What says the same again is not written: at rest a host costs the store nothing.

| the report                                   | becomes                                                              |
|----------------------------------------------|----------------------------------------------------------------------|
| is older than one that was taken in          | nothing; where one after the other is, the mark `refused`            |
| cannot be true (domain/resources.py)         | the host's mark `refused`; the last good one stays                   |
| names another host's address (addresses.py)  | the same                                                             |
| says something new                           | the host's row, and one more change of its `claims`                  |
| says the same, with much more or less free   | the host's row; the scheduler need not look again                     |
| says the same                                | what is remembered here: when, and what was measured                 |
| has not come for OLD_S                       | the mark `refused`, by the failure detector; the last good one stays |
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

import msgspec
import structlog

from droveway.control.engine.nudges import Nudges
from droveway.control.liveness.addresses import Addresses
from droveway.control.liveness.observer import Observer
from droveway.domain.faults import Busy
from droveway.domain.model import of_host
from droveway.domain.resources import (
    LastReport,
    is_free_amount_changed,
    lost_capacity,
    same_hypervisor,
    validation_error,
    without_free_amounts,
)
from droveway.ports.bus import Report
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import host_reports, hosts
from droveway.store.work import events

log = structlog.get_logger("droveway.reports")
AT_ONCE, TURNS = 500, 4  # in one transaction, and transactions in a row: a verdict does not wait for a storm of them
EVENT = "host"
ACCEPTED = "its reports are accepted again"
BEHIND_MAX = 3  # late ones in a row that delay may explain
OLD_S = 180.0  # three reports that did not come: an agent makes one a minute
OLD = "it is too old: none has come for more than 3 minutes, though its agent is connected"
BEHIND = (
    "its reports are numbered lower than the last one that was accepted: its files were lost and its clock went back, "
    "or its agent is an older one; set the clock right or upgrade it, or delete its compute service and start its "
    "agent anew"
)


class _Kept(msgspec.Struct):
    """Of the last report of a host: enough to know whether the next says the same."""

    generation: int
    gist: bytes
    memory_free_mb: int
    disk_free_gb: int
    refused: str = ""


class HostReports:
    def __init__(self, store: Store, clock: Clock, nudges: Nudges, observer: Observer) -> None:
        self._store, self._clock, self._nudges, self._observer = store, clock, nudges, observer
        self._kept: dict[str, _Kept] = {}
        self.late = 0  # dropped: older than one that was taken in
        self._called: dict[str, str] = {}  # each host's hypervisor
        self._named: dict[str, str] = {}  # each hypervisor's name, with the first host that has it
        self._shared: set[tuple[str, str]] = set()  # of what was said that they share one
        self._addresses = Addresses()
        self._behind: dict[str, int] = {}  # how many of a host were late, since the last one that was not
        self._due_since_s: dict[
            str, float
        ] = {}  # of connected hosts: since when the next is waited for, detector's time
        self._marks = False  # this control is the failure detector, and marks hosts without reports

    def forget(self, host: str) -> None:
        """Its row is another one."""
        self._kept.pop(host, None)
        self._behind.pop(host, None)
        self._addresses.forget(host)

    def keep_only_known(self) -> None:
        seen = self._observer.expected()
        self._kept = {host: kept for host, kept in self._kept.items() if host in seen}
        self._behind = {host: count for host, count in self._behind.items() if host in seen}
        self._called = {host: name for host, name in self._called.items() if host in seen}
        self._named = {name: host for name, host in self._named.items() if host in seen}
        self._shared = {pair for pair in self._shared if pair[0] in seen}
        self._observer.inbox.keep_heard(seen)

    async def save(self) -> None:
        """What waits, and no more of it than others can wait for. Raises Busy; what was not taken waits on."""
        inbox = self._observer.inbox
        ready = inbox.hosts_with_reports(but=self._observer.joining())
        for start in range(0, min(len(ready), TURNS * AT_ONCE), AT_ONCE):
            reports = inbox.take_reports(ready[start : start + AT_ONCE])
            try:
                await self._take(reports)
            except Busy:
                inbox.return_reports(reports)
                raise
        if len(ready) > TURNS * AT_ONCE:
            inbox.to_write.set()
        await self._mark_refused()

    async def mark_old(self, *, is_active: bool) -> None:
        """Hosts that are connected and report no more. The detector's time stands still without input. Raises
        Busy."""
        if is_active and not self._marks:  # marks of the detector before: the next report lifts them
            for host in await self._store.read(host_reports.refused_because, OLD):
                self._kept.setdefault(host, _Kept(0, b"", 0, 0)).refused = OLD
        self._marks = is_active
        now_s = self._observer.now_s()
        connected = [one.host for one in self._observer.observations() if one.is_connected(hosts.COMPUTE)]
        self._due_since_s = {host: self._due_since_s.get(host, now_s) for host in connected}
        old = {host: OLD for host, since_s in self._due_since_s.items() if now_s - since_s > OLD_S}
        marks = {host: why for host, why in old.items() if host not in self._kept or not self._kept[host].refused}
        if is_active and marks:
            await self._store.run(_refuse, marks)
            for host, why in marks.items():
                self._kept.setdefault(host, _Kept(0, b"", 0, 0)).refused = why

    async def _mark_refused(self) -> None:
        """They may be all hosts, once control has been upgraded."""
        inbox = self._observer.inbox
        some, by_protocol = inbox.refused(AT_ONCE), defaultdict[int, dict[str, str]](dict)
        for host, (reason, protocol) in some.items():
            by_protocol[protocol][host] = reason
        for protocol, marks in by_protocol.items():
            await self._store.run(_refuse, marks, protocol)
        for host, summary in some.items():
            inbox.drop_refused(host, summary)
            self._kept.pop(host, None)
        if inbox.refused(1):
            inbox.to_write.set()

    async def _take(self, reports: Mapping[str, Report]) -> None:
        news, changed_much, refused, late = dict[str, Report](), dict[str, Report](), dict[str, str](), set[str]()
        for host, report in list(reports.items()):
            kept = self._kept.get(host)
            wrong = validation_error(
                report.resources,
                report.guests,
                report.measured,
                admitted=report.admitted,
                generation=report.generation,
                reason=report.reason,
            )
            if kept is not None and report.generation < kept.generation:
                late.add(host)
            elif wrong is not None or (wrong := self._not_its_own(host, report)) is not None:
                refused[host] = wrong
            elif kept is None or kept.refused or kept.gist != _gist(report):
                news[host] = report
            elif report.resources and is_free_amount_changed(report.resources, kept.memory_free_mb, kept.disk_free_gb):
                changed_much[host] = report
        if news or changed_much:
            late.update(await self._store.run(_save, news, changed_much))
        refused |= self._too_late(late)
        marks = {
            host: why for host, why in refused.items() if host not in self._kept or self._kept[host].refused != why
        }
        if marks:
            await self._store.run(_refuse, marks)
        for host in reports.keys() - late:
            self._behind.pop(host, None)
        taken = {host: report for host, report in reports.items() if host not in late and host not in refused}
        self._remember(taken, news | changed_much, refused)

    def _not_its_own(self, host: str, report: Report) -> str | None:
        """Why where it says that it is cannot be its own address."""
        uri = "" if report.resources is None else report.resources.peer_uri
        if not uri:
            return None
        self._addresses.learn(self._observer.inbox.peer_uris())
        wrong = self._addresses.taken(host, uri, self._is_there)
        if wrong is None:
            self._addresses.put(host, uri)
        return wrong

    def _is_there(self, host: str) -> bool:
        seen = self._observer.observation(host)
        return seen is not None and seen.is_connected(hosts.COMPUTE)

    def _too_late(self, late: set[str]) -> dict[str, str]:
        """The hosts that are not heard by chance too late, but always."""
        self.late += len(late)
        for host in late:
            self._behind[host] = self._behind.get(host, 0) + 1
        return {host: BEHIND for host in late if self._behind[host] >= BEHIND_MAX and self._observer.is_known(host)}

    def _remember(
        self, reports: Mapping[str, Report], written: Mapping[str, Report], refused: Mapping[str, str]
    ) -> None:
        inbox = self._observer.inbox
        for host, why in refused.items():
            kept = self._kept.setdefault(host, _Kept(0, b"", 0, 0))
            kept.refused = why
        for host, report in written.items():
            if host not in reports:
                continue
            resources = report.resources
            free = (0, 0) if resources is None else (resources.memory_free_mb, resources.disk_free_gb)
            self._kept[host] = _Kept(report.generation, _gist(report), *free)
            if resources is not None:
                inbox.put_peer_uris({host: resources.peer_uri})
                self._warn_if_shared(host, resources.hypervisor_hostname)
        for host, report in reports.items():
            self._due_since_s[host] = self._observer.now_s()
            if report.generation < self._kept[host].generation:
                continue
            measured = report.measured
            if measured is None and (before := inbox.last_report(host)) is not None:
                measured = before.measured
            inbox.accept(report, LastReport(self._clock.now_us(), report.generation, measured))
        self._nudges.call("guests")

    def _warn_if_shared(self, host: str, hypervisor: str) -> None:
        """Once of each host; `host list` and `service why` say it as long as it is so."""
        self._called[host] = hypervisor
        first = self._named.setdefault(hypervisor, host)
        if self._called.get(first) != hypervisor:  # it is gone, or says another name now
            self._named[hypervisor] = first = host
        if first != host and (host, hypervisor) not in self._shared:
            self._shared.add((host, hypervisor))
            log.warning("two hosts report one hypervisor", host=host, because=same_hypervisor(hypervisor, [first]))


def _gist(report: Report) -> bytes:
    """Of everything but what differs from one report to the next on a host where nothing happens."""
    summary = (report.generation, report.hypervisor_up, report.reason, without_free_amounts(report.resources))
    return hashlib.blake2b(msgspec.msgpack.encode(summary), digest_size=16).digest()


def _refuse(tx: Tx, marks: Mapping[str, str], protocol: int | None = None) -> None:
    for host, why in marks.items():
        if host_reports.refuse(tx, host, why, protocol):
            log.error("report refused", host=host, because=why)
            events.record(tx, EVENT, of_host(host), {"reason": f"its report was refused: {why}"})


def _save(tx: Tx, news: Mapping[str, Report], changed_much: Mapping[str, Report]) -> list[str]:
    """The hosts of which a newer report stands there."""
    standing, late = host_reports.standing(tx, list(news)), list[str]()
    for host, report in {**news, **changed_much}.items():
        row = standing.get(host)
        if row is not None and 0 < report.generation == row.generation and not row.refused:
            continue  # this control has just begun, or another one was faster
        resources = None if report.resources is None else msgspec.to_builtins(report.resources)
        is_taken = host_reports.report(
            tx, host, resources, report.hypervisor_up, report.reason, report.generation, is_news=host in news
        )
        if not is_taken:
            late.append(host)
        elif row is not None:
            _record_changes(tx, host, row, report)
    return late


def _record_changes(tx: Tx, host: str, row: host_reports.ReportedState, report: Report) -> None:
    if row.refused:
        events.record(tx, EVENT, of_host(host), {"reason": ACCEPTED})
    lost = None if report.resources is None else lost_capacity(row.sizes, report.resources)
    if lost is not None:
        log.warning("host capacity has shrunk", host=host, because=lost)
        events.record(tx, EVENT, of_host(host), {"reason": lost})
