"""Hosts that were declared gone and are let in again: each is asked for all it has, ends what is not its own any more,
and may be used once nothing of that is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from droveway.control.engine.commands import send
from droveway.control.engine.saga import NotYet
from droveway.control.liveness.admission import Admission
from droveway.control.loops.guest_rows import GuestRows
from droveway.domain.faults import Conflict, Stale, StepFailed, Unreachable
from droveway.domain.model import of_host
from droveway.domain.reconcile import UnexpectedGuestRemedy, unexpected_guest_remedy
from droveway.ports.bus import ControlBus, ListGuests, Report
from droveway.store.engine.transaction import Store
from droveway.store.fleet import declared

log = structlog.get_logger("droveway.guests")
SHOWN = 4  # instances in a sentence
Reconcile = Callable[
    [Report], Awaitable[tuple[bool, GuestRows]]
]  # whether it was compared to the end, and by which rows


class ReturningHosts:
    def __init__(
        self, store: Store, bus: ControlBus, admission: Admission, timeout_s: float, reconcile: Reconcile
    ) -> None:
        self._store, self._bus, self._admission = store, bus, admission
        self._timeout_s, self._reconcile = timeout_s, reconcile
        self._postponed: dict[str, str] = {}  # hosts that may not be used yet, and why

    async def receive(self) -> None:
        """Those that wait. Raises Busy."""
        for host in sorted(self._admission.returning):
            try:
                if why_not := await self._compare(host):
                    why_not = await self._compare(host)  # first it ends, and then it has ended
            except (Unreachable, StepFailed, Stale, NotYet, Conflict) as fault:
                why_not = str(fault)
            if not why_not:
                await self._store.run(declared.admit, host)
                self._admission.returning.discard(host)
            elif self._postponed.get(host) != why_not:
                log.info("comparison of a returning host postponed", host=host, because=why_not)
                await self._store.run(declared.wait, host, why_not)
                self._postponed[host] = why_not
        self._postponed = {
            host: why_not for host, why_not in self._postponed.items() if host in self._admission.returning
        }

    async def _compare(self, host: str) -> str:
        """Why it may not be used yet; empty when all that it has is its own."""
        report = await self._ask(host)
        is_compared, facts = await self._reconcile(report)
        left = _not_its_own(report, facts)
        if left:
            more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
            return f"it has not ended what is not its own: {', '.join(left[:SHOWN])}{more}"
        return "" if is_compared else "something of it is still at work, or could not be looked at"

    async def _ask(self, host: str) -> Report:
        found = await send(self._bus, host, of_host(host), 0, ListGuests(), self._timeout_s)
        return Report(host, found.boot_id, 0, True, "", None, found.guests, True, found.admitted)


def _not_its_own(report: Report, facts: GuestRows) -> list[str]:
    """Found there before it was reconciled; the next look tells whether it is gone."""
    found = [one["id"] for one in facts.deferred_cleanup.get(report.host, ())]
    for guest in report.guests:
        row = facts.known.get(guest.instance_id)
        if row is not None and UnexpectedGuestRemedy.NOTHING is not unexpected_guest_remedy(
            row["deleted"], row["vm_state"], row["host"], report.host, guest, is_returning=True
        ):
            found.append(guest.instance_id)
    return found + [one for one in report.admitted if one in facts.known and facts.known[one]["host"] != report.host]
