"""What a server has used, and the password that its guest has sent; only read, but that the password is forgotten.

GET    /servers/{id}/diagnostics         to 2.47 as the driver counts, from 2.48 on in a form of its own
GET    /servers/{id}/os-server-password  encrypted with the key of the server; empty when there is none
DELETE /servers/{id}/os-server-password
"""

from __future__ import annotations

from typing import Any

from droveway.api.http.request import Request, Response
from droveway.api.wiring import Api
from droveway.domain.diagnostics import GuestDiagnostics
from droveway.domain.faults import Conflict
from droveway.store.compute import instances, server_attributes
from droveway.store.engine.transaction import Tx

FORM_SINCE = 48


async def diagnostics(api: Api, request: Request) -> Response:
    request.known_query(())
    row = await api.store.read(instances.get, request.params["server_id"], request.scope)
    if row["host"] is None:
        raise Conflict(f"Instance {row['id']} is not ready: it has no host.")
    found = await api.control.read_diagnostics(row["host"], row["id"])
    body = _form(found, has_drive=row["config_drive"]) if request.version >= FORM_SINCE else _counted(found)
    return Response(200, body)


def _form(found: GuestDiagnostics, *, has_drive: bool) -> dict[str, Any]:
    """null is what is not counted here."""
    return {
        "state": found.state,
        "driver": found.driver if found.driver == "libvirt" else None,
        "hypervisor": found.hypervisor,
        "hypervisor_os": "linux",
        "uptime": found.uptime_s or None,
        "config_drive": has_drive,
        "num_cpus": len(found.cpus),
        "num_nics": len(found.nics),
        "num_disks": len(found.disks),
        "cpu_details": [{"id": cpu.id, "time": cpu.time_ns, "utilisation": None} for cpu in found.cpus],
        "nic_details": [
            {
                "mac_address": nic.mac,
                "rx_octets": nic.rx_bytes,
                "rx_errors": nic.rx_errors,
                "rx_drop": nic.rx_drop,
                "rx_packets": nic.rx_packets,
                "rx_rate": None,
                "tx_octets": nic.tx_bytes,
                "tx_errors": nic.tx_errors,
                "tx_drop": nic.tx_drop,
                "tx_packets": nic.tx_packets,
                "tx_rate": None,
            }
            for nic in found.nics
        ],
        "disk_details": [
            {
                "read_bytes": disk.read_bytes,
                "read_requests": disk.read_requests,
                "write_bytes": disk.write_bytes,
                "write_requests": disk.write_requests,
                "errors_count": -1,
            }
            for disk in found.disks
        ],
        "memory_details": {"maximum": found.memory_maximum_mb, "used": found.memory_used_mb},
    }


def _counted(found: GuestDiagnostics) -> dict[str, Any]:
    """As Nova's driver for libvirt names it; memory in KiB."""
    counted: dict[str, Any] = {f"cpu{cpu.id}_time": cpu.time_ns for cpu in found.cpus}
    counted |= {"memory": found.memory_maximum_mb * 1024, "memory-rss": found.memory_used_mb * 1024}
    for disk in found.disks:
        counted |= {
            f"{disk.device}_read": disk.read_bytes,
            f"{disk.device}_read_req": disk.read_requests,
            f"{disk.device}_write": disk.write_bytes,
            f"{disk.device}_write_req": disk.write_requests,
            f"{disk.device}_errors": -1,
        }
    for nic in found.nics:
        counted |= {
            f"{nic.device}_{way}{what}": getattr(nic, f"{way}_{kind}")
            for way in ("rx", "tx")
            for what, kind in (("", "bytes"), ("_packets", "packets"), ("_errors", "errors"), ("_drop", "drop"))
        }
    return counted


async def show_password(api: Api, request: Request) -> Response:
    request.known_query(())
    row = await api.store.read(instances.get, request.params["server_id"], request.scope)
    return Response(200, {"password": row["guest_password"] or ""})


async def clear_password(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        row = instances.get(tx, request.params["server_id"], request.scope)
        server_attributes.change(tx, row["id"], guest_password=None)

    await api.store.run(write)
    return Response(204)
