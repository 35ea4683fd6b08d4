"""The state of the failure detector: what is known of each host, which are silent, and what was concluded.

It has one owner, the observer, which extends it by receiving messages. A `HostObservation` that is given out is to
be read at once; it is changed here, by the observer, and in domain/liveness.py alone
(tests/control/test_state_owner.py).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from droveway.domain import liveness, service_kinds
from droveway.domain.liveness import HostObservation, Opinion, Service, State, Timing
from droveway.domain.observer_clock import ObserverClock
from droveway.domain.service_kinds import COMPUTE, Address
from droveway.ports.clock import Clock
from droveway.store.rows import ServiceRow

ALL_SILENT_INTERVALS = 1.5  # longer than any host pauses between two heartbeats


class DetectorState:
    """Times are the failure detector's own seconds, unless they say otherwise."""

    def __init__(self, clock: Clock, timing: Timing) -> None:
        self._clock, self._timing = clock, timing
        self.woken = asyncio.Event()  # there is news
        self._observer_clock = ObserverClock(timing.report_interval_s / 2)
        self._began_s = clock.monotonic_s()
        self._seen: dict[str, HostObservation] = {}
        self._order: dict[str, HostObservation] = {}  # all that are not silent, the last heard last
        self._silent: dict[str, HostObservation] = {}  # those that are, until a verdict
        self._has_heard = False  # any host, since this control started
        self._silence_ended = False  # a heartbeat has arrived after a silence of all hosts
        self._heard_s = float("-inf")  # when the last heartbeat of any host arrived
        self._news: set[str] = set()  # hosts of which something was heard that is not just another beat
        self._presences: dict[Address, Opinion] | None = None  # None: heartbeats count, not a membership driver
        self._pass_on_to: Callable[[str], None] | None = None

    # -- time ---------------------------------------------------------------------------------------------------------
    def now_s(self) -> float:
        """The failure detector's time."""
        return self._observer_clock.now_s(self._clock.monotonic_s())

    def age_s(self) -> float:
        """How long this control has been listening, by the machine's clock."""
        return self._clock.monotonic_s() - self._began_s

    def credit(self, seconds: float) -> None:
        """For so long no heartbeat could arrive: the failure detector's time stood still."""
        self._observer_clock.credit(seconds)

    def grant(self, heard_within_s: float = math.inf, *, undecided: bool = False) -> None:
        """Every host has one `service_down_time` to send a heartbeat: the failure detector has just begun, or had no
        input. What was concluded from silence is dropped; with `heard_within_s` only of hosts that were heard within
        that time, or, with `undecided`, have no verdict on their silence; and holds on the others end."""
        now_s, granted = self.now_s(), dict[str, HostObservation]()
        for host, seen in self._seen.items():
            is_heard = now_s - (self._began_s if seen.beat_s is None else seen.beat_s) <= heard_within_s
            if is_heard or (undecided and host in self._silent):
                granted[host] = seen
            elif seen.held_since_s is not None:
                self.release(seen)
        for host, seen in granted.items():
            self._silent.pop(host, None)
            liveness.grant(seen, now_s + self._timing.service_down_time_s)
        waiting = sorted((self._order | granted).values(), key=lambda seen: seen.placed_s)
        self._order = {seen.host: seen for seen in waiting}
        self._news.update(granted)

    def discount(self, since_s: float, until_s: float) -> None:
        """Heartbeats may have been lost on their way in that time: it is none of the silence of a host that has no
        verdict yet. Their order by silence stays."""
        for waiting in (self._order, self._silent):
            for seen in waiting.values():
                liveness.discount(seen, since_s, until_s)

    # -- known hosts -------------------------------------------------------------------------------------------------
    def observation(self, host: str) -> HostObservation | None:
        return self._seen.get(host)

    def observations(self) -> Collection[HostObservation]:
        """Of all hosts."""
        return self._seen.values()

    def expected(self) -> set[str]:
        """The hosts that report guests: those of which a compute agent is known."""
        return {host for host, seen in self._seen.items() if COMPUTE in seen.services}

    def services(self) -> set[Address]:
        """Everything on hosts that is known."""
        return {(host, name) for host, seen in self._seen.items() for name in seen.services}

    def is_known(self, host: str) -> bool:
        return host in self._seen

    def is_heard(self, host: str) -> bool:
        """Whether its silence is shorter than `service_down_time`: its heart beats, whatever became of its services."""
        seen = self._seen.get(host)
        return seen is not None and self.now_s() - seen.quiet_from_s <= self._timing.service_down_time_s

    def latest_first(self) -> Iterator[HostObservation]:
        """Those that are not silent; the last heard first."""
        return reversed(self._order.values())

    # -- what there is to look at -------------------------------------------------------------------------------------
    def add_news(self, host: str) -> None:
        """Evaluated at the next look, whenever that is."""
        self._news.add(host)

    def notify(self, host: str) -> None:
        """Evaluated at once."""
        self._news.add(host)
        self.woken.set()

    def take_news(self) -> list[str]:
        news, self._news = sorted(self._news), set()
        return news

    # -- silence ------------------------------------------------------------------------------------------------------
    @property
    def has_heard(self) -> bool:
        """Any host, since this control started."""
        return self._has_heard

    def note_heard(self) -> None:
        """Something of a host arrived that is not admitted: there is input."""
        self._has_heard = True

    def all_silent(self, now_s: float) -> bool:
        """No heartbeat of any host arrives: rather the path to all of them has failed than each of them."""
        return now_s - self._heard_s > ALL_SILENT_INTERVALS * self._timing.report_interval_s

    def take_silence_ended(self) -> bool:
        """Whether a heartbeat arrived after a silence of all, since the last call."""
        has_ended, self._silence_ended = self._silence_ended, False
        return has_ended

    def find_silent(self, now_s: float, after_s: float) -> list[str]:
        """The hosts that have fallen silent since this was last called; from now on `silent` returns them too."""
        fell = []
        for seen in self._order.values():
            if now_s - seen.placed_s <= after_s:
                break  # it was heard since then, and so was every host behind it
            if now_s - seen.quiet_from_s > after_s:
                fell.append(seen)  # the others have a grace
        for seen in fell:
            del self._order[seen.host]
            self._silent[seen.host] = seen
            seen.silent_found_s = now_s
        return [seen.host for seen in fell]

    def silent(self) -> Collection[HostObservation]:
        """The silent hosts without a verdict on their silence."""
        return self._silent.values()

    def is_silent(self, host: str) -> bool:
        return host in self._silent

    def settle(self, host: str) -> None:
        """There is a verdict on its silence."""
        del self._silent[host]

    def hold(self, seen: HostObservation, now_s: float) -> None:
        """Nothing is concluded from its silence from now on."""
        seen.held_since_s = now_s

    def release(self, seen: HostObservation) -> None:
        """It is held no longer, nor again before it was heard."""
        seen.held_since_s, seen.is_hold_used = None, True

    # -- a membership driver ------------------------------------------------------------------------------------------
    def defer(self, beat: Callable[[str], None] | None) -> None:
        """A membership driver is the failure detector, and gets the heartbeats that arrive here."""
        self._presences, self._pass_on_to = {}, beat

    @property
    def defers(self) -> bool:
        return self._presences is not None

    def opinion(self, host: str, service: str) -> Opinion | None:
        """What the membership driver says of it now."""
        return None if self._presences is None else self._presences.get((host, service))

    # -- second opinions ----------------------------------------------------------------------------------------------
    def note_asked(self, seen: HostObservation, now_s: float) -> None:
        seen.asked_s = now_s

    def take_opinions(
        self,
        seen: HostObservation,
        unanswered: Mapping[str, str],
        reached: bool | None,
        reach_reason: str,
        *,
        is_valid: bool,
    ) -> None:
        """What was found out by asking. `said`: why each of its services did not answer, empty when it did, which
        shows that the host is there. `reached`: whether another host reaches its hypervisor, None when none could be
        asked. `is_valid`: an answer could have arrived."""
        if not is_valid:
            seen.asked_s = None
        for name, no_answer in unanswered.items():
            service = seen.services.get(name)
            if service is not None and not no_answer:  # a lost answer does not undo the one before, which ages
                service.answered_s, service.no_answer = self.now_s(), ""
            elif service is not None and is_valid:
                service.no_answer = no_answer
        if not all(unanswered.values()):
            seen.is_reachable, seen.reach_reason = None, ""
        elif is_valid and reached is not None:  # that no host could be asked changes nothing
            seen.is_reachable, seen.reach_reason = reached, reach_reason
        self.notify(seen.host)

    # -- verdicts -----------------------------------------------------------------------------------------------------
    def restore(self, rows: Iterable[ServiceRow]) -> None:
        """What is recorded of services that are known counts, whatever was made of them here."""
        for row in rows:
            host, name = service_kinds.address_of(row["host"], row["binary"])
            service = self._seen[host].services[name]
            service.state, service.reason = State(row["state"]), row["reason"]
            service.since_us = row["since_us"] or 0

    def set_verdict(self, service: Service, state: State, reason: str, since_us: int | None = None) -> None:
        """`since_us`: since when, if it is since now."""
        service.state, service.reason = state, reason
        if since_us is not None:
            service.since_us = since_us
