"""The private CA over HTTP: what it has signed, what hosts renew, and what an operator does with it.

POST /droveway/v1/hosts/{host}/certificate  {"certificate": {"csr"?, "trusts"?}} -> 200 {"certificate": {...}}; only
                               on the agents' listener, with the certificate of that host. Without `csr` it only looks:
                               `authorities` and `revoked` (PEM) are what is to be trusted now, `due` whether the CA
                               that signed its certificate signs no longer
GET  /droveway/v1/certificates              {"certificates": [...]}, by subject, the newest first
POST /droveway/v1/certificates              {"certificate": {"name", "addresses", "csr"}} -> 201: of a service that is
                               no host, such as a broker
POST /droveway/v1/certificates/{serial}/revoke  its key may be known to others
POST /droveway/v1/hosts/{host}/revoke-certificates  all that this host has: {"certificates": [...]}
GET  /droveway/v1/authorities               {"authorities": [...], "agents_url"}
POST /droveway/v1/authorities               {"authority": {"certificate"}} -> 201: trusted from now on
POST /droveway/v1/authorities/{id}/use      it signs from now on
POST /droveway/v1/authorities/{id}/retire   {"force"?}: it is trusted no longer
GET  /droveway/v1/revoked                   {"revoked": PEM, "authorities": PEM}: for programs that read files, as
brokers do
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import FLAG, of, or_null, text
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_text
from droveway.api.wiring import Api, Certifier
from droveway.domain import certificates as life
from droveway.domain.certificates import HOST, SERVICE, SIGNING, Holder
from droveway.domain.faults import BadRequest, Conflict, Forbidden, Unauthorized
from droveway.domain.peer_uri import WrongUri
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import certificates
from droveway.store.fleet.certificates import Authority, Grant
from droveway.store.rows import CertificateRow

CSR_MAX, PEM_MAX = 16 * 1024, 64 * 1024
TRUSTS_MAX = 16  # fingerprints of CAs
NONE_HERE = (
    "This API hands out no certificates: set api.agents_listen in its file, such as "
    'agents_listen = "10.0.0.1:8775" (docs/operating.md).'
)
Shown = dict[str, Any]


class TrustedAuthorities(NamedTuple):
    """What a program needs that verifies certificates."""

    authorities: list[Authority]
    revoked: list[CertificateRow]


def trust(tx: Tx) -> TrustedAuthorities:
    return TrustedAuthorities(certificates.trusted(tx), certificates.revoked(tx))


def host_answer(api: Api, certifier: Certifier, known: TrustedAuthorities, certificate: str | None) -> Shown:
    """What a host is told. `now_us`: control's clock."""
    fingerprints = [one.fingerprint for one in known.authorities]
    return {
        "certificate": certificate,
        "authorities": "".join(one.certificate for one in known.authorities),
        "revoked": certifier.revocation_lists(fingerprints, known.revoked),
        "renew_url": certifier.agents_url,
        "now_us": api.clock.now_us(),
    }


def addresses(name: str, value: Any, host: str | None) -> list[str]:
    """At which others find that host. Raises BadRequest."""
    if not isinstance(value, list) or len(value) > life.ADDRESSES_MAX:
        raise BadRequest(f"Invalid input for {name}: it must be a list of at most {life.ADDRESSES_MAX} addresses.")
    if value and host is None:
        raise BadRequest(f"Invalid input for {name}: addresses are those of one host, which must be named too.")
    return _checked(name, value, Holder(HOST, host or ""))


def _checked(name: str, value: list[Any], subject: Holder) -> list[str]:
    try:
        return [life.checked_address(as_text(name, one, 253, 1), subject) for one in value]
    except WrongUri as wrong:
        raise BadRequest(f"Invalid input for {name}: {wrong}.") from None


def _certifier(api: Api) -> Certifier:
    if api.certifier is None:
        raise Conflict(NONE_HERE)
    return api.certifier


