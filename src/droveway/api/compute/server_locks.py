"""The actions `lock` and `unlock`: while a server is locked, only administrators change it."""

from __future__ import annotations

from typing import Annotated, Any

from droveway.api.compute import server_access
from droveway.api.http.actions import Action
from droveway.api.http.bodies import Body, read, schema
from droveway.api.http.kinds import anything, text
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import Forbidden
from droveway.domain.lifecycle import unlock_refusal
from droveway.domain.model import LockedBy
from droveway.domain.policy import Need
from droveway.store.compute import actions, server_attributes
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow

REASON_SINCE = 73


class Lock(Body, frozen=True):
    """From 2.73 on a reason may be given, or null; before that nothing of the value is looked at."""

    locked_reason: Annotated[str | None, text(255, 1)] = None


def _is_owner(request: Request, row: InstanceRow) -> bool:
    return request.caller.project_id == row["project_id"]


async def _lock(api: Api, request: Request, value: Any) -> Response:
    """One that is locked stays as it is, unless an administrator from elsewhere takes the lock over."""
    has_reason = request.version >= REASON_SINCE and value is not None
    reason = read(Lock, value, "lock", request.version).locked_reason if has_reason else None

    def write(tx: Tx) -> None:
        row = server_access.visible(tx, request)
        is_owner = _is_owner(request, row)
        if row["locked"] and is_owner:
            return
        by = LockedBy.OWNER if is_owner else LockedBy.ADMIN
        server_attributes.lock(tx, row["id"], by, reason)
        actions.record(tx, row["id"], "lock", request.id, request.caller.user_id, request.caller.project_id)

    await api.store.run(write)
    return Response(202)


async def _unlock(api: Api, request: Request, value: Any) -> Response:
    def write(tx: Tx) -> None:
        row = server_access.visible(tx, request)
        by = None if row["locked_by"] is None else LockedBy(row["locked_by"])
        reason = unlock_refusal(by, is_admin=request.caller.is_admin)
        if reason is not None:
            raise Forbidden(reason)
        server_attributes.unlock(tx, row["id"])
        actions.record(tx, row["id"], "unlock", request.id, request.caller.user_id, request.caller.project_id)

    await api.store.run(write)
    return Response(202)


ACTIONS = {
    "lock": Action(_lock, anything(anyOf=[{"type": "null"}, schema(Lock)]), Need.MEMBER),
    "unlock": Action(_unlock, anything(description="Not looked at; null is usual."), Need.MEMBER),
}
