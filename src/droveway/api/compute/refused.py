"""What is known and not done here, each with its reason: shares (2.97), and events that other services report."""

from __future__ import annotations

from droveway.api.compute import server_access
from droveway.api.http.request import Request, Response
from droveway.api.http.router import refusal
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden, NotFound

NO_SHARES = "There are no shared file systems here, so none can be attached."


async def show_share(api: Api, request: Request) -> Response:
    await api.store.read(server_access.visible, request)
    raise NotFound(f"Share {request.params['share_id'][:64]} could not be found: {NO_SHARES}")


@refusal
async def attach_share(api: Api, request: Request) -> Response:
    await api.store.read(server_access.visible, request)
    raise Forbidden(NO_SHARES)


@refusal
async def external_events(api: Api, request: Request) -> Response:
    raise BadRequest(
        "Networks, images and servers are of one program here, which knows of their changes by itself: no other "
        "service reports any."
    )
