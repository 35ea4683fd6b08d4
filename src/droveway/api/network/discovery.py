"""What there is of Networking: its version, its resources, its extensions, zones and agents."""

from __future__ import annotations

from typing import Any

from droveway.api.http.render import seconds
from droveway.api.http.request import Request, Response
from droveway.api.network.fields import ZONE
from droveway.api.wiring import Api
from droveway.domain.network.refusals import AgentNotFound, ExtensionNotFound
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.rows import ServiceRow

_UPDATED = "2026-11-20T00:00:00-00:00"
_COLLECTIONS = (
    "network",
    "subnet",
    "subnetpool",
    "port",
    "security-group",
    "security-group-rule",
    "router",
    "floatingip",
    "agent",
)
# Each alias with its name. What is not built is not here: clients ask this list before they ask for anything else.
EXTENSIONS = {
    "agent": "agent",
    "allowed-address-pairs": "Allowed Address Pairs",
    "auto-allocated-topology": "Auto Allocated Topology Services",
    "availability_zone": "Availability Zone",
    "binding": "Port Binding",
    "default-subnetpools": "Default Subnetpools",
    "ext-gw-mode": "Neutron L3 Configurable external gateway mode",
    "external-net": "Neutron external network",
    "extraroute": "Neutron Extra Route",
    "filter-validation": "Filter parameters validation",
    "ip-substring-filtering": "IP address substring filtering",
    "net-mtu": "Network MTU",
    "net-mtu-writable": "Network MTU (writable)",
    "network_availability_zone": "Network Availability Zone",
    "pagination": "Pagination support",
    "port-security": "Port Security",
    "port-security-groups-filtering": "Port filtering on security groups",
    "project-id": "project_id field enabled",
    "provider": "Provider Network",
    "quota-check-limit": "Quota engine limit check",
    "quota_details": "Quota details management support",
    "quotas": "Quota management support",
    "rbac-policies": "RBAC Policies",
    "router": "Neutron L3 Router",
    "router_availability_zone": "Router Availability Zone",
    "security-group": "security-group",
    "sorting": "Sorting support",
    "standard-attr-description": "standard-attr-description",
    "standard-attr-revisions": "Resource revision numbers",
    "standard-attr-tag": "Tag support for resources with standard attribute: network, subnet, port, router, …",
    "standard-attr-timestamp": "Resource timestamps",
    "subnet_allocation": "Subnet Allocation",
    "tag-creation": "Tag creation extension",
    "tag-ports-during-bulk-creation": "Tag Ports During Bulk Creation",
}
AGENTS = "neutron-"  # how their binaries begin
AGENT_TYPES = {"neutron-linuxbridge-agent": "Linux bridge agent"}


async def versions(api: Api, request: Request) -> Response:
    link = {"rel": "self", "href": f"{api.settings.base_url}/network/v2.0/"}
    return Response(200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]})


async def version(api: Api, request: Request) -> Response:
    base = f"{api.settings.base_url}/network/v2.0"
    found = [
        {"name": name, "collection": f"{name}s", "links": [{"rel": "self", "href": f"{base}/{name}s"}]}
        for name in _COLLECTIONS
    ]
    return Response(200, {"resources": found})


# -- extensions -------------------------------------------------------------------------------------------------------
def _extension(alias: str) -> dict[str, Any]:
    name = EXTENSIONS[alias]
    return {"alias": alias, "name": name, "description": name, "updated": _UPDATED, "links": []}


async def list_extensions(api: Api, request: Request) -> Response:
    return Response(200, {"extensions": [_extension(alias) for alias in EXTENSIONS]})


async def show_extension(api: Api, request: Request) -> Response:
    alias = request.params["alias"]
    if alias not in EXTENSIONS:
        raise ExtensionNotFound(f"Extension with alias {alias[:64]} does not exist")
    return Response(200, {"extension": _extension(alias)})


# -- zones and agents -------------------------------------------------------------------------------------------------
def _agents(tx: Tx) -> list[ServiceRow]:
    return [row for row in services.list_all(tx) if row["binary"].startswith(AGENTS)]


async def list_zones(api: Api, request: Request) -> Response:
    """The one there is, once a host carries networks."""
    are_some = bool(await api.store.read(_agents))
    zones = [
        {"name": ZONE, "resource": resource, "state": "available"} for resource in ("network", "router") if are_some
    ]
    return Response(200, {"availability_zones": zones})


def _agent(row: ServiceRow) -> dict[str, Any]:
    beat = seconds(row["updated_at_us"] or row["created_at_us"])
    return {
        "id": row["uuid"],
        "agent_type": AGENT_TYPES.get(row["binary"], row["binary"]),
        "binary": row["binary"],
        "topic": row["topic"],
        "host": row["host"],
        "availability_zone": ZONE,
        "admin_state_up": not row["disabled"],
        "alive": row["is_up"],
        "description": row["disabled_reason"],
        "created_at": seconds(row["created_at_us"]),
        "started_at": seconds(row["since_us"] or row["created_at_us"]),
        "heartbeat_timestamp": beat,
        "configurations": {},
        "resource_versions": {},
        "resources_synced": None,
    }


async def list_agents(api: Api, request: Request) -> Response:
    given = request.known_query(("host", "binary", "agent_type", "availability_zone", "alive", "id"))
    rows = await api.store.read(_agents) if request.caller.is_admin else []  # as Neutron has it, nobody else sees one
    found = [_agent(row) for row in rows]
    wanted = [one for one in found if all(str(one[name]).lower() == text.lower() for name, text in given.items())]
    return Response(200, {"agents": wanted})


async def show_agent(api: Api, request: Request) -> Response:
    for row in await api.store.read(_agents):
        if row["uuid"] == request.params["id"]:
            return Response(200, {"agent": _agent(row)})
    raise AgentNotFound(f"Agent {request.params['id'][:64]} could not be found")
