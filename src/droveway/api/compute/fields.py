"""Every compute resource as a table of fields: which exists from which microversion to which, and for whom.

Features that are not built show their constant, such as the volumes that are attached.
"""

from __future__ import annotations

from typing import Any

import msgspec

from droveway.api.compute.server_status import status_of
from droveway.api.http.render import ABSENT, Field, FieldTable, bookmark, constant, host_id, links, micros, seconds
from droveway.scheduler.summaries import NOT_ENOUGH, NOT_FOUND
from droveway.store.compute.server_locations import ServerLocation, instance_name
from droveway.store.compute.server_ports import Address
from droveway.store.rows import (
    FlavorRow,
    InstanceRow,
    MigrationRow,
    ServerGroupWithMembers,
)
from droveway.store.volume.rows import AttachmentRow


class View(msgspec.Struct, frozen=True):
    """What rendering needs beside the row."""

    base: str
    places: dict[str, ServerLocation] = {}
    servers: dict[str, list[dict[str, str]]] | None = None  # by host, when asked for
    version: int = 1
    user_data: dict[str, str] = {}  # by server, for administrators
    addresses: dict[str, list[Address]] = {}  # by server
    group_names: dict[str, list[str]] = {}
    volumes: dict[str, list[AttachmentRow]] = {}  # by server

    def beside(self, server_id: str, host: str | None) -> tuple[Any, ...]:
        """All of it that is about that server, which is on that host."""
        return (
            None if host is None else self.places.get(host),
            self.user_data.get(server_id),
            self.addresses.get(server_id),
            self.group_names.get(server_id),
            self.volumes.get(server_id),
        )


# -- servers ----------------------------------------------------------------------------------------------------------
_SHOW_PROGRESS = frozenset(("ACTIVE", "BUILD", "MIGRATING"))
_SHOW_FAULT = frozenset(("ERROR", "DELETED"))


def _progress(row: InstanceRow, view: View) -> Any:
    return row["progress"] if status_of(row) in _SHOW_PROGRESS else ABSENT


def _fault(row: InstanceRow, view: View) -> Any:
    fault = row["fault"]
    if not fault or status_of(row) not in _SHOW_FAULT:
        return ABSENT
    at_us = fault.get("created_us", row["updated_at_us"])
    return {"code": fault.get("code", 500), "created": seconds(at_us), "message": fault.get("message", "")}


def _fault_of_tenants(row: InstanceRow, view: View) -> Any:
    fault = _fault(row, view)
    if fault is not ABSENT and row["fault"]:
        message = fault["message"]
        fault["message"] = row["fault"].get("to_tenants", NOT_ENOUGH if message.startswith(NOT_FOUND) else message)
    return fault


def _place(row: InstanceRow, view: View) -> ServerLocation | None:
    return None if row["host"] is None else view.places.get(row["host"])


def _zone(row: InstanceRow, view: View) -> str:
    place = _place(row, view)
    return place.zone if place is not None else row["zone"] or ""


def _host_status(row: InstanceRow, view: View) -> str:
    if row["host"] is None:
        return ""
    place = view.places.get(row["host"])
    return place.status if place is not None else "UNKNOWN"


def _node(row: InstanceRow, view: View) -> str | None:
    place = _place(row, view)
    return place.hypervisor_hostname if place is not None else row["host"]


def _flavor(row: InstanceRow, view: View) -> dict[str, Any]:
    flavor = row["flavor"]
    return {
        "vcpus": flavor["vcpus"],
        "ram": flavor["ram_mb"],
        "disk": flavor["disk_gb"],
        "ephemeral": flavor.get("ephemeral_gb", 0),
        "swap": flavor.get("swap_mb", 0),
        "original_name": flavor["name"],
        "extra_specs": flavor.get("extra_specs", {}),
    }


