"""Keys of other kinds, each a text that the program keeps for a user; EC2's, with which programs sign, among them.

GET, POST             /v3/credentials            {"credentials": [{"id", "type", "blob", "user_id", "project_id"}]}
GET, PATCH, DELETE    /v3/credentials/{id}       {"credential": {...}}
GET, POST             /v3/users/{user_id}/credentials/OS-EC2           {"credentials": [{"access", "secret", ...}]}
GET, DELETE           /v3/users/{user_id}/credentials/OS-EC2/{access}  {"credential": {...}}
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import or_null, text
from droveway.api.http.request import Request, Response
from droveway.api.identity.resources import ID, Shown, as_list, link, must_be_unrestricted, values_of
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden, NotFound
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, keys, tokens
from droveway.store.identity.rows import CredentialRow
from droveway.store.identity.tokens import Place

EC2 = "ec2"
BLOB_MAX = 16 * 1024
TYPE, BLOB = text(255, 1), text(BLOB_MAX, 1)


def _shown(api: Api, row: CredentialRow) -> Shown:
    return {**row, "links": {"self": link(api, f"credentials/{row['id']}")}}


class NewCredential(Body, frozen=True):
    type: Annotated[str, TYPE]
    blob: Annotated[str, BLOB]
    user_id: Annotated[str | None, or_null(ID)] = None
    project_id: Annotated[str | None, or_null(ID)] = None


class ChangedCredential(Body, frozen=True):
    id: Annotated[str | UnsetType, ID] = UNSET  # clients send it, too
    type: Annotated[str | UnsetType, TYPE] = UNSET
    blob: Annotated[str | UnsetType, BLOB] = UNSET
    user_id: Annotated[str | UnsetType, ID] = UNSET
    project_id: Annotated[str | UnsetType | None, or_null(ID)] = UNSET


def _access_of(blob: str) -> str:
    """Of a blob of an EC2 key: its access key. Raises BadRequest."""
    try:
        found = msgspec.json.decode(blob)
        access, secret = found["access"], found["secret"]
    except (msgspec.DecodeError, KeyError, TypeError):
        access, secret = None, None
    if not isinstance(access, str) or not isinstance(secret, str) or not secret:  # with none, anybody could sign
        raise BadRequest(
            'Invalid input for credential.blob: one of type ec2 is {"access": ..., "secret": ...} as text, not empty.'
        )
    return access


def id_of_access(access: str) -> str:
    return hashlib.sha256(access.encode()).hexdigest()


def _owner(request: Request, user_id: str | None) -> str:
    """Whose it is, or shall be. Raises Forbidden."""
    if user_id not in (None, request.caller.user_id) and not request.caller.is_admin:
        raise Forbidden("Credentials of another user need the role admin.")
    return user_id or request.caller.user_id


# -- of any kind ------------------------------------------------------------------------------------------------------
async def listing(api: Api, request: Request) -> Response:
    """One's own; an administrator's are everybody's."""
    by: dict[str, Any] = dict(request.known_query(("type", "user_id")))
    if not request.caller.is_admin:
        by["user_id"] = _owner(request, by.get("user_id"))
    rows = await api.store.read(keys.list_credentials, **by)
    return as_list(api, request, "credentials", [_shown(api, row) for row in rows])


def _own(tx: Tx, request: Request) -> CredentialRow:
    row = keys.find_credential(tx, id=request.params["id"])
    if row is None or (row["user_id"] != request.caller.user_id and not request.caller.is_admin):
        raise NotFound(f"Could not find credential: {request.params['id'][:64]}.")
    return row


async def show(api: Api, request: Request) -> Response:
    return Response(200, {"credential": _shown(api, await api.store.read(_own, request))})


@takes(NewCredential, "credential")
async def create(api: Api, request: Request, given: NewCredential) -> Response:
    must_be_unrestricted(request)
    user_id = _owner(request, given.user_id)
    if given.type == EC2 and given.project_id is None:
        raise BadRequest("Invalid input for credential: one of type ec2 needs a project_id.")
    credential_id = id_of_access(_access_of(given.blob)) if given.type == EC2 else api.names.uuid().replace("-", "")

    def write(tx: Tx) -> CredentialRow:
        accounts.there(accounts.find_user(tx, id=user_id), "user", user_id)
        _must_have_role(tx, user_id, given.project_id)
        keys.add_credential(tx, values_of(given) | {"id": credential_id, "user_id": user_id})
        return accounts.there(keys.find_credential(tx, id=credential_id), "credential", credential_id)

    return Response(201, {"credential": _shown(api, await api.store.run(write))})


