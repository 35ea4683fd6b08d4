"""The limits of a project and how much of them is used, in the words of GET /limits."""

from __future__ import annotations

from droveway.api.compute.quotas import FILES_UNTIL, NETWORKS_UNTIL
from droveway.api.http.render import FOREVER
from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.store.compute import quotas
from droveway.store.engine.transaction import Tx

# the field, the resource it is the limit of, and the last microversion that shows it
_MOST = (
    ("maxImageMeta", "metadata_items", 38),
    ("maxPersonality", "injected_files", FILES_UNTIL),
    ("maxPersonalitySize", "injected_file_content_bytes", FILES_UNTIL),
    ("maxSecurityGroups", "security_groups", NETWORKS_UNTIL),
    ("maxSecurityGroupRules", "security_group_rules", NETWORKS_UNTIL),
    ("maxServerMeta", "metadata_items", FOREVER),
    ("maxServerGroups", "server_groups", FOREVER),
    ("maxServerGroupMembers", "server_group_members", FOREVER),
    ("maxTotalCores", "cores", FOREVER),
    ("maxTotalFloatingIps", "floating_ips", NETWORKS_UNTIL),
    ("maxTotalInstances", "instances", FOREVER),
    ("maxTotalKeypairs", "key_pairs", FOREVER),
    ("maxTotalRAMSize", "ram", FOREVER),
)
_USED = (
    ("totalCoresUsed", "cores", FOREVER),
    ("totalFloatingIpsUsed", "floating_ips", NETWORKS_UNTIL),
    ("totalInstancesUsed", "instances", FOREVER),
    ("totalRAMUsed", "ram", FOREVER),
    ("totalSecurityGroupsUsed", "security_groups", NETWORKS_UNTIL),
    ("totalServerGroupsUsed", "server_groups", FOREVER),
)


async def show(api: Api, request: Request) -> Response:
    given = request.known_query(("tenant_id", "reserved"))
    project_id = request.project_of(given.get("tenant_id") or request.caller.project_id or "", "Limits")

    def read(tx: Tx) -> dict[str, int]:
        most, used = quotas.limits(tx, project_id, api.settings.quotas), quotas.used(tx, project_id)
        return {
            name: values[resource]
            for table, values in ((_MOST, most), (_USED, used))
            for name, resource, until in table
            if request.version <= until
        }

    return Response(200, {"limits": {"rate": [], "absolute": await api.store.read(read)}})
