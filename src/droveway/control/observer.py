"""Judges which agents are alive: receipt times by this observer's own monotonic clock, transitions to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from droveway.control.nudges import Nudges, wait
from droveway.domain import liveness
from droveway.domain.faults import Busy
from droveway.ports.bus import Beat, Gone, GuestChanged, Hello, Notice, Report, Welcome
from droveway.ports.clock import Clock
from droveway.store import hosts, services
from droveway.store.hosts import COMPUTE
from droveway.store.transaction import Store, Tx

log = structlog.get_logger("droveway.liveness")
SNAPSHOT_S = 60.0
HOSTS_MAX = 100_000


class LivenessSettings(msgspec.Struct, frozen=True):
    report_interval_s: float = 1.0
    service_down_time_s: float = 3.0
    default_zone: str = "nova"


class Observer:
    """What has been heard of each host, and what was made of it."""

    def __init__(self, store: Store, clock: Clock, nudges: Nudges, settings: LivenessSettings) -> None:
        self._store, self._clock, self._nudges, self._settings = store, clock, nudges, settings
        self._sightings: dict[str, liveness.Sighting] = {}
        self._recorded: dict[str, tuple[bool, str]] = {}
        self._joining: dict[str, Hello] = {}
        self._received_us: dict[str, int] = {}
        self._unsaved: dict[str, Report] = {}  # arrived, not yet in the store
        self.reports: dict[str, Report] = {}  # the last complete one of each host, in the store
        self.changed: dict[str, GuestChanged] = {}  # guests that a host said have changed, by instance
        self._presences: dict[str, liveness.Opinion] | None = None  # None: beats are judged here
        self._pass_on: Callable[[str], None] | None = None
        self._stamps = True
        self._woken = asyncio.Event()
        self._snapshot_due_s = 0.0

    def defer_to(self, beat: Callable[[str], None] | None, *, stamps: bool) -> None:
        """Another judge says who is alive (a membership driver): this one hands it the beats and records its verdicts.
        `stamps`: Updated_At is still written here."""
        self._presences, self._pass_on, self._stamps = {}, beat, stamps

    def expected(self) -> set[str]:
        """The hosts whose agents are known."""
        return set(self._sightings)

    def take_presences(self, presences: dict[str, liveness.Opinion]) -> None:
        """What the membership driver says of each host now."""
        self._presences = presences
        self._woken.set()

    async def load(self) -> None:
        """Expect every compute service that is known, with one `service_down_time` of grace from now."""
        await self._learn()
        self._snapshot_due_s = self._clock.monotonic_s() + SNAPSHOT_S

    async def _learn(self) -> None:
        """What is recorded: another control may have written since, and died before it could change its mind."""
        now_s = self._clock.monotonic_s()
        for row in await self._store.read(services.list_all, None, COMPUTE):
            self._sightings.setdefault(row["host"], liveness.Sighting(now_s, beats=row["report_count"]))
            self._recorded[row["host"]] = (row["is_up"], row["sentence"])

    def on_notice(self, notice: Notice) -> Welcome | None:
        """Take in what a host says; never waits."""
        match notice:
            case Hello():
                return self._on_hello(notice)
            case Beat(host, boot_id, counter):
                sighting = self._sightings.get(host)
                if sighting is not None and liveness.accept(sighting, boot_id, counter, self._clock.monotonic_s()):
                    self._received_us[host] = self._clock.now_us()
                    if self._pass_on is not None:
                        self._pass_on(f"{host}/{COMPUTE}")
            case Gone(host, sentence):
                sighting = self._sightings.get(host)
                if sighting is not None:
                    sighting.connected, sighting.gone = False, sentence
                    self._woken.set()
            case Report():
                self._unsaved[notice.host] = notice
                self._woken.set()
            case GuestChanged():
                self.changed[notice.guest.instance_id] = notice
                self._nudges.call(f"guest:{notice.guest.instance_id}")
                self._nudges.call("guests")
        return None

    def _on_hello(self, hello: Hello) -> Welcome:
        interval_s = self._settings.report_interval_s
        if hello.host not in self._sightings and len(self._sightings) >= HOSTS_MAX:
            return Welcome(interval_s, accepted=False, sentence=f"{HOSTS_MAX} hosts are known, which is the bound")
        now_s = self._clock.monotonic_s()
        sighting = self._sightings.setdefault(hello.host, liveness.Sighting(now_s))
        sighting.connected, sighting.gone = True, ""
        if hello.boot_id != sighting.boot_id:
            sighting.boot_id, sighting.counter = hello.boot_id, 0
        sighting.beat_s = now_s
        self._received_us[hello.host] = self._clock.now_us()
        self._joining[hello.host] = hello
        self._woken.set()
        return Welcome(interval_s)

    async def run(self) -> None:
        """Until cancelled: judge several times an interval, write what changed."""
        pause_s = self._settings.report_interval_s / 4
        while True:
            try:
                await self._once()
            except Busy as fault:
                log.warning("verdicts wait for the store", because=fault.sentence)
            if not self._joining:  # somebody said hello while the others were written
                await wait(self._woken, pause_s)

    async def _once(self) -> None:
        if self._joining:
            joining = dict(self._joining)
            await self._store.run(self._join, joining)
            for host, hello in joining.items():
                if self._joining.get(host) is hello:
                    del self._joining[host]
        changed = self._judge()
        if changed:
            await self._store.run(_record_opinions, changed, self._stamps)
            self._recorded.update({host: (o.is_up, o.sentence) for host, o in changed.items()})
        if self._unsaved:
            await self._save_reports()
        now_s = self._clock.monotonic_s()
        if now_s >= self._snapshot_due_s:
            self._snapshot_due_s = now_s + SNAPSHOT_S
            beats = [(host, self._sightings[host].beats, at_us) for host, at_us in self._received_us.items()]
            if self._stamps:
                await self._store.run(services.snapshot, beats)
            await self._learn()

    def _judge(self) -> dict[str, liveness.Opinion]:
        now_s, down_s = self._clock.monotonic_s(), self._settings.service_down_time_s
        changed = {}
        for host, sighting in self._sightings.items():
            if host in self._joining:
                continue  # its rows are not there yet: a verdict written now would change none
            opinion = liveness.judge(sighting, now_s, down_s)
            if self._presences is not None:
                opinion = self._presences.get(host, liveness.Opinion(False, "it is no member yet", held=True))
            was_up = self._recorded.get(host, (None, ""))[0]
            if not opinion.held and opinion.is_up is not was_up:
                changed[host] = opinion
                log.info("service", host=host, became="up" if opinion.is_up else "down", because=opinion.sentence)
        return changed

    def _join(self, tx: Tx, joining: dict[str, Hello]) -> None:
        for host in joining:
            hosts.join(tx, host, self._settings.default_zone)
            services.register(tx, host, COMPUTE, self._settings.default_zone)

    async def _save_reports(self) -> None:
        joining = self._joining
        reports = {host: report for host, report in self._unsaved.items() if host not in joining}
        self._unsaved = {host: report for host, report in self._unsaved.items() if host in joining}
        if not reports:
            return
        try:
            await self._store.run(_record_reports, reports)
        except Busy:
            self._unsaved = reports | self._unsaved
            raise
        self.reports.update({host: report for host, report in reports.items() if report.is_complete})
        self._nudges.call("guests")


def _record_opinions(tx: Tx, opinions: dict[str, liveness.Opinion], stamps: bool) -> None:
    for host, opinion in opinions.items():
        services.judged(tx, host, COMPUTE, opinion.is_up, opinion.sentence, stamps=stamps)


def _record_reports(tx: Tx, reports: dict[str, Report]) -> None:
    for host, report in reports.items():
        resources = None if report.resources is None else msgspec.to_builtins(report.resources)
        hosts.report(tx, host, resources, report.hypervisor_up, report.sentence)
