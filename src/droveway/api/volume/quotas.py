"""Quotas of projects, and the one class of defaults. A quota of a single type is called by its name:
`gigabytes_fast`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from droveway.api.http.bodies import takes_kind
from droveway.api.http.kinds import of
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import TRUE
from droveway.api.volume.kinds import LIMIT
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.quota import UNLIMITED
from droveway.domain.volume import quota
from droveway.store.engine.transaction import Tx
from droveway.store.volume import quotas, types

THE_CLASS = "default"
NOT_QUOTAS = frozenset({"tenant_id", "id"})
ENTRIES_MAX = 3000


def _limits(path: str, value: Any) -> dict[str, int]:
    if not isinstance(value, dict) or not value or len(value) > ENTRIES_MAX:
        raise BadRequest(f"Invalid input for {path}: it must be an object of at least one limit.")
    return {name: LIMIT.read(f"{path}.{name[:64]}", limit) for name, limit in value.items() if name not in NOT_QUOTAS}


_LIMITS = of(_limits, type="object", minProperties=1, additionalProperties=dict(LIMIT.schema))


def _names(tx: Tx) -> dict[str, str]:
    """What the API calls each resource -> what the store calls it."""
    found = {name: name for name in quota.RESOURCES}
    for type_id, name in types.names(tx).items():
        found |= {f"{resource}_{name}": quota.of_type(resource, type_id) for resource in quota.OF_TYPES}
    return found


def _shown(tx: Tx, values: Mapping[str, Any], missing: Any) -> dict[str, Any]:
    return {name: values.get(stored, missing) for name, stored in _names(tx).items()}


def _stored(tx: Tx, given: Mapping[str, int]) -> dict[str, int]:
    """Raises BadRequest for what there is no quota of."""
    names = _names(tx)
    unknown = sorted(name for name in given if name not in names)
    if unknown:
        raise BadRequest(f"Bad key(s) in quota set: {', '.join(name[:64] for name in unknown[:5])}.")
    return {names[name]: limit for name, limit in given.items()}


# -- of projects ------------------------------------------------------------------------------------------------------
def _project(request: Request) -> str:
    return request.project_of(request.params["target"], "Quotas")


async def show(api: Api, request: Request) -> Response:
    """With `usage` each limit beside what is used of it."""
    project_id = _project(request)
    with_usage = dict(request.query).get("usage", "").lower() in TRUE

    def read(tx: Tx) -> dict[str, Any]:
        limits = _shown(tx, quotas.limits(tx, project_id, api.settings.volumes.quotas), UNLIMITED)
        if not with_usage:
            return limits
        used = _shown(tx, quotas.used(tx, project_id), 0)
        return {name: {"limit": limit, "in_use": used[name], "reserved": 0} for name, limit in limits.items()}

    return Response(200, {"quota_set": {"id": project_id, **await api.store.read(read)}})


async def defaults(api: Api, request: Request) -> Response:
    project_id = _project(request)
    return Response(200, {"quota_set": {"id": project_id, **await api.store.read(_defaults, api)}})


def _defaults(tx: Tx, api: Api) -> dict[str, Any]:
    return _shown(tx, quotas.limits(tx, None, api.settings.volumes.quotas), UNLIMITED)


@takes_kind(_LIMITS, "quota_set")
async def update(api: Api, request: Request, given: dict[str, int]) -> Response:
    """A limit below what is used is refused: what is there stays, and would be over it."""
    project_id = _project(request)

    def write(tx: Tx) -> dict[str, Any]:
        changes = _stored(tx, given)
        used = quotas.used(tx, project_id)
        for name, limit in changes.items():
            if limit != UNLIMITED and limit < used.get(name, 0):
                raise BadRequest(
                    f"Quota {name.partition(':')[0]} limit must be equal or greater than existing resources. Current "
                    f"usage is {used[name]} and the requested limit is {limit}."
                )
        quotas.set_(tx, quotas.scope_of(project_id), changes)
        return _shown(tx, quotas.limits(tx, project_id, api.settings.volumes.quotas), UNLIMITED)

    return Response(200, {"quota_set": await api.store.run(write)})


async def delete(api: Api, request: Request) -> Response:
    """Back to the defaults, also for a project that is no more."""
    await api.store.run(quotas.forget, quotas.scope_of(_project(request)))
    return Response(200)


# -- the defaults, as a class -----------------------------------------------------------------------------------------
async def show_class(api: Api, request: Request) -> Response:
    _must_be_the_class(request)
    return Response(200, {"quota_class_set": {"id": THE_CLASS, **await api.store.read(_defaults, api)}})


@takes_kind(_LIMITS, "quota_class_set")
async def update_class(api: Api, request: Request, given: dict[str, int]) -> Response:
    _must_be_the_class(request)

    def write(tx: Tx) -> dict[str, Any]:
        quotas.set_(tx, quotas.DEFAULT, _stored(tx, given))
        return _defaults(tx, api)

    return Response(200, {"quota_class_set": await api.store.run(write)})


def _must_be_the_class(request: Request) -> None:
    if request.params["class"] != THE_CLASS:
        raise NotFound(f"There is no quota class {request.params['class'][:64]}: the only one is {THE_CLASS}.")


# -- limits -----------------------------------------------------------------------------------------------------------
_MOST = {
    "maxTotalVolumes": "volumes",
    "maxTotalVolumeGigabytes": "gigabytes",
    "maxTotalSnapshots": "snapshots",
    "maxTotalBackups": "backups",
    "maxTotalBackupGigabytes": "backup_gigabytes",
}
_USED = {
    "totalVolumesUsed": "volumes",
    "totalGigabytesUsed": "gigabytes",
    "totalSnapshotsUsed": "snapshots",
    "totalBackupsUsed": "backups",
    "totalBackupGigabytesUsed": "backup_gigabytes",
}
OF_OTHERS_SINCE = 39


async def limits(api: Api, request: Request) -> Response:
    """Of the own project; since 3.39 an administrator names another one."""
    given = dict(request.query)
    project_id = request.caller.project_id or ""
    if request.version >= OF_OTHERS_SINCE and request.caller.is_admin:
        project_id = given.get("project_id") or given.get("tenant_id") or project_id

    def read(tx: Tx) -> dict[str, int]:
        most, used = quotas.limits(tx, project_id, api.settings.volumes.quotas), quotas.used(tx, project_id)
        found = {name: most[resource] for name, resource in _MOST.items()}
        return found | {name: used[resource] for name, resource in _USED.items()}

    return Response(200, {"limits": {"rate": [], "absolute": await api.store.read(read)}})
