"""Logging in and out: `POST`, `GET`, `HEAD` and `DELETE` of /v3/auth/tokens, and what a token is told about itself."""

from __future__ import annotations

import base64
from typing import Annotated, Any, NamedTuple, TypeVar

from droveway.api.http.bodies import Body, read, schema, takes
from droveway.api.http.kinds import of, text
from droveway.api.http.render import micros_z
from droveway.api.http.request import Request, Response
from droveway.api.identity import catalog, login
from droveway.api.wiring import Api, hash_token
from droveway.domain.faults import BadRequest, Forbidden, NotFound, Unauthorized
from droveway.domain.policy import Need, refusal
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts, tokens
from droveway.store.identity.rows import CredentialRow
from droveway.store.identity.tokens import NOWHERE, Caller, Place

SUBJECT = b"x-subject-token"
T = TypeVar("T")


class Scope(NamedTuple):
    """What the token is asked to be good for. Nothing asked: the user's default project, if any."""

    asked: bool
    project: dict[str, str] | None = None  # column -> value, `domain_name` resolved later
    domain: dict[str, str] | None = None
    is_system: bool = False


# -- the body of a token ----------------------------------------------------------------------------------------------
async def token_body(api: Api, caller: Caller, *, with_catalog: bool) -> dict[str, Any]:
    expires_at_us = caller.password_expires_at_us
    body: dict[str, Any] = {
        "methods": list(caller.methods),
        "user": {
            "id": caller.user_id,
            "name": caller.user_name,
            "domain": {"id": caller.user_domain_id, "name": caller.user_domain_name},
            "password_expires_at": None if expires_at_us is None else micros_z(expires_at_us),
        },
        "audit_ids": [caller.audit_id],
        "expires_at": micros_z(caller.expires_at_us),
        "issued_at": micros_z(caller.issued_at_us),
    }
    if caller.project_id is not None:
        body["project"] = {
            "id": caller.project_id,
            "name": caller.project_name,
            "domain": {"id": caller.project_domain_id, "name": caller.project_domain_name},
        }
        body["is_domain"] = False
    elif caller.domain_id is not None:
        body["domain"] = {"id": caller.domain_id, "name": caller.domain_name}
    elif caller.is_system:
        body["system"] = {"all": True}
    if caller.key is not None:
        key = caller.key
        body["application_credential"] = {"id": key.id, "name": key.name, "restricted": key.is_restricted}
    if caller.roles:
        body["roles"] = [{"id": role_id, "name": name} for role_id, name in caller.roles]
        if with_catalog:
            body["catalog"] = await catalog.of_token(api, caller.project_id)
    return {"token": body}


# -- POST -------------------------------------------------------------------------------------------------------------
class DomainRef(Body, frozen=True):
    """By id, or by name."""

    is_open = True
    id: Annotated[str | None, text(64)] = None
    name: Annotated[str | None, text()] = None


class ProjectRef(DomainRef, frozen=True):
    domain: DomainRef | None = None


class UserRef(ProjectRef, frozen=True, kw_only=True):
    password: Annotated[str, text(4096)]


class ByPassword(Body, frozen=True):
    is_open = True
    user: UserRef


class ByToken(Body, frozen=True):
    is_open = True
    id: Annotated[str, text(4096)]


class ByKey(Body, frozen=True, kw_only=True):
    """An application credential: by id, or by name with its user."""

    is_open = True
    id: Annotated[str | None, text(64)] = None
    name: Annotated[str | None, text()] = None
    user: ProjectRef | None = None
    secret: Annotated[str, text(4096)]


def _methods(path: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(method, str) for method in value):
        raise BadRequest(f"Invalid input for {path}: it must be a list of texts.")
    return value


METHODS = ("password", "token", "application_credential")
_METHOD = {"type": "string", "description": f"one of {', '.join(METHODS)}"}


class LoginIdentity(Body, frozen=True):
    is_open = True
    methods: Annotated[list[str], of(_methods, type="array", items=_METHOD)]
    password: ByPassword | None = None
    token: ByToken | None = None
    application_credential: ByKey | None = None


class ScopeObject(Body, frozen=True):
    is_open = True
    project: ProjectRef | None = None
    domain: DomainRef | None = None


