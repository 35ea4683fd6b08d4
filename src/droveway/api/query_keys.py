"""The keys that queries may hold: one table, by the path of GET. The OpenAPI document tells them; a test compares them
with what the handlers read.

A key holds from `first` to `last`, microversions of its service. Paths that are not here take none, or leave what they
do not know alone. Where clients may make up keys the table says so with `*`: properties of images (any name, and
`property-NAME` with compute's proxies), and groups of allocation candidates (`resources1`, `required_NAME`).
"""

from __future__ import annotations

from typing import NamedTuple

from droveway.api.http.render import FOREVER
from droveway.api.volume import attachments, backups, messages, qos, snapshots, transfers, volumes
from droveway.api.volume import types as volume_types
from droveway.api.volume.here import ROOT
from droveway.api.volume.listing import Listed


class Key(NamedTuple):
    name: str
    first: int = 0
    last: int = FOREVER


def _keys(*names: str, first: int = 0, last: int = FOREVER) -> tuple[Key, ...]:
    return tuple(Key(name, first, last) for name in names)


_PAGE = ("limit", "marker")
_SPAN = (*_keys("start", "end"), *_keys(*_PAGE, first=40))
_HYPERVISORS = (*_keys(*_PAGE, first=33), *_keys("hypervisor_hostname_pattern", "with_servers", first=53))
_FLAVORS = _keys(*_PAGE, "is_public", "minRam", "minDisk", "sort_key", "sort_dir")
_SERVERS = (
    *_keys(
        *("access_ip_v4", "access_ip_v6", "all_tenants", "auto_disk_config", "availability_zone", "changes-since"),
        *("config_drive", "created_at", "deleted", "description", "display_description", "display_name", "flavor"),
        *("host", "hostname", "image", "image_ref", "ip", "ip6", "key_name", "launch_index", "launched_at"),
        *("locked_by", "name", "power_state", "progress", "project_id", "reservation_id", "sort_dir", "sort_key"),
        *("status", "task_state", "tenant_id", "terminated_at", "user_id", "uuid", "vm_state", *_PAGE),
    ),
    *_keys("tags", "tags-any", "not-tags", "not-tags-any", first=26),
    Key("changes-before", 66),
    Key("locked", 73),
)
_PROXIES = _keys(*_PAGE, "changes-since", "minDisk", "minRam", "name", "property-*", "server", "status", "type")
_RESOURCES = (*_keys("resources*", first=10), *_keys("required*", first=17), *_keys("member_of*", first=21))
_IMAGES = (
    *("*", "checksum", "container_format", "created_at", "disk_format", "id", "min_disk", "min_ram", "name"),
    *("os_hash_algo", "os_hash_value", "os_hidden", "owner", "protected", "size", "size_max", "size_min", "sort"),
    *("sort_dir", "sort_key", "status", "tag", "updated_at", "virtual_size", "visibility", *_PAGE),
)
_ASSIGNMENTS = (
    *("effective", "group.id", "include_names", "include_subtree", "role.id", "scope.OS-INHERIT:inherited_to"),
    *("scope.domain.id", "scope.project.id", "scope.system", "user.id"),
)
_VOLUME_PAGE = ("all_tenants", "limit", "marker", "offset", "sort", "sort_dir", "sort_key")


def _listed(of: Listed) -> tuple[Key, ...]:
    """Those of a list of Block Storage: its filters stand in its own table."""
    found = {name: Key(name, known.since) for name, known in of.filters.items()}
    found |= {name: Key(name) for name in (*of.ignored, *_VOLUME_PAGE, "project_id", "tenant_id")}
    found["with_count"] = Key("with_count", of.count_since)
    return tuple(found[name] for name in sorted(found))


_OF_VOLUMES: dict[str, tuple[Key, ...]] = {
    "volumes": _listed(volumes.LISTED),
    "volumes/detail": _listed(volumes.LISTED),
    "volumes/summary": _listed(volumes.LISTED),
    "snapshots": _listed(snapshots.LISTED),
    "snapshots/detail": _listed(snapshots.LISTED),
    "attachments": _listed(attachments.LISTED),
    "attachments/detail": _listed(attachments.LISTED),
    "backups": _listed(backups.LISTED),
    "backups/detail": _listed(backups.LISTED),
    "messages": _listed(messages.LISTED),
    "os-volume-transfer": _listed(transfers.LISTED),
    "os-volume-transfer/detail": _listed(transfers.LISTED),
    "volume-transfers": _listed(transfers.LISTED),
    "volume-transfers/detail": _listed(transfers.LISTED),
    "types": _listed(volume_types.LISTED),
    "qos-specs": _listed(qos.LISTED),
    "qos-specs/{qos_id}/associate": _keys("vol_type_id"),
    "qos-specs/{qos_id}/disassociate": _keys("vol_type_id"),
    "scheduler-stats/get_pools": (Key("detail"), Key("name", 28), Key("volume_type", 35)),
    **{
        path: _keys("host", "limit", "offset", "sort", first=8)
        for what in ("manageable_volumes", "manageable_snapshots", "os-volume-manage", "os-snapshot-manage")
        for path in (what, f"{what}/detail")
    },
    "resource_filters": _keys("resource"),
    "limits": _keys("project_id", "tenant_id", first=39),
    "os-services": _keys("binary", "host", "service"),
    "os-quota-sets/{target}": _keys("usage"),
}

