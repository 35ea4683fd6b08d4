"""Availability zones, aggregates (none), and the limits of a project (none yet: only its use is told)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import RowMapping

from droveway.api.os_services import COMPUTE
from droveway.api.render import micros
from droveway.api.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.faults import Forbidden
from droveway.store import places, services

UNLIMITED = -1


async def listing(api: Api, request: Request) -> Response:
    """Zones of the hosts; one is available while a service in it is enabled."""
    zones: dict[str, bool] = {}
    for row in await api.store.read(services.list_all, None, COMPUTE):
        zones[row["zone"]] = zones.get(row["zone"], False) or not row["disabled"]
    infos = [_info(zone, available, None) for zone, available in sorted(zones.items())]
    return Response(200, {"availabilityZoneInfo": sorted(infos, key=lambda info: not info["zoneState"]["available"])})


def _info(zone: str, available: bool, hosts: dict[str, Any] | None) -> dict[str, Any]:
    return {"zoneName": zone, "zoneState": {"available": available}, "hosts": hosts}


async def detail(api: Api, request: Request) -> Response:
    """With the services of each host, the disabled ones left out."""
    zones: dict[str, list[RowMapping]] = {}
    for row in await api.store.read(services.list_all):
        zones.setdefault(row["zone"], []).append(row)
    infos = []
    for zone, rows in sorted(zones.items()):
        hosts: dict[str, Any] = {}
        for row in rows:
            if not row["disabled"]:
                hosts.setdefault(row["host"], {})[row["binary"]] = {
                    "available": row["is_up"] and not row["forced_down"],
                    "active": True,
                    "updated_at": micros(row["updated_at_us"]),
                }
        infos.append(_info(zone, bool(hosts), hosts or None))
    return Response(200, {"availabilityZoneInfo": infos})


async def aggregates(api: Api, request: Request) -> Response:
    """None are built; clients ask for the list when they show a hypervisor."""
    return Response(200, {"aggregates": []})


# -- limits -----------------------------------------------------------------------------------------------------------
# name -> the last microversion that shows it
_LIMITS = {
    "maxImageMeta": 38, "maxPersonality": 56, "maxPersonalitySize": 56, "maxSecurityGroups": 35,
    "maxSecurityGroupRules": 35, "maxServerMeta": None, "maxServerGroups": None, "maxServerGroupMembers": None,
    "maxTotalCores": None, "maxTotalFloatingIps": 35, "maxTotalInstances": None, "maxTotalKeypairs": None,
    "maxTotalRAMSize": None,
}  # fmt: skip
_NO_USE = {"totalFloatingIpsUsed": 35, "totalSecurityGroupsUsed": 35, "totalServerGroupsUsed": None}


async def limits(api: Api, request: Request) -> Response:
    given = request.known_query(("tenant_id", "reserved"))
    project_id = given.get("tenant_id", request.caller.project_id)
    if project_id != request.caller.project_id and not request.caller.is_admin:
        raise Forbidden("Limits of another project need the role admin.")
    used = await api.store.read(places.usage, project_id or "")

    def shown(names: dict[str, int | None], value: int) -> dict[str, int]:
        return {name: value for name, last in names.items() if last is None or request.version <= last}

    absolute = {
        **shown(_LIMITS, UNLIMITED),
        **shown(_NO_USE, 0),
        "totalCoresUsed": used.vcpus,
        "totalInstancesUsed": used.instances,
        "totalRAMUsed": used.ram_mb,
    }
    return Response(200, {"limits": {"rate": [], "absolute": absolute}})
