"""One control is the failure detector: the holder of the lease `judge`. The others receive the same heartbeats and
watch the counter of that lease.

The counter rises only while the failure detector runs and receives heartbeats. When it stands still another control
takes over, with one `service_down_time` of grace; when none can, `service why` says for how long there has been none.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from droveway.control.liveness.detector import FailureDetector
from droveway.control.liveness.verdicts import DETECTOR, Verdicts
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Store
from droveway.store.fleet import services
from droveway.store.rows import LeaseRow
from droveway.store.work import leases

log = structlog.get_logger("droveway.liveness")
LEASE_TTL_S = 15.0


class DetectorDuty:
    def __init__(self, store: Store, clock: Clock, name: str, detector: FailureDetector, verdicts: Verdicts) -> None:
        self._store, self._clock, self._name = store, clock, name
        self._detector, self._verdicts = detector, verdicts
        self._looks = -1
        self._seen = (0, -1)  # epoch and counter
        self.owner = ""
        self.moved_s = clock.monotonic_s()  # when the counter last moved, by our clock

    @property
    def epoch_to_renew(self) -> int | None:
        """Of our own lease, if the failure detector has run since the last time."""
        moves, self._looks = self._detector.looks != self._looks, self._detector.looks
        return self._verdicts.epoch if moves else None

    async def look(self, rows: Sequence[LeaseRow]) -> None:
        """These are all leases. Takes this one when it is free, ours, or stands still."""
        row = next((one for one in rows if one["name"] == DETECTOR), None)
        now_s = self._clock.monotonic_s()
        epoch, counter, owner = (0, 0, "") if row is None else (row["epoch"], row["counter"], row["owner"])
        if (epoch, counter) != self._seen:
            self._seen, self.moved_s = (epoch, counter), now_s
        self.owner = owner
        if self._verdicts.epoch == epoch and owner == self._name:
            return
        if self._verdicts.epoch is not None:
            log.warning(
                "this control is no longer the failure detector", because=f"{owner or 'no control'} holds the lease now"
            )
            self._verdicts.give_up(self._detector)
        # Where no control receives heartbeats the holder keeps the lease: it stands still no longer than a hold.
        ttl_s = LEASE_TTL_S + (self._detector.timing.storm_hold_time_s if self._detector.all_are_silent else 0.0)
        is_free = not owner or now_s - self.moved_s > ttl_s
        # Our own lease of an earlier process is taken at once; without input no verdict follows from it.
        if owner == self._name or (is_free and self._detector.no_input is None):
            await self._take(epoch, owner)

    async def _take(self, epoch: int, owner: str) -> None:
        taken = await self._store.run(leases.take, DETECTOR, self._name, epoch)
        if taken is None:
            return  # another control was first
        rows = await self._store.read(services.on_hosts)
        self._verdicts.waiting.clear()
        self._detector.begin(rows)
        self._verdicts.epoch, self.owner, self.moved_s = taken, self._name, self._clock.monotonic_s()
        log.info("this control is the failure detector now", epoch=taken, before=owner or "none")