def _scope(path: str, value: Any) -> Scope:
    if value is None:
        return Scope(False)
    if value == "unscoped" or (isinstance(value, dict) and "unscoped" in value):
        return Scope(True)
    given = read(ScopeObject, value, path, 0)
    project, domain = given.project, given.domain
    if project is not None:
        return Scope(True, {"id": project.id} if project.id else _named(project, f"{path}.project"))
    if domain is not None:
        by_name = {"name": _there(domain.name, f"{path}.domain", "name")} if not domain.id else {}
        return Scope(True, domain=by_name or {"id": str(domain.id)})
    if "system" in value:
        if value["system"] != {"all": True}:
            raise BadRequest(f'Invalid input for {path}.system: it must be {{"all": true}}: the system is one.')
        return Scope(True, is_system=True)
    raise Unauthorized(
        "Tokens here are good for a project, for a domain, for the system, or unscoped; there is no trust."
    )


_SCOPE = of(_scope, anyOf=[{"type": "null"}, {"const": "unscoped"}, schema(ScopeObject)])


class Auth(Body, frozen=True):
    is_open = True
    identity: LoginIdentity
    scope: Annotated[Scope, _SCOPE] = Scope(False)


class Login(Body, frozen=True):
    is_open = True
    auth: Auth


class Proved(NamedTuple):
    """A user who has shown who it is. `place`: a token for anything else is not given."""

    user_id: str
    expires_at_us: int
    default_project_id: str | None = None
    place: Place | None = None
    key_id: str | None = None
    credential_id: str | None = None  # of an EC2 key


@takes(Login)
async def issue(api: Api, request: Request, given: Login) -> Response:
    """Log in with a password, with an application credential, or with another token."""
    method, scope = _method(given.auth.identity), given.auth.scope
    proved = await _PROVE[method](api, request, given.auth.identity)
    return await answer(api, request, proved, scope, method)


async def answer(api: Api, request: Request, proved: Proved, scope: Scope, method: str) -> Response:
    """A new token for that user, and what it is told."""
    caller, token = await _issue(api, proved, scope, method)
    with_catalog = "nocatalog" not in dict(request.query)
    body = await token_body(api, caller, with_catalog=with_catalog)
    return Response(201, body, headers=[(SUBJECT, token.encode()), _VARY])


_VARY = (b"vary", b"X-Auth-Token")


def _method(given: LoginIdentity) -> str:
    if len(given.methods) != 1 or given.methods[0] not in METHODS:
        raise Unauthorized(
            f"That way of logging in is not known here; known are: {', '.join(METHODS)} (one at a time)."
        )
    return given.methods[0]


def ends_at_us(api: Api, also_us: int | None = None) -> int:
    """When a new token ends: after its time, or with what it was bought with."""
    usual_us = api.clock.now_us() + api.settings.token_expiry_s * 1_000_000
    return usual_us if also_us is None else min(usual_us, also_us)


async def _by_password(api: Api, request: Request, given: LoginIdentity) -> Proved:
    user = _there(given.password, "auth.identity", "password").user
    by = {"id": user.id} if user.id else _named(user, "auth.identity.password.user")
    row = await login.by_password(api, request, by, user.password)
    return Proved(row["id"], ends_at_us(api, row["password_expires_at_us"]), row["default_project_id"])


async def _by_token(api: Api, request: Request, given: LoginIdentity) -> Proved:
    holder = await api.caller(_there(given.token, "auth.identity", "token").id)
    if holder.key is None and holder.credential_id is None:
        return Proved(holder.user_id, holder.expires_at_us)
    place = Place(holder.project_id, holder.domain_id, holder.is_system)
    key_id = None if holder.key is None else holder.key.id
    return Proved(holder.user_id, holder.expires_at_us, holder.project_id, place, key_id, holder.credential_id)


async def _by_key(api: Api, request: Request, given: LoginIdentity) -> Proved:
    key, where = _there(given.application_credential, "auth.identity", "application_credential"), "auth.identity"
    if key.id:
        by: dict[str, Any] = {"id": key.id}
    else:
        where = f"{where}.application_credential"
        user = _there(key.user, where, "user")
        of_user = {"id": user.id} if user.id else _named(user, f"{where}.user")
        by = {"name": _there(key.name, where, "name"), "user": of_user}
    row = await login.by_application_credential(api, request, by, key.secret)
    expires_at_us = ends_at_us(api, row["expires_at_us"])
    return Proved(row["user_id"], expires_at_us, row["project_id"], Place(row["project_id"]), row["id"])


_PROVE = {"password": _by_password, "token": _by_token, "application_credential": _by_key}


def _named(given: ProjectRef | UserRef, where: str) -> dict[str, str]:
    """By name, within a domain by id or by name."""
    name, domain = _there(given.name, where, "name"), _there(given.domain, where, "domain")
    if domain.id:
        return {"name": name, "domain_id": domain.id}
    return {"name": name, "domain_name": _there(domain.name, f"{where}.domain", "name")}


