"""Hypervisors' fields at every microversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from droveway.api.compute.fields import View
from droveway.api.compute.service_fields import state, status
from droveway.api.http.render import ABSENT, Field, FieldTable, constant
from droveway.domain.resources import LastReport, uptime_text
from droveway.store.rows import HostWithUse, Object


class Hosts(View, frozen=True):
    """And what was heard of hosts that is not in their rows."""

    last_reports: Mapping[str, LastReport] = msgspec.field(default_factory=dict)
    now_us: int = 0
    reserved_memory_mb: int = 0  # of each host, beside what the host itself keeps back
    reserved_disk_gb: int = 0


def resources_of(row: HostWithUse) -> Object:
    """What a host has reported; of one that never has nothing is shown."""
    resources = row["resources"]
    assert resources, f"host {row['name']} has not reported"
    return resources


def _of_host(name: str, default: Any = None) -> Any:
    return lambda row, view: resources_of(row).get(name, default)


def _cpu_info(row: HostWithUse, view: Hosts) -> dict[str, Any]:
    resources = resources_of(row)
    return {
        "arch": resources.get("cpu_arch", ""),
        "model": resources.get("cpu_model", ""),
        "vendor": resources.get("cpu_vendor", ""),
        "features": resources.get("cpu_features", []),
        "topology": resources.get("cpu_topology", {}),
    }


def _memory_used_mb(row: HostWithUse, view: Hosts) -> int:
    """With what is kept back, as Nova counts it."""
    kept_mb = int(resources_of(row).get("reserved_memory_mb", 0)) + view.reserved_memory_mb
    return int(row["ram_mb_used"]) + kept_mb


def _disk_used_gb(row: HostWithUse, view: Hosts) -> int:
    kept_gb = int(resources_of(row).get("reserved_disk_gb", 0)) + view.reserved_disk_gb
    return int(row["disk_gb_used"]) + kept_gb


def _servers(row: HostWithUse, view: Hosts) -> Any:
    """Only when asked for; without any, the field is left out before 2.75."""
    if view.servers is None:
        return ABSENT
    found = view.servers.get(row["name"], [])
    return found if found or view.version >= 75 else ABSENT


def _service(row: HostWithUse, view: Hosts) -> dict[str, Any]:
    return {"id": row["service_id"], "host": row["name"], "disabled_reason": row["disabled_reason"]}


def _service_by_uuid(row: HostWithUse, view: Hosts) -> dict[str, Any]:
    return {**_service(row, view), "id": row["service_uuid"]}


def _uptime(row: HostWithUse, view: Hosts) -> str | None:
    """Only of a host that is up: what another one said last is over."""
    return uptime_text(view.last_reports.get(row["name"]), view.now_us) if state(row, view) == "up" else None


def _disk_least(row: HostWithUse, view: Hosts) -> int:
    """What is left when every disk there has grown to its full size."""
    last_reports = view.last_reports.get(row["name"])
    if last_reports is None or last_reports.measured is None:
        return int(resources_of(row).get("disk_free_gb", 0))
    return last_reports.measured.disk_available_least_gb


_HYPERVISOR: tuple[Field[HostWithUse], ...] = (
    Field("id", "id", 1, 52),
    Field("id", "uuid", 53),
    Field("hypervisor_hostname", _of_host("hypervisor_hostname")),
    Field("state", state),
    Field("status", status),
    Field("servers", _servers),
)
HYPERVISOR = FieldTable(HostWithUse, *_HYPERVISOR)
HYPERVISOR_UPTIME = FieldTable(HostWithUse, *_HYPERVISOR, Field("uptime", _uptime))
HYPERVISOR_DETAIL = FieldTable(
    HostWithUse,
    *_HYPERVISOR,
    Field("hypervisor_type", _of_host("hypervisor_type")),
    Field("hypervisor_version", _of_host("hypervisor_version")),
    Field("host_ip", _of_host("host_ip", "")),
    Field("service", _service, 1, 52),
    Field("service", _service_by_uuid, 53),
    Field("cpu_info", lambda row, view: msgspec.json.encode(_cpu_info(row, view)).decode(), 1, 27),
    Field("cpu_info", _cpu_info, 28, 87),
    Field("vcpus", _of_host("vcpus"), 1, 87),
    Field("vcpus_used", "vcpus_used", 1, 87),
    Field("memory_mb", _of_host("memory_mb"), 1, 87),
    Field("memory_mb_used", _memory_used_mb, 1, 87),
    Field("free_ram_mb", lambda row, view: resources_of(row)["memory_mb"] - _memory_used_mb(row, view), 1, 87),
    Field("local_gb", _of_host("disk_gb"), 1, 87),
    Field("local_gb_used", _disk_used_gb, 1, 87),
    Field("free_disk_gb", lambda row, view: resources_of(row)["disk_gb"] - _disk_used_gb(row, view), 1, 87),
    Field("disk_available_least", _disk_least, 1, 87),
    constant("current_workload", 0, 1, 87),
    Field("running_vms", "running_vms", 1, 87),
    Field("uptime", _uptime, 88),
)
OF_DISKS = ("local_gb", "local_gb_used", "free_disk_gb", "disk_available_least")
STATISTICS = (
    "vcpus",
    "vcpus_used",
    "memory_mb",
    "memory_mb_used",
    "free_ram_mb",
    "local_gb",
    "local_gb_used",
    "free_disk_gb",
    "disk_available_least",
    "current_workload",
    "running_vms",
)
