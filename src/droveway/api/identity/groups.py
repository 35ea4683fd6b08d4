"""Groups of users: who is in one has its roles.

GET, POST             /v3/groups                        {"groups": [{"id", "name", "domain_id", "description"}]}
GET, PATCH, DELETE    /v3/groups/{id}                   {"group": {...}}
GET                   /v3/groups/{id}/users             {"users": [...]}
HEAD, PUT, DELETE     /v3/groups/{id}/users/{user_id}   204
GET                   /v3/users/{user_id}/groups        {"groups": [...]}
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import text
from droveway.api.http.request import Request, Response
from droveway.api.identity import users
from droveway.api.identity.domains import SHORT_NAME
from droveway.api.identity.resources import (
    DESCRIPTION,
    ID_OR_NULL,
    Shown,
    as_list,
    filters,
    in_domain,
    link,
    listing,
    must_be_able_to_give,
    must_reach,
    values_of,
)
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, groups
from droveway.store.identity.rows import GroupRow, UserRow


def shown(api: Api, row: GroupRow) -> Shown:
    return {**row, "links": {"self": link(api, f"groups/{row['id']}")}}


class NewGroup(Body, frozen=True):
    name: Annotated[str, SHORT_NAME]
    domain_id: Annotated[str | None, ID_OR_NULL] = None
    description: Annotated[str | None, DESCRIPTION] = ""


class ChangedGroup(Body, frozen=True):
    id: Annotated[str | UnsetType, text(64)] = UNSET  # clients send it, too
    name: Annotated[str | UnsetType, SHORT_NAME] = UNSET
    domain_id: Annotated[str | UnsetType, text(64)] = UNSET
    description: Annotated[str | UnsetType | None, DESCRIPTION] = UNSET


def _reached(tx: Tx, request: Request) -> GroupRow:
    row = accounts.there(accounts.find_group(tx, id=request.params["id"]), "group", request.params["id"])
    must_reach(request, row["domain_id"])
    return row


async def list_all(api: Api, request: Request) -> Response:
    given = in_domain(request, filters(request, ("domain_id", "name")))
    return await listing(api, request, "groups", given, accounts.list_groups, shown)


async def show(api: Api, request: Request) -> Response:
    return Response(200, {"group": shown(api, await api.store.read(_reached, request))})


@takes(NewGroup, "group")
async def create(api: Api, request: Request, given: NewGroup) -> Response:
    """Without a domain: in that of the token."""
    caller = request.caller
    domain_id = given.domain_id or caller.domain_id or caller.user_domain_id
    must_reach(request, domain_id)

    def write(tx: Tx) -> GroupRow:
        accounts.there(accounts.find_domain(tx, id=domain_id), "domain", domain_id)
        made = groups.add(tx, values_of(given, "domain_id") | {"domain_id": domain_id})
        return accounts.there(accounts.find_group(tx, id=made), "group", made)

    return Response(201, {"group": shown(api, await api.store.run(write))})


@takes(ChangedGroup, "group")
async def update(api: Api, request: Request, given: ChangedGroup) -> Response:
    def write(tx: Tx) -> GroupRow:
        row = _reached(tx, request)
        if given.domain_id not in (UNSET, row["domain_id"]):
            raise BadRequest("Invalid input for group.domain_id: the domain of a group cannot be changed.")
        groups.update_group(tx, row["id"], values_of(given, "id", "domain_id"))
        return _reached(tx, request)

    return Response(200, {"group": shown(api, await api.store.run(write))})


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(lambda tx: groups.remove(tx, _reached(tx, request)["id"]))
    return Response(204)


# -- who is in it -----------------------------------------------------------------------------------------------------
async def list_members(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> list[UserRow]:
        return groups.members(tx, _reached(tx, request)["id"])

    return as_list(api, request, "users", [users.shown(api, row) for row in await api.store.read(read)])


async def has_member(api: Api, request: Request) -> Response:
    """`HEAD` and `GET`."""
    user_id = request.params["user_id"]
    if not await api.store.read(lambda tx: groups.is_member(tx, _reached(tx, request)["id"], user_id)):
        raise NotFound(f"Could not find the user {user_id[:64]} in the group {request.params['id'][:64]}.")
    return Response(204)


async def add_member(api: Api, request: Request) -> Response:
    """Who may change both: a manager of a domain adds users of that domain."""

    def write(tx: Tx) -> None:
        group_id, user_id = _reached(tx, request)["id"], request.params["user_id"]
        must_reach(request, accounts.there(accounts.find_user(tx, id=user_id), "user", user_id)["domain_id"])
        _must_hold_its_roles(tx, request, group_id)
        groups.add_member(tx, group_id, user_id)

    await api.store.run(write)
    return Response(204)


def _must_hold_its_roles(tx: Tx, request: Request, group_id: str) -> None:
    """Membership gives the roles of the group: nobody gives by it what they could not give otherwise."""
    must_be_able_to_give(request, groups.role_names(tx, group_id))


async def remove_member(api: Api, request: Request) -> Response:
    await api.store.run(lambda tx: groups.remove_member(tx, _reached(tx, request)["id"], request.params["user_id"]))
    return Response(204)


async def list_of_user(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> list[GroupRow]:
        user_id = request.params["user_id"]
        row = accounts.there(accounts.find_user(tx, id=user_id), "user", user_id)
        if user_id != request.caller.user_id:
            must_reach(request, row["domain_id"])
        return groups.groups_of(tx, user_id)

    return as_list(api, request, "groups", [shown(api, row) for row in await api.store.read(read)])
