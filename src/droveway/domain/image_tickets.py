"""Tickets for the data of images: one image, one host, one direction, a bound of bytes, a short while.

A ticket is `claims.mac`, both base64url: what it allows, and HMAC-SHA256 over that with a key of the store, so that any
API can check it. A ticket is good as long as its key is in the store; keys are replaced every few minutes, so no two
machines' clocks are compared. It names a host by a challenge, the SHA-256 of a secret that only that host's agent knows
and shows together with the ticket: a ticket that another process has read is of no use there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import msgspec

from droveway.domain.faults import Forbidden, Unauthorized
from droveway.domain.wire import FEW, Count, ShortText

TOKEN_MAX = 2048  # characters
VERIFIER_MAX = 256
TICKET_HEADER, VERIFIER_HEADER = "x-droveway-ticket", "x-droveway-verifier"
PATH = "/droveway/v1/image-data"  # of an API; the image's id follows


class Direction(StrEnum):
    FETCH = "fetch"
    SEND = "send"


class ImageTicket(msgspec.Struct, frozen=True):
    """What a host is handed with a command: the token, and the APIs that take it. The token is a secret: it is shown in
    no log, so it is in no repr."""

    token: ShortText
    urls: Annotated[tuple[ShortText, ...], FEW] = ()  # http(s)://HOST:PORT of each API

    def __repr__(self) -> str:
        return f"ImageTicket(token=…, urls={self.urls!r})"


class Claims(msgspec.Struct, frozen=True):
    """What a ticket allows. `id` is its own, by which it is remembered as spent."""

    key: Count
    id: ShortText
    image_id: ShortText
    host: ShortText
    direction: Direction
    max_bytes: Count
    challenge: ShortText

    def check(self, image_id: str, direction: Direction, verifier: str) -> None:
        """Check that its bearer may do that. Raises Forbidden."""
        if not hmac.compare_digest(self.challenge.encode(), challenge_of(verifier).encode()):
            raise Forbidden(
                f"This ticket is for host {self.host}, and another host showed it: every host is given "
                "tickets of its own with its commands."
            )
        if self.image_id != image_id:
            raise Forbidden(f"This ticket is for image {self.image_id}, not for {image_id[:64]}.")
        if self.direction is not direction:
            raise Forbidden(f"This ticket lets host {self.host} {self.direction} image {image_id}, not {direction} it.")


def challenge_of(verifier: str) -> str:
    return hashlib.sha256(verifier.encode("utf-8", "surrogateescape")).hexdigest()


def seal(claims: Claims, secret: str) -> str:
    body = base64.urlsafe_b64encode(msgspec.json.encode(claims)).decode()
    return f"{body}.{_mac(body, secret)}"


def read(token: str, secret_of: Callable[[int], str | None]) -> Claims:
    """What that ticket allows. `secret_of(number)`: the secret of a key; None when it is not there any more. Raises
    Unauthorized."""
    body, _, mac = token.partition(".")
    try:
        if len(token) > TOKEN_MAX:
            raise ValueError
        claims = msgspec.json.decode(base64.b64decode(body.encode(), altchars=b"-_", validate=True), type=Claims)
    except (ValueError, binascii.Error, msgspec.DecodeError, RecursionError):
        raise Unauthorized("That is no ticket for the data of an image.") from None
    secret = secret_of(claims.key)
    expected = _mac(body, secret or "")
    if not hmac.compare_digest(mac.encode("utf-8", "surrogateescape"), expected.encode()) or secret is None:
        raise Unauthorized(
            "The ticket is not valid: it has expired, or never was one; the next command brings another one."
        )
    return claims


def _mac(body: str, secret: str) -> str:
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), body.encode(), "sha256")).decode()
