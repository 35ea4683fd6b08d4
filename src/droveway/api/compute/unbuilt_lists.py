"""Lists of what is not built, for clients that ask for them as part of something else: empty, which is what is so.

Agents in guests were compute's until 2.35; what is attached to a server still is.
"""

from __future__ import annotations

from collections.abc import Collection

from droveway.api.http.request import Request, Response
from droveway.api.http.router import Handler
from droveway.api.wiring import Api
from droveway.store.compute import instances


def none_of(name: str, known: Collection[str] = ()) -> Handler:
    """`known`: what may be in the query, once unknown keys are refused."""

    async def listing(api: Api, request: Request) -> Response:
        request.known_query(known)
        return Response(200, {name: []})

    return listing


def none_of_server(name: str, known: Collection[str] = ()) -> Handler:
    """The same beneath a server, which there must be."""

    async def listing(api: Api, request: Request) -> Response:
        request.known_query(known)
        await api.store.read(instances.get, request.params["server_id"], request.scope)
        return Response(200, {name: []})

    return listing
