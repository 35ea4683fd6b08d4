"""Servers: list, show, delete."""

from __future__ import annotations

from collections.abc import Sequence

from droveway.api.compute import fields, server_intents, server_status
from droveway.api.compute.fields import View
from droveway.api.http import paging
from droveway.api.http.render import FieldTable
from droveway.api.http.request import Request, Response, encode
from droveway.api.http.validate import FALSE, TRUE, as_time_us
from droveway.api.wiring import Api
from droveway.domain import name_pattern
from droveway.domain.faults import BadRequest, Forbidden
from droveway.domain.model import SagaKind
from droveway.store.compute import guest_data, instances, server_locations, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow

PATTERN_MAX = 255
USER_DATA_SINCE = 3


# -- show, delete -----------------------------------------------------------------------------------------------------
async def show(api: Api, request: Request) -> Response:
    def read(tx: Tx) -> tuple[InstanceRow, View]:
        row = instances.get(tx, request.params["server_id"], request.scope)
        return row, view(tx, api, request, [row])

    row, seen = await api.store.read(read)
    render = fields.SERVER_SHOW.renderer(request.version, is_admin=request.caller.is_admin)
    return Response(200, {"server": render(row, seen)})


def view(tx: Tx, api: Api, request: Request, rows: Sequence[InstanceRow]) -> View:
    """What details tell beside the rows."""
    shows_user_data = request.caller.is_admin and request.version >= USER_DATA_SINCE
    ids, has_networks = [row["id"] for row in rows], api.settings.network.is_on
    return View(
        api.settings.base_url,
        server_locations.of(tx, (row["host"] for row in rows)),
        user_data=guest_data.user_data_of(tx, ids) if shows_user_data else {},
        addresses=server_ports.addresses(tx, ids) if has_networks else {},
        group_names=server_ports.group_names(tx, ids) if has_networks else {},
    )


async def delete(api: Api, request: Request) -> Response:
    def write(tx: Tx) -> None:
        row = server_intents.changeable(tx, request, SagaKind.DELETE)
        instances.intend(tx, row["id"], server_intents.kind_of_deletion(api, row), {}, request.id)

    await api.store.run(write)
    return Response(204)


# -- list -------------------------------------------------------------------------------------------------------------
async def listing(api: Api, request: Request) -> Response:
    return await _list(api, request, fields.SERVER)


async def detail(api: Api, request: Request) -> Response:
    return await _list(api, request, fields.SERVER_DETAIL)


async def _list(api: Api, request: Request, table: FieldTable[InstanceRow]) -> Response:
    page = paging.asked(api, request)
    filters = _filters(request, page)
    if filters is None or not page.limit:
        return Response(200, {"servers": []})

    def read(tx: Tx) -> bytes:
        rows = _find(tx, filters)
        seen = view(tx, api, request, rows) if table is fields.SERVER_DETAIL else View(api.settings.base_url)
        items = table.render(rows, request.version, seen, is_admin=request.caller.is_admin)
        return encode(paging.listed(api, request, page, "servers", items, rows))

    return Response(200, await api.store.read(read))


def _find(tx: Tx, filters: instances.Filters) -> Sequence[InstanceRow]:
    if filters.marker is not None:
        with paging.marked(filters.marker):
            instances.get(tx, filters.marker, filters.project_id, deleted=True)
    return instances.find(tx, filters)


