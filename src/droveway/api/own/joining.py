"""How a host joins: an operator makes a token, the new machine turns it into the agents' settings, once.

POST /droveway/v1/join-tokens  {"join_token": {"host"?, "expires_in_s"?}} -> 201 {"join_token": {"token", "host",
                               "expires_at_us"}}; the token is told this one time
POST /droveway/v1/join         {"join": {"token", "host"}} -> 200 {"join": {"host", "settings", …}}; needs no other
                               credential. `settings` are keys of an agent's configuration file, with an identity at
                               the broker that is this host's own; `files` are those it names, which are to be written
                               beside it; `note` and `commands` say what is left to do where the broker is
"""

from __future__ import annotations

from typing import Annotated, Any

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import HOST, of, or_null, text, whole
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_host, as_text
from droveway.api.wiring import Api, hash_token
from droveway.domain.faults import BadRequest, Conflict
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import declared, joining

HOST_MAX = 64
EXPIRES_S, EXPIRES_MAX_S = 3600, 30 * 24 * 3600
TOKEN_MAX = 256


def _host(path: str, value: Any) -> str:
    if value in (".", ".."):  # a host's name becomes a directory, and a part of URLs
        raise BadRequest(f"Invalid input for {path}: {value!r} is not a host name.")
    return as_text(path, as_host(path, value), HOST_MAX, 1)


_HOST = of(_host, **HOST.schema, maxLength=HOST_MAX)


class JoinToken(Body, frozen=True):
    host: Annotated[str | None, or_null(_HOST)] = None
    expires_in_s: Annotated[int, whole(1, EXPIRES_MAX_S)] = EXPIRES_S


class Join(Body, frozen=True):
    token: Annotated[str, text(TOKEN_MAX, 1)]
    host: Annotated[str, _HOST]


@takes(JoinToken, "join_token")
async def create_token(api: Api, request: Request, given: JoinToken) -> Response:
    _settings(api)  # a token that would lead nowhere is not made
    token = api.names.secret()
    made = await api.store.run(joining.create, hash_token(token), given.host, given.expires_in_s * 1_000_000)
    return Response(201, {"join_token": {"token": token, **made._asdict()}})


@takes(Join, "join")
async def join(api: Api, request: Request, given: Join) -> Response:
    token, host = given.token, given.host
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


def _settings(api: Api) -> dict[str, Any]:
    """Raises Conflict when this API does not know what to tell an agent."""
    told = api.settings.joining
    if told.sentence:
        raise Conflict(told.sentence)
    return {"settings": dict(told.settings), "files": dict(told.files)}
