"""The websockets of this API.

    /console/{vnc|serial}/SERVER?token=TOKEN   a page, or a program of a user: the bytes of that console, both ways
    /droveway/v1/console-streams               a host that brings a console: on the agents' listener, or of this machine

A page of another origin is refused, so that no foreign site talks to a server with a token that it came by. Whatever is
wrong with a token is told in the closing of the websocket, where a page can read it.
"""

from __future__ import annotations

import logging
from urllib.parse import parse_qs

from droveway.api.consoles.sessions import REFUSED, Channel, Session
from droveway.api.http.origins import origin_of
from droveway.api.http.request import Receive, Scope, Send
from droveway.api.wiring import Api, hash_token
from droveway.domain.certificates import HOST, Holder
from droveway.domain.consoles import SESSION_HEADER, STREAMS, ConsoleKind
from droveway.domain.faults import Fault, Unauthorized
from droveway.store.fleet import certificates

log = logging.getLogger("droveway.api")
FAILED = "The console has failed in the server; its log says how."
PROTOCOL = "binary"  # what noVNC and Nova's clients offer


def url_of(base_url: str, kind: ConsoleKind, instance_id: str, token: str) -> str:
    """What a user opens in a browser, or another program as a websocket."""
    return f"{base_url}/console/{kind.value}/{instance_id}?token={token}"


def is_allowed(api: Api, origin: str) -> bool:
    """Whether pages of that origin may talk to this API."""
    return origin in {origin_of(one) for one in (api.settings.base_url, *api.settings.allowed_origins)}


async def serve(api: Api, scope: Scope, receive: Receive, send: Send) -> None:
    """One websocket, from its beginning to its end."""
    await receive()  # the wish to connect
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    channel = Channel(receive, send)
    path = scope["path"].split("/")
    if scope["path"] == STREAMS:
        session = await _session_of_host(api, scope, headers.get(SESSION_HEADER, ""))
        if session is not None:
            await channel.accept()
            await api.consoles.bring(session, channel)
            return
    elif len(path) == 4 and path[:2] == ["", "console"] and path[2] in set(ConsoleKind):
        origin = headers.get("origin")
        if origin is None or is_allowed(api, origin):
            await _page(api, scope, channel, ConsoleKind(path[2]), path[3])
            return
    await send({"type": "websocket.close", "code": REFUSED})  # before it was accepted: 403


async def _page(api: Api, scope: Scope, channel: Channel, kind: ConsoleKind, instance_id: str) -> None:
    await channel.accept(PROTOCOL if PROTOCOL in scope["subprotocols"] else None)
    try:
        token = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=16).get("token", [""])[0]
        await api.consoles.serve(channel, hash_token(token), instance_id, kind)
    except ValueError:
        await channel.close(REFUSED, "The query of this URL is not valid.")
    except Fault as fault:
        await channel.close(REFUSED, fault.reason)
    except Exception as error:  # a bug, told as any of a request is (api/app.py): with the path and no token
        log.error("console failed path=%s", scope["path"], exc_info=error)
        await channel.close(REFUSED, FAILED)


async def _session_of_host(api: Api, scope: Scope, secret: str) -> Session | None:
    """The session for which that host was asked, if it is the one and shows so."""
    session = api.consoles.awaited(secret)
    if session is None:
        return None
    if scope["state"].get("is_of_this_machine"):
        return session
    shown = scope["state"].get("certificate")
    if not shown:
        return None
    try:
        serial = str(shown.get("serialNumber", "")).lower().lstrip("0")
        found = await api.store.read(certificates.holder, serial)
    except Unauthorized:
        return None
    return session if found == Holder(HOST, session.grant.host) else None
