"""Cold migration and resize, and how they end: each writes what is wanted and returns."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from droveway.api.compute import server_body, server_snapshots
from droveway.api.compute.server_intents import Params, intend
from droveway.api.http.actions import Action
from droveway.api.http.bodies import Body
from droveway.api.http.kinds import HOST, NAME, anything, or_null
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden, NotFound
from droveway.domain.model import Flavor, SagaKind
from droveway.domain.policy import Need
from droveway.domain.resize import refusal, sizes_of
from droveway.store.compute import flavors, instances, quotas
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.rows import InstanceRow

HOST_SINCE = 56


class Migrate(Body, frozen=True):
    """2.56: to that host."""

    host: Annotated[str | None, or_null(HOST).since(HOST_SINCE)] = None


async def _migrate(api: Api, request: Request, given: Migrate | None) -> Response:
    host = None if given is None else given.host
    if host is not None and not request.caller.is_admin:
        raise Forbidden("Naming the host that a server is moved to needs the role admin.")

    def params(tx: Tx, row: InstanceRow) -> Params:
        if host is not None:
            _check_host(tx, host)
        return {
            "destination": host,
            "user_id": request.caller.user_id,
            "project_id": request.caller.project_id,
        }

    await intend(api, request, SagaKind.COLD_MIGRATION, params)
    return Response(202)


def _check_host(tx: Tx, host: str) -> None:
    try:
        hosts.get(tx, host)
    except NotFound:
        raise BadRequest(f"Compute host {host} could not be found.") from None


class Resize(Body, frozen=True, kw_only=True):
    """To that flavor, which has at least as large a root disk. The server is stopped, and started on another host."""

    flavor_id: Annotated[str, NAME] = msgspec.field(name="flavorRef")
    auto_disk_config: Annotated[bool | None, server_body.DISK_CONFIG] = msgspec.field(
        default=None, name="OS-DCF:diskConfig"
    )


async def _resize(api: Api, request: Request, given: Resize) -> Response:
    def params(tx: Tx, row: InstanceRow) -> Params:
        instances.check(tx, row["id"], SagaKind.RESIZE_SERVER)
        from_volume = server_snapshots.begins_from_volume(tx, row)
        before, after = msgspec.convert(row["flavor"], Flavor), _flavor(tx, request, given.flavor_id)
        reason = refusal(before, after, begins_from_volume=from_volume)
        if reason:
            raise BadRequest(reason)
        _claim_quota(tx, api, row, before, after)
        becomes = sizes_of(after, begins_from_volume=from_volume)
        if given.auto_disk_config is not None:
            instances.set_(tx, row["id"], auto_disk_config=given.auto_disk_config)
        return {
            "becomes": msgspec.to_builtins(becomes),
            "sizes": {"vcpus": becomes.vcpus, "ram_mb": becomes.ram_mb, "disk_gb": becomes.disk_gb},
            "user_id": request.caller.user_id,
            "project_id": request.caller.project_id,
        }

    await intend(api, request, SagaKind.RESIZE_SERVER, params)
    return Response(202)


def _flavor(tx: Tx, request: Request, flavor_id: str) -> Flavor:
    try:
        row = flavors.get(tx, flavor_id, request.scope)
    except NotFound:
        raise BadRequest("Unable to locate requested flavor.") from None
    if row["disabled"]:
        raise BadRequest("Unable to locate requested flavor.")
    return flavors.as_model(row)


def _claim_quota(tx: Tx, api: Api, row: InstanceRow, before: Flavor, after: Flavor) -> None:
    """For what it takes more. Raises Forbidden."""
    more = {"cores": max(0, after.vcpus - before.vcpus), "ram": max(0, after.ram_mb - before.ram_mb)}
    quotas.claim_growth(tx, row["project_id"], quotas.limits(tx, row["project_id"], api.settings.quotas), more)


def _plain(kind: SagaKind, status: int) -> Any:
    async def perform(api: Api, request: Request, value: Any) -> Response:
        await intend(api, request, kind, {"user_id": request.caller.user_id})
        return Response(status)

    return perform


_IGNORED = anything(description="Not looked at; null is usual.")
ACTIONS = {
    "migrate": Action(_migrate, Migrate, Need.MANAGER, may_be_null=True),
    "resize": Action(_resize, Resize, Need.MEMBER),
    "confirmResize": Action(_plain(SagaKind.CONFIRM_RESIZE, 204), _IGNORED, Need.MEMBER),
    "revertResize": Action(_plain(SagaKind.REVERT_RESIZE, 202), _IGNORED, Need.MEMBER),
}