def _there(value: T | None, where: str, name: str) -> T:
    if value is None:
        raise BadRequest(f"Invalid input for {where}: '{name}' is a required property.")
    return value


def _place(tx: Tx, scope: Scope) -> Place | None:
    """What is asked for; None where there is no such thing."""
    if scope.domain is not None:
        domain = accounts.find_domain(tx, **scope.domain)
        return domain and Place(domain_id=domain["id"])
    if scope.project is not None:
        by = dict(scope.project)
        if "domain_name" in by:
            domain = accounts.find_domain(tx, name=by.pop("domain_name"))
            if domain is None:
                return None
            by["domain_id"] = domain["id"]
        project = accounts.find_project(tx, **by)
        return project and Place(project["id"])
    return Place(is_system=scope.is_system)


def _audit_id(api: Api) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(api.names.uuid().replace("-", ""))).rstrip(b"=").decode()


async def buy_with_key(api: Api, row: CredentialRow, method: str, *, is_kept: bool) -> tuple[Caller, str] | None:
    """A token for the project of that EC2 key; `is_kept`: it can be used. None where its user may not have one."""
    token, audit_id, ends_us = api.names.secret(), _audit_id(api), ends_at_us(api)

    def write(tx: Tx) -> Caller | None:
        caller = tokens.issue_token(
            tx,
            token_hash=hash_token(token),
            audit_id=audit_id,
            user_id=row["user_id"],
            methods=[method],
            expires_at_us=ends_us,
            project_id=row["project_id"],
            credential_id=row["id"],
        )
        if not is_kept:
            tokens.forget_token(tx, hash_token(token))
        return caller

    caller = await api.store.run(write)
    return None if caller is None else (caller, token)


async def _issue(api: Api, proved: Proved, scope: Scope, method: str) -> tuple[Caller, str]:
    token, audit_id = api.names.secret(), _audit_id(api)

    def give(tx: Tx, place: Place) -> Caller | None:
        return tokens.issue_token(
            tx,
            token_hash=hash_token(token),
            audit_id=audit_id,
            user_id=proved.user_id,
            methods=[method],
            expires_at_us=proved.expires_at_us,
            project_id=place.project_id,
            domain_id=place.domain_id,
            is_system=place.is_system,
            application_credential_id=proved.key_id,
            credential_id=proved.credential_id,
        )

    def write(tx: Tx) -> Caller | None:
        if scope.asked:
            place = _place(tx, scope)
            if place is None or (proved.place is not None and place != proved.place):
                return None
            return give(tx, place)
        if proved.place is not None:
            return give(tx, proved.place)
        default = proved.default_project_id
        project = accounts.find_project(tx, id=default) if default else None
        caller = give(tx, Place(project["id"])) if project else None
        return caller or give(tx, NOWHERE)  # no role in the default project: unscoped

    caller = await api.store.run(write)
    if caller is None:
        if scope.is_system:
            raise Unauthorized("The user has no role on the system.")
        place = "project" if scope.domain is None else "domain"
        raise Unauthorized(f"The user has no role in that {place}, or there is no such {place}, or it is disabled.")
    return caller, token


# -- GET, HEAD, DELETE ------------------------------------------------------------------------------------------------
async def _subject(api: Api, request: Request) -> Caller:
    """The token that the request is about: one's own, or anyone's for those who may ask."""
    token = request.header(SUBJECT)
    if not token:
        raise BadRequest("The request names no token: X-Subject-Token is missing.")
    subject = await api.find_caller(token)
    if subject is None:
        raise NotFound("Could not find that token: it has expired, was revoked, or never was one.")
    if request.caller.user_id != subject.user_id and refusal(Need.SERVICE, request.caller) is not None:
        raise Forbidden("That token belongs to another user.")
    return subject


async def show(api: Api, request: Request) -> Response:
    subject = await _subject(api, request)
    token = request.headers[SUBJECT]
    with_catalog = "nocatalog" not in dict(request.query)
    body = await token_body(api, subject, with_catalog=with_catalog)
    return Response(200, body, headers=[(SUBJECT, token), _VARY])


async def revoke(api: Api, request: Request) -> Response:
    subject = await _subject(api, request)
    await api.store.run(tokens.revoke_token, subject.token_hash)
    return Response(204)


async def show_catalog(api: Api, request: Request) -> Response:
    if not request.caller.roles:
        raise Forbidden("The token is not scoped to a project, a domain or the system; ask for one that is.")
    listed = await catalog.of_token(api, request.caller.project_id)
    return Response(200, {"catalog": listed, "links": {"self": f"{api.settings.base_url}/identity/v3/auth/catalog"}})
