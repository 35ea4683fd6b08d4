"""Every router is on one host, and that host is there: a router that is nowhere gets a place, one whose host is gone
another. Its host is told with its next plan.

An agent that ends leaves its routers at work, and nobody takes them away before it is back: were they moved, two hosts
would answer for the same addresses. So a host whose heart beats keeps them, until its agent is back or an operator
forces it down."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from droveway.control.engine.nudges import Nudges, wait
from droveway.domain.faults import Busy
from droveway.domain.network import placing
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Store
from droveway.store.network import changes, router_places
from droveway.store.work import events

log = structlog.get_logger("droveway.networks")
INTERVAL_S, AWAITING_S = 5.0, 1.0  # between two looks without a nudge; while an agent is awaited


class RouterPlaces:
    """`is_heard`: whether the heart of a host beats."""

    def __init__(
        self,
        store: Store,
        nudges: Nudges,
        clock: Clock,
        is_heard: Callable[[str], bool],
    ) -> None:
        self._store, self._nudges, self._clock, self._is_heard = store, nudges, clock, is_heard
        self._is_awaiting = False

    async def run(self) -> None:
        """Until cancelled."""
        with self._nudges.listen(changes.ROUTERS, events.SERVICES_CHANGED) as woken:
            while True:
                await self._once()
                await wait(woken, AWAITING_S if self._is_awaiting else INTERVAL_S)

    async def _once(self) -> None:
        try:
            routers, agents = await self._store.read(router_places.look)
            awaited = frozenset(host for host in placing.ended(agents) if self._is_heard(host))
            self._is_awaiting = bool(awaited)
            if placing.moves(routers, placing.carriers(agents, awaited)):
                for router_id, source, host in await self._store.run(router_places.settle, awaited):
                    log.info("router placed", router=router_id, source=source or None, host=host)
        except Busy as fault:
            log.warning("places of routers postponed: the store is busy", because=fault.reason)