def _must_have_role(tx: Tx, user_id: str, project_id: str | None) -> None:
    if project_id is not None and not tokens.roles_in(tx, user_id, Place(project_id)):
        raise Forbidden(f"The user has no role in the project {project_id[:64]}, or there is no such project.")


@takes(ChangedCredential, "credential")
async def update(api: Api, request: Request, given: ChangedCredential) -> Response:
    must_be_unrestricted(request)

    def write(tx: Tx) -> CredentialRow:
        row = _own(tx, request)
        values = values_of(given, "id")
        kind, blob = values.get("type", row["type"]), values.get("blob", row["blob"])
        if EC2 in (kind, row["type"]) and (kind != row["type"] or id_of_access(_access_of(blob)) != row["id"]):
            raise BadRequest("Invalid input for credential: what an EC2 key is called, and that it is one, stay.")
        _owner(request, values.get("user_id"))
        if isinstance(values.get("user_id"), str):
            accounts.there(accounts.find_user(tx, id=values["user_id"]), "user", values["user_id"])
        _must_have_role(tx, values.get("user_id", row["user_id"]), values.get("project_id"))
        keys.update_credential(tx, row["id"], values)
        return accounts.there(keys.find_credential(tx, id=row["id"]), "credential", row["id"])

    return Response(200, {"credential": _shown(api, await api.store.run(write))})


async def delete(api: Api, request: Request) -> Response:
    must_be_unrestricted(request)
    await api.store.run(lambda tx: keys.remove_credential(tx, _own(tx, request)["id"]))
    return Response(204)


# -- EC2's ------------------------------------------------------------------------------------------------------------
def _ec2(api: Api, row: CredentialRow) -> Shown:
    found = msgspec.json.decode(row["blob"])
    return {
        "access": found["access"],
        "secret": found["secret"],
        "user_id": row["user_id"],
        "tenant_id": row["project_id"],
        "trust_id": None,
        "links": {"self": link(api, f"users/{row['user_id']}/credentials/OS-EC2/{found['access']}")},
    }


class NewEc2(Body, frozen=True):
    tenant_id: Annotated[str, ID]


async def list_ec2(api: Api, request: Request) -> Response:
    rows = await api.store.read(keys.list_credentials, user_id=request.params["user_id"], type=EC2)
    return as_list(api, request, "credentials", [_ec2(api, row) for row in rows])


def _own_ec2(tx: Tx, request: Request) -> CredentialRow:
    access = request.params["access"]
    row = keys.find_credential(tx, id=id_of_access(access), type=EC2, user_id=request.params["user_id"])
    return accounts.there(row, "credential", access)


async def show_ec2(api: Api, request: Request) -> Response:
    return Response(200, {"credential": _ec2(api, await api.store.read(_own_ec2, request))})


@takes(NewEc2)
async def create_ec2(api: Api, request: Request, given: NewEc2) -> Response:
    """For a project in which the user has a role."""
    must_be_unrestricted(request)
    user_id, access = request.params["user_id"], api.names.uuid().replace("-", "")
    blob = msgspec.json.encode({"access": access, "secret": api.names.secret(), "trust_id": None}).decode()

    def write(tx: Tx) -> CredentialRow:
        accounts.there(accounts.find_user(tx, id=user_id), "user", user_id)
        _must_have_role(tx, user_id, given.tenant_id)
        row = {"id": id_of_access(access), "user_id": user_id, "project_id": given.tenant_id, "type": EC2, "blob": blob}
        keys.add_credential(tx, row)
        return accounts.there(keys.find_credential(tx, id=id_of_access(access)), "credential", access)

    return Response(201, {"credential": _ec2(api, await api.store.run(write))})


async def delete_ec2(api: Api, request: Request) -> Response:
    must_be_unrestricted(request)
    await api.store.run(lambda tx: keys.remove_credential(tx, _own_ec2(tx, request)["id"]))
    return Response(204)
