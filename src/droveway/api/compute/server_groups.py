"""Server groups: list, show, create, delete."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from droveway.api.compute import fields
from droveway.api.compute.fields import View
from droveway.api.http import paging
from droveway.api.http.bodies import Body, Kind, nested, takes
from droveway.api.http.kinds import NAME, of, one_of, whole
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_integer
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
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
    # As in Nova, `all_projects` has no effect but for an administrator.
    sees_all = "all_projects" in given and request.caller.is_admin
    project_id = None if sees_all else request.caller.project_id
    most = api.settings.page_max
    # As in Nova, 0 is no limit of one's own here.
    limit = min(as_integer("limit", given["limit"], 0) or most, most) if given.get("limit") else most
    offset = as_integer("offset", given["offset"], 0) if given.get("offset") else 0

    def read(tx: Tx) -> list[dict[str, Any]]:
        with paging.marked(given.get("marker")):
            rows = server_groups.find(tx, project_id, after=given.get("marker"), offset=offset, limit=limit)
        members = server_groups.members(tx, (row["id"] for row in rows))
        return [_render(request, row, members[row["id"]]) for row in rows]

    return Response(200, {"server_groups": await api.store.read(read)})


async def show(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> dict[str, Any]:
        row = server_groups.get(tx, request.params["group"], request.scope)
        return _render(request, row, server_groups.members(tx, [row["id"]])[row["id"]])

    return Response(200, {"server_group": await api.store.read(read)})


def _policies(possible: Collection[GroupPolicy]) -> Kind:
    """One word in a list of exactly one, as it was before 2.64."""
    word = one_of(possible)

    def check(path: str, value: Any) -> GroupPolicy:
        if not isinstance(value, list) or len(value) != 1:
            raise BadRequest(f"Invalid input for {path}: it must be a list of one policy.")
        return GroupPolicy(word.read(path, value[0]))

    return of(check, type="array", items=dict(word.schema), minItems=1, maxItems=1)


class Rules(Body, frozen=True):
    max_server_per_host: Annotated[int | None, whole(1)] = None


class NewServerGroup(Body, frozen=True, kw_only=True):
    policies: Annotated[
        str,
        _policies(_HARD).until(SOFT_SINCE - 1).needed(),
        _policies(GroupPolicy).since(SOFT_SINCE).until(RULES_SINCE - 1).needed(),
    ] = ""
    policy: Annotated[str, one_of(GroupPolicy).since(RULES_SINCE).needed()] = ""
    name: Annotated[str, NAME]
    rules: Annotated[Rules, nested(Rules).since(RULES_SINCE)] = Rules()


@takes(NewServerGroup, "server_group")
async def create(api: Api, request: Request, given: NewServerGroup) -> Response:
    caller = request.caller
    assert caller.project_id is not None, "the route needs a project"
    policy, most = GroupPolicy(given.policy or given.policies), given.rules.max_server_per_host
    if most is not None and policy is not GroupPolicy.ANTI_AFFINITY:
        raise BadRequest("Only anti-affinity policy supports rules.")
    new = NewGroup(caller.project_id, caller.user_id, given.name, policy, most)

    def write(tx: Tx) -> ServerGroupRow:
        quotas.claim_group(tx, new.project_id, api.settings.quotas)
        return server_groups.create(tx, new)

    return Response(200, {"server_group": _render(request, await api.store.run(write), [])})


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(server_groups.remove, request.params["group"], request.scope)
    return Response(204)
