"""How a host joins: an operator makes a token, the new machine turns it into the agents' settings, once.

POST /droveway/v1/join-tokens  {"join_token": {"host"?, "expires_in_s"?}} -> 201 {"join_token": {"token", "host",
                               "expires_at_us"}}; the token is told this one time
POST /droveway/v1/join         {"join": {"token", "host"}} -> 200 {"join": {"host", "settings", …}}; needs no other
                               credential. `settings` are keys of an agent's configuration file, with an identity at
                               the broker that is this host's own; `files` are those it names, which are to be written
                               beside it; `note` and `commands` say what is left to do where the broker is
"""

from __future__ import annotations

from typing import Any

from droveway.api.http.request import Request, Response
from droveway.api.http.validate import Fields, as_host, as_integer, as_text, the
from droveway.api.wiring import Api, hash_token
from droveway.domain.faults import BadRequest, Conflict
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import declared, joining

HOST_MAX = 64
EXPIRES_S, EXPIRES_MAX_S = 3600, 30 * 24 * 3600
TOKEN_MAX = 256


async def create_token(api: Api, request: Request) -> Response:
    given = Fields(
        the(await request.json(api.settings.max_body_bytes), "join_token"), "join_token", ("host", "expires_in_s")
    )
    host = _host("join_token.host", given.value("host", None))
    seconds = as_integer("join_token.expires_in_s", given.value("expires_in_s", EXPIRES_S), 1, EXPIRES_MAX_S)
    _settings(api)  # a token that would lead nowhere is not made
    token = api.names.secret()
    made = await api.store.run(joining.create, hash_token(token), host, seconds * 1_000_000)
    return Response(201, {"join_token": {"token": token, **made._asdict()}})


async def join(api: Api, request: Request) -> Response:
    given = Fields(the(await request.json(api.settings.max_body_bytes), "join"), "join", ("token", "host"))
    token = as_text("join.token", given.value("token", None), TOKEN_MAX, 1)
    host = _host("join.host", given.value("host", None))
    if host is None:
        raise BadRequest("Invalid input for join.host: it is missing.")
    told = _settings(api)
    await api.store.run(_use, hash_token(token), host)  # nothing is made for whoever has no token
    own = await api.settings.joining.identify(host)
    if own.settings:
        bus = told["settings"]["bus"]
        told["settings"][bus] = {**told["settings"][bus], **own.settings}
    return Response(200, {"join": {"host": host, **told, "note": own.note, "commands": list(own.commands)}})


def _use(tx: Tx, token_hash: str, host: str) -> None:
    """One that was declared gone and joins anew is let in again."""
    joining.use(tx, token_hash, host)
    declared.readmit_if_gone(tx, host)


def _host(name: str, value: Any) -> str | None:
    if value in (".", ".."):  # a host's name becomes a directory, and a part of URLs
        raise BadRequest(f"Invalid input for {name}: {value!r} is not a host name.")
    return None if value is None else as_text(name, as_host(name, value), HOST_MAX, 1)


def _settings(api: Api) -> dict[str, Any]:
    """Raises Conflict when this API does not know what to tell an agent."""
    told = api.settings.joining
    if told.sentence:
        raise Conflict(told.sentence)
    return {"settings": dict(told.settings), "files": dict(told.files)}
