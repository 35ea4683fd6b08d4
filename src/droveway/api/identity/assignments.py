"""Role assignments: who has which role on which project, which domain, or the system; itself or in a group, there or in
every project below."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from droveway.api.http.request import Request, Response
from droveway.api.identity.resources import Shown, as_list, list_body, must_be_able_to_give, must_reach
from droveway.api.identity.roles import shown as as_role
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden, NotFound
from droveway.domain.policy import Need, domain_bound, expand, refusal
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, assignments, tokens
from droveway.store.identity.assignments import Actor, AssignmentTarget
from droveway.store.identity.rows import AssignmentRow, RoleRow


# -- one, on a project, a domain or the system ------------------------------------------------------------------------
def _target(request: Request) -> AssignmentTarget:
    """By the path: /v3[/OS-INHERIT]/{projects,domains}/{id}/..., or /v3/system/..."""
    if "/v3/system/" in request.path:
        return AssignmentTarget("system", tokens.SYSTEM)
    inherited = "/v3/OS-INHERIT/" in request.path
    return AssignmentTarget("domain" if "/domains/" in request.path else "project", request.params["id"], inherited)


def _actor(request: Request) -> Actor:
    user_id = request.params.get("user_id")
    return Actor("user", user_id) if user_id is not None else Actor("group", request.params["group_id"])


def _names(request: Request) -> tuple[Actor, AssignmentTarget, str]:
    return _actor(request), _target(request), request.params["role_id"]


def _must_reach(tx: Tx, request: Request, actor: Actor, target: AssignmentTarget) -> None:
    """Who manages a domain gives roles to its people, on it and in its projects."""
    if domain_bound(request.caller) is None:
        return
    if target.kind == "domain":
        must_reach(request, target.id)
    else:
        project = accounts.find_project(tx, id=target.id)
        must_reach(request, accounts.there(project, "project", target.id)["domain_id"])
    who = accounts.find_user(tx, id=actor.id) if actor.kind == "user" else accounts.find_group(tx, id=actor.id)
    must_reach(request, accounts.there(who, actor.kind, actor.id)["domain_id"])


def _may_change(tx: Tx, request: Request) -> tuple[Actor, AssignmentTarget, str]:
    actor, target, role_id = _names(request)
    assignments.must_be(tx, actor, target, role_id)
    _must_reach(tx, request, actor, target)
    role = accounts.there(accounts.find_role(tx, id=role_id), "role", role_id)
    names, implied = tokens.role_graph(tx)
    given = expand([role["id"]], implied)
    must_be_able_to_give(request, (name for role_id, name in names.items() if role_id in given))
    return actor, target, role_id


async def grant(api: Api, request: Request) -> Response:
    await api.store.run(lambda tx: assignments.grant(tx, *_may_change(tx, request)))
    return Response(204)


async def check(api: Api, request: Request) -> Response:
    """`HEAD` and `GET`: 204 when that role is held there, not counting what other roles imply."""

    def read(tx: Tx) -> bool:
        actor, target, role_id = _names(request)
        assignments.must_be(tx, actor, target, role_id)
        _must_reach(tx, request, actor, target)
        return assignments.holds(tx, actor, target, role_id)

    if not await api.store.read(read):
        raise NotFound("Could not find that role assignment: that role is not held there.")
    return Response(204)


async def revoke(api: Api, request: Request) -> Response:
    await api.store.run(lambda tx: assignments.revoke(tx, *_may_change(tx, request)))
    return Response(204)


async def roles_of(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> list[RoleRow]:
        actor, target = _actor(request), _target(request)
        assignments.must_be(tx, actor, target)
        _must_reach(tx, request, actor, target)
        return assignments.roles_of(tx, actor, target)

    return as_list(api, request, "roles", [as_role(api, row) for row in await api.store.read(read)])


# -- all of them ------------------------------------------------------------------------------------------------------
INHERITED_TO = "scope.OS-INHERIT:inherited_to"
FILTERS = (
    *("effective", "group.id", "include_names", "include_subtree", "role.id", INHERITED_TO, "scope.domain.id"),
    *("scope.project.id", "scope.system", "user.id"),
)
_PLACES = {"scope.project.id": "project", "scope.domain.id": "domain", "scope.system": "system"}


async def listing(api: Api, request: Request) -> Response:
    """With names when `include_names` is given; with members of groups, projects below and implied roles when
    `effective` is. A manager of a project sees those of its own."""
    given = request.known_query(FILTERS)
    _must_be_asked_for_by(request, given)
    filters = _as_columns(given)
    effective, with_names = _says(given, "effective"), _says(given, "include_names")
    bound = domain_bound(request.caller) if refusal(Need.IDENTITY_READER, request.caller) is None else None

    def read(tx: Tx) -> list[Shown]:
        wanted = filters.pop("role_id", None) if effective else None
        rows = assignments.listing(tx, effective=effective, **filters)
        if bound is not None:
            rows = [row for row in rows if bound in (row["target_domain_id"], row["target_id"])]
        if not effective:
            return [_assignment(api, row, with_names, row["role_id"]) for row in rows]
        found = _with_implied(rows, *tokens.role_graph(tx))
        return [_assignment(api, row, with_names, by) for row, by in found if wanted in (None, row["role_id"])]

    return Response(200, list_body(api, request, "role_assignments", await api.store.read(read)))


def _must_be_asked_for_by(request: Request, given: Mapping[str, str]) -> None:
    """Who looks into identity; and everybody for its own, and managers for their project."""
    reason, caller = refusal(Need.IDENTITY_READER, request.caller), request.caller
    if reason is None or given.get("user.id") == caller.user_id:
        return
    of_own = given.get("scope.project.id") == caller.project_id is not None
    if not of_own or refusal(Need.MANAGER, caller) is not None:
        raise Forbidden(reason)


def _as_columns(given: Mapping[str, str]) -> dict[str, Any]:
    """Raises BadRequest for what excludes another."""
    filters: dict[str, Any] = {}
    if "user.id" in given and "group.id" in given:
        raise BadRequest("Specify a user or a group, not both.")
    if "group.id" in given and _says(given, "effective"):
        raise BadRequest("Combining effective and group filter will always result in an empty list.")
    for key, kind in (("user.id", "user"), ("group.id", "group")):
        if key in given:
            filters |= {"actor_kind": kind, "actor_id": given[key]}
    places = [key for key in _PLACES if key in given]
    if len(places) > 1:
        raise BadRequest(f"Specify one of {', '.join(_PLACES)}, not several.")
    for key in places:
        filters |= {"target_kind": _PLACES[key], "target_id": tokens.SYSTEM if key == "scope.system" else given[key]}
    if "role.id" in given:
        filters["role_id"] = given["role.id"]
    if INHERITED_TO in given:
        filters["inherited"] = True
    return filters


def _says(given: Mapping[str, str], name: str) -> bool:
    """As Keystone reads a flag of a query: without a value it says yes."""
    return name in given and given[name].lower() not in ("0", "false")


def _with_implied(
    rows: Collection[AssignmentRow], names: Mapping[str, str], implied: Mapping[str, Collection[str]]
) -> list[tuple[AssignmentRow, str]]:
    """Each assignment as often as it gives roles, each role once; with the id of the role that was assigned."""
    found: dict[tuple[str, str, str, str], tuple[AssignmentRow, str]] = {}
    for row in rows:
        held = row["role_id"]
        for role_id in sorted(expand([held], implied), key=lambda one: (one != held, names[one])):
            key = row["actor_id"], row["target_kind"], row["target_id"], role_id
            if key not in found or role_id == held:
                found[key] = {**row, "role_id": role_id, "role_name": names[role_id]}, held
    return list(found.values())


def _assignment(api: Api, row: AssignmentRow, with_names: bool, by: str) -> Shown:
    """`by`: the role that was assigned."""
    kind, actor, place = row["target_kind"], {"id": row["actor_id"]}, {"id": row["target_id"]}
    role: Shown = {"id": row["role_id"]}
    if with_names:
        role["name"] = row["role_name"]
        domain = {"id": row["actor_domain_id"], "name": row["actor_domain_name"]}
        actor = {**actor, "name": row["actor_name"], "domain": domain}  # type: ignore[dict-item]
        place["name"] = row["target_name"]
        if kind == "project":
            domain = {"id": row["target_domain_id"], "name": row["target_domain_name"]}
            place["domain"] = domain  # type: ignore[assignment]
    scope: Shown = {"system": {"all": True}} if kind == "system" else {kind: place}
    is_inherited = row["inherited"] and not row["on_id"]
    if is_inherited:
        scope["OS-INHERIT:inherited_to"] = "projects"
    links = {"assignment": f"{api.settings.base_url}{_path(row, by)}"}
    if row["by_id"]:
        links["membership"] = f"{api.settings.base_url}/identity/v3/groups/{row['by_id']}/users/{row['actor_id']}"
    return {"role": role, row["actor_kind"]: actor, "scope": scope, "links": links}


def _path(row: AssignmentRow, by: str) -> str:
    """Of the assignment itself."""
    who = f"groups/{row['by_id']}" if row["by_id"] else f"{row['actor_kind']}s/{row['actor_id']}"
    kind = row["on_kind"]
    where = "system" if kind == "system" else f"{kind}s/{row['on_id'] or row['target_id']}"
    if row["inherited"]:
        return f"/identity/v3/OS-INHERIT/{where}/{who}/roles/{by}/inherited_to_projects"
    return f"/identity/v3/{where}/{who}/roles/{by}"
