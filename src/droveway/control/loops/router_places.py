"""Every router is on one host, and that host is up: a router that is nowhere gets a place, one whose host is down
another. Its host is told with its next plan."""

from __future__ import annotations

import structlog

from droveway.control.engine.nudges import Nudges, wait
from droveway.domain.faults import Busy
from droveway.store.engine.transaction import Store
from droveway.store.network import changes, in_force, router_places
from droveway.store.work import events

log = structlog.get_logger("droveway.networks")
INTERVAL_S = 5.0  # between two looks without a nudge


class RouterPlaces:
    def __init__(self, store: Store, nudges: Nudges) -> None:
        self._store, self._nudges = store, nudges

    async def run(self) -> None:
        """Until cancelled."""
        with self._nudges.listen(changes.CHANGED, in_force.CHANGED, events.SERVICES_CHANGED) as woken:
            while True:
                await self._once()
                await wait(woken, INTERVAL_S)

    async def _once(self) -> None:
        try:
            if await self._store.read(router_places.moves):
                for router_id, source, host in await self._store.run(router_places.settle):
                    log.info("router placed", router=router_id, source=source or None, host=host)
        except Busy as fault:
            log.warning("places of routers postponed: the store is busy", because=fault.reason)
