"""Receives what hosts send, and keeps it for the failure detector. Nothing here waits, and nothing here decides.

A beat costs microseconds and touches no store. `_order` holds the hosts whose heartbeats arrive, the one heard longest
ago first, so that the failure detector looks only at those that have become silent, not at all.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping

import msgspec
import structlog

from droveway.control.engine.nudges import Nudges
from droveway.control.liveness.detector_state import DetectorState
from droveway.control.liveness.inbox import Health, Inbox
from droveway.domain import liveness, service_kinds
from droveway.domain.liveness import LEFT, HostObservation, Opinion, Service, State, Timing
from droveway.domain.metrics import LATENESS_BUCKETS_MS, TaskMetrics
from droveway.domain.model import of_instance
from droveway.domain.resources import storable
from droveway.domain.service_kinds import NETWORK, Address
from droveway.ports.bus import (
    PROTOCOL_VERSION,
    UPGRADE_RETRY_S,
    AgentDisconnected,
    Beat,
    GuestChanged,
    HeartDisconnected,
    Hello,
    MalformedMessage,
    Notice,
    Report,
    ServiceReport,
    Welcome,
    wrong_protocol,
)
from droveway.ports.clock import Clock
from droveway.store.fleet.hosts import COMPUTE
from droveway.store.rows import ServiceRow

log = structlog.get_logger("droveway.liveness")
HOSTS_MAX = 100_000
SERVICES_MAX = 255  # of one host
HELLOS_PER_S = 2500  # what one control on one core bears beside its work when the broker is back
PROTOCOL_MAX = 2**31 - 1  # what a row holds
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


class LivenessSettings(msgspec.Struct, frozen=True):
    report_interval_s: float = 1.0
    service_down_time_s: float = 3.0
    service_hung_time_s: float = 10.0
    storm_hold_time_s: float = 30.0
    default_zone: str = "nova"

    @property
    def timing(self) -> Timing:
        return Timing(
            self.report_interval_s, self.service_down_time_s, self.service_hung_time_s, self.storm_hold_time_s
        )


class ObserverCounters(msgspec.Struct):
    """Counted since this control started."""

    beats: int = 0
    refused: int = 0  # replayed, reordered, of an older boot or of another machine
    strangers: int = 0  # of unknown hosts
    lateness: list[int] = msgspec.field(default_factory=lambda: [0] * (len(LATENESS_BUCKETS_MS) + 1))
    lateness_sum_ms: int = 0


class Observer(DetectorState):
    """What has been heard of each host, and of each of its services by their names there."""

    def __init__(self, clock: Clock, nudges: Nudges, settings: LivenessSettings) -> None:
        super().__init__(clock, settings.timing)
        self._nudges, self._settings = nudges, settings
        self.numbers = ObserverCounters()
        self.inbox = Inbox()  # what they report
        self._joining: dict[str, set[str]] = {}  # services that have no row yet, by host
        self._joined: dict[str, set[str]] = {}  # those that have got one since the rows were last read
        self._former: dict[Address, Hello] = {}  # services that were deleted while they were connected
        self._hellos: dict[Address, Hello] = {}

    def take_presences(self, presences: dict[Address, Opinion]) -> None:
        """What a membership driver says of each service now: its word counts in place of the beats'."""
        before, self._presences = self._presences or {}, presences
        self._news.update(one[0] for one in before.keys() | presences.keys() if before.get(one) != presences.get(one))
        self.woken.set()

    # -- known hosts -------------------------------------------------------------------------------------------------
    def learn(self, rows: Iterable[ServiceRow]) -> None:
        """These are all services of hosts, as they were a moment ago. A host that has sent nothing yet has one
        `service_down_time` from now on; what is not among them was deleted, if it was not registered meanwhile."""
        now_s, names = self.now_s(), dict[str, set[str]]()
        for row in rows:
            host, service = service_kinds.address_of(row["host"], row["binary"])
            names.setdefault(host, set()).add(service)
            seen = self._seen.get(host)
            if seen is None:
                seen = self._expect(HostObservation(host, now_s, row["zone"], beats=row["report_count"]))
            if service == COMPUTE and seen.held_since_s is None:  # a hold ends in the zone in which it began
                seen.zone = row["zone"]
            if service not in seen.services:
                seen.services[service] = Service(State(row["state"]), row["reason"], row["since_us"] or 0)
        for host, seen in list(self._seen.items()):
            kept = names.get(host, set()) | self._joining.get(host, set()) | self._joined.get(host, set())
            for service in seen.services.keys() - kept:
                self._forget_service(seen, service)
            if not kept:
                self._forget(host)

    def _expect(self, seen: HostObservation) -> HostObservation:
        """One `service_down_time` from now on its silence begins to count."""
        now_s = self.now_s()
        seen.quiet_from_s, seen.placed_s = now_s + self._settings.service_down_time_s, now_s
        self._seen[seen.host] = self._order[seen.host] = seen
        self._news.add(seen.host)
        return seen

    def input_restored(self) -> None:
        """The broker is back: sagas that wait for a host need not wait for its hello."""
        self._nudges.call("broker")

    def _forget_service(self, seen: HostObservation, service: str) -> None:
        """It was deleted. What the heart still reports of it is ignored, unless its process runs."""
        del seen.services[service]
        seen.stalled_since_s.pop(service, None)
        self.inbox.forget_service(seen.host, service)
        hello = self._hellos.pop((seen.host, service), None)
        if hello is not None:
            self._former[seen.host, service] = hello

    def _forget(self, host: str) -> None:
        for kept in (self._seen, self._order, self._silent):
            kept.pop(host, None)
        self.inbox.forget(host)

    # -- what hosts send ----------------------------------------------------------------------------------------------
    def on_notice(self, notice: Notice) -> Welcome | None:
        """Take in what a host says; never waits."""
        if type(notice) is Beat:
            self._on_beat(notice)
            return None
        match notice:
            case Hello():
                return self._on_hello(notice)
            case AgentDisconnected():
                self._on_gone(notice)
            case HeartDisconnected(host, reason):
                seen = self._seen.get(host)
                if seen is not None:
                    seen.heart_lost = storable(reason)
                    self.notify(host)
            case Report():
                self.inbox.put_report(notice)
                self._take_tasks(notice.host, COMPUTE, notice.tasks)
            case ServiceReport():
                self._on_service_report(notice)
            case MalformedMessage(host, reason, service):
                if service == COMPUTE and host in self._seen:
                    self.inbox.put_garbled(host, storable(reason), self.protocol_of(host))
            case GuestChanged():
                if not self.inbox.put_changed(notice):
                    self.numbers.refused += 1
                    return None
                self._nudges.call(str(of_instance(notice.guest.instance_id)))
                self._nudges.call("guests")
        return None

    def _on_beat(self, beat: Beat) -> None:
        host, numbers = beat.host, self.numbers
        seen = self._seen.get(host)
        if seen is None:
            numbers.strangers += 1
            self._restore_deleted(beat)
            return
        now_s = self.now_s()
        if not liveness.accept(seen, beat.boot_id, beat.counter, now_s, self._settings.report_interval_s * 2):
            numbers.refused += 1
            return
        if len(self._seen) > 1 and self._heard_s >= 0 and self.all_silent(now_s):
            self._silence_ended = True
            self.woken.set()
        self._heard_s, self._has_heard = now_s, True
        numbers.beats += 1
        seen.heard_us, seen.wall_us = self._clock.now_us(), beat.wall_us
        if self._order.pop(host, None) is None or seen.heart_lost:
            self._end_silence(seen)
        self._order[host] = seen
        seen.placed_s = now_s
        if liveness.note_progress(seen, beat.services, beat.progress, beat.lateness_ms, now_s):
            self._note_services(seen, beat)
        numbers.lateness[bisect_left(LATENESS_BUCKETS_MS, seen.lateness_ms)] += 1
        numbers.lateness_sum_ms += seen.lateness_ms
        if self._pass_on_to is not None:
            self._pass_on(seen, beat, now_s)

    def _pass_on(self, seen: HostObservation, beat: Beat, now_s: float) -> None:
        """To a membership driver that keeps heartbeats: those of services that run and are not hung."""
        assert self._pass_on_to is not None, "a membership driver takes heartbeats"
        hung_s = self._settings.service_hung_time_s
        for binary in beat.services:
            if binary not in seen.ended and now_s - seen.stalled_since_s.get(binary, now_s) <= hung_s:
                self._pass_on_to("/".join(service_kinds.row_of(beat.host, binary)))

    def _end_silence(self, seen: HostObservation) -> None:
        self._silent.pop(seen.host, None)
        liveness.clear_suspicion(seen)
        self.notify(seen.host)

    def _note_services(self, seen: HostObservation, beat: Beat) -> None:
        notes = dict(zip(beat.services, beat.notes, strict=False))
        self._restore_deleted(beat)
        for name, lateness_ms in zip(beat.services, beat.lateness_ms, strict=True):
            service = seen.services.get(name)
            if service is None:
                if lateness_ms >= LEFT:  # it has ended, and was deleted
                    continue
                if len(seen.services) >= SERVICES_MAX or service_kinds.name_error(name):
                    self.numbers.refused += 1
                    continue
                service = seen.services[name] = Service(State.EXPECTED)
                self._register(seen.host, name)
            service.note = storable(notes.get(name, ""))
        self.notify(seen.host)

    def _restore_deleted(self, beat: Beat) -> None:
        """Services that were deleted while they hung, or before it was known that they had come back."""
        if self._former:
            for name, lateness_ms in zip(beat.services, beat.lateness_ms, strict=False):
                hello = self._former.get((beat.host, name)) if lateness_ms < LEFT else None
                if hello is not None:
                    self._on_hello(hello)

    def _on_gone(self, gone: AgentDisconnected) -> None:
        """Of that service alone: what else runs on its host has connections of its own."""
        self._former.pop((gone.host, gone.service), None)
        seen = self._seen.get(gone.host)
        service = None if seen is None else seen.services.get(gone.service)
        if service is not None:
            service.connected, service.disconnect_reason, service.disconnected_cleanly = (
                False,
                storable(gone.reason),
                gone.in_order,
            )
            self.notify(gone.host)

    def _take_tasks(self, host: str, service: str, tasks: tuple[TaskMetrics, ...]) -> None:
        if tasks and host in self._seen and service in self._seen[host].services:
            self.inbox.put_tasks(host, service, tasks)

    def _on_service_report(self, report: ServiceReport) -> None:
        host, service = report.host, report.service
        if host not in self._seen or service not in self._seen[host].services:
            return
        health = Health(self._clock.now_us(), report.is_well, storable(report.reason))
        self.inbox.put_health(host, service, health)
        if report.pool is not None and service_kinds.KINDS[service_kinds.split(service)[0]].has_backends:
            self.inbox.put_pool((host, service), report.pool, report.generation)
        if report.passwords and service == NETWORK:
            self.inbox.put_passwords(host, report.passwords)
        self._take_tasks(host, service, report.tasks)

    def _on_hello(self, hello: Hello) -> Welcome:
        host, interval_s = hello.host, self._settings.report_interval_s
        if host not in self._seen and len(self._seen) >= HOSTS_MAX:
            return Welcome(interval_s, accepted=False, reason=f"{HOSTS_MAX} hosts are known, which is the bound")
        if not _NAME.fullmatch(host):
            reason = f"host name {host[:64]!r} must be 1 to 64 of the characters a-z A-Z 0-9 . - _"
            return Welcome(interval_s, accepted=False, reason=reason)
        if wrong := service_kinds.name_error(hello.service):
            reason = f"{wrong} that this control knows: upgrade control, or give that process another name"
            return Welcome(interval_s, accepted=False, reason=reason, retry_after_s=UPGRADE_RETRY_S)
        now_s, self._has_heard = self.now_s(), True
        seen = self._seen.get(host)
        if reason := wrong_protocol(hello.protocol):
            if hello.service == COMPUTE and seen is not None and not seen.is_connected(COMPUTE):
                self.inbox.put_refused(host, reason, max(0, min(hello.protocol, PROTOCOL_MAX)))
            return Welcome(interval_s, accepted=False, reason=reason, retry_after_s=UPGRADE_RETRY_S)
        if seen is None:
            seen = self._seen[host] = HostObservation(host, now_s, self._settings.default_zone)
        if hello.service not in seen.services and len(seen.services) >= SERVICES_MAX:
            reason = f"host {host} has {SERVICES_MAX} services, which is the bound"
            return Welcome(interval_s, accepted=False, reason=reason)
        if reason := self._of_another_machine(seen, hello, now_s):
            return Welcome(interval_s, accepted=False, reason=reason)
        service = seen.services.setdefault(hello.service, Service(State.EXPECTED))
        is_new = not service.connected or hello.boot_id != seen.boot_id or seen.beat_s is None
        self._hellos[host, hello.service] = hello
        self._former.pop((host, hello.service), None)
        service.connected, service.disconnect_reason, service.disconnected_cleanly = True, "", False
        seen.ended.pop(hello.service, None)
        seen.stalled_since_s.pop(hello.service, None)
        if hello.boot_id != seen.boot_id:
            liveness.new_boot(seen, hello.boot_id)
        if is_new:  # a repeated hello is no heartbeat
            seen.beat_s, seen.heard_us = now_s, self._clock.now_us()
            seen.quiet_from_s = max(seen.quiet_from_s, now_s)
            seen.wall_us = 0  # a hello does not tell it, and that of an older beat is no match for this moment
            self._order.pop(host, None)
            self._order[host] = seen
            seen.placed_s = now_s
            self._end_silence(seen)
        self._register(host, hello.service)
        self._nudges.call(f"host:{host}")
        self._nudges.call(f"service:{hello.service}")
        return Welcome(interval_s, spread_s=len(self._seen) / HELLOS_PER_S)

    def _of_another_machine(self, seen: HostObservation, hello: Hello, now_s: float) -> str:
        """Why a service of another boot is not let in: the host lives in the boot that is known, with another of its
        services. Were it accepted, no beat of that host would be. One that has started again is silent for a while."""
        if hello.boot_id == seen.boot_id or seen.beat_s is None:
            return ""
        if now_s - seen.beat_s >= self._settings.report_interval_s * 2:
            return ""
        for name in seen.services:
            other = self._hellos.get((seen.host, name))
            if (
                name != hello.service
                and seen.is_connected(name)
                and other is not None
                and other.boot_id == seen.boot_id
            ):
                return (
                    f"host {seen.host} is another machine: its {name} is there, at {other.address}, and its heartbeats "
                    f"arrive; {hello.service} at {hello.address} is refused: give its host another name"
                )
        return ""

    def connected(self, service: str) -> dict[str, Hello]:
        """The hosts of which that service is connected, and what it said when it came."""
        return {
            host: hello
            for (host, name), hello in self._hellos.items()
            if name == service and host in self._seen and self._seen[host].is_connected(service)
        }

    def protocol_of(self, host: str) -> int:
        """What its compute agent speaks."""
        hello = self._hellos.get((host, COMPUTE))
        return PROTOCOL_VERSION if hello is None else hello.protocol

    # -- what is to be registered -------------------------------------------------------------------------------------
    def is_joining(self, host: str) -> bool:
        """Whether something of it has no row yet."""
        return host in self._joining

    def joining(self) -> dict[str, tuple[str, ...]]:
        """Services that have no row yet, by host."""
        return {host: tuple(sorted(some)) for host, some in self._joining.items()}

    def note_joined(self, joined: Mapping[str, Iterable[str]]) -> None:
        """These have got one."""
        for host, binaries in joined.items():
            self._joined.setdefault(host, set()).update(binaries)
            left = self._joining.get(host, set()) - set(binaries)
            if left:
                self._joining[host] = left
            else:
                self._joining.pop(host, None)

    def forget_joined(self) -> None:
        """The rows are read now."""
        self._joined.clear()

    def _register(self, host: str, service: str) -> None:
        self._joining.setdefault(host, set()).add(service)
        self.inbox.to_write.set()
