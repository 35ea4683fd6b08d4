"""Identity, read-only: domains, projects, users, roles. `droveway user create` makes what is read; who has which role
where is in assignments.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_flag
from droveway.api.wiring import Api
from droveway.domain.faults import Forbidden, NotFound
from droveway.store.identity import accounts
from droveway.store.rows import DomainRow, ProjectRow, RoleRow, UserRow

Body = dict[str, Any]
_R = TypeVar("_R")


def _base(api: Api, collection: str, row: DomainRow | ProjectRow | UserRow | RoleRow) -> Body:
    return {
        "id": row["id"],
        "name": row["name"],
        "links": {"self": f"{api.settings.base_url}/identity/v3/{collection}/{row['id']}"},
        "options": {},
    }


def _domain(api: Api, row: DomainRow) -> Body:
    return {**_base(api, "domains", row), "description": row["description"], "enabled": True, "tags": []}


def _project(api: Api, row: ProjectRow) -> Body:
    return {
        **_base(api, "projects", row),
        "domain_id": row["domain_id"],
        "description": row["description"],
        "enabled": row["enabled"],
        "parent_id": row["domain_id"],
        "is_domain": False,
        "tags": [],
    }


def _user(api: Api, row: UserRow) -> Body:
    body = {
        **_base(api, "users", row),
        "domain_id": row["domain_id"],
        "enabled": row["enabled"],
        "password_expires_at": None,
    }
    if row["default_project_id"] is not None:
        body["default_project_id"] = row["default_project_id"]
    return body


def as_role(api: Api, row: RoleRow) -> Body:
    return {**_base(api, "roles", row), "domain_id": None, "description": None}


def as_list(api: Api, request: Request, name: str, bodies: Sequence[Body]) -> Response:
    query = f"?{request.raw_query.decode('ascii', 'replace')}" if request.raw_query else ""
    own = f"{api.settings.base_url}{request.path}{query}"
    return Response(200, {name: bodies, "links": {"next": None, "previous": None, "self": own}})


def _filters(request: Request, known: Sequence[str]) -> dict[str, Any]:
    """Filters that are columns; unknown ones are ignored, as Keystone does."""
    given = {name: value for name, value in request.query if name in known}
    if "enabled" in given:
        return {**given, "enabled": as_flag("enabled", given["enabled"])}
    return dict(given)


async def _list(
    api: Api,
    request: Request,
    name: str,
    known: Sequence[str],
    query: Callable[..., Sequence[_R]],
    body: Callable[[Api, _R], Body],
) -> Response:
    rows = await api.store.read(query, **_filters(request, known))
    return as_list(api, request, name, [body(api, row) for row in rows])


async def _show(
    api: Api,
    request: Request,
    name: str,
    query: Callable[..., _R | None],
    body: Callable[[Api, _R], Body],
) -> Response:
    wanted = request.params["id"]
    row = await api.store.read(query, id=wanted)
    if row is None:
        raise NotFound(f"Could not find {name}: {wanted[:64]}.")
    return Response(200, {name: body(api, row)})


def _admin_or(request: Request, own: str | None) -> None:
    """Without the admin role one sees oneself, and one's own project and domain."""
    if not request.caller.is_admin and request.params["id"] != own:
        raise Forbidden("You are not authorized to perform the requested action: it needs the role admin.")


async def list_domains(api: Api, request: Request) -> Response:
    return await _list(api, request, "domains", ("name",), accounts.list_domains, _domain)


async def show_domain(api: Api, request: Request) -> Response:
    _admin_or(request, request.caller.domain_id or request.caller.project_domain_id)
    return await _show(api, request, "domain", accounts.find_domain, _domain)


async def list_projects(api: Api, request: Request) -> Response:
    return await _list(api, request, "projects", ("name", "domain_id", "enabled"), accounts.list_projects, _project)


async def show_project(api: Api, request: Request) -> Response:
    _admin_or(request, request.caller.project_id)
    return await _show(api, request, "project", accounts.find_project, _project)


async def list_users(api: Api, request: Request) -> Response:
    return await _list(api, request, "users", ("name", "domain_id", "enabled"), accounts.list_users, _user)


async def show_user(api: Api, request: Request) -> Response:
    _admin_or(request, request.caller.user_id)
    return await _show(api, request, "user", accounts.find_user, _user)


async def list_roles(api: Api, request: Request) -> Response:
    return await _list(api, request, "roles", ("name",), accounts.list_roles, as_role)


async def show_role(api: Api, request: Request) -> Response:
    return await _show(api, request, "role", accounts.find_role, as_role)


async def list_own_projects(api: Api, request: Request) -> Response:
    """`/auth/projects`: where the caller could get a token for."""
    rows = await api.store.read(accounts.projects_of, request.caller.user_id)
    return as_list(api, request, "projects", [_project(api, row) for row in rows])


async def list_own_domains(api: Api, request: Request) -> Response:
    """`/auth/domains`: which the caller could get a token for."""
    rows = await api.store.read(accounts.domains_of, request.caller.user_id)
    return as_list(api, request, "domains", [_domain(api, row) for row in rows])


async def list_projects_of_user(api: Api, request: Request) -> Response:
    _admin_or(request, request.caller.user_id)
    rows = await api.store.read(accounts.projects_of, request.params["id"])
    return as_list(api, request, "projects", [_project(api, row) for row in rows])
