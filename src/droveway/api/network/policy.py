"""Who may say what of the Networking API, beyond the role that a route needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import UNSET

from droveway.api.http.bodies import Body, members
from droveway.api.http.request import Request
from droveway.domain.faults import BadRequest
from droveway.domain.network.refusals import PolicyNotAuthorized


def project_of(request: Request, given: Any, what: str) -> str:
    """Whose it will be: the caller's project, or that which an administrator names, by either of its two names."""
    named = {value for value in (given.project_id, given.tenant_id) if value}
    if len(named) > 1:
        raise BadRequest("'project_id' and 'tenant_id' do not match")
    own = request.caller.project_id
    assert own is not None, "the route needs a project"
    return request.project_of(named.pop(), what) if named else own


ON_ANYWAY = frozenset({"port_security_enabled"})  # what nobody says; all others that are flags are off then


def only_admin(request: Request, given: Body, names: Iterable[str], action: str) -> None:
    """Raises PolicyNotAuthorized where the caller is none and says one of these members; of what is made, other than
    what it would be anyway."""
    if request.caller.is_admin:
        return
    wanted, is_new = set(names), action.startswith("create_")
    for member in members(type(given)):
        value = getattr(given, member.attribute)
        is_usual = is_new and value is (member.name in ON_ANYWAY)
        if member.name in wanted and value not in (UNSET, None) and not is_usual:
            refuse(action, member.name)


def refuse(action: str, member: str) -> None:
    raise PolicyNotAuthorized(f"(rule:{action}:{member}) is disallowed by policy: it needs the role admin.")


def own(request: Request, row: Mapping[str, Any], action: str) -> None:
    """What one sees is not always one's own. Raises PolicyNotAuthorized."""
    if request.scope not in (None, row["project_id"]):
        raise PolicyNotAuthorized(f"(rule:{action}) is disallowed by policy: {row['id']} is not this project's.")
