"""`/extensions`: what was optional in compute's API once, as far as it is built. Old clients look for names here."""

from __future__ import annotations

from typing import Any

from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import NotFound

_BUILT = {  # alias: (name, what it is)
    "OS-DCF": ("DiskConfig", "Disk management extension."),
    "OS-EXT-AZ": ("ExtendedAvailabilityZone", "Extended Availability Zone support."),
    "OS-EXT-IMG-SIZE": ("ImageSize", "Adds image size to image listings."),
    "OS-EXT-SRV-ATTR": ("ExtendedServerAttributes", "Extended Server Attributes support."),
    "OS-EXT-STS": ("ExtendedStatus", "Extended Status support."),
    "OS-FLV-DISABLED": ("FlavorDisabled", "Whether a flavor is disabled."),
    "OS-FLV-EXT-DATA": ("FlavorExtraData", "Ephemeral disk of a flavor."),
    "OS-SCH-HNT": ("SchedulerHints", "Pass arbitrary key/value pairs to the scheduler."),
    "OS-SRV-USG": ("ServerUsage", "Adds launched_at and terminated_at on servers."),
    "os-aggregates": ("Aggregates", "Admin-only aggregate administration."),
    "os-availability-zone": ("AvailabilityZone", "Availability zones, and the zone of a server at its creation."),
    "os-console-output": ("ConsoleOutput", "Console log output support, with tailing ability."),
    "os-extended-hypervisors": ("ExtendedHypervisors", "More about hypervisors."),
    "os-extended-services": ("ExtendedServices", "Why a service is disabled."),
    "os-extended-services-delete": ("ExtendedServicesDelete", "Services can be deleted."),
    "os-flavor-access": ("FlavorAccess", "Flavor access support."),
    "os-flavor-extra-specs": ("FlavorExtraSpecs", "Flavors extra specs support."),
    "os-flavor-manage": ("FlavorManage", "Flavor create/delete API support."),
    "os-flavor-rxtx": ("FlavorRxtx", "Support to show the rxtx status of a flavor."),
    "os-flavor-swap": ("FlavorSwap", "The swap of a flavor."),
    "os-hosts": ("Hosts", "Admin-only host administration."),
    "os-hypervisor-status": ("HypervisorStatus", "Status of hypervisors."),
    "os-hypervisors": ("Hypervisors", "Admin-only hypervisor administration."),
    "os-instance-actions": ("InstanceActions", "View a log of actions and events taken on an instance."),
    "os-migrations": ("Migrations", "Provide data on migrations."),
    "os-multiple-create": ("MultipleCreate", "Allow multiple create in the Create Server v2.1 API."),
    "os-quota-class-sets": ("QuotaClasses", "Quota classes management support."),
    "os-quota-sets": ("Quotas", "Quotas management support."),
    "os-server-group-quotas": ("ServerGroupQuotas", "Quotas of server groups."),
    "os-server-groups": ("ServerGroups", "Server group support."),
    "os-server-list-multi-status": ("ServerListMultiStatus", "Servers of several statuses in one list."),
    "os-server-sort-keys": ("ServerSortKeys", "Lists of servers in an order."),
    "os-server-start-stop": ("ServerStartStop", "Servers are started and stopped."),
    "os-services": ("Services", "Services support."),
    "os-simple-tenant-usage": ("SimpleTenantUsage", "Simple tenant usage extension."),
    "os-used-limits": ("UsedLimits", "Provide data on limited resource that are being used."),
    "os-used-limits-for-admin": ("UsedLimitsForAdmin", "The same of every project, for administrators."),
}


def _extension(alias: str) -> dict[str, Any]:
    name, description = _BUILT[alias]
    return {
        "alias": alias,
        "name": name,
        "description": description,
        "links": [],
        "namespace": "http://docs.openstack.org/compute/ext/fake_xml",
        "updated": "2014-12-03T00:00:00Z",
    }


async def listing(api: Api, request: Request) -> Response:
    return Response(200, {"extensions": [_extension(alias) for alias in sorted(_BUILT)]})


async def show(api: Api, request: Request) -> Response:
    alias = request.params["alias"]
    if alias not in _BUILT:
        raise NotFound(f"There is no extension {alias[:64]} here.")
    return Response(200, {"extension": _extension(alias)})
