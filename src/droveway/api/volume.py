"""Block storage as far as it is built: its versions, a list of services that is empty, and limits and quotas of
nothing, which `openstack limits show` and `quota show` ask for wherever the catalog names block storage. Everything
else is a 404."""

from __future__ import annotations

import re
from typing import Any

from droveway.api.faults import NotAcceptable
from droveway.api.microversions import asked_by_name
from droveway.api.request import Request, Response
from droveway.api.validate import TRUE
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden

MINIMUM, MAXIMUM = 0, 71
MINIMUM_TEXT, MAXIMUM_TEXT = f"3.{MINIMUM}", f"3.{MAXIMUM}"
_UPDATED = "2026-11-20T00:00:00Z"
_FORM = re.compile(r"3\.(0|[1-9]\d{0,3})")


def _versions(base: str) -> dict[str, Any]:
    version = {
        "id": "v3.0",
        "status": "CURRENT",
        "version": MAXIMUM_TEXT,
        "min_version": MINIMUM_TEXT,
        "updated": _UPDATED,
        "links": [{"rel": "self", "href": f"{base}/volume/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.volume+json;version=3"}],
    }
    return {"versions": [version]}


async def versions(api: Api, request: Request) -> Response:
    return Response(300, _versions(api.settings.base_url))


async def version(api: Api, request: Request) -> Response:
    return Response(200, _versions(api.settings.base_url))


async def list_services(api: Api, request: Request) -> Response:
    """There are none until volumes are built; the same at every microversion."""
    return _answer(request, {"services": []})


_LIMITS = (
    "maxTotalVolumes", "maxTotalVolumeGigabytes", "maxTotalSnapshots", "maxTotalBackups", "maxTotalBackupGigabytes",
    "totalVolumesUsed", "totalGigabytesUsed", "totalSnapshotsUsed", "totalBackupsUsed", "totalBackupGigabytesUsed",
)  # fmt: skip


async def limits(api: Api, request: Request) -> Response:
    """None may be made, none is there."""
    return _answer(request, {"limits": {"rate": [], "absolute": dict.fromkeys(_LIMITS, 0)}})


_QUOTAS = ("volumes", "gigabytes", "per_volume_gigabytes", "snapshots", "backups", "backup_gigabytes", "groups")


async def quota_set(api: Api, request: Request) -> Response:
    """Nothing may be made: the same for every project, which nobody can set."""
    target = request.params["target"]
    if target != request.caller.project_id and not request.caller.is_admin:
        raise Forbidden("Quotas of another project need the role admin.")
    with_usage = dict(request.query).get("usage", "").lower() in TRUE
    value = {"limit": 0, "in_use": 0, "reserved": 0} if with_usage else 0
    return _answer(request, {"quota_set": {"id": target, **dict.fromkeys(_QUOTAS, value)}})


async def forget_quotas(api: Api, request: Request) -> Response:
    """`openstack quota delete` asks it of every service; none was ever set here, so none is left."""
    return _answer(request, {})


def _answer(request: Request, body: Any) -> Response:
    """In the project of the token, where the path names one, and at the version that was asked for."""
    project_id = request.params.get("project_id", request.caller.project_id)
    if project_id != request.caller.project_id:
        raise BadRequest("The project in the path is not that of the token.")
    echo = [(b"openstack-api-version", f"volume 3.{_asked(request)}".encode()), (b"vary", b"OpenStack-API-Version")]
    return Response(200, body, headers=echo)


def _asked(request: Request) -> int:
    """The minor of the version that the request asks for: 0 when it asks for none. Raises NotAcceptable."""
    text = (asked_by_name(request, "volume") or "").lower()
    if not text:
        return MINIMUM
    match = _FORM.fullmatch(text)
    minor = MAXIMUM if text == "latest" else int(match[1]) if match is not None else -1
    if not MINIMUM <= minor <= MAXIMUM:
        raise NotAcceptable(
            f"Version {text[:40]} is not supported by the API. Minimum is {MINIMUM_TEXT} and maximum is {MAXIMUM_TEXT}."
        )
    return minor
