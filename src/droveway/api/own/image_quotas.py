"""Quotas of images, which compute's API does not tell of: the use, as Glance tells it, and the limits, in an API of our
own.

GET   /droveway/v1/image-quotas/{project, by id or name; or default}  -> {"image_quotas": {resource: {limit, usage}}}
PATCH the same   {"image_quotas": {resource: limit}} -> the same; -1 is no limit, null goes back to the default
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, given_in, made, takes
from droveway.api.http.kinds import or_null, whole
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain import quota
from droveway.domain.faults import NotFound
from droveway.store.compute import quotas
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts

DEFAULT = "default"  # for all projects of which nothing else is said


async def usage(api: Api, request: Request) -> Response:
    """Of the project of the token, in Glance's words."""
    project_id = request.caller.project_id or ""
    return Response(200, {"usage": await api.store.read(_shown, api, project_id)})


def _shown(tx: Tx, api: Api, project_id: str | None) -> dict[str, dict[str, int]]:
    if project_id is None:
        found = quotas.defaults(tx, api.settings.quotas)
        return {resource: {"limit": found[resource]} for resource in quota.OF_IMAGES}
    found, used = quotas.limits(tx, project_id, api.settings.quotas), quotas.used(tx, project_id)
    return {resource: {"limit": found[resource], "usage": used[resource]} for resource in quota.OF_IMAGES}


async def show(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> dict[str, Any]:
        return _shown(tx, api, _project(tx, request))

    return Response(200, {"image_quotas": await api.store.read(read)})


_LIMIT = Annotated[int | UnsetType | None, or_null(whole(quota.UNLIMITED, quota.LIMIT_MAX))]
ImageQuotas = made("ImageQuotas", [(name, _LIMIT, UNSET) for name in quota.OF_IMAGES])


@takes(ImageQuotas, "image_quotas")
async def update(api: Api, request: Request, given: Body) -> Response:
    named = given_in(given)
    changes = {name: limit for name, limit in named.items() if limit is not None}

    def write(tx: Tx) -> dict[str, Any]:
        """Below what is used, too: then nothing more fits."""
        project_id = _project(tx, request)
        scope = quotas.DEFAULT_CLASS if project_id is None else quotas.scope_of(project_id)
        quotas.forget(tx, scope, named)
        quotas.set_(tx, scope, changes)
        return _shown(tx, api, project_id)

    return Response(200, {"image_quotas": await api.store.run(write)})


def _project(tx: Tx, request: Request) -> str | None:
    """The id of the project in the path; None for the defaults."""
    target = request.params["target"]
    if target == DEFAULT:
        return None
    found = accounts.find_project(tx, id=target) or accounts.find_project(tx, name=target)
    if found is None:
        raise NotFound(f"There is no project {target[:64]}.")
    return str(found["id"])
