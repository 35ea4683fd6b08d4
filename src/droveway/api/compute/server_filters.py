"""The query of a list of servers: what everybody may look for, what administrators alone, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from droveway.api.compute import fields
from droveway.api.http import paging
from droveway.api.http.request import Request
from droveway.api.http.validate import FALSE, TRUE, as_flag, as_integer, as_time_us
from droveway.domain import name_pattern
from droveway.domain.faults import BadRequest, Forbidden
from droveway.store.compute.instance_list import SECOND_US, Filters
from droveway.store.engine.tags import Tags

PATTERN_MAX = 255
TAGS_SINCE, BEFORE_SINCE, LOCKED_SINCE, MORE_SINCE, HOSTNAME_SINCE = 26, 66, 73, 83, 90
_TAGS = {"tags": "all", "tags-any": "any", "not-tags": "not_all", "not-tags-any": "not_any"}
# key -> column, by how its value is compared
_LIKES = {
    "name": "name",
    "display_name": "name",
    "description": "description",
    "display_description": "description",
    "hostname": "hostname",
    "key_name": "key_name",
}
_EQUAL = {
    "user_id": "user_id",
    "host": "host",
    "image": "image_id",
    "image_ref": "image_id",
    "flavor": "flavor_id",
    "reservation_id": "reservation_id",
    "access_ip_v4": "access_ipv4",
    "access_ip_v6": "access_ipv6",
    "locked_by": "locked_by",
}
_NUMBERS = {"power_state": "power_state", "progress": "progress", "launch_index": "launch_index"}
_FLAGS = {"config_drive": "config_drive", "auto_disk_config": "auto_disk_config", "locked": "locked"}
_SECONDS = {"created_at": "created_at_us", "launched_at": "launched_at_us", "terminated_at": "terminated_at_us"}
_ADDRESSES = {"ip": 4, "ip6": 6}
_OTHERS = frozenset(
    (
        *("status", "vm_state", "task_state", "availability_zone", "uuid", "all_tenants", "project_id", "tenant_id"),
        *("deleted", "changes-since", "changes-before", "limit", "marker", "sort_key", "sort_dir"),
    )
)
# What OpenStack knows and this program does not.
UNBUILT = frozenset(("kernel_id", "ramdisk_id", "node", "root_device_name", "soft_deleted"))
INVALID = frozenset(
    ("block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices")
)
# What others than administrators may look for, and since when; the rest is left out of their queries, as with Nova.
_EVERYONE = {
    **dict.fromkeys(("reservation_id", "name", "display_name", "status", "image", "image_ref", "flavor", "ip"), 1),
    **dict.fromkeys(("changes-since", "all_tenants", "uuid", "project_id", "tenant_id"), 1),
    **dict.fromkeys(("limit", "marker", "sort_key", "sort_dir"), 1),
    "ip6": 5,
    **dict.fromkeys(_TAGS, TAGS_SINCE),
    "changes-before": BEFORE_SINCE,
    "locked": LOCKED_SINCE,
    **dict.fromkeys(("availability_zone", "config_drive", "key_name", *_SECONDS, "power_state"), MORE_SINCE),
    **dict.fromkeys(("task_state", "vm_state", "progress", "user_id"), MORE_SINCE),
    "hostname": HOSTNAME_SINCE,
}
# Sort keys and their columns. None: every server here has the same, so sorting by it changes nothing.
SORTS: dict[str, str | None] = {
    "availability_zone": "zone",
    "config_drive": "config_drive",
    "created_at": "created_at_us",
    "display_description": "description",
    "display_name": "name",
    "host": "host",
    "hostname": "hostname",
    "image_ref": "image_id",
    "instance_type_id": "flavor_id",
    "key_name": "key_name",
    "launch_index": "launch_index",
    "launched_at": "launched_at_us",
    "node": "host",
    "power_state": "power_state",
    "progress": "progress",
    "project_id": "project_id",
    "task_state": "task_state",
    "terminated_at": "terminated_at_us",
    "updated_at": "updated_at_us",
    "user_id": "user_id",
    "uuid": "id",
    "vm_state": "vm_state",
    "access_ip_v4": "access_ipv4",
    "access_ip_v6": "access_ipv6",
    "auto_disk_config": "auto_disk_config",
    "kernel_id": None,
    "locked_by": "locked_by",
    "ramdisk_id": None,
    "root_device_name": None,
}
# Nova takes them and does not heed them.
UNHEEDED_SORTS = frozenset(
    (
        "architecture",
        "cell_name",
        "cleaned",
        "default_ephemeral_device",
        "default_swap_device",
        "deleted",
        "deleted_at",
        "disable_terminate",
        "ephemeral_gb",
        "ephemeral_key_uuid",
        "id",
        "key_data",
        "launched_on",
        "locked",
        "memory_mb",
        "os_type",
        "reservation_id",
        "root_gb",
        "shutdown_terminate",
        "user_data",
        "vcpus",
        "vm_mode",
    )
)
_ADMIN_SORTS = ("host", "node")


def known(version: int) -> frozenset[str]:
    """The keys that are understood at that microversion."""
    found = frozenset((*_LIKES, *_EQUAL, *_NUMBERS, *_FLAGS, *_SECONDS, *_ADDRESSES, *_OTHERS, *UNBUILT, *INVALID))
    found |= frozenset(_TAGS) if version >= TAGS_SINCE else frozenset()
    late = {"locked": LOCKED_SINCE, "changes-before": BEFORE_SINCE}
    return found - {name for name, since in late.items() if version < since}


def asked(request: Request, page: paging.Page) -> Filters | None:
    """What to look for. None when nothing can match."""
    given = _allowed(request)
    states = _states(request, given)
    if states is None:
        return None
    vm_states, task_states = states
    is_admin = request.caller.is_admin
    all_tenants = _all_tenants(given)
    if all_tenants and not is_admin:
        raise Forbidden("Listing the servers of all projects needs the role admin.")
    project_id = (given.get("project_id") or given.get("tenant_id")) if all_tenants else request.caller.project_id
    since, before = _times(given)
    return Filters(
        project_id=project_id,
        ids=(given["uuid"],) if "uuid" in given else None,
        likes=tuple((column, _pattern(name, given[name])) for name, column in _named(_LIKES, given)),
        equal=tuple(_equal(given)),
        seconds=tuple((column, _second(name, given[name])) for name, column in _named(_SECONDS, given)),
        vm_states=vm_states,
        task_states=task_states,
        zone=given.get("availability_zone"),
        addresses=tuple((version, _pattern(name, given[name])) for name, version in _named(_ADDRESSES, given)),
        tags=Tags(**{way: tuple(given[name].split(",")) for name, way in _named(_TAGS, given)}),
        deleted=_deleted(given, vm_states, in_changes=since is not None or before is not None),
        changes_since_us=since,
        changes_before_us=before,
        sort=_sort(request),
        marker=page.marker,
        limit=page.limit,
    )


def _named(table: dict[str, Any], given: dict[str, str]) -> Iterable[tuple[str, Any]]:
    return ((name, what) for name, what in table.items() if name in given)


def _allowed(request: Request) -> dict[str, str]:
    """The filters that count for this caller."""
    given = request.known_query(known(request.version))
    for name in given:
        if name in INVALID:
            raise BadRequest(f"Invalid filter field: {name}.")
    if not request.caller.is_admin:
        given = {name: value for name, value in given.items() if _EVERYONE.get(name, 10_000) <= request.version}
    for name in given:
        if name in UNBUILT:
            raise BadRequest(f"Servers cannot be filtered by {name} here.")
    return given


def _equal(given: dict[str, str]) -> Iterable[tuple[str, Any]]:
    yield from ((column, given[name]) for name, column in _named(_EQUAL, given))
    yield from ((column, as_integer(name, given[name], 0)) for name, column in _named(_NUMBERS, given))
    yield from ((column, as_flag(name, given[name])) for name, column in _named(_FLAGS, given))


def _second(name: str, value: str) -> int:
    return as_time_us(name, value) // SECOND_US * SECOND_US


def _pattern(name: str, value: str) -> str:
    """A LIKE pattern of what it finds."""
    if len(value) > PATTERN_MAX:
        raise BadRequest(f"Invalid input for {name}: a pattern has at most {PATTERN_MAX} characters.")
    return name_pattern.like(value, name)


def _deleted(given: dict[str, str], vm_states: tuple[str, ...] | None, *, in_changes: bool) -> bool | None:
    """Of those that changed in a span, the deleted ones are told, too, unless they are not asked for."""
    if vm_states == ("deleted",):
        return True
    if "deleted" in given:
        return given["deleted"].lower() in TRUE
    return None if in_changes else False


def _states(request: Request, given: dict[str, str]) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None] | None:
    """vm_states and task_states to look for; None when the status is no status at all, which matches nothing."""
    words = [value for name, value in request.query if name == "status"]
    if not words:
        vm_state, task_state = given.get("vm_state"), given.get("task_state")
        return (vm_state,) if vm_state else None, (task_state,) if task_state else None
    found = [states for word in words if (states := fields.states_of(word)) is not None]
    if not found:
        if request.version >= 38:
            raise BadRequest("Invalid status value")
        return None
    vm_states = tuple(sorted({state for states, _ in found for state in states}))
    if vm_states == ("deleted",) and not request.caller.is_admin:
        raise Forbidden("Only administrators may list deleted instances")
    if any(tasks is None for _, tasks in found):
        return vm_states, None
    return vm_states, tuple(sorted({task for _, tasks in found for task in tasks or ()}))


def _all_tenants(given: dict[str, str]) -> bool:
    if "all_tenants" not in given:
        return False
    word = given["all_tenants"].strip().lower()
    if word in TRUE or word == "":  # `?all_tenants` alone says yes
        return True
    if word in FALSE:
        return False
    raise BadRequest(f"Invalid input for all_tenants: '{word[:40]}' is not a boolean.")


def _times(given: dict[str, str]) -> tuple[int | None, int | None]:
    since = as_time_us("changes-since", given["changes-since"]) if "changes-since" in given else None
    before = as_time_us("changes-before", given["changes-before"]) if "changes-before" in given else None
    if since is not None and before is not None and before < since:
        raise BadRequest("The value of changes-since must be less than or equal to changes-before.")
    return since, before


def _sort(request: Request) -> tuple[tuple[str, bool], ...]:
    keys = [value for name, value in request.query if name == "sort_key"]
    directions = [value for name, value in request.query if name == "sort_dir"]
    if not keys:
        return (("created_at_us", directions[:1] != ["asc"]),)
    directions += (directions[:1] or ["desc"]) * (len(keys) - len(directions))
    order: list[tuple[str, bool]] = []
    for key, direction in zip(keys, directions, strict=False):
        column = "locked" if key == "locked" and request.version >= 73 else SORTS.get(key)
        if (key not in SORTS and key not in UNHEEDED_SORTS) or direction not in ("asc", "desc"):
            raise BadRequest(f"Servers cannot be sorted by {key[:40]} {direction[:40]}; keys are {', '.join(SORTS)}.")
        if key in _ADMIN_SORTS and not request.caller.is_admin:
            raise Forbidden(f"Only administrators can sort servers by {key}.")
        if column is not None:
            order.append((column, direction == "desc"))
    return tuple(paging.order(order, len(SORTS))) or (("created_at_us", True),)
