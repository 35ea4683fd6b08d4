"""What is wrong between rows, guests and claims, and its repair.

GET  /droveway/v1/audit          {"findings": [{key, kind, severity, what, where, since_us, sentence, repair, plan}],
                                 "not_looked_at": [{host, because}], "hosts", "hosts_answered", "instances", "more"}
POST /droveway/v1/audit/repair   {"keys": [key, ...]}
                                 {"done": [finding], "left": [{finding, because}], "gone": [key]}
"""

from __future__ import annotations

from typing import Annotated, Any

from droveway.api.http.bodies import Body, takes
from droveway.api.http.kinds import of
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest


async def show(api: Api, request: Request) -> Response:
    request.known_query(())
    return Response(200, await api.control.audit())


def _keys(path: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        raise BadRequest(f"Invalid input for {path}: it must be a list of the keys of findings.")
    return value


class Repairs(Body, frozen=True):
    keys: Annotated[list[str], of(_keys, type="array", items={"type": "string"})]


@takes(Repairs)
async def repair(api: Api, request: Request, given: Repairs) -> Response:
    return Response(200, await api.control.repair(given.keys))
