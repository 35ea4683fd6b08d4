"""The compute microversion of a request: minor numbers of 2.x, agreed on by header."""

from __future__ import annotations

import re

from droveway.api.faults import NotAcceptable
from droveway.api.request import Request
from droveway.domain.faults import BadRequest

MINIMUM, MAXIMUM = 1, 96
MINIMUM_TEXT, MAXIMUM_TEXT = f"2.{MINIMUM}", f"2.{MAXIMUM}"

_NEW, _OLD = b"openstack-api-version", b"x-openstack-nova-api-version"
_FORM = re.compile(r"([1-9]\d{0,8})\.(0|[1-9]\d{0,8})")
_VARY = b"OpenStack-API-Version, X-OpenStack-Nova-API-Version"


def asked(request: Request) -> int:
    """The minor of the version that the request asks for: 1 when it asks for none. Raises BadRequest, NotAcceptable."""
    text = _of_compute(request.header(_NEW)) or request.header(_OLD)
    if text is None:
        return MINIMUM
    if text.lower() == "latest":
        return MAXIMUM
    match = _FORM.fullmatch(text)
    if match is None:
        raise BadRequest(
            f"API Version String {text[:40]} is of invalid format. Must be of format MajorNum.MinorNum or latest."
        )
    major, minor = int(match[1]), int(match[2])
    if major != 2 or not MINIMUM <= minor <= MAXIMUM:
        raise NotAcceptable(
            f"Version {text} is not supported by the API. Minimum is {MINIMUM_TEXT} and maximum is {MAXIMUM_TEXT}."
        )
    return minor


def _of_compute(header: str | None) -> str | None:
    """The header may name several services: `compute 2.30, volume 3.71`."""
    for part in (header or "").split(","):
        words = part.split()
        if len(words) == 2 and words[0].lower() == "compute":
            return words[1]
    return None


def echo(minor: int) -> list[tuple[bytes, bytes]]:
    """The headers that say which version the reply is in."""
    return _ECHO[minor]


_ECHO = {
    minor: [
        (b"openstack-api-version", f"compute 2.{minor}".encode()),
        (b"x-openstack-nova-api-version", f"2.{minor}".encode()),
        (b"vary", _VARY),
    ]
    for minor in range(MINIMUM, MAXIMUM + 1)
}
VARY = (b"vary", _VARY)