# Filters that everyone may use; those of administrators; those that OpenStack knows and this program does not.
_EVERYONE = frozenset(
    (
        "name",
        "display_name",
        "status",
        "image",
        "image_ref",
        "flavor",
        "reservation_id",
        "changes-since",
        "changes-before",
        "all_tenants",
        "uuid",
        "limit",
        "marker",
        "sort_key",
        "sort_dir",
        "deleted",
        "project_id",
        "tenant_id",
    )
)
_ADMIN = frozenset(("host", "user_id", "vm_state", "task_state", "availability_zone"))
_UNBUILT = frozenset(
    (
        "launch_index",
        "kernel_id",
        "ramdisk_id",
        "hostname",
        "key_name",
        "power_state",
        "node",
        "launched_at",
        "terminated_at",
        "description",
        "display_description",
        "locked_by",
        "root_device_name",
        "config_drive",
        "access_ip_v4",
        "access_ip_v6",
        "auto_disk_config",
        "progress",
        "soft_deleted",
        "ip",
        "ip6",
        "created_at",
    )
)
_TAGS = frozenset(("tags", "tags-any", "not-tags", "not-tags-any"))
_INVALID = frozenset(
    ("block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices")
)
_ADMIN_ONLY_BEFORE_83 = frozenset(("user_id", "vm_state", "task_state", "availability_zone"))
# Sort keys and their columns. None: every server here has the same, so sorting by it changes nothing.
_SORTS: dict[str, str | None] = {
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
    "access_ip_v4": None,
    "access_ip_v6": None,
    "auto_disk_config": None,
    "kernel_id": None,
    "locked_by": None,
    "ramdisk_id": None,
    "root_device_name": None,
}
# Nova takes them and does not heed them.
_UNHEEDED_SORTS = frozenset(
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


def _known(version: int) -> frozenset[str]:
    known = _EVERYONE | _ADMIN | _UNBUILT | _INVALID
    if version >= 26:
        known |= _TAGS
    return known | {"locked"} if version >= 73 else known


def _filters(request: Request, page: paging.Page) -> instances.Filters | None:
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
    return instances.Filters(
        project_id=project_id,
        user_id=given.get("user_id"),
        ids=(given["uuid"],) if "uuid" in given else None,
        name_like=_pattern(given),
        vm_states=vm_states,
        task_states=task_states,
        host=given.get("host"),
        zone=given.get("availability_zone"),
        image_id=given.get("image") or given.get("image_ref"),
        flavor_id=given.get("flavor"),
        reservation_id=given.get("reservation_id"),
        deleted=(is_admin and given.get("deleted", "").lower() in TRUE) or vm_states == ("deleted",),
        changes_since_us=since,
        changes_before_us=before,
        sort=_sort(request),
        marker=page.marker,
        limit=page.limit,
    )


def _allowed(request: Request) -> dict[str, str]:
    """The filters that count for this caller; what only administrators may use is left out for others."""
    given = request.known_query(_known(request.version))
    for name in given:
        if name in _INVALID:
            raise BadRequest(f"Invalid filter field: {name}.")
        if name in _UNBUILT or name in _TAGS or name == "locked":
            raise BadRequest(f"Servers cannot be filtered by {name} here.")
    if not request.caller.is_admin:
        forbidden = {"host", "deleted"} | (_ADMIN_ONLY_BEFORE_83 if request.version < 83 else frozenset())
        given = {name: value for name, value in given.items() if name not in forbidden}
    return given


def _states(request: Request, given: dict[str, str]) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None] | None:
    """vm_states and task_states to look for; None when the status is no status at all, which matches nothing."""
    words = [value for name, value in request.query if name == "status"]
    if not words:
        vm_state, task_state = given.get("vm_state"), given.get("task_state")
        return (vm_state,) if vm_state else None, (task_state,) if task_state else None
    found = [states for word in words if (states := server_status.states_of(word)) is not None]
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


def _pattern(given: dict[str, str]) -> str | None:
    """The name to look for, as a LIKE pattern."""
    pattern = given.get("name", given.get("display_name"))
    if pattern is None:
        return None
    if len(pattern) > PATTERN_MAX:
        raise BadRequest(f"Invalid input for name: a pattern has at most {PATTERN_MAX} characters.")
    return name_pattern.like(pattern)


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
        column = "locked" if key == "locked" and request.version >= 73 else _SORTS.get(key)
        if (key not in _SORTS and key not in _UNHEEDED_SORTS) or direction not in ("asc", "desc"):
            raise BadRequest(f"Servers cannot be sorted by {key[:40]} {direction[:40]}; keys are {', '.join(_SORTS)}.")
        if key in _ADMIN_SORTS and not request.caller.is_admin:
            raise Forbidden(f"Only administrators can sort servers by {key}.")
        if column is not None:
            order.append((column, direction == "desc"))
    return tuple(paging.order(order, len(_SORTS))) or (("created_at_us", True),)
