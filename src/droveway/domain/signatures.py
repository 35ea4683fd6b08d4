"""Signatures of requests with a secret that both sides know, as Amazon's clients make them: what would be right. Pure
functions of what was signed.

Sources: AWS's Signature Version 2 and 4, and keystoneclient/contrib/ec2/utils.py, whose habits clients of OpenStack
have: a header that is said to be signed and is missing is passed over, and parameters of a POST are in its body.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

import msgspec

V4 = "AWS4-HMAC-SHA256"
END_OF_SCOPE = "aws4_request"
S3_SERVICES = ("s3", "iam", "sts")
_OLD_BOTO = re.compile(r"Boto/2\.[0-9]\.[0-2]")  # signs its host without the port
_TIMES = ("%Y%m%dT%H%M%SZ", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%S")


class NotSigned(ValueError):
    """What was sent is in none of the forms that can be signed; the message says which part is not."""


class SignedRequest(msgspec.Struct, frozen=True):
    """A request as the service that received it passes it on."""

    host: str
    verb: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body_hash: str = ""  # sha256, in hexadecimal


# -- a whole request --------------------------------------------------------------------------------------------------
def of_request(secret: str, request: SignedRequest) -> tuple[str, ...]:
    """The signatures that are right: with the host as it is, and without its port, which some clients leave out. Raises
    NotSigned."""
    hosts = dict.fromkeys((request.host, _without_port(request.host)))
    return tuple(_of_request(secret, msgspec.structs.replace(request, host=host)) for host in hosts)


def _without_port(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or host
    except ValueError:
        return host


def _of_request(secret: str, request: SignedRequest) -> str:
    version = request.params.get("SignatureVersion")
    if version == "2":
        return _version_2(secret, request)
    if version is not None:
        raise NotSigned(f"version {version[:8]} of signatures is not taken; 2 and 4 are")
    named = request.headers.get("Authorization", request.params.get("X-Amz-Algorithm", ""))
    if not named.startswith(V4):
        raise NotSigned("it does not say how it is signed")
    return _version_4(secret, request)


def signed_at(request: SignedRequest) -> datetime | None:
    """When; None where it does not say. Of version 4 what its signature was made of: parameters of a POST are not, so
    one that was overheard would stay good with another Timestamp. Raises NotSigned."""
    text = request.params.get("Timestamp") if "SignatureVersion" in request.params else None
    text = text or request.headers.get("X-Amz-Date", request.params.get("X-Amz-Date"))
    if not text:
        return None
    for form in _TIMES:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise NotSigned("its time is none")


def _query(params: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(params[name], safe='-_~')}" for name in sorted(params))


def _hmac(key: bytes, text: str | bytes) -> bytes:
    return hmac.digest(key, text.encode() if isinstance(text, str) else text, "sha256")


def _version_2(secret: str, request: SignedRequest) -> str:
    params = {**request.params, "SignatureMethod": "HmacSHA256"}
    text = "\n".join((request.verb, request.host, request.path, _query(params)))
    return base64.b64encode(_hmac(secret.encode(), text)).decode()


def _version_4(secret: str, request: SignedRequest) -> str:
    credential, signed = _named(request, "Credential").split("/"), _named(request, "SignedHeaders")
    if len(credential) != 5:
        raise NotSigned("its credential is none of key, day, region, service and aws4_request")
    when = request.headers.get("X-Amz-Date", request.params.get("X-Amz-Date", ""))
    if not when.startswith(credential[1]):
        raise NotSigned("it is of another day than its credential")
    headers = "".join(f"{line}\n" for line in _headers(request, signed)) or "\n"
    query = "" if request.verb.upper() == "POST" else _query(request.params)
    parts = (request.verb.upper(), request.path, query, headers, signed, request.body_hash)
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    scope = credential[1:]
    return _hmac(_key_4(secret, scope), "\n".join((V4, when, "/".join(scope), digest))).hex()


def _named(request: SignedRequest, name: str) -> str:
    if "Authorization" in request.headers:
        return request.headers["Authorization"].partition(f"{name}=")[2].partition(",")[0]
    return request.params.get(f"X-Amz-{name}", "")


def _headers(request: SignedRequest, signed: str) -> Iterator[str]:
    given = {name.lower().strip(): value.strip() for name, value in request.headers.items()}
    for name in signed.split(";"):
        if name == "host" and name in given and _OLD_BOTO.match(given.get("user-agent", "")):
            yield f"{name}:{given[name].partition(':')[0]}"
        elif name in given:
            yield f"{name}:{given[name]}"


def _key_4(secret: str, scope: list[str]) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in scope:
        key = _hmac(key, part)
    return key


# -- the text that was signed -----------------------------------------------------------------------------------------
def of_text(secret: str, text: bytes) -> str:
    """The signature of a text that an S3 service was sent, by its form: version 4, or the older one. Raises
    NotSigned."""
    if not text.startswith(b"AWS4"):
        return base64.b64encode(hmac.digest(secret.encode(), text, "sha1")).decode()
    lines = text.decode(errors="replace").split("\n")
    scope = lines[2].split("/") if len(lines) == 4 else []
    if lines[0] != V4 or len(scope) != 4 or scope[2] not in S3_SERVICES or scope[3] != END_OF_SCOPE:
        raise NotSigned("the text that was signed is none of version 4")
    return _hmac(_key_4(secret, scope), text).hex()


def is_one_of(given: str, right: tuple[str, ...]) -> bool:
    """After the same time, whichever it is and whether or not it is."""
    return sum(hmac.compare_digest(given.encode(), one.encode()) for one in right) > 0
