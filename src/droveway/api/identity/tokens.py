"""Logging in and out: `POST`, `GET`, `HEAD` and `DELETE` of /v3/auth/tokens, and what a token is told about itself."""

from __future__ import annotations

import base64
from typing import Annotated, Any, NamedTuple, TypeVar

from droveway.api.discovery import SERVICES
from droveway.api.http.bodies import Body, read, schema, takes
from droveway.api.http.kinds import of, text
from droveway.api.http.render import micros_z
from droveway.api.http.request import Request, Response
from droveway.api.identity import passwords
from droveway.api.wiring import Api, hash_token
from droveway.domain.faults import BadRequest, Forbidden, NotFound, Unauthorized
from droveway.store.engine.transaction import Tx
from droveway.store.identity import accounts
from droveway.store.identity.accounts import Caller
from droveway.store.rows import UserRow

SUBJECT = b"x-subject-token"
T = TypeVar("T")
_WRONG = "The user, its domain or the password is not right."


class Scope(NamedTuple):
    """What the token is asked to be good for. Nothing asked: the user's default project, if any."""

    asked: bool
    project: dict[str, str] | None = None  # column -> value, `domain` resolved later
    domain: dict[str, str] | None = None


# -- the body of a token ----------------------------------------------------------------------------------------------
def token_body(api: Api, caller: Caller, *, with_catalog: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "methods": list(caller.methods),
        "user": {
            "id": caller.user_id,
            "name": caller.user_name,
            "domain": {"id": caller.user_domain_id, "name": caller.user_domain_name},
            "password_expires_at": None,
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
    if caller.roles:
        body["roles"] = [{"id": role_id, "name": name} for role_id, name in caller.roles]
        if with_catalog:
            body["catalog"] = catalog(api)
    return {"token": body}


def catalog(api: Api) -> list[dict[str, Any]]:
    """Where each service is; the ids stay the same from start to start."""
    base, region = api.settings.base_url, api.settings.region
    return [
        {
            "id": hash_token(f"service {kind}")[:32],
            "type": kind,
            "name": name,
            "endpoints": [
                {
                    "id": hash_token(f"endpoint {kind} {interface}")[:32],
                    "interface": interface,
                    "region": region,
                    "region_id": region,
                    "url": base + path,
                }
                for interface in ("public", "internal", "admin")
            ],
        }
        for kind, name, path in SERVICES
    ]


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


def _methods(path: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(method, str) for method in value):
        raise BadRequest(f"Invalid input for {path}: it must be a list of texts.")
    return value


_METHOD = {"type": "string", "description": "password or token"}


class LoginIdentity(Body, frozen=True):
    is_open = True
    methods: Annotated[list[str], of(_methods, type="array", items=_METHOD)]
    password: ByPassword | None = None
    token: ByToken | None = None


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
    raise Unauthorized(
        "Tokens here are good for a project, for a domain, or unscoped; there are no roles on the system."
    )


_SCOPE = of(_scope, anyOf=[{"type": "null"}, {"const": "unscoped"}, schema(ScopeObject)])


class Auth(Body, frozen=True):
    is_open = True
    identity: LoginIdentity
    scope: Annotated[Scope, _SCOPE] = Scope(False)


class Login(Body, frozen=True):
    is_open = True
    auth: Auth


@takes(Login)
async def issue(api: Api, request: Request, given: Login) -> Response:
    """Log in with a password or with another token."""
    auth = given.auth
    method, scope = _method(auth.identity), auth.scope
    if method == "password":
        user = await _by_password(api, _there(auth.identity.password, "auth.identity", "password").user)
        user_id, expires_at_us = user["id"], api.clock.now_us() + api.settings.token_expiry_s * 1_000_000
        default = user["default_project_id"]
    else:
        holder = await api.caller(_there(auth.identity.token, "auth.identity", "token").id)
        user_id, expires_at_us, default = holder.user_id, holder.expires_at_us, None
    caller, token = await _issue(api, user_id, scope, default, method, expires_at_us)
    with_catalog = "nocatalog" not in dict(request.query)
    return Response(201, token_body(api, caller, with_catalog=with_catalog), headers=[(SUBJECT, token.encode()), _VARY])


_VARY = (b"vary", b"X-Auth-Token")


def _method(given: LoginIdentity) -> str:
    methods = given.methods
    if methods not in (["password"], ["token"]):
        raise Unauthorized("That way of logging in is not known here; known are: password, token (one at a time).")
    return str(methods[0])


async def _by_password(api: Api, given: UserRef) -> UserRow:
    """The user with that password. The same words, after the same time, whatever was wrong."""
    filters = {"id": given.id} if given.id else _named(given, "auth.identity.password.user")
    password = given.password
    user: UserRow | None = await api.store.read(_find, accounts.find_user, filters)
    right = await api.hashing.run(
        passwords.verify, user["password_hash"] if user else passwords.HASH_OF_NO_USER, password
    )
    if user is None or not right or not user["enabled"]:
        raise Unauthorized(_WRONG)
    return user


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


def _find(tx: Tx, find: Any, filters: dict[str, str]) -> Any:
    """Look something up by filters of which one may be the name of its domain."""
    columns = dict(filters)
    domain_name = columns.pop("domain_name", None)
    if domain_name is not None:
        domain = accounts.find_domain(tx, name=domain_name)
        if domain is None:
            return None
        columns["domain_id"] = domain["id"]
    return find(tx, **columns)


async def _issue(
    api: Api, user_id: str, scope: Scope, default: str | None, method: str, expires_at_us: int
) -> tuple[Caller, str]:
    token = api.names.secret()
    audit_id = base64.urlsafe_b64encode(bytes.fromhex(api.names.uuid().replace("-", ""))).rstrip(b"=").decode()

    def write(tx: Tx) -> Caller | None:
        given: dict[str, Any] = {
            "token_hash": hash_token(token),
            "audit_id": audit_id,
            "user_id": user_id,
            "methods": [method],
            "expires_at_us": expires_at_us,
        }
        if scope.domain is not None:
            domain = accounts.find_domain(tx, **scope.domain)
            return accounts.issue_token(tx, **given, project_id=None, domain_id=domain["id"]) if domain else None
        if scope.project is not None:
            project = _find(tx, accounts.find_project, scope.project)
            return accounts.issue_token(tx, **given, project_id=project["id"]) if project else None
        project = accounts.find_project(tx, id=default) if default and not scope.asked else None
        caller = accounts.issue_token(tx, **given, project_id=project["id"] if project else None)
        if caller is None and project is not None:  # no role in the default project: unscoped
            return accounts.issue_token(tx, **given, project_id=None)
        return caller

    caller = await api.store.run(write)
    if caller is None:
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
    asker = request.caller
    if asker.user_id != subject.user_id and not asker.role_names & {"admin", "service"}:
        raise Forbidden("That token belongs to another user.")
    return subject


async def show(api: Api, request: Request) -> Response:
    subject = await _subject(api, request)
    token = request.headers[SUBJECT]
    with_catalog = "nocatalog" not in dict(request.query)
    return Response(200, token_body(api, subject, with_catalog=with_catalog), headers=[(SUBJECT, token), _VARY])


async def revoke(api: Api, request: Request) -> Response:
    subject = await _subject(api, request)
    await api.store.run(accounts.revoke_token, subject.token_hash)
    return Response(204)


async def show_catalog(api: Api, request: Request) -> Response:
    if not request.caller.roles:
        raise Forbidden("The token is not scoped to a project or a domain; ask for one that is.")
    return Response(
        200, {"catalog": catalog(api), "links": {"self": f"{api.settings.base_url}/identity/v3/auth/catalog"}}
    )