KEYS: dict[str, tuple[Key, ...]] = {
    "/identity/v3/auth/tokens": _keys("nocatalog"),
    "/identity/v3/domains": _keys("enabled", "name", *_PAGE),
    "/identity/v3/projects": _keys("domain_id", "enabled", "is_domain", "name", "parent_id", "tags", *_PAGE),
    "/identity/v3/projects/{id}": _keys("parents_as_ids", "parents_as_list", "subtree_as_ids", "subtree_as_list"),
    "/identity/v3/users": _keys("domain_id", "enabled", "name", *_PAGE),
    "/identity/v3/users/{user_id}/application_credentials": _keys("name"),
    "/identity/v3/groups": _keys("domain_id", "name", *_PAGE),
    "/identity/v3/roles": _keys("domain_id", "name", *_PAGE),
    "/identity/v3/credentials": _keys("type", "user_id"),
    "/identity/v3/regions": _keys("parent_region_id"),
    "/identity/v3/services": _keys("name", "type"),
    "/identity/v3/endpoints": _keys("enabled", "interface", "region_id", "service_id"),
    "/identity/v3/role_assignments": _keys(*_ASSIGNMENTS),
    "/image/v2/images": _keys("member_status", *_IMAGES),
    "/image/v2/metadefs/namespaces": _keys("resource_types", "visibility", *_PAGE),
    "/compute/v2.1/servers": _SERVERS,
    "/compute/v2.1/servers/detail": _SERVERS,
    "/compute/v2.1/servers/{server_id}/os-instance-actions": (
        *_keys(*_PAGE, "changes-since", first=58),
        *_keys("changes-before", first=66),
    ),
    "/compute/v2.1/servers/{server_id}/os-volume_attachments": _keys("limit", "offset"),
    "/compute/v2.1/os-migrations": (
        *_keys("hidden", "host", "instance_uuid", "migration_type", "source_compute", "status"),
        *_keys(*_PAGE, "changes-since", first=59),
        *_keys("changes-before", first=66),
        *_keys("project_id", "user_id", first=80),
    ),
    "/compute/v2.1/os-keypairs": (Key("user_id", 10), *_keys(*_PAGE, first=35)),
    "/compute/v2.1/os-keypairs/{keypair}": _keys("user_id", first=10),
    "/compute/v2.1/os-simple-tenant-usage": (*_SPAN, *_keys("detailed")),
    "/compute/v2.1/os-simple-tenant-usage/{project_id}": _SPAN,
    "/compute/v2.1/flavors": _FLAVORS,
    "/compute/v2.1/flavors/detail": _FLAVORS,
    "/compute/v2.1/os-server-groups": (*_keys("all_projects", "limit", "offset"), *_keys("marker", last=74)),
    "/compute/v2.1/limits": _keys("reserved", "tenant_id"),
    "/compute/v2.1/os-services": _keys("binary", "host"),
    "/compute/v2.1/os-hosts": _keys("zone"),
    "/compute/v2.1/os-hypervisors": _HYPERVISORS,
    "/compute/v2.1/os-hypervisors/detail": _HYPERVISORS,
    "/compute/v2.1/os-hypervisors/{hypervisor}": _keys("with_servers", first=53),
    "/compute/v2.1/images": _PROXIES,
    "/compute/v2.1/images/detail": _PROXIES,
    "/placement/resource_providers": (
        *_keys("name", "uuid"),
        Key("member_of", 3),
        Key("resources", 4),
        Key("in_tree", 14),
        Key("required", 18),
    ),
    "/placement/usages": (*_keys("project_id", "user_id", first=9), Key("consumer_type", 38)),
    "/placement/traits": _keys("associated", "name", first=6),
    "/placement/allocation_candidates": (
        *_RESOURCES,
        *(Key("limit", 16), Key("group_policy", 25), Key("in_tree*", 31), Key("root_required", 35)),
        Key("same_subtree", 36),
    ),
    **{f"{ROOT}/{place}{path}": keys for path, keys in _OF_VOLUMES.items() for place in ("", "{project_id}/")},
    "/droveway/v1/join-tokens": _keys("all"),
    "/droveway/v1/migrations": _keys("all", "limit", "server"),
    "/droveway/v1/migrations/matrix": _keys("host"),
    "/droveway/v1/migrations/predictions": _keys("limit"),
    "/droveway/v1/placements": _keys("blocked", "limit"),
    "/droveway/v1/placements/{server_id}": _keys("all", "host"),
    "/droveway/v1/sagas": _keys("all", "limit"),
    "/droveway/v1/services": _keys("binary", "host"),
    "/droveway/v1/services/{host}/why": _keys("binary"),
    "/droveway/v1/volume-placements/{volume_id}": _keys("all"),
}


def holding(path: str, version: int) -> frozenset[str]:
    """Those of that path at that microversion."""
    return frozenset(key.name for key in KEYS.get(path, ()) if key.first <= version <= key.last)
