"""What backends offer: their pools as the volume scheduler sees them, and what each driver can."""

from __future__ import annotations

from typing import Any

from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_flag
from droveway.api.volume.fields import pool_of
from droveway.api.wiring import Api
from droveway.domain.faults import NotFound
from droveway.domain.service_kinds import address_of
from droveway.domain.volume.placement import BackendFacts
from droveway.store.engine.transaction import Tx
from droveway.store.volume import backends, types

FILTERS_SINCE, TYPE_FILTER_SINCE = 28, 35


async def get_pools(api: Api, request: Request) -> Response:
    given = dict(request.query)
    is_detailed = as_flag("detail", given.get("detail", "false") or "false")

    def read(tx: Tx) -> list[dict[str, Any]]:
        found = backends.facts_of_all(tx)
        if request.version >= FILTERS_SINCE and "name" in given:
            found = [one for one in found if given["name"] in (one.name, pool_of(one.name))]
        if request.version >= TYPE_FILTER_SINCE and "volume_type" in given:
            wanted = types.get(tx, given["volume_type"])["extra_specs"].get("volume_backend_name")
            found = [one for one in found if wanted in (None, one.settings.volume_backend_name)]
        return [_pool(one, is_detailed=is_detailed) for one in found]

    return Response(200, {"pools": await api.store.read(read)})


def _pool(facts: BackendFacts, *, is_detailed: bool) -> dict[str, Any]:
    name = pool_of(facts.name)
    return {"name": name, "capabilities": _capabilities(facts)} if is_detailed else {"name": name}


def _capabilities(facts: BackendFacts) -> dict[str, Any]:
    """In Cinder's words, and beside them what the driver declares and, in a sentence, what ails it."""
    can = facts.guarantees
    return {
        **facts.settings.capabilities,
        "pool_name": facts.name.partition("@")[2],
        "volume_backend_name": facts.settings.volume_backend_name or facts.name.partition("@")[2],
        "storage_protocol": facts.driver,
        "driver_version": "1.0",
        "vendor_name": "Droveway",
        "total_capacity_gb": round(facts.total_gb, 2),
        "free_capacity_gb": round(facts.free_gb, 2),
        "allocated_capacity_gb": facts.allocated_gb,
        "provisioned_capacity_gb": facts.allocated_gb,
        "max_over_subscription_ratio": str(facts.settings.max_over_subscription_ratio),
        "reserved_percentage": facts.settings.reserved_percentage,
        "thin_provisioning_support": can.thin,
        "thick_provisioning_support": not can.thin,
        "online_extend_support": can.grows_in_use,
        "multiattach": False,
        "QoS_support": False,
        "replication_enabled": False,
        "location_info": facts.name,
        "backend_state": "up" if facts.is_up and not facts.trouble else "down",
        "trouble": facts.trouble,
        "clone": can.clone.value,
        "snapshots": can.snapshots,
        "independent_snapshots": can.independent_snapshots,
        "reverts": can.reverts,
        "filter_function": None,
        "goodness_function": None,
    }


async def capabilities(api: Api, request: Request) -> Response:
    """Of one backend, HOST@BACKEND: what it is and what it can."""
    name = request.params["host"].partition("#")[0]

    def read(tx: Tx) -> BackendFacts:
        for facts in backends.facts_of_all(tx):
            if facts.name == name:
                return facts
        raise NotFound(f"Can't find service: {name[:64]}; 'openstack volume service list' shows those there are.")

    facts = await api.store.read(read)
    host, _ = address_of(facts.name, "cinder-volume")
    can = facts.guarantees
    return Response(
        200,
        {
            "namespace": f"OS::Storage::Capabilities::{facts.name}",
            "vendor_name": "Droveway",
            "volume_backend_name": facts.settings.volume_backend_name or facts.name.partition("@")[2],
            "pool_name": facts.name.partition("@")[2],
            "driver_version": "1.0",
            "storage_protocol": facts.driver,
            "display_name": f"{facts.driver} at {host}",
            "description": f"{can.exclusive} {can.isolation}",
            "visibility": "public",
            "replication_targets": [],
            "properties": {
                "thin_provisioning": _property("Thin provisioning", "Sets thin provisioning.", can.thin),
                "online_extend_support": _property("Grows in use", "Grows while it is attached.", can.grows_in_use),
                "snapshots": _property("Snapshots", "Takes snapshots.", can.snapshots),
                "reverts": _property("Revert", "Goes back to its latest snapshot.", can.reverts),
            },
        },
    )


def _property(title: str, description: str, value: bool) -> dict[str, Any]:
    return {"title": title, "description": description, "type": "boolean", "default": value}
