"""`/servers/{id}/topology`, from 2.78 on: the NUMA nodes of a server that has any. Administrators see their place."""

from __future__ import annotations

from typing import Any

from droveway.api.compute import server_access
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.placement import HeldCell
from droveway.store.compute import instances


async def show(api: Api, request: Request) -> Response:
    request.known_query(())
    row = await api.store.read(server_access.visible, request)
    nodes, first = [], 0
    for cell in instances.cells_of(row):
        nodes.append(_node(cell, first, is_admin=request.caller.is_admin))
        first += cell.vcpus
    return Response(200, {"nodes": nodes, "pagesize_kb": None})


def _node(cell: HeldCell, first: int, *, is_admin: bool) -> dict[str, Any]:
    """`first`: its first vcpu. Threads of a core are not told apart here, so no vcpus are siblings."""
    vcpus = range(first, first + cell.vcpus)
    node: dict[str, Any] = {"vcpu_set": list(vcpus), "siblings": [], "memory_mb": cell.memory_mb}
    if is_admin:
        pinned = {str(vcpu): cpu for vcpu, cpu in zip(vcpus, cell.cpus, strict=False)}
        node |= {"host_node": cell.cell, "cpu_pinning": pinned}
    return node
