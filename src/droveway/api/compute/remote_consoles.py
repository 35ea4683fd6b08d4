"""POST /servers/{id}/remote-consoles, the actions that were before it, and what an admin may know of a token.

    POST /servers/{id}/remote-consoles {"remote_console": {"protocol", "type"}} -> 200 the same with "url", from 2.6
    POST /servers/{id}/action {"os-getVNCConsole": {"type"}}, … -> 200 {"console": {"type", "url"}}, to 2.5
    GET  /os-console-auth-tokens/{token} -> 200 {"console": {"instance_uuid", "host", "port", "internal_access_path"}}

A URL is good once and for a short while (`console.token_s`), for one console of one server on the host where it is now.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from droveway.api.consoles import web
from droveway.api.http.actions import Action
from droveway.api.http.bodies import Body, made, takes
from droveway.api.http.kinds import one_of
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api, hash_token
from droveway.domain.consoles import OFFERED, ConsoleGrant, ConsoleKind, ServerState, why_none
from droveway.domain.faults import BadRequest, Conflict, NotFound, Unauthorized
from droveway.domain.policy import Need
from droveway.store.compute import console_tokens, instances
from droveway.store.engine.transaction import Tx

SECOND_US = 1_000_000
ACTION_UNTIL = 5
_TYPES = {  # of each protocol, as Nova has them
    "vnc": ("novnc", "xvpvnc"),
    "spice": ("spice-html5",),
    "rdp": ("rdp-html5",),
    "serial": ("serial",),
    "mks": ("webmks",),
}
_OLD = tuple(one for one in _TYPES if one != "mks")
_PROTOCOL, _PROTOCOL_MKS = one_of(_OLD), one_of(tuple(_TYPES))
_NAMES_OLD = tuple(name for protocol in _OLD for name in _TYPES[protocol])
_TYPE, _TYPE_MKS = one_of(_NAMES_OLD), one_of((*_NAMES_OLD, "webmks"))
_TYPE_DIRECT = one_of((*_NAMES_OLD, "webmks", "spice-direct"))


class RemoteConsole(Body, frozen=True):
    """2.8: mks; 2.99: spice-direct."""

    protocol: Annotated[str, _PROTOCOL.until(7), _PROTOCOL_MKS.since(8)]
    type: Annotated[str, _TYPE.until(7), _TYPE_MKS.since(8).until(98), _TYPE_DIRECT.since(99)]


@takes(RemoteConsole, "remote_console")
async def create(api: Api, request: Request, given: RemoteConsole) -> Response:
    url = await _url(api, request, given.protocol, given.type)
    return Response(200, {"remote_console": {"protocol": given.protocol, "type": given.type, "url": url}})


async def _url(api: Api, request: Request, protocol: str, name: str) -> str:
    """Raises BadRequest, Conflict, NotFound."""
    kind = _offered(protocol, name)
    api.consoles.check_way()
    token, caller = api.names.secret(), request.caller
    assert caller.project_id is not None, "its route needs one"
    project_id = caller.project_id

    def write(tx: Tx) -> str:
        row = instances.get(tx, request.params["server_id"], request.scope)
        state = ServerState(row["host"], row["vm_state"], row["power_state"])
        if why := why_none(row["name"], state):
            raise Conflict(why)
        assert row["host"] is not None, "why_none says so"
        as_admin = row["project_id"] != project_id
        grant = ConsoleGrant(row["id"], row["host"], kind, caller.user_id, project_id, as_admin)
        console_tokens.issue(tx, hash_token(token), grant, api.consoles.bounds.token_s * SECOND_US)
        return row["id"]

    return web.url_of(api.settings.base_url, kind, await api.store.run(write), token)


def _offered(protocol: str, name: str) -> ConsoleKind:
    if name not in _TYPES[protocol] and (protocol, name) != ("spice", "spice-direct"):
        raise BadRequest(f"Invalid console type {name}: one of protocol {protocol} is {' or '.join(_TYPES[protocol])}.")
    if name not in OFFERED:
        raise BadRequest(f"Unavailable console type {name}: guests have a screen (novnc) and a serial line (serial).")
    return OFFERED[name]


# -- the actions of before --------------------------------------------------------------------------------------------
def _action(protocol: str) -> Action:
    form = made(f"{protocol.title()}Console", [("type", Annotated[str, one_of(_TYPES[protocol])], msgspec.NODEFAULT)])

    async def perform(api: Api, request: Request, given: Any) -> Response:
        url = await _url(api, request, protocol, given.type)
        return Response(200, {"console": {"type": given.type, "url": url}})

    return Action(perform, form, Need.MEMBER, ACTION_UNTIL)


ACTIONS = {
    "os-getVNCConsole": _action("vnc"),
    "os-getSPICEConsole": _action("spice"),
    "os-getRDPConsole": _action("rdp"),
    "os-getSerialConsole": _action("serial"),
}


# -- for proxies of before --------------------------------------------------------------------------------------------
async def show_token(api: Api, request: Request) -> Response:
    """What a token is for, without using it. No console listens on a port, so there is none. Before 2.31 Nova shows
    those of RDP alone, of which there are none."""
    if request.version < 31:
        raise Unauthorized("The requested console type details are not accessible")
    row = await api.store.read(console_tokens.find, hash_token(request.params["console_token"]))
    if row is None:
        raise NotFound("Token not found: it was used, has expired, or never was one.")
    console = {"instance_uuid": row["instance_id"], "host": row["host"], "port": None, "internal_access_path": None}
    if request.version >= 99:
        console["tls_port"] = None
    return Response(200, {"console": console})
