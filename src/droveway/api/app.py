"""The ASGI application: one request from its route to its reply, and every fault turned into a status on the way."""

from __future__ import annotations

import contextlib
from functools import cache

import structlog

from droveway.api.consoles import web
from droveway.api.http import faults, microversions
from droveway.api.http.faults import COMPUTE, IDENTITY, IMAGE, NETWORK, PLACEMENT, ROOT, VOLUME
from droveway.api.http.origins import Origins
from droveway.api.http.rates import Rates
from droveway.api.http.request import Disconnected, Receive, Request, Response, Scope, Send
from droveway.api.http.router import Router, at_version
from droveway.api.image import uploads
from droveway.api.routes import ROUTES
from droveway.api.wiring import Api, ApiSettings
from droveway.domain.faults import BadRequest, Fault, Forbidden, NotFound, Unauthorized
from droveway.domain.policy import Need, refusal
from droveway.store.identity.tokens import Caller

__all__ = ["Api", "ApiSettings", "App", "build_app"]

log = structlog.get_logger("droveway.api")
changes = structlog.get_logger("droveway.audit")
READS = frozenset({"GET", "HEAD", "OPTIONS"})
FAILED = "request failed"
OWN = "droveway"  # in what is counted: everything that is no service of the catalog
_SERVICES = {COMPUTE, IDENTITY, IMAGE, NETWORK, PLACEMENT, VOLUME}


def build_app(api: Api) -> App:
    """The application for uvicorn, or for httpx.ASGITransport in a test."""
    return App(api)


class App:
    def __init__(self, api: Api) -> None:
        self._api = api
        self._router = _router()
        self._origins = Origins(api.settings.allowed_origins)
        self._of_address = Rates(api.settings.max_requests_per_s_per_address, "from this address")
        self._of_project = Rates(api.settings.max_requests_per_s_per_project, "for this project")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await web.serve(self._api, scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await uploads.recover(self._api)
                await send({"type": "lifespan.startup.complete"})
            else:
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, f"req-{self._api.names.uuid()}")
        service = _service_of(request.path)
        began_s = self._api.clock.monotonic_s()
        try:
            response = await self._reply(request, service)
        except Disconnected:
            return
        took_s = self._api.clock.monotonic_s() - began_s
        self._api.latency.record(service or OWN, request.method, response.status, took_s)
        self._origins.mark(request, response)
        if request.method not in READS:
            audit(request, response.status)
        if not request.body_ended:
            await request.drain()
        response.headers.append((b"x-openstack-request-id", request.id.encode()))
        if service == COMPUTE:
            response.headers.append((b"x-compute-request-id", request.id.encode()))
        with contextlib.suppress(Disconnected):
            await response.send(send, request)

    async def _reply(self, request: Request, service: str) -> Response:
        """The reply, whatever happens: this is the one place where a bug is caught."""
        series = microversions.SERIES.get(service)
        if series is not None:
            request.version = series.minimum
        try:
            return await self._handle(request, service)
        except Disconnected:
            raise
        except Fault as fault:
            if faults.status_of(fault) == 500:
                log.error(FAILED, **_asked(request), because=fault.reason, exc_info=fault)
            response = faults.of(service, request, fault)
        except Exception as error:  # a bug: logged here; the reply names the request alone
            log.error(FAILED, **_asked(request), exc_info=error)
            reason = f"Something went wrong in the server; its log has the details of request {request.id}."
            response = faults.reply(service, request, 500, reason)
        if series is not None:
            response.headers.extend(series.echo(request.version))
        return response

    async def _handle(self, request: Request, service: str) -> Response:
        now_s = self._api.clock.monotonic_s()
        if request.certificate is None and request.address:
            self._of_address.take(request.address, now_s)
        request.refuse_repeated()
        asked_before = self._origins.answer(request)
        if asked_before is not None:
            return asked_before
        if "\0" in request.path:
            raise BadRequest("The path contains a nul character.")
        if service == VOLUME and request.path.endswith("/") and request.path.strip("/") not in ("volume", "volume/v3"):
            raise NotFound("The resource could not be found: the path ends where an id should stand.")
        if service == NETWORK and not self._api.settings.network.is_on:
            raise NotFound("There is no network service here: its configuration says no driver under [network].")
        routes, request.params = self._router.find(request.method, request.raw_path)
        if routes[0].need is Need.PUBLIC:
            return await routes[0].handler(self._api, request)
        token = request.header(b"x-auth-token")
        if not token:
            raise Unauthorized("The request you have made requires authentication: it carries no X-Auth-Token.")
        request.caller = await self._api.caller(token)
        if request.caller.project_id is not None:
            self._of_project.take(request.caller.project_id, now_s)
        series = microversions.SERIES.get(service)
        if series is not None:
            series.agree(request)
        route = at_version(routes, request.version)
        reason = refusal(route.need, request.caller, request.params.get("user_id"))
        if reason is not None:
            raise Forbidden(reason)
        response = await route.handler(self._api, request)
        if series is not None:
            response.headers.extend(series.echo(request.version))
        return response


def _shown(request: Request) -> str:
    """The path for the log; where one of its segments is a secret, without that."""
    before, at, _ = request.path.partition("/os-console-auth-tokens/")
    return f"{before}{at}…" if at else before


@cache
def _router() -> Router:
    """One for all: it holds nothing but the table, and simulated controls start by the hundred."""
    return Router(ROUTES)


def audit(request: Request, status: int) -> None:
    """The line of a change, or of the attempt: who, what, from where, and what became of it. Of a login the user that
    it was for stands in its own line, when it was refused."""
    caller: Caller | None = getattr(request, "caller", None)
    by = {} if caller is None else {"by": caller.user_name, "user_id": caller.user_id, "on": _place(caller)}
    changes.info("change", method=request.method, path=request.raw_path, status=status, **by, **_whence(request))


def _whence(request: Request) -> dict[str, str]:
    return {"from": request.address, "request_id": request.id}


def _asked(request: Request) -> dict[str, str]:
    return {"request_id": request.id, "method": request.method, "path": _shown(request)}


def _place(caller: Caller) -> str:
    if caller.project_id is not None:
        return f"project:{caller.project_id}"
    return f"domain:{caller.domain_id}" if caller.domain_id is not None else "system" if caller.is_system else "nothing"


def _service_of(path: str) -> str:
    first = path.strip("/").partition("/")[0]
    return first if first in _SERVICES else ROOT
