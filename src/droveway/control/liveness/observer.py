"""Hears what hosts say, and keeps it for the judge. Nothing here waits, and nothing here decides.

A beat costs microseconds and touches no store. `order` holds whoever is heard, the longest silent first, so that the
judge looks only at those that have fallen silent, not at everybody.
"""

from __future__ import annotations

import asyncio
import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable

import msgspec
import structlog
from sqlalchemy import RowMapping

from droveway.control.engine.nudges import Nudges
from droveway.domain import liveness
from droveway.domain.liveness import FairClock, Opinion, Service, Sighting, State, Timing
from droveway.domain.metrics import LATENESS_BUCKETS_MS, TaskMetrics
from droveway.domain.resources import Heard, is_name, storable
from droveway.ports.bus import (
    PROTOCOL_VERSION,
    UPGRADE_RETRY_S,
    Beat,
    Garbled,
    Gone,
    GuestChanged,
    HeartGone,
    Hello,
    Notice,
    Report,
    Welcome,
    wrong_protocol,
)
from droveway.ports.clock import Clock
from droveway.store.fleet.hosts import COMPUTE
from droveway.store.fleet.services import CONTROL

log = structlog.get_logger("droveway.liveness")
HOSTS_MAX = 100_000
SERVICES_MAX = 255  # of one host
TASKS_MAX = 100  # of one host, in the metrics
ALL_SILENT_INTERVALS = 1.5  # nobody at all is heard for longer than anybody pauses between two heartbeats
HELLOS_PER_S = 2500  # what one control on one core bears beside its work when the broker is back
CHANGED_MAX = 10_000  # guests that wait to be looked at; the next report tells of the others
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


class Numbers(msgspec.Struct):
    """Counted since this control started."""

    beats: int = 0
    refused: int = 0  # replayed, reordered, of an older boot or of another machine
    strangers: int = 0  # of hosts nobody knows
    lateness: list[int] = msgspec.field(default_factory=lambda: [0] * (len(LATENESS_BUCKETS_MS) + 1))
    lateness_sum_ms: int = 0


