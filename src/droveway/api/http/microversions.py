"""The microversion of a request: a minor number within one major, agreed on by header."""

from __future__ import annotations

import re

from droveway.api.http.faults import COMPUTE, PLACEMENT, PLACEMENT_MINORS, VOLUME, NotAcceptable
from droveway.api.http.render import FOREVER
from droveway.api.http.request import Request
from droveway.domain.faults import BadRequest

MINIMUM, MAXIMUM = 1, 100
VOLUME_MINORS = (0, 71)
MINIMUM_TEXT, MAXIMUM_TEXT = f"2.{MINIMUM}", f"2.{MAXIMUM}"

_HEADER = b"openstack-api-version"
_FORM = re.compile(r"([1-9]\d{0,8})\.(0|[1-9]\d{0,8})")

Headers = list[tuple[bytes, bytes]]


def asked_by_name(request: Request, service: str) -> str | None:
    """The header may name several services: `compute 2.30, volume 3.71`; each once. Raises BadRequest."""
    found: str | None = None
    for part in (request.header(_HEADER) or "").split(","):
        words = part.split()
        if len(words) == 2 and words[0].lower() == service:
            if found not in (None, words[1]):
                raise BadRequest(f"OpenStack-API-Version names two versions of {service}.")
            found = words[1]
    return found


class VersionSeries:
    """The versions `major.minimum` to `major.maximum` of one service. `old_header`: how they were asked for before all
    services shared a header. `strict_since`: the minor from which on unknown keys of a query are refused."""

    def __init__(
        self,
        service: str,
        major: int,
        minimum: int,
        maximum: int,
        old_header: str | None = None,
        strict_since: int = FOREVER,
    ) -> None:
        self.strict_since = strict_since
        self.minimum, self.maximum = minimum, maximum
        self.minimum_text, self.maximum_text = f"{major}.{minimum}", f"{major}.{maximum}"
        self._service = service
        self._major = major
        self._old = None if old_header is None else old_header.lower().encode()
        vary = "OpenStack-API-Version" + ("" if old_header is None else f", {old_header}")
        self._echo = {minor: self._headers(f"{major}.{minor}", vary.encode()) for minor in range(minimum, maximum + 1)}

    def _headers(self, version: str, vary: bytes) -> Headers:
        headers = [(_HEADER, f"{self._service} {version}".encode())]
        if self._old is not None:
            headers.append((self._old, version.encode()))
        return [*headers, (b"vary", vary)]

    def asked(self, request: Request) -> int:
        """The minor of the version that the request asks for: the least when it asks for none. Raises BadRequest,
        NotAcceptable."""
        text = asked_by_name(request, self._service) or (request.header(self._old) if self._old is not None else None)
        if text is None:
            return self.minimum
        if text.lower() == "latest":
            return self.maximum
        match = _FORM.fullmatch(text)
        if match is None:
            raise BadRequest(
                f"API Version String {text[:40]} is of invalid format. Must be of format MajorNum.MinorNum or latest."
            )
        major, minor = int(match[1]), int(match[2])
        if major != self._major or not self.minimum <= minor <= self.maximum:
            raise NotAcceptable(
                f"Version {text} is not supported by the API. Minimum is {self.minimum_text} and maximum is "
                f"{self.maximum_text}."
            )
        return minor

    def agree(self, request: Request) -> None:
        """The version that the request asks for is the one it is read by. Raises as `asked`."""
        request.version = self.asked(request)
        request.refuses_unknown = request.version >= self.strict_since

    def echo(self, minor: int) -> Headers:
        """The headers that say which version the reply is in."""
        return self._echo[minor]


SERIES = {
    COMPUTE: VersionSeries("compute", 2, MINIMUM, MAXIMUM, "X-OpenStack-Nova-API-Version", strict_since=75),
    PLACEMENT: VersionSeries("placement", 1, *PLACEMENT_MINORS),
    VOLUME: VersionSeries("volume", 3, *VOLUME_MINORS),
}
