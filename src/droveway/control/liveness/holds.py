"""Storm holds: where too many hosts of a zone fall silent at once, nothing is concluded from silence for a time."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import msgspec
import structlog

from droveway.control.liveness.observer import Observer
from droveway.domain import liveness
from droveway.domain.liveness import UP, HostObservation, Timing

log = structlog.get_logger("droveway.liveness")


class Hold(msgspec.Struct):
    """Of a zone, until the last host that fell silent in a storm was held for the whole of `storm_hold_time`."""

    until_s: float
    reason: str


class Holds:
    def __init__(self, observer: Observer, timing: Timing) -> None:
        self._observer, self._timing = observer, timing
        self._by_zone: dict[str, Hold] = {}
        self.begun = 0  # since this control started

    def __bool__(self) -> bool:
        """Whether any host is held."""
        return bool(self._by_zone)

    def reason(self, zone: str) -> str:
        """Why its hosts are held; empty when they are not."""
        hold = self._by_zone.get(zone)
        return "" if hold is None else hold.reason

    def clear(self) -> None:
        """Every host has been granted a grace, which ends all holds."""
        self._by_zone.clear()

    def look(self, now_s: float) -> None:
        """Many hosts of a zone fall silent at once: rather this control's input or the network has failed than each of
        them. A host that falls silent in a storm is held for the whole of `storm_hold_time`, also where a hold of its
        zone had begun before."""
        observer, silent = self._observer, self._observer.silent()
        for zone in [zone for zone, hold in self._by_zone.items() if now_s >= hold.until_s]:
            self._end(zone, "it has lasted as long as a hold may")
        for seen in silent:
            if seen.held_since_s is not None and now_s - seen.held_since_s >= self._timing.storm_hold_time_s:
                observer.release(seen)
        fresh = [seen for seen in silent if not seen.is_hold_used and has_service_up(seen)]
        by_zone = Counter(seen.zone for seen in fresh if self._is_recent(seen, now_s))
        unheld = {seen.zone for seen in fresh if seen.held_since_s is None}
        all_silent = bool(fresh) and self._are_all_silent(now_s)
        for zone, fell in by_zone.items():
            hosts = sum(seen.zone == zone for seen in observer.observations())
            if zone in unheld and (fell >= liveness.storm_threshold(hosts) or all_silent):
                self._begin(zone, now_s, f"{fell} of {hosts} hosts of zone {zone} fell silent at once")
        for seen in fresh:
            if seen.zone in self._by_zone and seen.held_since_s is None:
                observer.hold(seen, now_s)
        for zone in set(self._by_zone) - {seen.zone for seen in silent if seen.held_since_s is not None}:
            self._end(zone, "no host of the zone is held any longer")

    def _begin(self, zone: str, now_s: float, reason: str) -> None:
        if zone not in self._by_zone:
            self.begun += 1
            log.warning("storm hold: missing heartbeats of this zone do not count", zone=zone, because=reason)
        self._by_zone[zone] = Hold(now_s + self._timing.storm_hold_time_s, reason)

    def _end(self, zone: str, because: str) -> None:
        log.warning("storm hold ended", zone=zone, because=because)
        del self._by_zone[zone]
        for seen in self._observer.silent():
            if seen.zone == zone and seen.held_since_s is not None:
                self._observer.release(seen)

    def _are_all_silent(self, now_s: float) -> bool:
        """No heartbeat of any host, where several were up. Asked before each of them is found silent: the host that was
        heard last is found so when the verdict on the first is due."""
        up = (seen for seen in self._observer.observations() if has_service_up(seen))
        return self._observer.all_silent(now_s) and len(list(islice(up, 2))) > 1

    def _is_recent(self, seen: HostObservation, now_s: float) -> bool:
        assert seen.silent_found_s is not None, "it was found silent"
        return now_s - seen.silent_found_s <= self._timing.service_down_time_s


def has_service_up(seen: HostObservation) -> bool:
    return any(service.state in UP for service in seen.services.values())
