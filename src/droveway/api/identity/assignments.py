"""Role assignments: who has which role on which project or domain. Groups, inheritance and roles on the system are not
built: their routes are a 404, and no assignment is ever one of theirs."""

from __future__ import annotations

from collections.abc import Iterable

from droveway.api.http.request import Request, Response
from droveway.api.identity.identity import Body, as_list, as_role
from droveway.api.wiring import Api
from droveway.domain.faults import NotFound
from droveway.domain.policy import expand
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, assignments
from droveway.store.identity.assignments import AssignmentTarget
from droveway.store.rows import AssignmentRow, EffectiveRow, RoleRow


# -- one, on a project or a domain ------------------------------------------------------------------------------------
def _target(request: Request) -> AssignmentTarget:
    """By the path: /v3/projects/{id}/... or /v3/domains/{id}/..."""
    return AssignmentTarget("domain" if "/v3/domains/" in request.path else "project", request.params["id"])


def _names(request: Request) -> tuple[str, AssignmentTarget, str]:
    return request.params["user_id"], _target(request), request.params["role_id"]


async def grant(api: Api, request: Request) -> Response:
    await api.store.run(assignments.grant, *_names(request))
    return Response(204)


async def check(api: Api, request: Request) -> Response:
    """`HEAD` and `GET`: 204 when the user has that role there, not counting what other roles imply."""

    def read(tx: Tx) -> bool:
        assignments.must_be(tx, *_names(request))
        return assignments.holds(tx, *_names(request))

    if not await api.store.read(read):
        raise NotFound("Could not find that role assignment: the user does not have that role there.")
    return Response(204)


async def revoke(api: Api, request: Request) -> Response:
    await api.store.run(assignments.revoke, *_names(request))
    return Response(204)


async def roles_of(api: Api, request: Request) -> Response:
    user_id, target = request.params["user_id"], _target(request)

    def read(tx: Tx) -> list[RoleRow]:
        assignments.must_be(tx, user_id, target)
        return list(assignments.roles_of(tx, user_id, target))

    return as_list(api, request, "roles", [as_role(api, row) for row in await api.store.read(read)])


# -- all of them ------------------------------------------------------------------------------------------------------
_FILTERS = {
    "user.id": "user_id",
    "role.id": "role_id",
    "scope.project.id": "project_id",
    "scope.domain.id": "domain_id",
}
_OF_NOBODY = ("group.id", "scope.system", "scope.OS-INHERIT:inherited_to")


async def listing(api: Api, request: Request) -> Response:
    """With names when `include_names` is given; with the roles that are implied when `effective` is."""
    given = dict(request.query)
    filters = {column: given[name] for name, column in _FILTERS.items() if name in given}

    def read(tx: Tx) -> list[EffectiveRow]:
        if any(name in given for name in _OF_NOBODY):
            return []
        if not _says(given, "effective"):
            return [{**row, "by": None} for row in assignments.listing(tx, **filters)]
        wanted = filters.pop("role_id", None)
        every = {role["name"]: role["id"] for role in accounts.list_roles(tx)}
        rows = _with_implied(assignments.listing(tx, **filters), every)
        return [row for row in rows if wanted in (None, row["role_id"])]

    rows = await api.store.read(read)
    with_names = _says(given, "include_names")
    return as_list(api, request, "role_assignments", [_assignment(api, row, with_names) for row in rows])


def _says(given: dict[str, str], name: str) -> bool:
    """As Keystone reads a flag of a query: without a value it says yes."""
    return name in given and given[name].lower() not in ("0", "false")


def _with_implied(rows: Iterable[AssignmentRow], roles: dict[str, str]) -> list[EffectiveRow]:
    """Each assignment as often as it gives roles, each role once; `by` is the id of the role that was assigned."""
    found: dict[tuple[str, ...], EffectiveRow] = {}
    for row in rows:
        for name in sorted(expand([row["role_name"]]), key=lambda name: (name != row["role_name"], name)):
            key = row["user_id"], row["project_id"] or "", row["domain_id"] or "", name
            if key not in found or name == row["role_name"]:
                found[key] = {**row, "role_id": roles[name], "role_name": name, "by": row["role_id"]}
    return list(found.values())


def _assignment(api: Api, row: EffectiveRow, with_names: bool) -> Body:
    role: Body = {"id": row["role_id"]}
    user: Body = {"id": row["user_id"]}
    kind = "project" if row["project_id"] is not None else "domain"
    place: Body = {"id": row["project_id"] or row["domain_id"]}
    if with_names:
        role["name"] = row["role_name"]
        user |= {"name": row["user_name"], "domain": {"id": row["user_domain_id"], "name": row["user_domain_name"]}}
        place["name"] = row["project_name"] or row["domain_name"]
        if kind == "project":
            place["domain"] = {"id": row["project_domain_id"], "name": row["project_domain_name"]}
    path = f"/identity/v3/{kind}s/{place['id']}/users/{user['id']}/roles/{row['by'] or role['id']}"
    return {
        "role": role,
        "user": user,
        "scope": {kind: place},
        "links": {"assignment": f"{api.settings.base_url}{path}"},
    }
