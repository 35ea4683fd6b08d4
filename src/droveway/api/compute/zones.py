"""Availability zones."""

from __future__ import annotations

from typing import Any

from droveway.api.compute.os_services import COMPUTE, shown_by
from droveway.api.http.render import micros
from droveway.api.http.request import Request, Response, encode
from droveway.api.wiring import Api
from droveway.domain.service_kinds import ListedBy
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services
from droveway.store.rows import ServiceRow


async def listing(api: Api, request: Request) -> Response:
    """Zones of the hosts; one is available while a service in it is enabled."""

    def read(tx: Tx) -> dict[str, bool]:
        zones: dict[str, bool] = {}
        for row in services.list_all(tx, None, COMPUTE):
            zones[row["zone"]] = zones.get(row["zone"], False) or not row["disabled"]
        return zones

    zones = await api.store.read(read)
    infos = [_info(zone, available, None) for zone, available in sorted(zones.items())]
    return Response(200, {"availabilityZoneInfo": sorted(infos, key=lambda info: not info["zoneState"]["available"])})


def _info(zone: str, available: bool, hosts: dict[str, Any] | None) -> dict[str, Any]:
    return {"zoneName": zone, "zoneState": {"available": available}, "hosts": hosts}


async def detail(api: Api, request: Request) -> Response:
    """With the services of each host, the disabled ones left out."""
    return Response(200, await api.store.read(_detail))


def _detail(tx: Tx) -> bytes:
    zones: dict[str, list[ServiceRow]] = {}
    for row in shown_by(ListedBy.COMPUTE, services.list_all(tx)):
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
    return encode({"availabilityZoneInfo": infos})
