"""Servers whose time is over: deleted ones that may not be restored any longer, shelved ones that are to leave their
host, and resized ones of which nobody has said that it is good."""

from __future__ import annotations

from droveway.control.sagas.shelve import offload
from droveway.domain.faults import Conflict
from droveway.domain.model import SagaKind
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx

AT_ONCE = 200  # the others have their turn when it is done again


def confirm(tx: Tx, window_s: float) -> int:
    """How many resizes are confirmed because nobody has said a word for so long. 0: none, ever."""
    if window_s <= 0:
        return 0
    rows = instances.resized_before(tx, tx.now_us - int(window_s * 1_000_000), AT_ONCE)
    for row in rows:
        try:
            instances.check(tx, row["id"], SagaKind.CONFIRM_RESIZE)
        except Conflict:
            continue  # something is being done to it
        instances.intend(tx, row["id"], SagaKind.CONFIRM_RESIZE, {})
    return len(rows)


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
