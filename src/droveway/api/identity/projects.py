"""Projects, which stand in a domain or in one another. One that is disabled ends every token for it; one that still
holds something is not deleted.

GET, POST             /v3/projects       {"projects": [{"id", "name", "domain_id", "parent_id", "enabled", "tags"}]}
GET, PATCH, DELETE    /v3/projects/{id}  {"project": {...}}; ?parents_as_list, ?subtree_as_list, ..._as_ids
GET, PUT, DELETE      /v3/projects/{id}/tags, /v3/projects/{id}/tags/{tag}
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import FLAG, of, or_null, text
from droveway.api.http.request import Request, Response
from droveway.api.identity.domains import SHORT_NAME
from droveway.api.identity.resources import (
    DESCRIPTION,
    ID_OR_NULL,
    NO_OPTIONS,
    TAGS,
    Flag,
    Shown,
    as_list,
    filters,
    in_domain,
    link,
    listing,
    must_be_reader,
    must_reach,
    values_of,
)
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.policy import Need, refusal
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, places
from droveway.store.identity.rows import ProjectRow

FILTERS = ("domain_id", "enabled", "is_domain", "name", "parent_id")
RELATED = ("parents_as_list", "parents_as_ids", "subtree_as_list", "subtree_as_ids")


def shown(api: Api, row: ProjectRow) -> Shown:
    return {
        "id": row["id"],
        "name": row["name"],
        "domain_id": row["domain_id"],
        "description": row["description"],
        "enabled": row["enabled"],
        "parent_id": row["parent_id"] or row["domain_id"],
        "is_domain": False,
        "tags": row["tags"],
        "options": {},
        "links": {"self": f"{api.settings.base_url}/identity/v3/projects/{row['id']}"},
    }


def _is_domain(path: str, value: Any) -> bool:
    if value not in (None, False):
        raise BadRequest(f"Invalid input for {path}: a project is no domain; make one at /v3/domains.")
    return False


_IS_DOMAIN = of(_is_domain, enum=[None, False])


class NewProject(Body, frozen=True):
    name: Annotated[str, SHORT_NAME]
    domain_id: Annotated[str | None, ID_OR_NULL] = None
    parent_id: Annotated[str | None, ID_OR_NULL] = None
    description: Annotated[str | None, DESCRIPTION] = ""
    enabled: Annotated[bool, FLAG] = True
    is_domain: Annotated[object, _IS_DOMAIN] = UNSET
    tags: Annotated[list[str] | UnsetType, TAGS] = UNSET
    options: Annotated[object, NO_OPTIONS] = UNSET


class ChangedProject(Body, frozen=True):
    id: Annotated[str | UnsetType, text(64)] = UNSET  # clients send it, too
    name: Annotated[str | UnsetType, SHORT_NAME] = UNSET
    domain_id: Annotated[str | UnsetType, text(64)] = UNSET
    parent_id: Annotated[str | UnsetType | None, or_null(text(64))] = UNSET
    description: Annotated[str | UnsetType | None, DESCRIPTION] = UNSET
    enabled: Flag = UNSET
    is_domain: Annotated[object, _IS_DOMAIN] = UNSET
    tags: Annotated[list[str] | UnsetType, TAGS] = UNSET
    options: Annotated[object, NO_OPTIONS] = UNSET


async def list_all(api: Api, request: Request) -> Response:
    given = in_domain(request, filters(request, (*FILTERS, "tags")))
    if given is not None and given.pop("is_domain", "false").lower() in ("1", "true"):
        given = None  # a project is none
    tags = None if given is None else given.pop("tags", None)
    if given is not None and "parent_id" in given:
        domain_too = given.pop("parent_id")
        return await listing(api, request, "projects", given, _below(domain_too), shown)
    if tags is not None:
        return await listing(api, request, "projects", given, _tagged(set(tags.split(","))), shown)
    return await listing(api, request, "projects", given, accounts.list_projects, shown)


def _below(parent_id: str) -> Any:
    """Those that stand at once in that project, or in that domain."""

    def query(tx: Tx, /, **given: Any) -> list[ProjectRow]:
        rows = accounts.list_projects(tx, **given)
        return [row for row in rows if (row["parent_id"] or row["domain_id"]) == parent_id]

    return query


def _tagged(wanted: set[str]) -> Any:
    def query(tx: Tx, /, **given: Any) -> list[ProjectRow]:
        return [row for row in accounts.list_projects(tx, **given) if wanted <= set(row["tags"])]

    return query


async def show(api: Api, request: Request) -> Response:
    project_id = request.params["id"]
    wanted = request.known_query(RELATED)

    def read(tx: Tx) -> Shown:
        row = _visible(tx, request, project_id)
        body = shown(api, row)
        for name in wanted:
            of_tree = places.related(tx, project_id, below=name.startswith("subtree"))
            as_ids = name.endswith("_ids")
            body[name.removesuffix("_as_ids").removesuffix("_as_list")] = (
                _by_ids(row, of_tree, name) if as_ids else [{"project": shown(api, one)} for one in of_tree]
            )
        return body

    return Response(200, {"project": await api.store.read(read)})


def _by_ids(row: ProjectRow, rows: list[ProjectRow], name: str) -> Any:
    """Ids within ids, from this one outward; null behind the last."""
    if name.startswith("parents"):
        above = {one["id"]: one["parent_id"] for one in rows}
        chain, at = [], row["parent_id"]
        while at is not None:
            chain.append(at)
            at = above.get(at)
        found: Any = {row["domain_id"]: None}
        for one in reversed(chain):
            found = {one: found}
        return found

    def inside(project_id: str) -> Any:
        return {one["id"]: inside(one["id"]) for one in rows if one["parent_id"] == project_id} or None

    return inside(row["id"])


def _found(tx: Tx, project_id: str) -> ProjectRow:
    return accounts.there(accounts.find_project(tx, id=project_id), "project", project_id)


def _visible(tx: Tx, request: Request, project_id: str) -> ProjectRow:
    """The project of the token, one that the caller has a role in, or any for who may look into identity."""
    caller = request.caller
    if project_id != caller.project_id and refusal(Need.IDENTITY_READER, caller) is not None:
        if all(row["id"] != project_id for row in accounts.projects_of(tx, caller.user_id)):
            must_be_reader(request)
        return _found(tx, project_id)
    row = _found(tx, project_id)
    if project_id != caller.project_id:
        must_reach(request, row["domain_id"])
    return row


def _changeable(tx: Tx, request: Request) -> ProjectRow:
    row = _found(tx, request.params["id"])
    must_reach(request, row["domain_id"])
    return row


@takes(NewProject, "project")
async def create(api: Api, request: Request, given: NewProject) -> Response:
    """Without a domain: in that of its parent, or else of the token."""
    caller = request.caller
    values = values_of(given, "domain_id", "parent_id", "is_domain", "name", "description")
    values = {name: value for name, value in values.items() if value is not UNSET}

    def write(tx: Tx) -> ProjectRow:
        above = accounts.find_project(tx, id=given.parent_id) if given.parent_id else None
        domain_id = given.domain_id or (above["domain_id"] if above else None)
        if domain_id is None and given.parent_id and accounts.find_domain(tx, id=given.parent_id):
            domain_id = given.parent_id
        domain_id = domain_id or caller.domain_id or caller.project_domain_id or accounts.DEFAULT_DOMAIN_ID
        must_reach(request, domain_id)
        accounts.there(accounts.find_domain(tx, id=domain_id), "domain", domain_id)
        parent = places.parent_of(tx, given.parent_id, domain_id)
        made = accounts.add_project(
            tx, given.name, given.description or "", domain_id=domain_id, parent=parent, **values
        )
        return _found(tx, made)

    return Response(201, {"project": shown(api, await api.store.run(write))})


@takes(ChangedProject, "project")
async def update(api: Api, request: Request, given: ChangedProject) -> Response:
    def write(tx: Tx) -> ProjectRow:
        row = _changeable(tx, request)
        for name, is_now in (("domain_id", row["domain_id"]), ("parent_id", row["parent_id"] or row["domain_id"])):
            if getattr(given, name) not in (UNSET, is_now):
                raise BadRequest(f"Invalid input for project.{name}: where a project stands cannot be changed.")
        places.update_project(tx, row["id"], values_of(given, "id", "domain_id", "parent_id", "is_domain"))
        return _found(tx, row["id"])

    return Response(200, {"project": shown(api, await api.store.run(write))})


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(lambda tx: places.remove_project(tx, _changeable(tx, request)["id"]))
    return Response(204)


async def list_own(api: Api, request: Request) -> Response:
    """`/auth/projects`: where the caller could get a token for."""
    rows = await api.store.read(accounts.projects_of, request.caller.user_id)
    return as_list(api, request, "projects", [shown(api, row) for row in rows])


async def list_of_user(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> list[ProjectRow]:
        user_id = request.params["user_id"]
        row = accounts.there(accounts.find_user(tx, id=user_id), "user", user_id)
        if user_id != request.caller.user_id:
            must_reach(request, row["domain_id"])
        return accounts.projects_of(tx, user_id)

    return as_list(api, request, "projects", [shown(api, row) for row in await api.store.read(read)])


# -- tags -------------------------------------------------------------------------------------------------------------
class Tags(Body, frozen=True):
    tags: Annotated[list[str], TAGS]


async def list_tags(api: Api, request: Request) -> Response:
    row = await api.store.read(_visible, request, request.params["id"])
    return Response(200, {"tags": row["tags"], "links": {"self": link(api, f"projects/{row['id']}/tags")}})


async def has_tag(api: Api, request: Request) -> Response:
    row = await api.store.read(_visible, request, request.params["id"])
    if request.params["tag"] not in row["tags"]:
        raise NotFound(f"Could not find project tag: {request.params['tag'][:64]}.")
    return Response(204)


@takes(Tags)
async def replace_tags(api: Api, request: Request, given: Tags) -> Response:
    await _set_tags(api, request, lambda _: given.tags)
    return Response(200, {"tags": given.tags, "links": {"self": link(api, f"projects/{request.params['id']}/tags")}})


async def _set_tags(api: Api, request: Request, change: Any) -> None:
    def write(tx: Tx) -> None:
        row = _changeable(tx, request)
        places.update_project(tx, row["id"], {"tags": TAGS.read("tags", change(row["tags"]))})

    await api.store.run(write)


async def add_tag(api: Api, request: Request) -> Response:
    await _set_tags(api, request, lambda held: [*held, request.params["tag"]])
    return Response(201, headers=[(b"location", link(api, f"projects/{request.params['id']}/tags").encode())])


async def remove_tag(api: Api, request: Request) -> Response:
    def without(held: list[str]) -> list[str]:
        if request.params["tag"] not in held:
            raise NotFound(f"Could not find project tag: {request.params['tag'][:64]}.")
        return [one for one in held if one != request.params["tag"]]

    await _set_tags(api, request, without)
    return Response(204)


async def clear_tags(api: Api, request: Request) -> Response:
    await _set_tags(api, request, lambda _: [])
    return Response(204)