def _list_of(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > life.ADDRESSES_MAX:
        raise BadRequest(f"Invalid input for {name}: it must be a list of at most {life.ADDRESSES_MAX} addresses.")
    return value


def _fingerprints(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) > TRUSTS_MAX:
        raise BadRequest(f"Invalid input for {name}: it must be a list of at most {TRUSTS_MAX} fingerprints.")
    return [as_text(name, one, 64, 64) for one in value]


_ADDRESS = {"type": "string", "minLength": 1, "maxLength": 253}
ADDRESSES = of(_list_of, type="array", items=_ADDRESS, maxItems=life.ADDRESSES_MAX)
CSR_OR_NONE = or_null(text(CSR_MAX))
_TRUSTS = of(
    _fingerprints, type="array", items={"type": "string", "minLength": 64, "maxLength": 64}, maxItems=TRUSTS_MAX
)


# -- a host -----------------------------------------------------------------------------------------------------------
async def serial_of(api: Api, request: Request, host: str) -> str:
    """The serial of the certificate by which that host itself is asking. Raises Unauthorized, Forbidden."""
    shown = request.certificate
    if shown is None:
        raise Unauthorized(
            "This is for a host with its certificate, on the listener of the agents (api.agents_listen)."
        )
    serial = str(shown.get("serialNumber", "")).lower().lstrip("0")
    subject = await api.store.read(certificates.holder, serial)
    if subject != Holder(HOST, host):
        raise Forbidden(f"The certificate {serial} is that of {subject.kind} {subject.name}, not of host {host[:64]}.")
    return serial


class Renewal(Body, frozen=True):
    """Without `csr` it only looks."""

    csr: Annotated[str | None, CSR_OR_NONE] = None
    trusts: Annotated[list[str], _TRUSTS] = msgspec.field(default_factory=list)


@takes(Renewal, "certificate")
async def renew(api: Api, request: Request, given: Renewal) -> Response:
    certifier = _certifier(api)
    serial = await serial_of(api, request, request.params["host"])
    csr, trusts = given.csr, given.trusts
    if csr is None:
        known, is_current = await api.store.run(_look, serial, trusts)
        return Response(200, {"certificate": {**host_answer(api, certifier, known, None), "due": not is_current}})
    public = certifier.public_key(csr)
    grant, known = await api.store.run(_renew, serial, certifier)
    return Response(
        200, {"certificate": {**host_answer(api, certifier, known, certifier.sign(grant, public)), "due": False}}
    )


def _look(tx: Tx, serial: str, trusts: list[str]) -> tuple[TrustedAuthorities, bool]:
    certificates.trusts(tx, serial, trusts)
    return trust(tx), certificates.is_of_signing(tx, serial)


def _renew(tx: Tx, serial: str, certifier: Certifier) -> tuple[Grant, TrustedAuthorities]:
    return certificates.renew(tx, serial, certifier.validity_us, certifier.holds), trust(tx)


# -- an operator: certificates ----------------------------------------------------------------------------------------
async def listing(api: Api, request: Request) -> Response:
    request.known_query(())
    now_us = api.clock.now_us()
    rows = await api.store.read(certificates.listing)
    return Response(200, {"certificates": [shown(row, now_us) for row in rows]})


def shown(row: CertificateRow, now_us: int) -> Shown:
    begins, ends = row["not_before_us"], row["not_after_us"]
    word = life.stage(begins, ends, now_us).value if row["revoked_at_us"] is None else "revoked"
    return {
        "serial": row["serial"],
        "kind": row["kind"],
        "name": row["name"],
        "authority": row["authority"],
        "names": row["names"],
        "state": word,
        "not_before_us": begins,
        "not_after_us": ends,
        "renewed_from_us": life.due_us(begins, ends),
        "revoked_at_us": row["revoked_at_us"],
        "revoked_because": row["revoked_because"],
        "trusts": row["trusts"],
    }


def _name(where: str, value: Any) -> str:
    name = as_text(where, value, 64, 1)
    if name in (".", "..") or not all(one.isascii() and (one.isalnum() or one in "._-") for one in name):
        raise BadRequest(f"Invalid input for {where}: {name!r} is not 1 to 64 of the characters a-z A-Z 0-9 . - _")
    return name


def _some(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not 1 <= len(value) <= life.ADDRESSES_MAX:
        raise BadRequest(f"Invalid input for {name}: it must be a list of 1 to {life.ADDRESSES_MAX}.")
    return value


class NewCertificate(Body, frozen=True):
    name: Annotated[str, of(_name, type="string", pattern="^[a-zA-Z0-9._-]{1,64}$")]
    addresses: Annotated[list[Any], of(_some, **ADDRESSES.schema, minItems=1)]
    csr: Annotated[str, text(CSR_MAX)]


@takes(NewCertificate, "certificate")
async def issue(api: Api, request: Request, given: NewCertificate) -> Response:
    certifier = _certifier(api)
    subject = Holder(SERVICE, given.name)
    names = _checked("certificate.addresses", given.addresses, subject)
    public = certifier.public_key(given.csr)

    def write(tx: Tx) -> tuple[Grant, TrustedAuthorities]:
        return certificates.grant(tx, subject, names, certifier.validity_us, certifier.holds), trust(tx)

    grant, known = await api.store.run(write)
    return Response(
        201,
        {
            "certificate": {
                **host_answer(api, certifier, known, certifier.sign(grant, public)),
                "serial": grant.serial,
                "not_after_us": grant.not_after_us,
            }
        },
    )


async def revoke(api: Api, request: Request) -> Response:
    row = await api.store.run(certificates.revoke, request.params["serial"])
    return Response(200, {"certificate": shown(row, api.clock.now_us())})


async def revoke_host(api: Api, request: Request) -> Response:
    rows = await api.store.run(certificates.revoke_all, request.params["host"])
    now_us = api.clock.now_us()
    return Response(200, {"certificates": [shown(row, now_us) for row in rows]})


async def revoked(api: Api, request: Request) -> Response:
    request.known_query(())
    body = host_answer(api, _certifier(api), await api.store.read(trust), None)
    return Response(200, {name: body[name] for name in ("revoked", "authorities")})


# -- an operator: authorities -----------------------------------------------------------------------------------------
async def authorities(api: Api, request: Request) -> Response:
    request.known_query(())
    certifier = api.certifier

    def read(tx: Tx) -> list[Shown]:
        rows = [row for row in certificates.listing(tx) if row["revoked_at_us"] is None]
        live = [row for row in rows if row["not_after_us"] > tx.now_us]
        newest = {(row["kind"], row["name"]): row for row in reversed(live)}.values()
        return [
            {
                "fingerprint": one.fingerprint,
                "state": one.state,
                "created_at_us": one.created_at_us,
                "not_after_us": one.not_after_us,
                "certificate": one.certificate,
                "key_is_here": certifier is not None and certifier.holds(one.fingerprint),
                "signed": sum(row["authority"] == one.fingerprint for row in newest),
                "trusted_by": sum(one.fingerprint in (row["trusts"] or ()) for row in newest if row["kind"] == HOST),
                "hosts": sum(row["kind"] == HOST for row in newest),
            }
            for one in certificates.all_authorities(tx)
        ]

    found = await api.store.read(read)
    return Response(200, {"authorities": found, "agents_url": certifier.agents_url if certifier is not None else ""})


class NewAuthority(Body, frozen=True):
    certificate: Annotated[str, text(PEM_MAX)]


@takes(NewAuthority, "authority")
async def add(api: Api, request: Request, given: NewAuthority) -> Response:
    pem = given.certificate
    fingerprint, not_after_us = _certifier(api).read_authority(pem)
    made = await api.store.run(certificates.trust, fingerprint, pem, not_after_us)
    return Response(201, {"authority": made._asdict()})


async def use(api: Api, request: Request) -> Response:
    certifier = _certifier(api)

    def write(tx: Tx) -> Authority:
        made = certificates.use(tx, request.params["authority"])
        if not certifier.holds(made.fingerprint):
            raise Conflict(
                f"This API does not hold the key of the CA {made.fingerprint[:16]}: copy the directory of the "
                "CA (ca.directory) from the machine where it was made, to every API."
            )
        return made

    made = await api.store.run(write)
    assert made.state == SIGNING, "it was made to"
    return Response(200, {"authority": made._asdict()})


class Retirement(Body, frozen=True):
    force: Annotated[bool, FLAG] = False


@takes(Retirement)
async def retire(api: Api, request: Request, given: Retirement) -> Response:
    made = await api.store.run(certificates.retire, request.params["authority"], in_spite=given.force)
    return Response(200, {"authority": made._asdict()})
