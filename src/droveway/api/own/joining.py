"""How a host joins: an operator makes a token, the new machine turns it into the agents' settings, once.

POST /droveway/v1/join-tokens  {"join_token": {"host"?, "expires_in_s"?, "addresses"?}} -> 201 {"join_token":
                               {"token", "id", "host", "expires_at_us"}}; the token is told this one time
GET  /droveway/v1/join-tokens?all=1 {"join_tokens": [{"id", "host", "state", ...}]}: those that can be used, or all
                               that are known; the tokens themselves are not
DELETE /droveway/v1/join-tokens/{id} 200 {"join_token": {...}}: nobody joins with it any more; a part of `id` will do
POST /droveway/v1/join         {"join": {"token", "host", "csr"?}} -> 200 {"join": {"host", "settings", …}}; needs no
                               other credential. `settings` are keys of an agent's configuration file, with an identity
                               at the broker that is this host's own; `files` are those it names, which are to be
                               written beside it; `note` and `commands` say what is left to do where the broker is. With
                               a request (`csr`, PEM) there is a `certificate` too (api/own/certificates.py), or null
                               where this API hands out none
"""

from __future__ import annotations

from typing import Any

from droveway.api.http.request import Request, Response
from droveway.api.http.validate import Fields, as_host, as_integer, as_text, the
from droveway.api.own import certificates
from droveway.api.own.certificates import Trust
from droveway.api.wiring import Api, Certifier, hash_token
from droveway.domain.certificates import HOST, SUPERSEDED, Subject
from droveway.domain.faults import BadRequest, Conflict
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import certificates as granted
from droveway.store.fleet import declared, joining
from droveway.store.fleet.certificates import Grant

HOST_MAX = 64
EXPIRES_S, EXPIRES_MAX_S = 3600, 30 * 24 * 3600
TOKEN_MAX = 256


async def create_token(api: Api, request: Request) -> Response:
    given = Fields(
        the(await request.json(api.settings.max_body_bytes), "join_token"),
        "join_token",
        ("host", "expires_in_s", "addresses"),
    )
    host = _host("join_token.host", given.value("host", None))
    seconds = as_integer("join_token.expires_in_s", given.value("expires_in_s", EXPIRES_S), 1, EXPIRES_MAX_S)
    addresses = certificates.addresses("join_token.addresses", given.value("addresses", []), host)
    _settings(api)  # a token that would lead nowhere is not made
    token = api.names.secret()
    made = await api.store.run(joining.create, hash_token(token), host, seconds * 1_000_000, addresses)
    return Response(201, {"join_token": {"token": token, **made._asdict()}})


async def list_tokens(api: Api, request: Request) -> Response:
    everything = request.known_query(("all",)).get("all", "0") not in ("", "0", "false")
    found = await api.store.read(lambda tx: joining.listing(tx, everything=everything))
    return Response(200, {"join_tokens": [one._asdict() for one in found]})


async def revoke_token(api: Api, request: Request) -> Response:
    gone = await api.store.run(joining.revoke, request.params["token"])
    return Response(200, {"join_token": gone._asdict()})


async def join(api: Api, request: Request) -> Response:
    given = Fields(the(await request.json(api.settings.max_body_bytes), "join"), "join", ("token", "host", "csr"))
    token = as_text("join.token", given.value("token", None), TOKEN_MAX, 1)
    host = _host("join.host", given.value("host", None))
    if host is None:
        raise BadRequest("Invalid input for join.host: it is missing.")
    csr = given.text_or_none("csr", certificates.CSR_MAX)
    told = _settings(api)
    certifier, public = (
        (None, b"") if csr is None or api.certifier is None else (api.certifier, api.certifier.public_key(csr))
    )
    # nothing is made for whoever has no token
    grant, trust = await api.store.run(_use, hash_token(token), host, certifier)
    own = await api.settings.joining.identify(host)
    if own.settings:
        bus = told["settings"]["bus"]
        told["settings"][bus] = {**told["settings"][bus], **own.settings}
    if certifier is not None and grant is not None and trust is not None:
        told["certificate"] = certificates.told(api, certifier, trust, certifier.sign(grant, public))
    elif csr is not None:
        told["certificate"] = None
    return Response(200, {"join": {"host": host, **told, "note": own.note, "commands": list(own.commands)}})


def _use(tx: Tx, token_hash: str, host: str, certifier: Certifier | None) -> tuple[Grant | None, Trust | None]:
    """One that was declared gone and joins anew is let in again; what certificates it had end."""
    addresses = joining.use(tx, token_hash, host)
    granted.end_of_host(tx, host, SUPERSEDED)
    declared.readmit_if_gone(tx, host)
    if certifier is None:
        return None, None
    grant = granted.grant(tx, Subject(HOST, host), addresses, certifier.validity_us, certifier.holds)
    return grant, certificates.trust(tx)


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
