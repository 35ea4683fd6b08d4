"""What is wrong between rows, guests and claims, and its repair.

GET  /droveway/v1/audit          {"findings": [{key, kind, severity, what, where, since_us, sentence, repair, plan}],
                                 "not_looked_at": [{host, because}], "hosts", "hosts_answered", "instances", "more"}
POST /droveway/v1/audit/repair   {"keys": [key, ...]}
                                 {"done": [finding], "left": [{finding, because}], "gone": [key]}
"""

from __future__ import annotations

from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest


async def show(api: Api, request: Request) -> Response:
    request.known_query(())
    return Response(200, await api.audit())


async def repair(api: Api, request: Request) -> Response:
    body = await request.json(api.settings.max_body_bytes)
    keys = body.get("keys") if isinstance(body, dict) and len(body) == 1 else None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise BadRequest('The body must be {"keys": ["the key of a finding", ...]}.')
    return Response(200, await api.repair(keys))