def _flavor_link(row: InstanceRow, view: View) -> dict[str, Any]:
    flavor_id = row["flavor"]["id"]
    return {"id": flavor_id, "links": bookmark(view.base, "flavors", flavor_id)}


def _image(row: InstanceRow, view: View) -> Any:
    image_id = row["image_id"]
    return {"id": image_id, "links": bookmark(view.base, "images", image_id)} if image_id else ""


def _image_with_properties(row: InstanceRow, view: View) -> Any:
    """Those that the server took from its image and that mean something here."""
    image = _image(row, view)
    return image and image | {"properties": row["image_properties"]}


def _server_links(row: InstanceRow, view: View) -> list[dict[str, str]]:
    return links(view.base, "servers", row["id"])


def _groups(row: InstanceRow, view: View) -> list[str]:
    return [row["server_group_id"]] if row["server_group_id"] else []


def addresses_of(server_id: str, view: View) -> dict[str, list[dict[str, Any]]]:
    """By the name of their network."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in view.addresses.get(server_id, ()):
        found.setdefault(one.network, []).append(
            {
                "version": 6 if ":" in one.address else 4,
                "addr": one.address,
                "OS-EXT-IPS:type": "floating" if one.floating else "fixed",
                "OS-EXT-IPS-MAC:mac_addr": one.mac,
            }
        )
    return found


def plain_addresses(server_id: str, view: View) -> dict[str, list[dict[str, Any]]]:
    """Without what extensions added to them."""
    return {
        network: [{"version": one["version"], "addr": one["addr"]} for one in several]
        for network, several in addresses_of(server_id, view).items()
    }


def _volumes(row: InstanceRow, view: View) -> list[dict[str, Any]]:
    return [{"id": one["volume_id"]} for one in view.volumes.get(row["id"], ())]


def _volumes_with_fate(row: InstanceRow, view: View) -> list[dict[str, Any]]:
    held = view.volumes.get(row["id"], ())
    return [{"id": one["volume_id"], "delete_on_termination": one["delete_on_termination"]} for one in held]


def _root_device(row: InstanceRow, view: View) -> str:
    root = next((one for one in view.volumes.get(row["id"], ()) if one["boot_index"] == 0), None)
    return f"/dev/{root['device']}" if root is not None else "/dev/vda"


def _group_names(row: InstanceRow, view: View) -> Any:
    names = view.group_names.get(row["id"])
    return [{"name": name} for name in names] if names else ABSENT


_SERVER: tuple[Field[InstanceRow], ...] = (
    Field("id", "id"),
    Field("name", "name"),
    Field("links", _server_links),
)
_ATTR = "OS-EXT-SRV-ATTR:"
_SERVER_DETAIL: tuple[Field[InstanceRow], ...] = (
    *_SERVER,
    Field("accessIPv4", lambda row, view: row["access_ipv4"] or ""),
    Field("accessIPv6", lambda row, view: row["access_ipv6"] or ""),
    Field("addresses", lambda row, view: addresses_of(row["id"], view)),
    Field("created", lambda row, view: seconds(row["created_at_us"])),
    Field("updated", lambda row, view: seconds(row["updated_at_us"])),
    Field("flavor", _flavor_link, 1, 46),
    Field("flavor", _flavor, 47),
    Field("hostId", lambda row, view: host_id(row["host"], row["project_id"]) if row["host"] else ""),
    Field("image", _image, 1, 97),
    Field("image", _image_with_properties, 98),
    Field("metadata", "metadata"),
    Field("status", lambda row, view: status_of(row)),
    Field("tenant_id", "project_id"),
    Field("user_id", "user_id"),
    Field("fault", _fault_of_tenants),
    Field("fault", _fault, admin_only=True),
    Field("progress", _progress),
    Field("config_drive", lambda row, view: "True" if row["config_drive"] else ""),
    Field("key_name", "key_name"),
    Field("security_groups", _group_names),
    Field("OS-DCF:diskConfig", lambda row, view: "AUTO" if row["auto_disk_config"] else "MANUAL"),
    Field("OS-EXT-AZ:availability_zone", _zone),
    Field("OS-EXT-STS:task_state", "task_state"),
    Field("OS-EXT-STS:vm_state", "vm_state"),
    Field("OS-EXT-STS:power_state", "power_state"),
    Field("OS-SRV-USG:launched_at", lambda row, view: micros(row["launched_at_us"])),
    Field("OS-SRV-USG:terminated_at", lambda row, view: micros(row["terminated_at_us"])),
    Field("os-extended-volumes:volumes_attached", _volumes, 1, 2),
    Field("os-extended-volumes:volumes_attached", _volumes_with_fate, 3),
    Field(_ATTR + "host", "host", admin_only=True),
    Field(_ATTR + "hypervisor_hostname", _node, admin_only=True),
    Field(_ATTR + "instance_name", lambda row, view: instance_name(row["number"]), admin_only=True),
    Field(_ATTR + "hostname", "hostname", 3, 89, admin_only=True),
    Field(_ATTR + "hostname", "hostname", 90),
    constant(_ATTR + "kernel_id", "", 3, admin_only=True),
    constant(_ATTR + "ramdisk_id", "", 3, admin_only=True),
    Field(_ATTR + "launch_index", "launch_index", 3, admin_only=True),
    Field(_ATTR + "reservation_id", "reservation_id", 3, admin_only=True),
    Field(_ATTR + "root_device_name", _root_device, 3, admin_only=True),
    Field(_ATTR + "user_data", lambda row, view: view.user_data.get(row["id"]), 3, admin_only=True),
    Field("locked", "locked", 9),
    Field("host_status", _host_status, 16, admin_only=True),
    Field("description", "description", 19),
    Field("tags", "tags", 26),
    constant("trusted_image_certificates", None, 63),
    Field("locked_reason", "locked_reason", 73),
    Field("pinned_availability_zone", "zone", 96),
    Field("scheduler_hints", lambda row, view: row["hints"] or {}, 100),
)
SERVER = FieldTable(InstanceRow, *_SERVER)


def _in_rebuilt(field: Field[InstanceRow]) -> Field[InstanceRow]:
    """In the answer to a rebuild what came from extensions stands from 2.75 on, and the key from 2.54."""
    is_extension = field.name.startswith(("OS-EXT", "OS-SRV-USG", "os-extended"))
    if is_extension or field.name in ("config_drive", "host_status", "security_groups"):
        return field._replace(since=max(field.since, 75))
    return field._replace(since=54) if field.name == "key_name" else field


SERVER_REBUILT = FieldTable(
    InstanceRow, *(_in_rebuilt(field) for field in _SERVER_DETAIL), Field("server_groups", _groups, 71)
)
SERVER_DETAIL = FieldTable(InstanceRow, *_SERVER_DETAIL)  # in GET /servers/detail
SERVER_SHOW = FieldTable(InstanceRow, *_SERVER_DETAIL, Field("server_groups", _groups, 71))  # in GET /servers/{id}
_LATE = ("OS-EXT-", "OS-SRV-USG:", "os-extended-volumes:", "config_drive", "key_name", "security_groups", "host_status")
SERVER_UPDATE = FieldTable(  # in the answers to PUT and to rebuild, which told less until 2.75
    InstanceRow,
    *(
        field._replace(since=75) if field.name.startswith(_LATE) and field.since < 75 and field.until > 75 else field
        for field in _SERVER_DETAIL
        if field.name != "addresses" and not (field.name.startswith(_LATE) and field.until < 75)
    ),
    Field("addresses", lambda row, view: plain_addresses(row["id"], view), 1, 74),
    Field("addresses", lambda row, view: addresses_of(row["id"], view), 75),
    Field("server_groups", _groups, 71),
)


# -- flavors ----------------------------------------------------------------------------------------------------------
def _flavor_links(row: FlavorRow, view: View) -> list[dict[str, str]]:
    return links(view.base, "flavors", row["id"])


_FLAVOR: tuple[Field[FlavorRow], ...] = (
    Field("id", "id"),
    Field("name", "name"),
    Field("links", _flavor_links),
    Field("description", "description", 55),
)
FLAVOR = FieldTable(FlavorRow, *_FLAVOR)
FLAVOR_DETAIL = FieldTable(
    FlavorRow,
    *_FLAVOR,
    Field("ram", "ram_mb"),
    Field("vcpus", "vcpus"),
    Field("disk", "disk_gb"),
    Field("swap", lambda row, view: row["swap_mb"] or "", 1, 74),
    Field("swap", "swap_mb", 75),
    Field("OS-FLV-EXT-DATA:ephemeral", "ephemeral_gb"),
    Field("OS-FLV-DISABLED:disabled", "disabled"),
    Field("os-flavor-access:is_public", "is_public"),
    Field("rxtx_factor", "rxtx_factor"),
    Field("extra_specs", "extra_specs", 61),
)


# -- server groups ----------------------------------------------------------------------------------------------------
def _rules(row: ServerGroupWithMembers, view: View) -> dict[str, int]:
    most = row["max_server_per_host"]
    return {} if most is None else {"max_server_per_host": most}


SERVER_GROUP = FieldTable(
    ServerGroupWithMembers,
    Field("id", "id"),
    Field("name", "name"),
    Field("members", "members"),
    Field("policies", lambda row, view: [row["policy"]], 1, 63),
    constant("metadata", {}, 1, 63),
    Field("project_id", "project_id", 13),
    Field("user_id", "user_id", 13),
    Field("policy", "policy", 64),
    Field("rules", _rules, 64),
)


# -- migrations -------------------------------------------------------------------------------------------------------
def _migration_links(row: MigrationRow, view: View) -> Any:
    """Where to follow a live migration, while there is something to follow."""
    if row["migration_type"] != "live-migration" or row["status"] not in LIVE_IN_PROGRESS:
        return ABSENT
    return links(view.base, f"servers/{row['instance_id']}/migrations", row["id"])


LIVE_IN_PROGRESS = frozenset(("accepted", "queued", "preparing", "running"))
_MIGRATION: tuple[Field[MigrationRow], ...] = (
    Field("id", "id"),
    Field("status", "status"),
    *(constant(name, None) for name in ("source_compute", "source_node", "dest_compute", "dest_node", "dest_host")),
    Field("source_compute", "source", admin_only=True),
    Field("source_node", "source", admin_only=True),
    Field("dest_compute", "destination", admin_only=True),
    Field("dest_node", "destination", admin_only=True),
    Field("created_at", lambda row, view: micros(row["created_at_us"])),
    Field("updated_at", lambda row, view: micros(row["updated_at_us"])),
    Field("uuid", "uuid", 59),
    Field("user_id", "user_id", 80),
    Field("project_id", "project_id", 80),
)
MIGRATION = FieldTable(  # in GET /os-migrations
    MigrationRow,
    *_MIGRATION,
    Field("instance_uuid", "instance_id"),
    constant("old_instance_type_id", None),
    constant("new_instance_type_id", None),
    Field("migration_type", "migration_type", 23),
    Field("links", _migration_links, 23),
)
SERVER_MIGRATION = FieldTable(  # in GET /servers/{id}/migrations
    MigrationRow,
    *_MIGRATION,
    Field("server_uuid", "instance_id"),
    Field("memory_total_bytes", "memory_total_bytes"),
    Field("memory_processed_bytes", "memory_processed_bytes"),
    Field("memory_remaining_bytes", "memory_remaining_bytes"),
    Field("disk_total_bytes", "disk_total_bytes"),
    Field("disk_processed_bytes", "disk_processed_bytes"),
    Field("disk_remaining_bytes", "disk_remaining_bytes"),
)
