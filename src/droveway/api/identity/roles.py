"""Roles, and which implies which. The program's own (admin, manager, member, reader, service) stay as they are.

GET, POST             /v3/roles                {"roles": [{"id", "name", "domain_id": null, "description", "options"}]}
GET, PATCH, DELETE    /v3/roles/{id}           {"role": {...}}
GET                   /v3/roles/{id}/implies   {"role_inference": {"prior_role", "implies": [...]}}
HEAD, GET, PUT, DELETE  /v3/roles/{id}/implies/{implied_id}  {"role_inference": {"prior_role", "implies"}}
GET                   /v3/role_inferences      {"role_inferences": [...]}
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import NAME, of, or_null, text
from droveway.api.http.request import Request, Response
from droveway.api.identity.resources import NO_OPTIONS, Shown, as_list, filters, link, listing, values_of
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest
from droveway.domain.policy import ROLES
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, roles
from droveway.store.identity.rows import RoleRow

DESCRIPTION = or_null(text(65_535))


def shown(api: Api, row: RoleRow) -> Shown:
    return {
        "id": row["id"],
        "name": row["name"],
        "domain_id": None,
        "description": row["description"],
        "options": {"immutable": True} if row["name"] in ROLES else {},
        "links": {"self": link(api, f"roles/{row['id']}")},
    }


def _no_domain(path: str, value: Any) -> None:
    if value is not None:
        raise BadRequest(f"Invalid input for {path}: roles of one domain alone are not known here.")


_NO_DOMAIN = of(_no_domain, type="null")


class NewRole(Body, frozen=True):
    name: Annotated[str, NAME]
    domain_id: Annotated[None, _NO_DOMAIN] = None
    description: Annotated[str | None, DESCRIPTION] = None
    options: Annotated[object, NO_OPTIONS] = UNSET


class ChangedRole(Body, frozen=True):
    id: Annotated[str | UnsetType, text(64)] = UNSET  # clients send it, too
    name: Annotated[str | UnsetType, NAME] = UNSET
    domain_id: Annotated[None, _NO_DOMAIN] = None
    description: Annotated[str | UnsetType | None, DESCRIPTION] = UNSET
    options: Annotated[object, NO_OPTIONS] = UNSET


async def list_all(api: Api, request: Request) -> Response:
    given = filters(request, ("domain_id", "name"))
    of_domain = given.pop("domain_id", None)
    return await listing(api, request, "roles", None if of_domain else given, accounts.list_roles, shown)


def _found(tx: Tx, role_id: str) -> RoleRow:
    return accounts.there(accounts.find_role(tx, id=role_id), "role", role_id)


async def show(api: Api, request: Request) -> Response:
    return Response(200, {"role": shown(api, await api.store.read(_found, request.params["id"]))})


@takes(NewRole, "role")
async def create(api: Api, request: Request, given: NewRole) -> Response:
    values = {"name": given.name, "description": given.description}
    row = await api.store.run(lambda tx: _found(tx, roles.add(tx, values)))
    return Response(201, {"role": shown(api, row)})


@takes(ChangedRole, "role")
async def update(api: Api, request: Request, given: ChangedRole) -> Response:
    role_id = request.params["id"]

    def write(tx: Tx) -> RoleRow:
        roles.update_role(tx, role_id, values_of(given, "id", "domain_id"))
        return _found(tx, role_id)

    return Response(200, {"role": shown(api, await api.store.run(write))})


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(roles.remove, request.params["id"])
    return Response(204)


# -- which implies which ----------------------------------------------------------------------------------------------
def _brief(api: Api, row: RoleRow) -> Shown:
    return {"id": row["id"], "name": row["name"], "links": {"self": link(api, f"roles/{row['id']}")}}


def _inference(api: Api, prior: RoleRow, implied: RoleRow) -> Shown:
    return {
        "role_inference": {"prior_role": _brief(api, prior), "implies": _brief(api, implied)},
        "links": {"self": link(api, f"roles/{prior['id']}/implies/{implied['id']}")},
    }


async def list_implied(api: Api, request: Request) -> Response:
    prior, several = await api.store.read(roles.implied_by, request.params["id"])
    inference = {"prior_role": _brief(api, prior), "implies": [_brief(api, row) for row in several]}
    return Response(200, {"role_inference": inference, "links": {"self": link(api, f"roles/{prior['id']}/implies")}})


async def show_implied(api: Api, request: Request) -> Response:
    pair = await api.store.read(roles.implication, request.params["id"], request.params["implied_id"])
    return Response(200, _inference(api, *pair))


async def imply(api: Api, request: Request) -> Response:
    pair = await api.store.run(roles.imply, request.params["id"], request.params["implied_id"])
    return Response(201, _inference(api, *pair))


async def imply_no_longer(api: Api, request: Request) -> Response:
    await api.store.run(roles.imply_no_longer, request.params["id"], request.params["implied_id"])
    return Response(204)


async def list_inferences(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> list[Shown]:
        rows = {row["id"]: row for row in accounts.list_roles(tx)}
        return [
            {"prior_role": _brief(api, rows[prior]), "implies": [_brief(api, rows[one]) for one in several]}
            for prior, several in roles.implications(tx).items()
        ]

    return as_list(api, request, "role_inferences", await api.store.read(read))
