"""How a host joins: an operator makes a token, the new machine turns it into the agents' settings, once.

POST /droveway/v1/join-tokens  {"join_token": {"host"?, "any_host"?, "expires_in_s"?, "addresses"?}} -> 201
                               {"join_token": {"token", "id", "host", "expires_at_us"}}; the token is told this one
                               time. With `any_host` its holder chooses a name that nothing here has yet
GET  /droveway/v1/join-tokens?all=1 {"join_tokens": [{"id", "host", "state", ...}]}: those that can be used, or all
                               that are known; the tokens themselves are not
DELETE /droveway/v1/join-tokens/{id} 200 {"join_token": {...}}: no host joins with it any more; a part of `id` will do
POST /droveway/v1/join         {"join": {"token", "host", "csr"?}} -> 200 {"join": {"host", "settings", …}}; needs no
                               other credential. `settings` are keys of an agent's configuration file, with an identity
                               at the broker that is this host's own; `files` are those it names, which are to be
                               written beside it; `note` and `commands` say what is left to do where the broker is. With
                               a request (`csr`, PEM) there is a `certificate` too (api/own/certificates.py), or null
                               where this API hands out none
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import FLAG, HOST, of, or_null, text, whole
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_host, as_text
from droveway.api.own import certificates
from droveway.api.own.certificates import TrustedAuthorities
from droveway.api.wiring import Api, Certifier, hash_token
from droveway.domain.certificates import HOST as A_HOST
from droveway.domain.certificates import SUPERSEDED, Holder
from droveway.domain.faults import BadRequest, Conflict
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import certificates as granted
from droveway.store.fleet import declared, joining
from droveway.store.fleet.certificates import Grant

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
    any_host: Annotated[bool, FLAG] = False
    expires_in_s: Annotated[int, whole(1, EXPIRES_MAX_S)] = EXPIRES_S
    addresses: Annotated[list[Any], certificates.ADDRESSES] = msgspec.field(default_factory=list)


class Join(Body, frozen=True):
    token: Annotated[str, text(TOKEN_MAX, 1)]
    host: Annotated[str, _HOST]
    csr: Annotated[str | None, certificates.CSR_OR_NONE] = None


@takes(JoinToken, "join_token")
async def create_token(api: Api, request: Request, given: JoinToken) -> Response:
    if (given.host is None) is not given.any_host:
        raise BadRequest(
            "Invalid input for join_token: it must name the host that may join with it (host), or say any_host: true, "
            "and not both; with any_host its holder may take any name that no host or service here has."
        )
    addresses = certificates.addresses("join_token.addresses", given.addresses, given.host)
    _settings(api)  # a token that would lead nowhere is not made
    token = api.names.secret()
    made = await api.store.run(joining.create, hash_token(token), given.host, given.expires_in_s * 1_000_000, addresses)
    return Response(201, {"join_token": {"token": token, **made._asdict()}})


async def list_tokens(api: Api, request: Request) -> Response:
    everything = request.known_query(("all",)).get("all", "0") not in ("", "0", "false")
    found = await api.store.read(lambda tx: joining.listing(tx, everything=everything))
    return Response(200, {"join_tokens": [one._asdict() for one in found]})


async def revoke_token(api: Api, request: Request) -> Response:
    gone = await api.store.run(joining.revoke, request.params["token"])
    return Response(200, {"join_token": gone._asdict()})


@takes(Join, "join")
async def join(api: Api, request: Request, given: Join) -> Response:
    token, host, csr = given.token, given.host, given.csr
    handout = _settings(api)
    # nothing is made, written or verified for a caller without a token
    await api.store.read(joining.usable, hash_token(token), host)
    certifier, public = (
        (None, b"") if csr is None or api.certifier is None else (api.certifier, api.certifier.public_key(csr))
    )
    grant, trust = await api.store.run(_use, hash_token(token), host, certifier)
    own = await api.settings.joining.identify(host)
    if own.settings:
        bus = handout["settings"]["bus"]
        handout["settings"][bus] = {**handout["settings"][bus], **own.settings}
    if certifier is not None and grant is not None and trust is not None:
        handout["certificate"] = certificates.host_answer(api, certifier, trust, certifier.sign(grant, public))
    elif csr is not None:
        handout["certificate"] = None
    return Response(200, {"join": {"host": host, **handout, "note": own.note, "commands": list(own.commands)}})


def _use(
    tx: Tx, token_hash: str, host: str, certifier: Certifier | None
) -> tuple[Grant | None, TrustedAuthorities | None]:
    """One that was declared gone and joins anew is let in again; what certificates it had end."""
    addresses = joining.use(tx, token_hash, host)
    granted.end_of_host(tx, host, SUPERSEDED)
    declared.readmit_if_gone(tx, host)
    if certifier is None:
        return None, None
    grant = granted.grant(tx, Holder(A_HOST, host), addresses, certifier.validity_us, certifier.holds)
    return grant, certificates.trust(tx)


def _settings(api: Api) -> dict[str, Any]:
    """Raises Conflict when this API does not know what to tell an agent."""
    handout = api.settings.joining
    if handout.reason:
        raise Conflict(handout.reason)
    return {"settings": dict(handout.settings), "files": dict(handout.files)}
