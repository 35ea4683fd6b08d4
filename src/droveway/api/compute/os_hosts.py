"""Services and hypervisors under their old names, up to 2.42: what `openstack host list` and `host show` ask for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from droveway.api.compute import hypervisor_fields as fields
from droveway.api.compute.hypervisor_fields import Hosts
from droveway.api.compute.os_services import shown_by
from droveway.api.http.request import Request, Response, encode
from droveway.api.wiring import Api
from droveway.domain.faults import NotFound
from droveway.domain.service_kinds import ListedBy
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts, services
from droveway.store.rows import InstanceRow


async def listing(api: Api, request: Request) -> Response:
    """The enabled services of each host, by the last word of their names."""
    zone = dict(request.query).get("zone")

    def read(tx: Tx) -> bytes:
        shown = shown_by(ListedBy.COMPUTE, services.list_all(tx))
        found = [
            {"host_name": row["host"], "service": row["binary"].removeprefix("nova-"), "zone": row["zone"]}
            for row in shown
            if not row["disabled"] and zone in (None, "", row["zone"])
        ]
        return encode({"hosts": found})

    return Response(200, await api.store.read(read))


async def show(api: Api, request: Request) -> Response:
    """What a host has, what is used of it with what is kept back, and what its servers were promised: all of them, and
    those of each project."""
    name, kept = request.params["host"], api.settings.placement
    view = Hosts("", reserved_memory_mb=kept.reserved_memory_mb, reserved_disk_gb=kept.reserved_disk_gb)

    def read(tx: Tx) -> dict[str, Any]:
        row = hosts.get(tx, name)
        if not row["resources"]:
            raise NotFound(f"Host {name} has not said yet what it has.")
        has = fields.HYPERVISOR_DETAIL.renderer(request.version, is_admin=True)(row, view)
        guests = instances.on_hosts(tx, (name,))
        lines = [
            ("(total)", has["vcpus"], has["memory_mb"], has["local_gb"]),
            ("(used_now)", has["vcpus_used"], has["memory_mb_used"], has["local_gb_used"]),
            ("(used_max)", *_promised(guests)),
        ]
        for project_id in sorted({guest["project_id"] for guest in guests}):
            lines.append((project_id, *_promised(guest for guest in guests if guest["project_id"] == project_id)))
        return {
            "host": [
                {"resource": {"host": name, "project": project, "cpu": vcpus, "memory_mb": ram_mb, "disk_gb": disk_gb}}
                for project, vcpus, ram_mb, disk_gb in lines
            ]
        }

    return Response(200, await api.store.read(read))


def _promised(guests: Iterable[InstanceRow]) -> tuple[int, int, int]:
    rows = list(guests)
    return (sum(row["vcpus"] for row in rows), sum(row["ram_mb"] for row in rows), sum(row["disk_gb"] for row in rows))
