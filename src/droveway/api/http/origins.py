"""Calls of this API from web pages of other origins (CORS): none, unless `api.allowed_origins` names them.

A browser asks beforehand (OPTIONS) whether the page may call, and shows a page no reply without these headers. Without
the key nothing of it is said, and OPTIONS is a method like any other that no route has.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from droveway.api.http.request import Request, Response

KEPT_S = b"3600"
METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD"
SENT = (
    b"Accept, Content-Type, OpenStack-API-Version, X-Auth-Token, X-OpenStack-Nova-API-Version, X-Subject-Token, "
    b"OpenStack-Identity-Access-Rules, If-Match"
)
SHOWN = (
    b"X-Subject-Token, X-OpenStack-Request-Id, X-Compute-Request-Id, OpenStack-API-Version, "
    b"X-OpenStack-Nova-API-Version, Location, Retry-After, ETag"
)


def origin_of(url: str) -> str:
    """As a browser says it, without the port that the scheme has anyway."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, usual) else "")


class Origins:
    """`allowed`: as the configuration has them."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = frozenset(map(origin_of, allowed))

    def answer(self, request: Request) -> Response | None:
        """To a browser that asks beforehand; None where the request is no such question, or comes from elsewhere."""
        if request.method != "OPTIONS" or b"access-control-request-method" not in request.headers:
            return None
        if request.header(b"origin") not in self._allowed:
            return None
        headers = [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", SENT),
            (b"access-control-max-age", KEPT_S),
        ]
        return Response(204, headers=headers)

    def mark(self, request: Request, response: Response) -> None:
        """Lets the page read the reply, if it is one of those that may."""
        if not self._allowed:
            return
        response.headers.append((b"vary", b"Origin"))
        origin = request.header(b"origin")
        if origin is not None and origin in self._allowed:
            response.headers.append((b"access-control-allow-origin", origin.encode("latin-1")))
            response.headers.append((b"access-control-expose-headers", SHOWN))
