"""How an action of a server is written: its row, as the caller may see and change it, and one intent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from droveway.api.compute import server_access
from droveway.api.http.request import Request
from droveway.api.wiring import Api
from droveway.domain.model import SagaKind, VmState
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow

Params = dict[str, Any]
# What Nova lets be done to a locked server by everybody who may do it.
DESPITE_LOCK = frozenset({SagaKind.CREATE_IMAGE, SagaKind.CREATE_BACKUP, SagaKind.RESET_STATE})


def changeable(tx: Tx, request: Request, kind: SagaKind) -> InstanceRow:
    """The row of the server that is named, for that act. Raises NotFound; Conflict when it is locked."""
    return (server_access.visible if kind in DESPITE_LOCK else server_access.changeable)(tx, request)


def kind_of_deletion(api: Api, row: InstanceRow) -> SagaKind:
    """For good, unless the operator lets it be restored for a time; what has never run cannot be."""
    has_run = row["launched_at_us"] is not None and row["vm_state"] not in (
        VmState.ERROR,
        VmState.RESIZED,
        VmState.SOFT_DELETED,
    )
    return SagaKind.SOFT_DELETE if api.settings.reclaim_s > 0 and has_run else SagaKind.DELETE


async def intend(
    api: Api,
    request: Request,
    kind: SagaKind,
    params: Params | Callable[[Tx, InstanceRow], Params] | None = None,
    before: Callable[[Tx, InstanceRow], None] | None = None,
) -> str:
    """Write the intent, after looking whether the caller may touch that server. `params` may be made in the same
    transaction, from the row, and write what belongs to them: nothing of it stays when the intent is refused. Returns
    the id of the saga."""

    def write(tx: Tx) -> str:
        row = changeable(tx, request, kind)
        if before is not None:
            before(tx, row)
        given = params(tx, row) if callable(params) else params or {}
        return instances.intend(tx, row["id"], kind, given, request.id, request.caller.user_id)

    return await api.store.run(write)
