"""A fault becomes a status here and nowhere else, and a body in the form of the service that was asked."""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from droveway.api.http.request import Request, Response
from droveway.domain import faults
from droveway.domain.network import refusals

COMPUTE, IDENTITY, IMAGE, PLACEMENT, VOLUME, NETWORK = "compute", "identity", "image", "placement", "volume", "network"
ROOT = ""


class NoSuchMethod(faults.Fault):
    """The caller's fault: there is such a path, but not with that method."""

    def __init__(self, reason: str, allowed: list[str]) -> None:
        super().__init__(reason)
        self.allowed = allowed


class NotAcceptable(faults.Fault):
    """The caller's fault: a version that is not spoken here."""


class WrongMediaType(faults.Fault):
    """The caller's fault: the body is declared as something else than what is taken here."""

    def __init__(self, reason: str, accepted: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.accepted = accepted  # of a patch


class NoProvider(faults.NotFound):
    """The caller's fault: there is no resource provider with that uuid."""


class BadQuery(faults.BadRequest):
    """The caller's fault: a value in the query of a Placement request is not what its key takes."""


class Gone(faults.Fault):
    """Refused by state: what the request was about was deleted meanwhile."""


class ResourceChanged(faults.Fault):
    """The caller's fault: it goes on with something that is not what it began with."""


class NoSuchRange(faults.Fault):
    """The caller's fault: it asks for what lies behind the end."""


PLACEMENT_MINORS = (0, 39)  # the versions 1.x of Placement that are spoken
STATUS: tuple[tuple[type[faults.Fault], int], ...] = (
    (faults.BadRequest, 400),
    (faults.Unauthorized, 401),
    (faults.Forbidden, 403),
    (faults.NotFound, 404),
    (NoSuchMethod, 405),
    (NotAcceptable, 406),
    (faults.Conflict, 409),
    (Gone, 410),
    (ResourceChanged, 412),
    (faults.TooLarge, 413),
    (WrongMediaType, 415),
    (NoSuchRange, 416),
    (faults.TooMany, 429),
    (faults.Busy, 503),
    (faults.Unreachable, 503),
    (faults.StoreRefused, 503),
    (faults.NoSpace, 507),
)
PLACEMENT_CODES = {NoProvider: "placement.resource_provider.not_found", BadQuery: "placement.query.bad_value"}
RETRY_AFTER_S = {503: b"1"}
NETWORK_TYPES = {
    400: "HTTPBadRequest",
    401: "HTTPUnauthorized",
    403: "PolicyNotAuthorized",
    404: "HTTPNotFound",
    409: "HTTPConflict",
    503: "ServiceUnavailable",
}
COMPUTE_NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


def status_of(fault: faults.Fault) -> int:
    """The status of a fault; 500 for one that should never have come this far."""
    return next((status for kind, status in STATUS if isinstance(fault, kind)), 500)


def reply(
    service: str, request: Request, status: int, reason: str, kind: type[faults.Fault] = faults.Fault
) -> Response:
    """The body of an error, as clients of that service parse it."""
    title = HTTPStatus(status).phrase
    if service in (COMPUTE, VOLUME):
        response = Response(status, {COMPUTE_NAMES.get(status, "computeFault"): {"code": status, "message": reason}})
    elif service == IMAGE:
        response = _image(request, status, title, reason)
    elif service == PLACEMENT:
        response = _placement(request, status, title, reason, kind)
    elif service == NETWORK:
        own = kind.__name__ if kind.__module__ == refusals.__name__ else NETWORK_TYPES.get(status, "HTTPError")
        response = Response(status, {"NeutronError": {"type": own, "message": reason, "detail": ""}})
    else:
        response = Response(status, {"error": {"code": status, "title": title, "message": reason}})
    if status in RETRY_AFTER_S:
        response.headers.append((b"retry-after", RETRY_AFTER_S[status]))
    if status == 401:
        response.headers.append((b"www-authenticate", b'Keystone uri="/identity"'))
    return response


def of(service: str, request: Request, fault: faults.Fault) -> Response:
    """The reply to a request that raised `fault`."""
    response = reply(service, request, status_of(fault), fault.reason, type(fault))
    if isinstance(fault, NoSuchMethod):
        response.headers.append((b"allow", ", ".join(fault.allowed).encode()))
    if isinstance(fault, faults.TooMany):
        response.headers.append((b"retry-after", str(fault.retry_after_s).encode()))
    if isinstance(fault, WrongMediaType) and fault.accepted:
        response.headers.append((b"accept-patch", ", ".join(fault.accepted).encode()))
    return response


def _placement(request: Request, status: int, title: str, reason: str, kind: type[faults.Fault]) -> Response:
    """A list of one; with a code since 1.23, and with the range where the version was the trouble."""
    error: dict[str, object] = {"status": status, "title": title, "detail": reason, "request_id": request.id}
    if request.version >= 23:
        error["code"] = PLACEMENT_CODES.get(kind, "placement.undefined_code")
    if status == 406:
        least, most = PLACEMENT_MINORS
        error |= {"min_version": f"1.{least}", "max_version": f"1.{most}"}
    return Response(status, {"errors": [error]})


def _image(request: Request, status: int, title: str, reason: str) -> Response:
    """As Glance has it: JSON for a client that names it, a page for one that takes anything (glanceclient looks for a
    reason in each, and in JSON expects none of texts alone), and plain text for the others."""
    accept = (request.header(b"accept") or "*/*").lower()
    if "json" in accept or ("application/*" in accept and "html" not in accept):
        return Response(status, {"code": f"{status} {title}", "title": title, "message": reason})
    if any(kind in accept for kind in ("*/*", "text/html", "text/*")):
        head = f"{status} {title}"
        page = f"<html>\n <head>\n  <title>{head}</title>\n </head>\n <body>\n  <h1>{head}</h1>\n  "
        page += f"{escape(reason, quote=False)}<br /><br />\n\n\n\n </body>\n</html>"
        return Response(status, body=page.encode(), headers=[(b"content-type", b"text/html; charset=UTF-8")])
    return Response(
        status,
        body=f"{status} {title}\n\n{reason}\n".encode(),
        headers=[(b"content-type", b"text/plain; charset=utf-8")],
    )
