"""What Block Storage has in other clouds and not here: empty lists that clients ask for, and calls that are refused
with the reason."""

from __future__ import annotations

from typing import Any, NamedTuple

from droveway.api.http.request import Request, Response
from droveway.api.http.router import Handler, refusal
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.policy import Need


def none_of(name: str) -> Handler:
    """There are none; the same at every microversion that has the list."""

    async def listing(api: Api, request: Request) -> Response:
        return Response(200, {name: []})

    return listing


class EmptyList(NamedTuple):
    """A list of nothing."""

    path: str
    name: str  # in its body
    need: Need = Need.READER
    since: int = 0  # the minor of the first microversion that has it


EMPTY = (
    EmptyList("groups", "groups", since=13),
    EmptyList("groups/detail", "groups", since=13),
    EmptyList("group_types", "group_types", since=11),
    EmptyList("group_snapshots", "group_snapshots", since=14),
    EmptyList("group_snapshots/detail", "group_snapshots", since=14),
    EmptyList("clusters", "clusters", Need.ADMIN, since=7),
    EmptyList("clusters/detail", "clusters", Need.ADMIN, since=7),
    EmptyList("consistencygroups", "consistencygroups"),
    EmptyList("consistencygroups/detail", "consistencygroups"),
    EmptyList("cgsnapshots", "cgsnapshots"),
    EmptyList("cgsnapshots/detail", "cgsnapshots"),
)
GROUPS = "There are no groups of volumes here: the volumes of a server are snapshotted together with the server."


@refusal
async def refuse_group(api: Api, request: Request) -> Response:
    raise BadRequest(GROUPS)


async def no_group(api: Api, request: Request) -> Response:
    raise NotFound(f"Group {request.params['group_id'][:64]} could not be found. {GROUPS}")


# -- what a client asks to know what there is -------------------------------------------------------------------------
_UPDATED = "2026-11-20T00:00:00+00:00"
_EXTENSIONS = {
    "AdminActions": "os-admin-actions",
    "AvailabilityZones": "os-availability-zone",
    "Backups": "backups",
    "Capabilities": "capabilities",
    "ExtendedSnapshotAttributes": "os-extended-snapshot-attributes",
    "Hosts": "os-hosts",
    "Qos_specs_manage": "qos-specs",
    "QuotaClasses": "os-quota-class-sets",
    "Quotas": "os-quota-sets",
    "SchedulerHints": "OS-SCH-HNT",
    "Scheduler_stats": "scheduler-stats",
    "Services": "os-services",
    "SnapshotActions": "os-snapshot-actions",
    "TypesExtraSpecs": "os-types-extra-specs",
    "TypesManage": "os-types-manage",
    "UsedLimits": "os-used-limits",
    "VolumeActions": "os-volume-actions",
    "VolumeHostAttribute": "os-vol-host-attr",
    "VolumeImageMetadata": "os-vol-image-meta",
    "VolumeManage": "os-volume-manage",
    "VolumeMigStatusAttribute": "os-vol-mig-status-attr",
    "VolumeTenantAttribute": "os-vol-tenant-attr",
    "VolumeTransfer": "os-volume-transfer",
    "VolumeTypeAccess": "os-volume-type-access",
    "VolumeUnmanage": "os-volume-unmanage",
}


async def extensions(api: Api, request: Request) -> Response:
    """By their aliases, as clients look for them."""
    shown = [
        {"name": name, "alias": alias, "description": "", "links": [], "updated": _UPDATED}
        for name, alias in _EXTENSIONS.items()
    ]
    return Response(200, {"extensions": shown})


_FILTERS: dict[str, tuple[str, ...]] = {
    "volume": (
        *("name", "status", "metadata", "bootable", "migration_status", "availability_zone", "group_id", "size"),
        *("created_at", "updated_at", "consumes_quota"),
    ),
    "backup": ("name", "status", "volume_id"),
    "snapshot": ("name", "status", "volume_id", "metadata", "availability_zone", "consumes_quota"),
    "attachment": ("volume_id", "status", "instance_id", "attach_status"),
    "message": ("resource_uuid", "resource_type", "event_id", "request_id", "message_level"),
    "pool": ("name", "volume_type"),
    "volume_type": ("is_public", "extra_specs"),
}


async def resource_filters(api: Api, request: Request) -> Response:
    """What users may look for, by resource. Since 3.33."""
    wanted = dict(request.query).get("resource")
    shown: list[dict[str, Any]] = [
        {"resource": resource, "filters": list(names)}
        for resource, names in _FILTERS.items()
        if wanted in (None, "", resource)
    ]
    return Response(200, {"resource_filters": shown})
