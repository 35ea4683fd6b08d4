"""Who signed a request that another service was sent: that service asks, and tells it with a token of its own.

POST /v3/ec2tokens   {"credentials": {"access", "signature", "host", "verb", "path", "params", "headers", "body_hash"}}
POST /v3/s3tokens    {"credentials": {"access", "signature", "token": the text that was signed, in base64}}

The first gives a token for the project of the key, the second says only whose it is: a service of objects needs no
more. Both need the role service (or admin), as keystone has it since CVE-2025-65073: a signature that was overheard
is not to be worth a token to the one who overheard it. Every wrong one has the same answer, whatever was wrong.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import of, text
from droveway.api.http.request import Request, Response
from droveway.api.identity import login, tokens
from droveway.api.identity.credentials import EC2, id_of_access
from droveway.api.wiring import Api
from droveway.domain import signatures
from droveway.domain.faults import BadRequest, Unauthorized
from droveway.domain.signatures import NotSigned, SignedRequest
from droveway.store.identity import keys
from droveway.store.identity.rows import CredentialRow

METHOD = "ec2credential"
WRONG = "The access key or the signature is not right."
TEXT_MAX = 16 * 1024  # characters of one value
PAIRS_MAX = 256  # parameters, and headers
GOOD_FOR_S = 15 * 60.0  # of a signature, by its own time
_NOBODYS_SECRET = "0" * 64  # for keys that nobody has: they take as long as others


def _pairs(path: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > PAIRS_MAX:
        raise BadRequest(f"Invalid input for {path}: it must be an object of at most {PAIRS_MAX} texts.")
    for one in value.values():
        if not isinstance(one, str) or len(one) > TEXT_MAX:
            raise BadRequest(f"Invalid input for {path}: each must be a text of at most {TEXT_MAX} characters.")
    return value


_TEXT = {"type": "string", "maxLength": TEXT_MAX}
PAIRS = of(_pairs, type="object", maxProperties=PAIRS_MAX, additionalProperties=_TEXT)
LONG = text(TEXT_MAX)


class Signed(Body, frozen=True):
    is_open = True
    access: Annotated[str, text()] = ""
    signature: Annotated[str, text()] = ""


class SignedHttp(Signed, frozen=True):
    is_open = True
    host: Annotated[str, text()] = ""
    verb: Annotated[str, text(16)] = ""
    path: Annotated[str, LONG] = ""
    params: Annotated[dict[str, str], PAIRS] = msgspec.field(default_factory=dict)
    headers: Annotated[dict[str, str], PAIRS] = msgspec.field(default_factory=dict)
    body_hash: Annotated[str, text()] = ""


class SignedText(Signed, frozen=True):
    is_open = True
    token: Annotated[str, LONG] = ""


class Ec2Request(Body, frozen=True):
    """Under any of the names that clients have had for it."""

    is_open = True
    credentials: SignedHttp | None = None
    credential: SignedHttp | None = None
    old: SignedHttp | None = msgspec.field(default=None, name="ec2Credentials")


class S3Request(Body, frozen=True):
    is_open = True
    credentials: SignedText | None = None
    credential: SignedText | None = None


async def _owner(
    api: Api, request: Request, given: Signed | None, right: Callable[[str], tuple[str, ...]]
) -> CredentialRow:
    """Whose key it is. `right`: the signatures that are, with that secret. Raises Unauthorized, TooMany."""
    access = "" if given is None else given.access
    row = await api.store.read(keys.find_credential, id=id_of_access(access), type=EC2)
    secret = _NOBODYS_SECRET if row is None else str(msgspec.json.decode(row["blob"])["secret"])
    # By the key alone, a stranger would lock its owner out; by the address alone, which is the service's, all others.
    who = f"{id_of_access(access)} at {request.address}"
    attempt = await api.signed_attempts.begin(who, who, api.clock.monotonic_s())
    reason, is_right = "the signature is wrong", False
    try:
        is_right = given is not None and secret != "" and signatures.is_one_of(given.signature, right(secret))
    except NotSigned as fault:
        reason = str(fault)
    finally:
        attempt.end(is_wrong=not is_right or row is None)
    if row is None or not is_right:
        raise _wrong(request, access, "there is no such key" if row is None else reason)
    return row


def _wrong(request: Request, access: str, reason: str) -> Unauthorized:
    login.wrong(request, f"access key {access}", reason)
    return Unauthorized(WRONG)


async def _token(api: Api, request: Request, row: CredentialRow, *, is_kept: bool) -> tuple[dict[str, Any], str]:
    """The body of a token for the key's project, and the token itself. Raises Unauthorized."""
    bought = await tokens.buy_with_key(api, row, METHOD, is_kept=is_kept)
    if bought is None:
        raise _wrong(request, row["id"], "its user has no role in its project, or one of the two is disabled")
    caller, token = bought
    return await tokens.token_body(api, caller, with_catalog="nocatalog" not in dict(request.query)), token


@takes(Ec2Request)
async def ec2_token(api: Api, request: Request, given: Ec2Request) -> Response:
    signed = given.credentials or given.credential or given.old

    def right(secret: str) -> tuple[str, ...]:
        if signed is None:
            return ()
        asked = SignedRequest(signed.host, signed.verb, signed.path, signed.params, signed.headers, signed.body_hash)
        at = signatures.signed_at(asked)
        if at is not None and abs(api.clock.now_us() / 1_000_000 - at.timestamp()) > GOOD_FOR_S:
            raise NotSigned("it was signed too long ago, or is of a time to come")
        return signatures.of_request(secret, asked)

    row = await _owner(api, request, signed, right)
    body, token = await _token(api, request, row, is_kept=True)
    return Response(200, body, headers=[(tokens.SUBJECT, token.encode())])


@takes(S3Request)
async def s3_token(api: Api, request: Request, given: S3Request) -> Response:
    """Whether a signature of the past is still good is the service's to say: one in a URL may be so for days."""
    signed = given.credentials or given.credential

    def right(secret: str) -> tuple[str, ...]:
        try:
            what = base64.b64decode((signed.token if signed else "").encode(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise NotSigned("the text that was signed is not in base64") from None
        return (signatures.of_text(secret, what),)

    row = await _owner(api, request, signed, right)
    body, _ = await _token(api, request, row, is_kept=False)
    return Response(200, body)
