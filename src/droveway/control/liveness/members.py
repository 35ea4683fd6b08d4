"""A membership driver as the failure detector: it is polled, and its answers are given to the observer."""

from __future__ import annotations

import structlog

from droveway.control.liveness.observer import Observer
from droveway.domain import service_kinds
from droveway.domain.liveness import Opinion
from droveway.domain.service_kinds import Address
from droveway.ports.clock import Clock
from droveway.ports.membership import EVERY_SERVICE, Presence, ServiceGroup, Unknown

log = structlog.get_logger("droveway.config.membership")


class Members:
    """`group` is this control's end of the driver, asked every `interval_s`. `own` are the members that this control is
    itself, where the driver expects heartbeats of them."""

    def __init__(
        self, group: ServiceGroup, observer: Observer, clock: Clock, interval_s: float, own: tuple[str, ...] = ()
    ) -> None:
        self._group, self._observer, self._clock, self._interval_s = group, observer, clock, interval_s
        self._own = own
        self.trouble, self.trouble_since_s = "", 0.0  # why the server does not answer, and since when
        self._known: set[Address] = set()  # services that have been present since this control started
        self._answered_since_s: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        await self._group.open(lambda _group, _member: None, self._on_connection)
        try:
            for member in self._own:
                await self._group.join(EVERY_SERVICE, member)
            while True:
                await self._once()
                await self._clock.sleep(self._interval_s)
        finally:
            await self._group.close()

    async def _once(self) -> None:
        try:
            presences = await self._group.get_all(EVERY_SERVICE)
        except Unknown as fault:  # no conclusion about any service: the last state is kept
            if not self.trouble:
                self.trouble_since_s = self._clock.monotonic_s()
            self._set_trouble(fault.reason)
            self._answered_since_s = None
            self._observer.take_presences({})
            return
        self._set_trouble("")
        opinions = {
            service_kinds.address_of(*member.rsplit("/", 1)): _opinion(presence)
            for member, presence in presences.items()
            if "/" in member
        }
        self._known |= {one for one, opinion in opinions.items() if opinion.is_up}
        self._observer.take_presences(opinions | self._absent(set(opinions)))

    def _absent(self, listed: set[Address]) -> dict[Address, Opinion]:
        """Drivers that keep sessions or leases drop expired members: what is missing, once a new or returned server has
        had the time to receive from all members, is no member any more."""
        now_s = self._clock.monotonic_s()
        if self._answered_since_s is None:
            self._answered_since_s = now_s
        if now_s - self._answered_since_s < self._group.guarantees.detection_s:
            return {}
        missing = (self._known | self._observer.services()) - listed
        return {
            one: Opinion(False, "it is no member: its session or lease has ended, or never began") for one in missing
        }

    def _on_connection(self, is_up: bool, reason: str) -> None:
        log.info("connection to the membership server changed", is_up=is_up, because=reason)

    def _set_trouble(self, reason: str) -> None:
        if reason != self.trouble:
            self.trouble = reason
            if reason:
                log.warning("the membership server does not answer: the last state is kept", because=reason)
            else:
                log.info("the membership server answers again")


def _opinion(presence: Presence) -> Opinion:
    return Opinion(presence.is_present, presence.reason, held=presence.is_held)
