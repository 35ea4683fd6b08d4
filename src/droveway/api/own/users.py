"""Users are made by an operator, beside OpenStack's API, which only reads them here.

GET   /droveway/v1/users   {"users": [{"id", "name", "enabled", "roles": [{"role", "project", "domain"}]}]}
DELETE /droveway/v1/users/{user}   200 {"user": {"id", "name"}}; by name or id; every token of that user ends
POST  /droveway/v1/users   {"user": {"name", "project", "role"?, "password"?}} -> 201; the project is made when new
PATCH /droveway/v1/users   {"user": {"name", "password"?}} -> 200; every token of that user ends

Without a password one is made up, and is in the reply, this one time.
"""

from __future__ import annotations

from typing import Annotated, Any

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import NAME, of, one_of, text
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_name, as_text
from droveway.api.identity import passwords
from droveway.api.wiring import Api
from droveway.domain.faults import Conflict, NotFound
from droveway.domain.policy import ROLES
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, assignments, tokens

PROJECT_NAME_MAX = 64
FIRST_ADMIN = "admin"


async def listing(api: Api, request: Request) -> Response:
    request.known_query(())

    def read(tx: Tx) -> list[dict[str, Any]]:
        held: dict[str, list[dict[str, Any]]] = {}
        for row in assignments.listing(tx, effective=True):
            kind, name = row["target_kind"], row["target_name"]
            one = {"role": row["role_name"], "project": None, "domain": None} | {kind: name or tokens.SYSTEM}
            held.setdefault(row["actor_id"], []).append(one)
        return [
            {"id": row["id"], "name": row["name"], "enabled": row["enabled"], "roles": held.get(row["id"], [])}
            for row in accounts.list_users(tx)
        ]

    return Response(200, {"users": await api.store.read(read)})


async def delete(api: Api, request: Request) -> Response:
    given = request.params["user"]

    def write(tx: Tx) -> dict[str, str]:
        user = accounts.find_user(tx, name=given, domain_id=accounts.DEFAULT_DOMAIN_ID) or accounts.find_user(
            tx, id=given
        )
        if user is None:
            raise NotFound(f"There is no user {given[:64]}; 'droveway user list' shows those there are.")
        if user["name"] == FIRST_ADMIN:
            raise Conflict(f"The user {FIRST_ADMIN} is the program's own, which would make it again at its next start.")
        accounts.remove_user(tx, user["id"])
        return {"id": user["id"], "name": user["name"]}

    return Response(200, {"user": await api.store.run(write)})


def _project_name(path: str, value: Any) -> str:
    return as_text(path, as_name(path, value), PROJECT_NAME_MAX)


_PASSWORD = text(passwords.PASSWORD_MAX, 1)


class NewUser(Body, frozen=True):
    name: Annotated[str, NAME]
    project: Annotated[str, of(_project_name, **NAME.schema | {"maxLength": PROJECT_NAME_MAX})]
    role: Annotated[str, one_of(ROLES)] = "member"
    password: Annotated[str | None, _PASSWORD] = None


class NewPassword(Body, frozen=True):
    name: Annotated[str, NAME]
    password: Annotated[str | None, _PASSWORD] = None


@takes(NewUser, "user")
async def create(api: Api, request: Request, given: NewUser) -> Response:
    name, project, role = given.name, given.project, given.role
    hashed, shown = await _password(api, given.password)

    def write(tx: Tx) -> str:
        known = accounts.find_project(tx, name=project, domain_id=accounts.DEFAULT_DOMAIN_ID)
        project_id = known["id"] if known is not None else accounts.add_project(tx, project)
        user_id = accounts.add_user(tx, name, hashed, default_project_id=project_id)
        accounts.grant(tx, user_id, project_id, role)
        return user_id

    user_id = await api.store.run(write)
    return Response(201, {"user": {"id": user_id, "name": name, "project": project, "role": role, **shown}})


@takes(NewPassword, "user")
async def set_password(api: Api, request: Request, given: NewPassword) -> Response:
    name = given.name
    if name == FIRST_ADMIN:
        raise Conflict(
            f"The password of {FIRST_ADMIN} is the program's own, which writes it into clouds.yaml at every start. "
            f"Make an administrator of another name instead, in the project {FIRST_ADMIN}."
        )
    hashed, shown = await _password(api, given.password)

    def write(tx: Tx) -> str:
        user = accounts.find_user(tx, name=name, domain_id=accounts.DEFAULT_DOMAIN_ID)
        if user is None:
            raise NotFound(f"There is no user {name}.")
        accounts.set_password(tx, user["id"], hashed)
        return str(user["id"])

    user_id = await api.store.run(write)
    return Response(200, {"user": {"id": user_id, "name": name, **shown}})


async def _password(api: Api, given: str | None) -> tuple[str, dict[str, str]]:
    """The hash of the password, and what the reply shows of it: one that was made up."""
    password = api.names.secret() if given is None else given
    shown = {"password": password} if given is None else {}
    return await api.hashing.run(passwords.hash_password, password), shown
