"""Waiting for a saga, for a request that must say what came of it."""

from __future__ import annotations

from droveway.control.engine.nudges import Nudges, wait
from droveway.domain.lifecycle import AWAITED
from droveway.domain.migration import CHECKS
from droveway.domain.model import ENDED_SAGA, SagaStatus
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Store
from droveway.store.work import sagas

LOOK_S = 1.0  # a nudge may be lost


async def settled(store: Store, nudges: Nudges, clock: Clock, saga_id: str, timeout_s: float) -> tuple[bool, str]:
    """Wait until a saga has come as far as its request waits for it (True), or has failed (False and the sentence): a
    live migration until it has passed its checks, a change of interfaces until it is made. The store says which, so
    this holds in any process that has one."""
    with nudges.listen(f"saga:{saga_id}") as woken:
        deadline_s = clock.monotonic_s() + timeout_s
        while True:
            row = await store.read(sagas.get, saga_id)
            if row["status"] in {SagaStatus.UNDONE, SagaStatus.BROKEN}:
                return False, row["error"]
            passes = row["status"] == SagaStatus.FORWARD and row["kind"] not in AWAITED
            if (passes and row["step"] not in CHECKS) or row["status"] in ENDED_SAGA:
                return True, ""
            left_s = deadline_s - clock.monotonic_s()
            if left_s <= 0:
                failed = row["status"] == SagaStatus.BACKWARD
                return not failed, row["error"] if failed else "it is still under way, and goes on"
            await wait(woken, min(left_s, LOOK_S))
