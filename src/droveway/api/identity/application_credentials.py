"""Application credentials: a user's own keys for programs, each for one project with some of the user's roles there.
A restricted one, which is the rule, makes no others, makes no keys, and changes no password. Its secret is told once.

GET, POST      /v3/users/{user_id}/application_credentials       {"application_credentials": [...]}
GET, DELETE    /v3/users/{user_id}/application_credentials/{id}  {"application_credential": {...}}
"""

from __future__ import annotations

from typing import Annotated, Any

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import FLAG, NAME, of, or_null, text
from droveway.api.http.render import micros
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_text, as_time_us
from droveway.api.identity import passwords
from droveway.api.identity.resources import Shown, as_list, link, must_be_unrestricted
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, keys, tokens
from droveway.store.identity.rows import ApplicationCredentialRow

ROLES_MAX = 100
SECRET_MIN, SECRET_MAX = 1, 255


def _shown(api: Api, row: ApplicationCredentialRow, names: dict[str, str]) -> Shown:
    return {
        "id": row["id"],
        "name": row["name"],
        "description": row["description"],
        "user_id": row["user_id"],
        "project_id": row["project_id"],
        "system": None,
        "roles": [{"id": one, "name": names.get(one, ""), "domain_id": None} for one in row["role_ids"]],
        "expires_at": micros(row["expires_at_us"]),
        "unrestricted": row["unrestricted"],
        "links": {"self": link(api, f"users/{row['user_id']}/application_credentials/{row['id']}")},
    }


def _role_refs(path: str, value: Any) -> list[dict[str, str]]:
    if not isinstance(value, list) or len(value) > ROLES_MAX:
        raise BadRequest(f"Invalid input for {path}: it must be a list of at most {ROLES_MAX} roles.")
    for one in value:
        if not isinstance(one, dict) or not isinstance(one.get("id", one.get("name")), str):
            raise BadRequest(f"Invalid input for {path}: a role is named by its id or its name.")
    return value


_ROLE = {"type": "object", "anyOf": [{"required": ["id"]}, {"required": ["name"]}]}
ROLES = of(_role_refs, type="array", maxItems=ROLES_MAX, items=_ROLE)


def _expiry(path: str, value: Any) -> int:
    return as_time_us(path, as_text(path, value, 64, 1))


def _no_rules(path: str, value: Any) -> None:
    if value not in (None, []):
        raise BadRequest(
            f"Invalid input for {path}: access rules are not known here, and one that was ignored would open what you "
            "meant to keep closed; give the credential fewer roles instead."
        )


class NewApplicationCredential(Body, frozen=True):
    name: Annotated[str, NAME]
    description: Annotated[str | None, or_null(text(65_535))] = None
    secret: Annotated[str | None, or_null(text(SECRET_MAX, SECRET_MIN))] = None
    roles: Annotated[list[dict[str, str]] | None, or_null(ROLES)] = None
    project_id: Annotated[str | None, or_null(text(64))] = None
    expires_at: Annotated[int | None, or_null(of(_expiry, type="string", format="date-time"))] = None
    unrestricted: Annotated[bool | None, or_null(FLAG)] = None
    access_rules: Annotated[None, of(_no_rules, anyOf=[{"type": "null"}, {"type": "array", "maxItems": 0}])] = None


async def listing(api: Api, request: Request) -> Response:
    by = {"user_id": request.params["user_id"], **request.known_query(("name",))}

    def read(tx: Tx) -> list[Shown]:
        names = tokens.role_graph(tx)[0]
        return [_shown(api, row, names) for row in keys.list_applications(tx, **by)]

    return as_list(api, request, "application_credentials", await api.store.read(read))


async def show(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> Shown:
        row = keys.find_application(tx, id=request.params["id"], user_id=request.params["user_id"])
        found = accounts.there(row, "application credential", request.params["id"])
        return _shown(api, found, tokens.role_graph(tx)[0])

    return Response(200, {"application_credential": await api.store.read(read)})


@takes(NewApplicationCredential, "application_credential")
async def create(api: Api, request: Request, given: NewApplicationCredential) -> Response:
    """For the project of the token, with the roles of the token unless fewer are named."""
    caller, now_us = request.caller, api.clock.now_us()
    must_be_unrestricted(request)
    if caller.project_id is None:
        raise Forbidden("The token is not scoped to a project, which the credential would be for; ask for one that is.")
    if given.project_id not in (None, caller.project_id):
        raise Forbidden("An application credential is for the project of the token with which it is made.")
    if given.expires_at is not None and given.expires_at <= now_us:
        raise BadRequest("Invalid input for application_credential.expires_at: that time has passed.")
    role_ids = _roles(dict(caller.roles), given.roles)
    secret = given.secret if given.secret is not None else api.names.secret()
    if given.secret is None:
        hashed = passwords.hash_made_up(secret)
    else:
        hashed = await api.hashing.run(passwords.hash_password, secret)
    values = {
        "user_id": caller.user_id,
        "project_id": caller.project_id,
        "name": given.name,
        "description": given.description,
        "secret_hash": hashed,
        "role_ids": role_ids,
        "unrestricted": bool(given.unrestricted),
        "expires_at_us": given.expires_at,
    }

    def write(tx: Tx) -> Shown:
        made = keys.find_application(tx, id=keys.add_application(tx, values))
        assert made is not None, "it was made just now"
        return _shown(api, made, tokens.role_graph(tx)[0])

    return Response(201, {"application_credential": await api.store.run(write) | {"secret": secret}})


def _roles(held: dict[str, str], given: list[dict[str, str]] | None) -> list[str]:
    """The ids of those that it shall have. Raises BadRequest for one that the token has not got."""
    if not given:
        return list(held)
    by_name = {name: role_id for role_id, name in held.items()}
    found = []
    for one in given:
        role_id = one["id"] if "id" in one else by_name.get(one["name"])
        if role_id not in held:
            raise BadRequest(
                f"Invalid application credential: the token has not got the role {(one.get('id') or one['name'])[:64]}."
            )
        found.append(role_id)
    return list(dict.fromkeys(found))


async def delete(api: Api, request: Request) -> Response:
    """Every token that was bought with it ends."""
    must_be_unrestricted(request)
    await api.store.run(keys.remove_application, request.params["user_id"], request.params["id"])
    return Response(204)


async def list_access_rules(api: Api, request: Request) -> Response:
    """There are none."""
    return as_list(api, request, "access_rules", [])
