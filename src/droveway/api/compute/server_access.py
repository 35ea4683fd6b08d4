"""The server of a request: the one that the caller may see, and the one that it may change."""

from __future__ import annotations

from droveway.api.http.request import Request
from droveway.domain.faults import Conflict
from droveway.domain.lifecycle import lock_refusal
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow


def visible(tx: Tx, request: Request) -> InstanceRow:
    """The server of the path. Raises NotFound."""
    return instances.get(tx, request.params["server_id"], request.scope)


def changeable(tx: Tx, request: Request) -> InstanceRow:
    """The server of the path, to be changed in this transaction. Raises NotFound; Conflict when it is locked."""
    row = visible(tx, request)
    reason = lock_refusal(row["id"], locked=row["locked"], is_admin=request.caller.is_admin)
    if reason is not None:
        raise Conflict(reason)
    return row
