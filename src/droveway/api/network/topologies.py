"""`auto-allocated-topology`: what a project has that named no network. It is made by asking for it.

GET /network/v2.0/auto-allocated-topology/PROJECT[?fields=dry-run]
{"auto_allocated_topology": {"id": NETWORK, "project_id": PROJECT, "tenant_id": PROJECT}}
"""

from __future__ import annotations

from typing import Any

from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.network_plan import VXLAN_OVERHEAD_BYTES
from droveway.store.engine.transaction import Tx
from droveway.store.network import topologies
from droveway.store.network.topologies import Topology

DRY_RUN = "dry-run"


def made(tx: Tx, api: Api, project_id: str) -> Topology:
    configured = api.settings.network
    return topologies.make(tx, project_id, configured.mtu_bytes - VXLAN_OVERHEAD_BYTES, configured.quotas)


def _project(request: Request) -> str:
    return request.project_of(request.params["project_id"], "Topologies")


def _body(project_id: str, found: str) -> dict[str, Any]:
    return {"auto_allocated_topology": {"id": found, "project_id": project_id, "tenant_id": project_id}}


async def show(api: Api, request: Request) -> Response:
    """A dry run says whether it could be made, and makes nothing."""
    is_trial = request.known_query(("fields",)).get("fields") == DRY_RUN
    project_id = _project(request)

    def write(tx: Tx) -> str:
        if topologies.of(tx, project_id) is None or is_trial:
            topologies.check(tx)
        return f"{DRY_RUN}=pass" if is_trial else made(tx, api, project_id).network_id

    run = api.store.read if is_trial else api.store.run
    return Response(200, _body(project_id, await run(write)))


async def delete(api: Api, request: Request) -> Response:
    await api.store.run(topologies.remove, _project(request))
    return Response(204)
