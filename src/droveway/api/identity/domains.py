"""Domains: whose people and projects are kept apart. One that is disabled lets nobody in and ends every token for it;
one that is enabled cannot be deleted.

GET, POST             /v3/domains       {"domains": [{"id", "name", "description", "enabled", "tags", "options"}]}
GET, PATCH, DELETE    /v3/domains/{id}  {"domain": {...}}
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import FLAG, NAME, of, text
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_name, as_text
from droveway.api.identity.resources import (
    DESCRIPTION,
    NO_OPTIONS,
    Flag,
    Shown,
    as_list,
    filters,
    link,
    listing,
    must_be_reader,
    must_reach,
    values_of,
)
from droveway.api.wiring import Api
from droveway.domain.policy import domain_bound
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, places
from droveway.store.identity.rows import DomainRow

SHORT_NAME_MAX = 64
SHORT_NAME = of(
    lambda path, value: as_text(path, as_name(path, value), SHORT_NAME_MAX),
    **dict(NAME.schema) | {"maxLength": SHORT_NAME_MAX},
)


def shown(api: Api, row: DomainRow) -> Shown:
    return {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "enabled": row["enabled"],
        "tags": [],
        "options": {},
        "links": {"self": link(api, f"domains/{row['id']}")},
    }


class NewDomain(Body, frozen=True):
    name: Annotated[str, SHORT_NAME]
    description: Annotated[str | None, DESCRIPTION] = ""
    enabled: Annotated[bool, FLAG] = True
    options: Annotated[object, NO_OPTIONS] = UNSET


class ChangedDomain(Body, frozen=True):
    id: Annotated[str | UnsetType, text(64)] = UNSET  # clients send it, too
    name: Annotated[str | UnsetType, SHORT_NAME] = UNSET
    description: Annotated[str | UnsetType | None, DESCRIPTION] = UNSET
    enabled: Flag = UNSET
    options: Annotated[object, NO_OPTIONS] = UNSET


async def list_all(api: Api, request: Request) -> Response:
    given = filters(request, ("name", "enabled"))
    bound = domain_bound(request.caller)
    if bound is not None:
        given["id"] = bound
    return await listing(api, request, "domains", given, accounts.list_domains, shown)


async def show(api: Api, request: Request) -> Response:
    domain_id, caller = request.params["id"], request.caller
    if domain_id != (caller.domain_id or caller.project_domain_id):
        must_be_reader(request)
        must_reach(request, domain_id)
    row = await api.store.read(_found, domain_id)
    return Response(200, {"domain": shown(api, row)})


def _found(tx: Tx, domain_id: str) -> DomainRow:
    return accounts.there(accounts.find_domain(tx, id=domain_id), "domain", domain_id)


@takes(NewDomain, "domain")
async def create(api: Api, request: Request, given: NewDomain) -> Response:
    row = await api.store.run(lambda tx: _found(tx, places.add_domain(tx, values_of(given))))
    return Response(201, {"domain": shown(api, row)})


@takes(ChangedDomain, "domain")
async def update(api: Api, request: Request, given: ChangedDomain) -> Response:
    domain_id = request.params["id"]

    def write(tx: Tx) -> DomainRow:
        places.update_domain(tx, domain_id, values_of(given, "id"))
        return _found(tx, domain_id)

    return Response(200, {"domain": shown(api, await api.store.run(write))})


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(places.remove_domain, request.params["id"])
    return Response(204)


async def list_own(api: Api, request: Request) -> Response:
    """`/auth/domains`: which the caller could get a token for."""
    rows = await api.store.read(accounts.domains_of, request.caller.user_id)
    return as_list(api, request, "domains", [shown(api, row) for row in rows])


async def list_system(api: Api, request: Request) -> Response:
    """`/auth/system`: whether the caller could get a token for the system."""
    is_on = await api.store.read(accounts.is_on_system, request.caller.user_id)
    return as_list(api, request, "system", [{"all": True}] if is_on else [])
