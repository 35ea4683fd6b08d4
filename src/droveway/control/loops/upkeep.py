"""This control's own lease, the leases of the others judged by our clock, and the ageing out of what is old."""

from __future__ import annotations

import structlog
from sqlalchemy import delete, select

from droveway.control.runner import Runner
from droveway.domain.faults import Busy, Stale
from droveway.ports.clock import Clock
from droveway.store import events, leases, services
from droveway.store.schema import sagas, tokens
from droveway.store.transaction import Store, Tx

log = structlog.get_logger("droveway.upkeep")
RENEW_S = 5.0
LEASE_TTL_S = 15.0
AGE_OUT_S = 600.0
KEPT_US = 7 * 24 * 3600 * 1_000_000
PREFIX = "control:"


class Upkeep:
    def __init__(self, store: Store, clock: Clock, runner: Runner, name: str, epoch: int) -> None:
        self._store, self._clock, self._runner = store, clock, runner
        self._name, self._epoch = name, epoch
        self._seen: dict[str, tuple[int, float]] = {}  # lease -> (counter, when it last moved, by our clock)
        self._age_out_due_s = clock.monotonic_s() + AGE_OUT_S

    async def run(self) -> None:
        """Until cancelled. Raises Stale when a newer process owns this control's name."""
        while True:
            try:
                await self._once()
            except Busy as fault:
                log.warning("the lease waits for the store", because=fault.sentence)
            await self._clock.sleep(RENEW_S)

    async def _once(self) -> None:
        if not await self._store.run(leases.renew, PREFIX + self._name, self._epoch):
            raise Stale(f"another control named {self._name} has started: this one stops; names must differ")
        now_s = self._clock.monotonic_s()
        for row in await self._store.read(leases.listing):
            counter, _ = self._seen.get(row["name"], (-1, 0.0))
            if counter != row["counter"]:
                self._seen[row["name"]] = (row["counter"], now_s)
        self._runner.dead_owners = tuple(
            name.removeprefix(PREFIX) for name, (_, moved_s) in sorted(self._seen.items())
            if now_s - moved_s > LEASE_TTL_S and name != PREFIX + self._name
        )  # fmt: skip
        if now_s >= self._age_out_due_s:
            self._age_out_due_s = now_s + AGE_OUT_S
            await self._store.run(_age_out)
            await self._store.run(services.snapshot, [(self._name, self._epoch, self._clock.now_us())])


def _age_out(tx: Tx) -> None:
    before_us = tx.now_us - KEPT_US
    events.forget_before(tx, before_us)
    tx.execute(delete(tokens).where(tokens.c.expires_at_us < tx.now_us))
    old = select(sagas.c.id).where(sagas.c.ended.is_(True), sagas.c.updated_at_us < before_us).limit(5_000)
    tx.execute(delete(sagas).where(sagas.c.id.in_(old)))