class Observer:
    """What has been heard of each host."""

    def __init__(self, clock: Clock, nudges: Nudges, settings: LivenessSettings) -> None:
        self._clock, self._nudges, self._settings = clock, nudges, settings
        self.fair = FairClock(settings.report_interval_s / 2)
        self.numbers = Numbers()
        self.seen: dict[str, Sighting] = {}
        self.order: dict[str, Sighting] = {}  # everybody who is not silent
        self.silent: dict[str, Sighting] = {}  # those that are, until they are judged
        self.began_s = clock.monotonic_s()
        self.has_heard = False  # any host, since this control started
        self.silence_ended = False  # somebody is heard after a silence of all; the judge takes note
        self._heard_s = float("-inf")  # when the last beat of anybody arrived, in the judge's seconds
        self.news: set[str] = set()  # hosts of which something was heard that is not just another beat
        self.woken = asyncio.Event()  # there is news
        self.to_write = asyncio.Event()  # there is something for the store
        self.joining: dict[str, set[str]] = {}  # services that have no row yet, by host
        self.joined: dict[str, set[str]] = {}  # those that have got one since the rows were last read
        self.unsaved: dict[str, Report] = {}  # arrived, not yet in the store
        self.reports: dict[str, Report] = {}  # complete ones that were believed, for whoever compares guests
        self.heard: dict[str, Heard] = {}  # when each host last reported, and what it measured
        self.unbelieved: dict[str, tuple[str, int]] = {}  # hosts whose agent is not let in: why, and what it speaks
        self.changed: dict[str, GuestChanged] = {}  # guests that a host said have changed, by instance
        self.tasks: dict[str, tuple[TaskMetrics, ...]] = {}  # each host's periodic tasks, as its last report told them
        self.peer_uris: dict[str, str] = {}  # where other hosts reach a host's hypervisor
        self.presences: dict[str, Opinion] | None = None  # None: what is heard here is judged
        self.pass_on: Callable[[str], None] | None = None
        self._former: dict[str, Hello] = {}  # hosts whose service was deleted while their agent was connected
        self._hellos: dict[str, Hello] = {}
        self._garbled: dict[str, str] = {}  # hosts whose agent said what is no message, since their last report

    def now_s(self) -> float:
        """The judge's time."""
        return self.fair.now_s(self._clock.monotonic_s())

    def age_s(self) -> float:
        """How long we have been hearing."""
        return self._clock.monotonic_s() - self.began_s

    def expected(self) -> set[str]:
        """The hosts whose agents are known."""
        return set(self.seen)

    def take_presences(self, presences: dict[str, Opinion]) -> None:
        """What a membership driver says of each host now: its word counts in place of the beats'."""
        before, self.presences = self.presences or {}, presences
        self.news.update(host for host in before.keys() | presences.keys() if before.get(host) != presences.get(host))
        self.woken.set()

    # -- who is known -------------------------------------------------------------------------------------------------
    def learn(self, rows: Iterable[RowMapping]) -> None:
        """These are all services of hosts, as they were a moment ago. Who is not heard yet has from now on one
        `service_down_time`; what is not among them was deleted, if it was not registered meanwhile."""
        now_s, names = self.now_s(), dict[str, set[str]]()
        for row in rows:
            host = row["host"]
            names.setdefault(host, set()).add(row["binary"])
            seen = self.seen.get(host)
            if seen is None:
                seen = self._expect(Sighting(host, now_s, row["zone"], beats=row["report_count"]))
            if row["binary"] == COMPUTE and seen.held_since_s is None:  # a hold ends in the zone in which it began
                seen.zone = row["zone"]
            if row["binary"] not in seen.services:
                seen.services[row["binary"]] = Service(State(row["state"]), row["sentence"], row["since_us"] or 0)
        for host, seen in list(self.seen.items()):
            kept = names.get(host, set()) | self.joining.get(host, set()) | self.joined.get(host, set())
            for binary in seen.services.keys() - kept:
                del seen.services[binary]
            if not kept:
                self._forget(host)

    def _expect(self, seen: Sighting) -> Sighting:
        """One `service_down_time` from now on its silence begins to count."""
        seen.quiet_from_s = self.now_s() + self._settings.service_down_time_s
        self.seen[seen.host] = self.order[seen.host] = seen
        self.news.add(seen.host)
        return seen

    def grant(self, heard_within_s: float = math.inf) -> None:
        """Everybody has one `service_down_time` to be heard again: the judge has just begun, or nobody could be heard.
        What silence had made of anybody is forgotten; of those alone that were heard `heard_within_s`, if that is said,
        and then the doubt about the others has ended."""
        now_s, granted = self.now_s(), dict[str, Sighting]()
        for host, seen in self.seen.items():
            if now_s - (self.began_s if seen.beat_s is None else seen.beat_s) <= heard_within_s:
                granted[host] = seen
            elif seen.held_since_s is not None:
                seen.held_since_s, seen.hold_is_spent = None, True
        waiting = sorted((self.order | granted).values(), key=lambda seen: seen.quiet_from_s)
        for host, seen in granted.items():
            self.silent.pop(host, None)
            liveness.grant(seen, now_s + self._settings.service_down_time_s)
        self.order = {seen.host: seen for seen in sorted(waiting, key=lambda seen: seen.quiet_from_s)}
        self.news.update(granted)

    def hears_again(self) -> None:
        """The broker is back: whoever waits for a host need not wait until it says hello."""
        self._nudges.call("broker")

    def _forget(self, host: str) -> None:
        for kept in (self.seen, self.order, self.silent):
            kept.pop(host, None)
        self.tasks.pop(host, None)
        self._garbled.pop(host, None)
        hello = self._hellos.pop(host, None)
        if hello is not None:
            self._former[host] = hello

    # -- what is heard ------------------------------------------------------------------------------------------------
    def on_notice(self, notice: Notice) -> Welcome | None:
        """Take in what a host says; never waits."""
        if type(notice) is Beat:
            self._on_beat(notice)
            return None
        match notice:
            case Hello():
                return self._on_hello(notice)
            case Gone(host):
                self._on_gone(notice)
            case HeartGone(host, sentence):
                seen = self.seen.get(host)
                if seen is not None:
                    seen.heart_gone = storable(sentence)
                    self._tell(host)
            case Report():
                self._garbled.pop(notice.host, None)
                waiting = self.unsaved.get(notice.host)
                if waiting is None or notice.generation >= waiting.generation:
                    self.unsaved[notice.host] = notice
                if notice.tasks and notice.host in self.seen:
                    own = {one.name: one for one in notice.tasks[:TASKS_MAX] if one.host == notice.host}
                    self.tasks[notice.host] = tuple(own.values())
                self.to_write.set()
            case Garbled(host, sentence):
                if host in self.seen and host not in self._garbled:  # once, until it reports again
                    self._garbled[host] = sentence
                    self.unbelieved[host] = (storable(sentence), self.protocol_of(host))
                    self.to_write.set()
            case GuestChanged():
                if not is_name(notice.guest.instance_id) or len(self.changed) >= CHANGED_MAX:
                    self.numbers.refused += 1
                    return None
                instance_id = notice.guest.instance_id
                other = self.changed.get(instance_id)  # what one host says of a guest hides nothing that another says
                key = instance_id if other is None or other.host == notice.host else f"{instance_id} {notice.host}"
                self.changed[key] = notice
                self._nudges.call(f"guest:{notice.guest.instance_id}")
                self._nudges.call("guests")
        return None

    def _on_beat(self, beat: Beat) -> None:
        host, numbers = beat.host, self.numbers
        seen = self.seen.get(host)
        if seen is None:
            numbers.strangers += 1
            if host in self._former:  # its service was deleted while it hung, and it is back
                self._on_hello(self._former[host])
            return
        now_s = self.now_s()
        if not liveness.accept(seen, beat.boot_id, beat.counter, now_s, self._settings.report_interval_s * 2):
            numbers.refused += 1
            return
        if len(self.seen) > 1 and self._heard_s >= 0 and self.all_silent(now_s):
            self.silence_ended = True
            self.woken.set()
        self._heard_s, self.has_heard = now_s, True
        numbers.beats += 1
        seen.heard_us, seen.wall_us = self._clock.now_us(), beat.wall_us
        if self.order.pop(host, None) is None or seen.heart_gone:
            self._heard_again(seen)
        self.order[host] = seen
        if liveness.note_progress(seen, beat.services, beat.progress, beat.lateness_ms, now_s):
            self._look_closer(seen, beat)
        numbers.lateness[bisect_left(LATENESS_BUCKETS_MS, seen.lateness_ms)] += 1
        numbers.lateness_sum_ms += seen.lateness_ms
        if self.pass_on is not None:
            self._pass_on(seen, beat, now_s)

    def all_silent(self, now_s: float) -> bool:
        """No beat of anybody arrives: rather the way to all of them than each of them."""
        return now_s - self._heard_s > ALL_SILENT_INTERVALS * self._settings.report_interval_s

    def _pass_on(self, seen: Sighting, beat: Beat, now_s: float) -> None:
        """To a driver that judges heartbeats: those of services that live and move."""
        assert self.pass_on is not None, "there is somebody to pass them on to"
        hung_s = self._settings.service_hung_time_s
        for binary in beat.services:
            if binary not in seen.ended and now_s - seen.still_since_s.get(binary, now_s) <= hung_s:
                self.pass_on(f"{beat.host}/{binary}")

    def _heard_again(self, seen: Sighting) -> None:
        self.silent.pop(seen.host, None)
        liveness.heard(seen)
        self._tell(seen.host)

    def _look_closer(self, seen: Sighting, beat: Beat) -> None:
        notes = dict(zip(beat.services, beat.notes, strict=False))
        for binary in beat.services:
            service = seen.services.get(binary)
            if service is None:
                if len(seen.services) >= SERVICES_MAX or binary in CONTROL or not _NAME.fullmatch(binary):
                    self.numbers.refused += 1
                    continue
                service = seen.services[binary] = Service(State.EXPECTED)
                self._register(seen.host, binary)
            service.note = storable(notes.get(binary, ""))
        self._tell(seen.host)

    def _tell(self, host: str) -> None:
        self.news.add(host)
        self.woken.set()

    def _on_gone(self, gone: Gone) -> None:
        seen = self.seen.get(gone.host)
        if seen is not None:
            seen.connected, seen.gone, seen.gone_in_order = False, storable(gone.sentence), gone.in_order
            self._tell(gone.host)

    def _on_hello(self, hello: Hello) -> Welcome:
        host, interval_s = hello.host, self._settings.report_interval_s
        if host not in self.seen and len(self.seen) >= HOSTS_MAX:
            return Welcome(interval_s, accepted=False, sentence=f"{HOSTS_MAX} hosts are known, which is the bound")
        if not _NAME.fullmatch(host):
            sentence = f"host name {host[:64]!r} must be 1 to 64 of the characters a-z A-Z 0-9 . - _"
            return Welcome(interval_s, accepted=False, sentence=sentence)
        now_s, self.has_heard = self.now_s(), True
        seen = self.seen.get(host)
        if sentence := wrong_protocol(hello.protocol):
            if seen is not None and not seen.connected:
                self.unbelieved[host] = (sentence, max(0, min(hello.protocol, PROTOCOL_MAX)))
                self.to_write.set()
            return Welcome(interval_s, accepted=False, sentence=sentence, retry_after_s=UPGRADE_RETRY_S)
        if seen is None:
            seen = self.seen[host] = Sighting(host, now_s, self._settings.default_zone)
        is_new = not seen.connected or hello.boot_id != seen.boot_id or seen.beat_s is None
        seen.services.setdefault(COMPUTE, Service(State.EXPECTED))
        self._hellos[host] = hello
        self._former.pop(host, None)
        seen.connected, seen.gone, seen.gone_in_order = True, "", False
        seen.ended.pop(COMPUTE, None)
        seen.still_since_s.pop(COMPUTE, None)
        if hello.boot_id != seen.boot_id:
            liveness.new_boot(seen, hello.boot_id)
        if is_new:  # saying it again is no sign of life: that is what beats are for
            seen.beat_s, seen.heard_us = now_s, self._clock.now_us()
            seen.quiet_from_s = max(seen.quiet_from_s, now_s)
            seen.wall_us = 0  # a hello does not tell it, and that of an older beat is no match for this moment
            self.order.pop(host, None)
            self.order[host] = seen
            self._heard_again(seen)
        self._register(host, COMPUTE)
        self._nudges.call(f"host:{host}")
        return Welcome(interval_s, spread_s=len(self.seen) / HELLOS_PER_S)

    def protocol_of(self, host: str) -> int:
        """What its agent speaks."""
        hello = self._hellos.get(host)
        return PROTOCOL_VERSION if hello is None else hello.protocol

    def _register(self, host: str, binary: str) -> None:
        self.joining.setdefault(host, set()).add(binary)
        self.to_write.set()
