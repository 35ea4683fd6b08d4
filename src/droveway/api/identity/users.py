"""Users, and their passwords. One that is disabled is logged out everywhere at once; so is one whose password changes.

GET, POST             /v3/users            {"users": [{"id", "name", "domain_id", "enabled", "email"?, ...}]}
GET, PATCH, DELETE    /v3/users/{user_id}  {"user": {...}}
POST                  /v3/users/{user_id}/password  {"user": {"original_password", "password"}} -> 204; needs no token
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import FLAG, NAME, of, or_null, text
from droveway.api.http.render import micros_z
from droveway.api.http.request import Request, Response
from droveway.api.identity import login, passwords
from droveway.api.identity.resources import (
    ID_OR_NULL,
    Flag,
    Shown,
    filters,
    in_domain,
    link,
    listing,
    must_be_unrestricted,
    must_reach,
    values_of,
)
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Conflict, Forbidden
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts
from droveway.store.identity.rows import UserRow

FIRST_ADMIN = "admin"
DAY_US = 24 * 3600 * 1_000_000
FILTERS = ("domain_id", "enabled", "name")
OPTIONS = ("ignore_password_expiry", "lock_password")
EMAIL = or_null(text(255))
DESCRIPTION = or_null(text(65_535))
PASSWORD = or_null(text(passwords.PASSWORD_MAX, 1))


def shown(api: Api, row: UserRow) -> Shown:
    expires_at_us = row["password_expires_at_us"]
    body: Shown = {
        "id": row["id"],
        "name": row["name"],
        "domain_id": row["domain_id"],
        "enabled": row["enabled"],
        "password_expires_at": None if expires_at_us is None else micros_z(expires_at_us),
        "options": row["options"],
        "links": {"self": link(api, f"users/{row['id']}")},
    }
    for name in ("default_project_id", "email", "description"):
        if row[name] is not None:
            body[name] = row[name]
    return body


def _options(path: str, value: Any) -> dict[str, bool | None]:
    if not isinstance(value, dict):
        raise BadRequest(f"Invalid input for {path}: it must be an object.")
    for name, setting in value.items():
        if name not in OPTIONS:
            raise BadRequest(
                f"Invalid input for {path}: there is no option {name[:64]}; there is {', '.join(OPTIONS)}."
            )
        if setting is not None and not isinstance(setting, bool):
            raise BadRequest(f"Invalid input for {path}.{name}: it must be true, false or null.")
    return value


_OF_ALL = {name: {"type": ["boolean", "null"]} for name in OPTIONS}
USER_OPTIONS = of(_options, type="object", properties=_OF_ALL, additionalProperties=False)


class NewUser(Body, frozen=True):
    name: Annotated[str, NAME]
    domain_id: Annotated[str | None, ID_OR_NULL] = None
    password: Annotated[str | None, PASSWORD] = None
    default_project_id: Annotated[str | None, ID_OR_NULL] = None
    enabled: Annotated[bool, FLAG] = True
    email: Annotated[str | None, EMAIL] = None
    description: Annotated[str | None, DESCRIPTION] = None
    options: Annotated[dict[str, bool | None], USER_OPTIONS] = msgspec.field(default_factory=dict)


class ChangedUser(Body, frozen=True):
    id: Annotated[str | UnsetType, text(64)] = UNSET  # clients send it, too
    name: Annotated[str | UnsetType, NAME] = UNSET
    domain_id: Annotated[str | UnsetType, text(64)] = UNSET
    password: Annotated[str | UnsetType | None, PASSWORD] = UNSET
    default_project_id: Annotated[str | UnsetType | None, ID_OR_NULL] = UNSET
    enabled: Flag = UNSET
    email: Annotated[str | UnsetType | None, EMAIL] = UNSET
    description: Annotated[str | UnsetType | None, DESCRIPTION] = UNSET
    options: Annotated[dict[str, bool | None] | UnsetType, USER_OPTIONS] = UNSET


class PasswordChange(Body, frozen=True):
    password: Annotated[str, text(passwords.PASSWORD_MAX, 1)]
    original_password: Annotated[str, text(passwords.PASSWORD_MAX)]


# -- reading ----------------------------------------------------------------------------------------------------------
async def list_all(api: Api, request: Request) -> Response:
    given = in_domain(request, filters(request, FILTERS))
    return await listing(api, request, "users", given, accounts.list_users, shown)


def _found(tx: Tx, user_id: str) -> UserRow:
    return accounts.there(accounts.find_user(tx, id=user_id), "user", user_id)


async def show(api: Api, request: Request) -> Response:
    row = await api.store.read(_found, request.params["user_id"])
    if row["id"] != request.caller.user_id:
        must_reach(request, row["domain_id"])
    return Response(200, {"user": shown(api, row)})


# -- changing ---------------------------------------------------------------------------------------------------------
async def sealed(api: Api, password: str, options: dict[str, Any]) -> dict[str, Any]:
    """What the row keeps of a new password."""
    days = 0 if options.get("ignore_password_expiry") else api.settings.identity.password_expiry_days
    expires_at_us = api.clock.now_us() + days * DAY_US if days else None
    hashed = await api.hashing.run(passwords.hash_password, password)
    return {"password_hash": hashed, "password_expires_at_us": expires_at_us}


def must_not_be_first(row: UserRow, what: str) -> None:
    """The program keeps the user `admin` and its password. Raises Conflict."""
    if row["name"] == FIRST_ADMIN and row["domain_id"] == accounts.DEFAULT_DOMAIN_ID:
        raise Conflict(f"{what} Make an administrator of another name instead, in the project {FIRST_ADMIN}.")


PASSWORD_IS_OWN = (
    f"The password of {FIRST_ADMIN} is the program's own, which writes it into clouds.yaml at every start."
)
USER_IS_OWN = f"The user {FIRST_ADMIN} is the program's own, which would make it again at its next start."


def _project_must_be(tx: Tx, project_id: str | UnsetType | None) -> None:
    if isinstance(project_id, str):
        accounts.there(accounts.find_project(tx, id=project_id), "project", project_id)


@takes(NewUser, "user")
async def create(api: Api, request: Request, given: NewUser) -> Response:
    """Without a domain: in that of the token. Without a password nobody can log in as that user yet."""
    caller = request.caller
    domain_id = given.domain_id or caller.domain_id or caller.user_domain_id
    must_reach(request, domain_id)
    api.must_be_writable(domain_id)
    options = {name: on for name, on in given.options.items() if on is not None}
    password = {"password_hash": "", "password_expires_at_us": None}
    if given.password is not None:
        must_be_unrestricted(request)
        password = await sealed(api, given.password, options)
    values = values_of(given, "name", "domain_id", "password", "description") | {"description": given.description}

    def write(tx: Tx) -> UserRow:
        accounts.there(accounts.find_domain(tx, id=domain_id), "domain", domain_id)
        _project_must_be(tx, given.default_project_id)
        row = values | {"options": options, "password_expires_at_us": password["password_expires_at_us"]}
        hashed = str(password["password_hash"])
        return _found(tx, accounts.add_user(tx, given.name, hashed, domain_id=domain_id, **row))

    return Response(201, {"user": shown(api, await api.store.run(write))})


@takes(ChangedUser, "user")
async def update(api: Api, request: Request, given: ChangedUser) -> Response:
    user_id = request.params["user_id"]
    values = values_of(given, "id", "domain_id", "password")
    if "description" in values:
        values["description"] = given.description
    known = await api.store.read(_found, user_id)
    must_reach(request, known["domain_id"])
    options = known["options"] | (given.options or {})
    if given.options is not UNSET:
        values["options"] = options = {name: on for name, on in options.items() if on is not None}
    if given.name not in (UNSET, known["name"]):
        must_not_be_first(known, USER_IS_OWN)
        api.must_be_writable(known["domain_id"])
    if isinstance(given.password, str):
        must_be_unrestricted(request)
        api.must_be_writable(known["domain_id"])
        must_not_be_first(known, PASSWORD_IS_OWN)
        values |= await sealed(api, given.password, options)
    if given.domain_id not in (UNSET, known["domain_id"]):
        raise BadRequest("Invalid input for user.domain_id: the domain of a user cannot be changed.")

    def write(tx: Tx) -> UserRow:
        _project_must_be(tx, given.default_project_id)
        accounts.update_user(tx, user_id, values)
        return _found(tx, user_id)

    return Response(200, {"user": shown(api, await api.store.run(write))})


async def delete(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        row = _found(tx, request.params["user_id"])
        must_reach(request, row["domain_id"])
        must_not_be_first(row, USER_IS_OWN)
        accounts.remove_user(tx, row["id"])

    await api.store.run(write)
    return Response(204)


@takes(PasswordChange, "user")
async def change_password(api: Api, request: Request, given: PasswordChange) -> Response:
    """A client that knows the present password may, also when it has expired: no token is needed. Wrong ones are
    counted as wrong logins are."""
    row = await login.by_password(
        api, request, {"id": request.params["user_id"]}, given.original_password, may_have_expired=True
    )
    api.must_be_writable(row["domain_id"])
    must_not_be_first(row, PASSWORD_IS_OWN)
    if row["options"].get("lock_password"):
        raise Forbidden("The password of this user is locked: an administrator alone may change it.")
    if given.password == given.original_password:
        raise BadRequest("Invalid input for user.password: it must differ from the present one.")
    values = await sealed(api, given.password, row["options"])
    await api.store.run(accounts.update_user, row["id"], values)
    return Response(204)
