"""Quotas of projects, and the one class of defaults. A quota is one of a project: users have none of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, given_in, made, takes
from droveway.api.http.kinds import FLAG, whole
from droveway.api.http.microversions import MAXIMUM, MINIMUM
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain import quota
from droveway.domain.faults import BadRequest, NotFound
from droveway.store.compute import quotas
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts

THE_CLASS = "default"
_GROUPS = ("server_groups", "server_group_members")
_FILES = ("injected_files", "injected_file_content_bytes", "injected_file_path_bytes")
NETWORKS_UNTIL, FILES_UNTIL = 35, 56
CLASS_NETWORKS_UNTIL, CLASS_GROUPS_SINCE = 49, 50


def _of_project(version: int) -> list[str]:
    """The resources that a quota set tells of at that microversion."""
    gone = {
        *quota.OF_IMAGES,
        *(quota.OF_NETWORKS if version > NETWORKS_UNTIL else ()),
        *(_FILES if version > FILES_UNTIL else ()),
    }
    return [resource for resource in quota.RESOURCES if resource not in gone]


def _of_class(version: int) -> list[str]:
    gone = {
        *quota.OF_IMAGES,
        *(quota.OF_NETWORKS if version > CLASS_NETWORKS_UNTIL else ()),
        *(_GROUPS if version < CLASS_GROUPS_SINCE else ()),
        *(_FILES if version > FILES_UNTIL else ()),
    }
    return [resource for resource in quota.RESOURCES if resource not in gone]


def _shown(values: Mapping[str, Any], resources: Iterable[str]) -> dict[str, Any]:
    return {resource: values[resource] for resource in resources}


# -- of projects ------------------------------------------------------------------------------------------------------
async def show(api: Api, request: Request) -> Response:
    project_id = _project(request)

    def read(tx: Tx) -> dict[str, int]:
        _must_exist(tx, project_id)
        return quotas.limits(tx, project_id, api.settings.quotas)

    found = await api.store.read(read)
    return Response(200, {"quota_set": {"id": project_id, **_shown(found, _of_project(request.version))}})


async def defaults(api: Api, request: Request) -> Response:
    project_id = request.params["target"]
    found = await api.store.read(quotas.defaults, api.settings.quotas)
    return Response(200, {"quota_set": {"id": project_id, **_shown(found, _of_project(request.version))}})


async def detail(api: Api, request: Request) -> Response:
    project_id = _project(request)

    def read(tx: Tx) -> dict[str, Any]:
        _must_exist(tx, project_id)
        used = quotas.used(tx, project_id)
        return {
            resource: {"limit": limit, "in_use": used[resource], "reserved": 0}
            for resource, limit in quotas.limits(tx, project_id, api.settings.quotas).items()
        }

    found = await api.store.read(read)
    return Response(200, {"quota_set": {"id": project_id, **_shown(found, _of_project(request.version))}})


def _declared(name: str, known: Callable[[int], list[str]], **more: tuple[Any, Any]) -> type[Body]:
    """A body of limits: each resource at the microversions that `known` says."""
    kind = whole(quota.UNLIMITED, quota.LIMIT_MAX)
    fields: list[tuple[str, Any, Any]] = []
    for resource in quota.RESOURCES:
        there = [minor for minor in range(MINIMUM, MAXIMUM + 1) if resource in known(minor)]
        if there:
            first = kind if there[0] == MINIMUM else kind.since(there[0])
            one = first if there[-1] == MAXIMUM else first.until(there[-1])
            fields.append((resource, Annotated[int | UnsetType, one], UNSET))
    fields += [(word, *each) for word, each in more.items()]
    return made(name, fields)


QuotaSet = _declared("QuotaSet", _of_project, force=(Annotated[bool, FLAG], False))
QuotaClassSet = _declared("QuotaClassSet", _of_class)


@takes(QuotaSet, "quota_set")
async def update(api: Api, request: Request, given: Body) -> Response:
    project_id = _project(request)
    changes = given_in(given)
    is_forced = changes.pop("force")

    def write(tx: Tx) -> dict[str, int]:
        _must_exist(tx, project_id)
        used = {} if is_forced else quotas.used(tx, project_id)
        for resource, limit in changes.items():
            reason = None if is_forced else quota.wrong_limit(resource, limit, used[resource])
            if reason is not None:
                raise BadRequest(reason)
        quotas.set_(tx, quotas.scope_of(project_id), changes)
        return quotas.limits(tx, project_id, api.settings.quotas)

    return Response(200, {"quota_set": _shown(await api.store.run(write), _of_project(request.version))})


async def delete(api: Api, request: Request) -> Response:
    """Back to the defaults, also for a project that is no more."""
    await api.store.run(quotas.forget, quotas.scope_of(_project(request)))
    return Response(202)


def _project(request: Request) -> str:
    """The project in the path. Administrators see all, everyone else that of the token."""
    if "user_id" in request.known_query(("user_id",)):
        raise BadRequest("Users have no quotas of their own here: leave out user_id, and the project's are meant.")
    return request.project_of(request.params["target"], "Quotas")


def _must_exist(tx: Tx, project_id: str) -> None:
    if accounts.find_project(tx, id=project_id) is None:
        raise BadRequest(f"Project ID {project_id[:64]} is not a valid project.")


# -- the defaults, as a class -----------------------------------------------------------------------------------------
async def show_class(api: Api, request: Request) -> Response:
    _must_be_the_class(request)
    found = await api.store.read(quotas.defaults, api.settings.quotas)
    return Response(200, {"quota_class_set": {"id": THE_CLASS, **_shown(found, _of_class(request.version))}})


@takes(QuotaClassSet, "quota_class_set")
async def update_class(api: Api, request: Request, given: Body) -> Response:
    _must_be_the_class(request)
    known = _of_class(request.version)

    def write(tx: Tx) -> dict[str, int]:
        quotas.set_(tx, quotas.DEFAULT_CLASS, given_in(given))
        return quotas.defaults(tx, api.settings.quotas)

    return Response(200, {"quota_class_set": _shown(await api.store.run(write), known)})


def _must_be_the_class(request: Request) -> None:
    if request.params["class"] != THE_CLASS:
        raise NotFound(f"There is no quota class {request.params['class'][:64]}: the only one is {THE_CLASS}.")
