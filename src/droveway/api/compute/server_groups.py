"""Server groups: list, show, create, delete."""

from __future__ import annotations

from typing import Any

from droveway.api.compute import fields
from droveway.api.compute.fields import View
from droveway.api.compute.servers import scope_of
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import Fields, as_integer
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.placement import GroupPolicy
from droveway.store.compute import quotas, server_groups
from droveway.store.compute.server_groups import NewGroup
from droveway.store.engine.transaction import Tx
from droveway.store.rows import ServerGroupRow, ServerGroupWithMembers

SOFT_SINCE, RULES_SINCE, STRICT_SINCE = 15, 64, 75
_HARD = (GroupPolicy.AFFINITY, GroupPolicy.ANTI_AFFINITY)


def _render(request: Request, row: ServerGroupRow, members: list[str]) -> dict[str, Any]:
    render = fields.SERVER_GROUP.renderer(request.version, is_admin=request.caller.is_admin)
    return render(ServerGroupWithMembers(**row, members=members), View(""))


async def listing(api: Api, request: Request) -> Response:
    # Nova has no marker here; the SDK, which asks at 2.64, sends one as soon as there is a limit.
    marker = ("marker",) if request.version < STRICT_SINCE else ()
    given = request.known_query(("all_projects", "limit", "offset", *marker))
    # As in Nova, `all_projects` says nothing where somebody else than an administrator says it.
    sees_all = "all_projects" in given and request.caller.is_admin
    project_id = None if sees_all else request.caller.project_id
    most = api.settings.page_max
    # As in Nova, 0 is no limit of one's own here.
    limit = min(as_integer("limit", given["limit"], 0) or most, most) if given.get("limit") else most
    offset = as_integer("offset", given["offset"], 0) if given.get("offset") else 0

    def read(tx: Tx) -> list[dict[str, Any]]:
        try:
            rows = server_groups.find(tx, project_id, after=given.get("marker"), offset=offset, limit=limit)
        except NotFound:
            raise BadRequest(f"marker [{given['marker'][:64]}] not found") from None
        members = server_groups.members(tx, (row["id"] for row in rows))
        return [_render(request, row, members[row["id"]]) for row in rows]

    return Response(200, {"server_groups": await api.store.read(read)})


async def show(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> dict[str, Any]:
        row = server_groups.get(tx, request.params["group"], scope_of(request))
        return _render(request, row, server_groups.members(tx, [row["id"]])[row["id"]])

    return Response(200, {"server_group": await api.store.read(read)})


async def create(api: Api, request: Request) -> Response:
    caller = request.caller
    outer = Fields(await request.json(api.settings.max_body_bytes), "the body", ("server_group",))
    known = ("name", "policy", "rules") if request.version >= RULES_SINCE else ("name", "policies")
    given = outer.object("server_group", known)
    assert caller.project_id is not None, "the route needs a project"
    policy = _policy(request, given)
    new = NewGroup(caller.project_id, caller.user_id, given.name("name"), policy, _max_per_host(given, policy))

    def write(tx: Tx) -> ServerGroupRow:
        quotas.claim_group(tx, new.project_id, api.settings.quotas)
        return server_groups.create(tx, new)

    return Response(200, {"server_group": _render(request, await api.store.run(write), [])})


def _policy(request: Request, given: Fields) -> GroupPolicy:
    """One word; before 2.64 in a list of exactly one."""
    possible = tuple(GroupPolicy) if request.version >= SOFT_SINCE else _HARD
    if request.version >= RULES_SINCE:
        where, word = given.path("policy"), given.required("policy")
    else:
        where, words = given.path("policies"), given.required("policies")
        if not isinstance(words, list) or len(words) != 1:
            raise BadRequest(f"Invalid input for {where}: it must be a list of one policy.")
        word = words[0]
    if not isinstance(word, str) or word not in possible:
        raise BadRequest(f"Invalid input for {where}: it must be one of {', '.join(possible)}.")
    return GroupPolicy(word)


def _max_per_host(given: Fields, policy: GroupPolicy) -> int | None:
    if "rules" not in given:
        return None
    rules = given.object("rules", ("max_server_per_host",))
    if "max_server_per_host" not in rules:
        return None
    if policy is not GroupPolicy.ANTI_AFFINITY:
        raise BadRequest("Only anti-affinity policy supports rules.")
    return rules.required_integer("max_server_per_host", 1)


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(server_groups.remove, request.params["group"], scope_of(request))
    return Response(204)
