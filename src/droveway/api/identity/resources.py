"""What all resources of identity share: how a list and one of them are told, and whose they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET

from droveway.api.http.bodies import Body, given_in
from droveway.api.http.kinds import FLAG, of, or_null, text
from droveway.api.http.paging import next_query
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_flag, as_integer
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden
from droveway.domain.policy import Need, domain_bound, may_give, refusal
from droveway.store.engine.transaction import Tx

Shown = dict[str, Any]
R = TypeVar("R")
DESCRIPTION = or_null(text(65_535))
ID = text(64)
ID_OR_NULL = or_null(ID)
Flag = Annotated[bool | msgspec.UnsetType, FLAG]


def _no_options(path: str, value: Any) -> dict[str, Any]:
    if value not in (None, {}):
        raise BadRequest(f"Invalid input for {path}: there are no options of it here.")
    return {}


NO_OPTIONS = of(_no_options, anyOf=[{"type": "null"}, {"type": "object", "maxProperties": 0}])
PAGE = ("limit", "marker")
TAGS_MAX, TAG_MAX = 80, 255


def _tags(path: str, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > TAGS_MAX:
        raise BadRequest(f"Invalid input for {path}: it must be a list of at most {TAGS_MAX} texts.")
    for tag in value:
        if not isinstance(tag, str) or not 0 < len(tag) <= TAG_MAX or "/" in tag or "," in tag:
            raise BadRequest(f"Invalid input for {path}: a tag is 1 to {TAG_MAX} characters without , and /.")
    return list(dict.fromkeys(value))


_TAG = {"type": "string", "minLength": 1, "maxLength": TAG_MAX, "pattern": "^[^,/]*$"}
TAGS = of(_tags, type="array", maxItems=TAGS_MAX, items=_TAG)


# -- what was given ---------------------------------------------------------------------------------------------------
def values_of(given: Body, *without: str) -> dict[str, Any]:
    """Its members as columns; a description of null is an empty one."""
    found = {name: value for name, value in given_in(given).items() if name not in ("options", *without)}
    if found.get("description", UNSET) is None:
        found["description"] = ""
    return found


def filters(request: Request, known: Collection[str]) -> dict[str, Any]:
    """The query as columns; unknown keys are ignored, as Keystone does."""
    given: dict[str, Any] = dict(request.known_query(known))
    if "enabled" in given:
        given["enabled"] = as_flag("enabled", given["enabled"])
    if "limit" in given:
        given["limit"] = as_integer("limit", given["limit"], 1)
    return given


# -- whose it is ------------------------------------------------------------------------------------------------------
def in_domain(request: Request, given: dict[str, Any]) -> dict[str, Any] | None:
    """The filters of a list, within what the caller reaches; None: nothing of what was asked for."""
    bound = domain_bound(request.caller)
    if bound is None:
        return given
    return given | {"domain_id": bound} if given.get("domain_id", bound) == bound else None


def must_reach(request: Request, domain_id: str) -> None:
    """Raises Forbidden where the caller's rights end at another domain."""
    if domain_bound(request.caller) not in (None, domain_id):
        raise Forbidden("You are not authorized to perform the requested action: that is of another domain.")


def must_be_reader(request: Request) -> None:
    """Where a row is not the caller's own. Raises Forbidden."""
    reason = refusal(Need.IDENTITY_READER, request.caller)
    if reason is not None:
        raise Forbidden(f"You are not authorized to perform the requested action. {reason}")


def must_be_able_to_give(request: Request, roles: Iterable[str]) -> None:
    """Raises Forbidden for a role, by its name, that the caller has not got itself and is no administrator."""
    for role in roles:
        if not may_give(request.caller, role):
            raise Forbidden(f"The role {role} is given, and taken away, by those alone who have it.")


def must_be_unrestricted(request: Request) -> None:
    """A restricted application credential must not outlive itself by what it makes. Raises Forbidden."""
    key = request.caller.key
    if key is not None and key.is_restricted:
        raise Forbidden(f"The application credential {key.name} is restricted: it makes no keys and sets no password.")
    if request.caller.credential_id is not None:
        raise Forbidden("A token that was bought with an EC2 key makes no keys and sets no password.")


# -- what is told -----------------------------------------------------------------------------------------------------
def link(api: Api, path: str) -> str:
    return f"{api.settings.base_url}/identity/v3/{path}"


def as_list(api: Api, request: Request, name: str, bodies: Sequence[Shown], **more: Any) -> Response:
    return Response(200, list_body(api, request, name, bodies, **more))


def list_body(api: Api, request: Request, name: str, bodies: Any, **more: Any) -> dict[str, Any]:
    query = f"?{request.raw_query.decode('ascii', 'replace')}" if request.raw_query else ""
    own = f"{api.settings.base_url}{request.path}{query}"
    return {name: bodies, "links": {"next": None, "previous": None, "self": own}, **more}


async def listing(
    api: Api,
    request: Request,
    name: str,
    given: dict[str, Any] | None,
    query: Callable[..., Sequence[R]],
    body: Callable[[Api, R], Shown],
) -> Response:
    """Made where it is read: a list of thousands would stall the loop. None: an empty one."""

    def read(tx: Tx) -> bytes:
        rows = () if given is None else query(tx, **given)
        page = list_body(api, request, name, [body(api, row) for row in rows])
        if given is not None and len(rows) == given.get("limit"):
            last = page[name][-1]["id"]
            page["links"]["next"] = f"{api.settings.base_url}{request.path}?{next_query(request, last)}"
        return msgspec.json.encode(page)

    return Response(200, await api.store.read(read))
