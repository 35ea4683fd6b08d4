"""Quotas of networks: of one project, their defaults, what is used; a list of the projects for which some were set."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, given_in, made, takes
from droveway.api.http.kinds import FLAG, whole
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.domain.network import quota
from droveway.domain.quota import LIMIT_MAX, UNLIMITED, wrong_limit
from droveway.store.engine.transaction import Tx
from droveway.store.network import quotas

QuotaBody = made(
    "QuotaBody",
    [
        *((name, Annotated[int | UnsetType, whole(UNLIMITED, LIMIT_MAX)], UNSET) for name in quota.RESOURCES),
        ("check_limit", Annotated[bool, FLAG], False),  # refuse what is less than is used
        ("force", Annotated[bool, FLAG], False),
    ],
)


def _project(request: Request) -> str:
    return request.project_of(request.params["project_id"], "Quotas")


async def listing(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> list[dict[str, object]]:
        projects = quotas.changed_projects(tx)
        return [
            {"project_id": one, "tenant_id": one, **quotas.limits(tx, one, api.settings.network.quotas)}
            for one in projects
        ]

    return Response(200, {"quotas": await api.store.read(read)})


async def tenant(api: Api, request: Request) -> Response:
    """The project of the token, as clients of old ask for it."""
    own = request.caller.project_id
    return Response(200, {"tenant": {"tenant_id": own, "project_id": own}})


async def show(api: Api, request: Request) -> Response:
    found = await api.store.read(quotas.limits, _project(request), api.settings.network.quotas)
    return Response(200, {"quota": found})


async def defaults(api: Api, request: Request) -> Response:
    _project(request)
    return Response(200, {"quota": msgspec.structs.asdict(api.settings.network.quotas)})


async def details(api: Api, request: Request) -> Response:
    project_id = _project(request)

    def read(tx: Tx) -> dict[str, object]:
        used = quotas.used(tx, project_id)
        limits = quotas.limits(tx, project_id, api.settings.network.quotas)
        return {name: {"limit": limit, "used": used[name], "reserved": 0} for name, limit in limits.items()}

    return Response(200, {"quota": await api.store.read(read)})


@takes(QuotaBody, "quota")
async def update(api: Api, request: Request, given: Body) -> Response:
    project_id, changes = _project(request), given_in(given)
    is_checked, is_forced = changes.pop("check_limit"), changes.pop("force")

    def write(tx: Tx) -> dict[str, int]:
        used = quotas.used(tx, project_id) if is_checked and not is_forced else {}
        for resource in used.keys() & changes.keys():
            reason = wrong_limit(resource, changes[resource], used[resource])
            if reason is not None:
                raise BadRequest(reason)
        quotas.set_(tx, project_id, changes)
        return quotas.limits(tx, project_id, api.settings.network.quotas)

    return Response(200, {"quota": await api.store.run(write)})


async def delete(api: Api, request: Request) -> Response:
    """Back to the defaults."""
    await api.store.run(quotas.forget, _project(request))
    return Response(204)
