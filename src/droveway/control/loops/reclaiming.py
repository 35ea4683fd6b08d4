"""Servers whose time is over: deleted ones that may not be restored any longer, and shelved ones that are to leave
their host."""

from __future__ import annotations

from droveway.control.sagas.shelve import offload
from droveway.domain.faults import Conflict
from droveway.domain.model import SagaKind
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx

AT_ONCE = 200  # the others have their turn when it is done again


def reclaim(tx: Tx, reclaim_s: float, offload_s: float) -> int:
    """How many. Where the operator has set the interval back to 0, what waits is reclaimed as well."""
    rows = instances.soft_deleted_before(tx, tx.now_us - int(reclaim_s * 1_000_000), AT_ONCE)
    for row in rows:
        instances.intend(tx, row["id"], SagaKind.DELETE, {})
    shelved = [] if offload_s < 0 else instances.shelved_before(tx, tx.now_us - int(offload_s * 1_000_000), AT_ONCE)
    for row in shelved:
        try:
            instances.check(tx, row["id"], SagaKind.SHELVE_OFFLOAD)
        except Conflict:
            continue  # something is being done to it
        offload(tx, row["id"], row["project_id"])
    return len(rows) + len(shelved)
