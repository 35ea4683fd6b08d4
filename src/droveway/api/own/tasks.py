"""Periodic tasks: those of a control, or of a host's agent, which is asked for them.

GET /droveway/v1/hosts/{host}/tasks      {"host": ..., "tasks": [...]}, by name; 503 when the host does not answer
"""

from __future__ import annotations

from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api


async def list_tasks(api: Api, request: Request) -> Response:
    host = request.params["host"]
    return Response(200, {"host": host, "tasks": await api.control.list_tasks(host)})
