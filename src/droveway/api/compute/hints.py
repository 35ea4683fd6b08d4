"""The scheduler hints of a request. They are kept as they were given; what cannot be heeded is refused, unless Nova too
lets it pass: hints that it does not know are the operator's own."""

from __future__ import annotations

from typing import Any

import msgspec

from droveway.api.http.validate import canonical, is_uuid
from droveway.domain.faults import BadRequest

NAMES = ("os:scheduler_hints", "OS-SCH-HNT:scheduler_hints")
HINTS_MAX_BYTES = 16 * 1024  # every server of the request keeps them
SERVERS_MAX = 100
_OF_ADDRESSES = "hosts are not chosen by their addresses; name a server of that host in same_host, or a zone"
_REFUSED = {
    "query": "hosts are not chosen by a query; the extra specs of a flavor say what its hosts must have",
    "build_near_host_ip": _OF_ADDRESSES,
    "cidr": _OF_ADDRESSES,
}


def given(named: dict[str, Any]) -> dict[str, Any]:
    """The hints beside `server` in the body, under either of their two names."""
    names = [name for name, value in named.items() if value is not None]
    if not names:
        return {}
    if len(names) > 1:
        raise BadRequest(f"The hints are given twice: as {' and as '.join(names)}.")
    hints = named[names[0]]
    if not isinstance(hints, dict):
        raise BadRequest(f"Invalid input for {names[0]}: it must be an object.")
    size = len(msgspec.json.encode(hints))
    if size > HINTS_MAX_BYTES:
        raise BadRequest(f"Invalid input for {names[0]}: it is {size} bytes long; at most {HINTS_MAX_BYTES} are.")
    for name, why in _REFUSED.items():
        if name in hints:
            raise BadRequest(f"Invalid input for {names[0]}.{name}: {why}.")
    if "group" in hints and not (isinstance(group_of(hints), str) and is_uuid(group_of(hints))):
        raise BadRequest(f"Invalid input for {names[0]}.group: it must be the id of a server group.")
    servers = {
        name: _servers(f"{names[0]}.{name}", hints[name]) for name in ("same_host", "different_host") if name in hints
    }
    return hints | servers


def group_of(hints: dict[str, Any]) -> Any:
    """The one group, which may stand in a list; None when none is named."""
    group = hints.get("group")
    one = group[0] if isinstance(group, list) and len(group) == 1 else group
    return canonical(one) if isinstance(one, str) and is_uuid(one) else one


def _servers(where: str, value: Any) -> str | list[str]:
    """As it was given, each id in its one spelling."""
    servers = [value] if isinstance(value, str) else value
    if not isinstance(servers, list) or not all(isinstance(each, str) and is_uuid(each) for each in servers):
        raise BadRequest(f"Invalid input for {where}: it must be the id of a server, or a list of ids.")
    if len(servers) > SERVERS_MAX:
        raise BadRequest(f"Invalid input for {where}: it names {len(servers)} servers; at most {SERVERS_MAX} are.")
    return canonical(value) if isinstance(value, str) else [canonical(each) for each in servers]
