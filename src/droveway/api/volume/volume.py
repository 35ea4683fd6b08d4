"""Block storage as far as it is built: its versions, and lists, limits and quotas of nothing, which clients ask for
wherever the catalog names block storage: `openstack limits show`, `quota show`, `volume list`, a dashboard. Everything
else is a 404; making a volume is refused with the reason."""

from __future__ import annotations

from typing import Any, NamedTuple

from droveway.api.http.faults import VOLUME
from droveway.api.http.microversions import SERIES
from droveway.api.http.request import Request, Response
from droveway.api.http.router import Handler, refusal
from droveway.api.http.validate import TRUE
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden
from droveway.domain.policy import Need

_UPDATED = "2026-11-20T00:00:00Z"


def _versions(base: str) -> dict[str, Any]:
    series = SERIES[VOLUME]
    version = {
        "id": "v3.0",
        "status": "CURRENT",
        "version": series.maximum_text,
        "min_version": series.minimum_text,
        "updated": _UPDATED,
        "links": [{"rel": "self", "href": f"{base}/volume/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}],
    }
    return {"versions": [version]}


async def versions(api: Api, request: Request) -> Response:
    return Response(300, _versions(api.settings.base_url))


async def version(api: Api, request: Request) -> Response:
    return Response(200, _versions(api.settings.base_url))


# -- lists ------------------------------------------------------------------------------------------------------------
def none_of(name: str) -> Handler:
    """There are none until volumes are built; the same at every microversion that has the list."""

    async def listing(api: Api, request: Request) -> Response:
        return answer(request, {name: []})

    return listing


class EmptyList(NamedTuple):
    """A list of nothing."""

    path: str
    name: str  # in its body
    need: Need = Need.READER
    since: int = 0  # the minor of the first microversion that has it


EMPTY = (
    EmptyList("volumes", "volumes"),
    EmptyList("volumes/detail", "volumes"),
    EmptyList("snapshots", "snapshots"),
    EmptyList("snapshots/detail", "snapshots"),
    EmptyList("types", "volume_types"),
    EmptyList("os-volume-transfer", "transfers"),
    EmptyList("os-volume-transfer/detail", "transfers"),
    EmptyList("volume-transfers", "transfers", since=55),
    EmptyList("volume-transfers/detail", "transfers", since=55),
    EmptyList("backups", "backups"),
    EmptyList("backups/detail", "backups"),
    EmptyList("attachments", "attachments", since=27),
    EmptyList("attachments/detail", "attachments", since=27),
    EmptyList("groups", "groups", since=13),
    EmptyList("groups/detail", "groups", since=13),
    EmptyList("group_types", "group_types", since=11),
    EmptyList("group_snapshots", "group_snapshots", since=14),
    EmptyList("group_snapshots/detail", "group_snapshots", since=14),
    EmptyList("messages", "messages", since=3),
    EmptyList("extensions", "extensions"),
    EmptyList("os-availability-zone", "availabilityZoneInfo"),
    EmptyList("qos-specs", "qos_specs", Need.ADMIN),
    EmptyList("scheduler-stats/get_pools", "pools", Need.ADMIN),
)


@refusal
async def refuse(api: Api, request: Request) -> Response:
    raise Forbidden("There is no block storage here, so no volume can be made; servers have the disk of their flavor.")


# -- limits and quotas ------------------------------------------------------------------------------------------------
_LIMITS = (
    "maxTotalVolumes",
    "maxTotalVolumeGigabytes",
    "maxTotalSnapshots",
    "maxTotalBackups",
    "maxTotalBackupGigabytes",
    "totalVolumesUsed",
    "totalGigabytesUsed",
    "totalSnapshotsUsed",
    "totalBackupsUsed",
    "totalBackupGigabytesUsed",
)


async def limits(api: Api, request: Request) -> Response:
    """None may be made, none is there."""
    return answer(request, {"limits": {"rate": [], "absolute": dict.fromkeys(_LIMITS, 0)}})


_QUOTAS = ("volumes", "gigabytes", "per_volume_gigabytes", "snapshots", "backups", "backup_gigabytes", "groups")


async def quota_set(api: Api, request: Request) -> Response:
    """Nothing may be made: the same for every project, and not to be changed."""
    target = request.project_of(request.params["target"], "Quotas")
    with_usage = dict(request.query).get("usage", "").lower() in TRUE
    value = {"limit": 0, "in_use": 0, "reserved": 0} if with_usage else 0
    return answer(request, {"quota_set": {"id": target, **dict.fromkeys(_QUOTAS, value)}})


async def forget_quotas(api: Api, request: Request) -> Response:
    """`openstack quota delete` asks it of every service; none was ever set here, so none is left."""
    return answer(request, {})


def answer(request: Request, body: Any) -> Response:
    """In the project of the token, where the path names one."""
    project_id = request.params.get("project_id", request.caller.project_id)
    if project_id != request.caller.project_id:
        raise BadRequest("The project in the path is not that of the token.")
    return Response(200, body)
