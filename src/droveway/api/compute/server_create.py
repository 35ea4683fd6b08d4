"""POST /servers: everything is checked, the quota is claimed, and the rows and the sagas that boot the servers are
written, all in one transaction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from droveway.api.compute import block_devices, device_body, hints, server_nics
from droveway.api.compute.block_devices import Disk
from droveway.api.compute.device_body import Device
from droveway.api.compute.server_body import NewServer, NicsAsked, Server, check_metadata
from droveway.api.http.bodies import takes
from droveway.api.http.render import links
from droveway.api.http.request import Request, Response
from droveway.api.http.validate import as_host, as_integer, as_name, as_text
from droveway.api.wiring import Api
from droveway.domain.faults import BadRequest, Forbidden, NotFound
from droveway.domain.guest_data import GuestKey
from droveway.domain.model import Flavor
from droveway.scheduler import hardware
from droveway.scheduler import image_properties as image_specs
from droveway.store.compute import flavors, instances, keypairs, quotas, server_groups, server_locations
from droveway.store.compute.instances import NewInstance
from droveway.store.engine.transaction import Tx
from droveway.store.image import images
from droveway.store.rows import ImageRow

GIB = 1024**3


class ServerRequest(NamedTuple):
    """The request, checked as far as that goes without the store."""

    name: str
    hostname: str | None
    least: int  # how many servers
    most: int
    flavor_id: str
    image_id: str
    zone: str | None
    host: str | None
    node: str | None
    description: str | None
    metadata: dict[str, str]
    tags: tuple[str, ...]
    hints: dict[str, Any]
    returns_reservation: bool
    admin_password: str | None
    networks: NicsAsked
    groups: tuple[str, ...]
    key_name: str | None
    user_data: str | None
    config_drive: bool
    access_ipv4: str | None
    access_ipv6: str | None
    auto_disk_config: bool
    devices: tuple[Device, ...]
    disks: tuple[Disk, ...]  # the volumes among them


def begins_from(disks: Sequence[Disk]) -> bool:
    """Whether the server begins from one of these, and not from a disk of its image."""
    return any(one.boot_index == 0 for one in disks)


class Root(NamedTuple):
    """What the server begins from, and what it says of it. `image_id`: of which its host makes its root disk."""

    disks: tuple[Disk, ...]
    properties: dict[str, Any]
    image_id: str | None = None
    virtual_bytes: int = 0


def _root(tx: Tx, request: Request, wanted: ServerRequest, flavor: Flavor) -> Root:
    """Raises BadRequest."""
    image = image_of(tx, wanted.image_id, request.scope) if wanted.image_id else None
    disks = wanted.disks
    if image is not None and not begins_from(disks):
        disks = (*block_devices.of_image(image), *disks)
    block_devices.check_local_sizes(wanted.devices, flavor)
    if image is not None and not begins_from(disks):
        check_image(image, flavor)
        return Root(disks, image["properties"], wanted.image_id, image["virtual_size_bytes"] or 0)
    volume = block_devices.root_of(tx, request, disks, names_image=image is not None)
    properties = block_devices.without_mapping(image["properties"] if image is not None else volume.properties)
    if flavor.ram_mb < (image["min_ram_mb"] if image is not None else volume.min_ram_mb):
        raise BadRequest("Flavor's memory is too small for requested image.")
    _check_properties(properties, flavor)
    return Root(disks, properties)


def _write(tx: Tx, api: Api, request: Request, wanted: ServerRequest, reservation_id: str) -> tuple[list[str], bool]:
    """Their ids, and whether they have a config drive."""
    caller = request.caller
    assert caller.project_id is not None, "the route needs a project"
    flavor = _flavor(tx, wanted.flavor_id, request.scope)
    root = _root(tx, request, wanted, flavor)
    check_zone(tx, wanted.zone)
    host = _check_host(tx, wanted)
    group_id = _check_group(tx, hints.group_of(wanted.hints), caller.project_id)
    count = _claim(tx, api, wanted, caller.project_id, flavor, group_id)
    has_drive = wanted.config_drive or root.properties.get("img_config_drive") == "mandatory"
    new = NewInstance(
        project_id=caller.project_id,
        user_id=caller.user_id,
        name="",
        hostname="",
        flavor=flavor,
        image_id=root.image_id,
        image_properties=image_specs.kept(root.properties),
        image_virtual_bytes=root.virtual_bytes,
        description=wanted.description,
        metadata=wanted.metadata,
        tags=wanted.tags,
        access_ipv4=wanted.access_ipv4,
        access_ipv6=wanted.access_ipv6,
        auto_disk_config=wanted.auto_disk_config,
        zone=wanted.zone,
        requested_host=host,
        config_drive=has_drive,
        admin_password=wanted.admin_password if has_drive else None,
        key=key_of(tx, caller.user_id, wanted.key_name),
        user_data=wanted.user_data,
        nics=server_nics.resolved(tx, api, request, wanted.networks, count, caller.project_id),
        group_ids=server_nics.group_ids(tx, api, caller.project_id, wanted.groups),
        hints=wanted.hints,
        server_group_id=group_id,
        reservation_id=reservation_id,
        request_id=request.id,
    )
    if count > 1 and any(one.source == device_body.VOLUME for one in root.disks):
        raise BadRequest("Cannot attach one or more volumes to multiple instances")
    ids = []
    for index, name in enumerate(_names(wanted.name, count)):
        hostname = wanted.hostname or _as_hostname(name, f"server-{request.id[4:12]}-{index}")
        disks = block_devices.attach_all(tx, api, request, root.disks)
        one = msgspec.structs.replace(new, name=name, hostname=hostname, launch_index=index, volumes=disks)
        ids.append(instances.create(tx, one))
    return ids, has_drive


def _claim(tx: Tx, api: Api, wanted: ServerRequest, project_id: str, flavor: Flavor, group_id: str | None) -> int:
    """How many servers the quota lets in now. Raises Forbidden."""
    limits = quotas.limits(tx, project_id, api.settings.quotas)
    check_metadata(wanted.metadata, limits)
    each = {"cores": flavor.vcpus, "ram": flavor.ram_mb}
    count = quotas.claim_servers(tx, project_id, limits, (wanted.least, wanted.most), each)
    if group_id is not None:
        quotas.claim_members(tx, group_id, limits, count)
    return count


def _names(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}-{number}" for number in range(1, count + 1)]


def _flavor(tx: Tx, flavor_id: str, project_id: str | None) -> Flavor:
    try:
        flavor = flavors.as_model(flavors.get(tx, flavor_id, project_id))
    except NotFound as fault:
        raise BadRequest(fault.reason) from None
    if flavor.disabled:
        raise BadRequest(f"Flavor {flavor.name} is disabled.")
    return flavor


def image_of(tx: Tx, image_id: str, project_id: str | None) -> ImageRow:
    try:
        image = images.get(tx, image_id, project_id)
    except NotFound:
        raise BadRequest(f"Can not find requested image {image_id}.") from None
    if image["status"] != images.ACTIVE:
        raise BadRequest(f"Image {image_id} is not active: it is {image['status']}.")
    return image


def check_image(image: ImageRow, flavor: Flavor) -> None:
    if flavor.ram_mb < image["min_ram_mb"]:
        raise BadRequest(f"Flavor's memory is too small for requested image: it needs {image['min_ram_mb']} MiB.")
    needed_bytes = max(image["min_disk_gb"] * GIB, image["virtual_size_bytes"] or 0)
    if flavor.disk_gb and flavor.disk_gb * GIB < needed_bytes:
        raise BadRequest(
            f"Flavor's disk is too small for requested image. Flavor disk is {flavor.disk_gb * GIB} bytes, "
            f"image needs {needed_bytes} bytes."
        )
    _check_properties(image["properties"], flavor)


def _check_properties(properties: dict[str, str], flavor: Flavor) -> None:
    """What is not heeded, and what no host could ever give, is refused now, not by placing."""
    reason = hardware.refusal(flavor.extra_specs, properties, flavor.vcpus)
    if reason is not None:
        raise BadRequest(reason)


def check_zone(tx: Tx, zone: str | None) -> None:
    if zone is not None and not server_locations.has_zone(tx, zone):
        raise BadRequest(f"The requested availability zone is not available: there is no zone {zone}.")


def _check_host(tx: Tx, wanted: ServerRequest) -> str | None:
    """The host that was asked for by its own name or by that of its hypervisor; there must be one."""
    if wanted.host is None and wanted.node is None:
        return None
    host = server_locations.named(tx, wanted.host, wanted.node)
    if host is None:
        with_node = f" with hypervisor {wanted.node}" if wanted.host and wanted.node else ""
        raise BadRequest(f"Compute host {wanted.host or wanted.node}{with_node} could not be found.")
    return host


def key_of(tx: Tx, user_id: str, name: str | None) -> GuestKey | None:
    """The key pair of the caller; the server keeps a copy. Raises BadRequest."""
    if name is None:
        return None
    try:
        row = keypairs.get(tx, user_id, name)
    except NotFound:
        raise BadRequest(f"Invalid key_name provided: you have no key pair {name[:64]}.") from None
    return GuestKey(row["name"], row["type"], row["public_key"])


def _check_group(tx: Tx, group_id: str | None, project_id: str) -> str | None:
    """The group of the hint. It must be one of the project: its rule is about servers of the same owner."""
    if group_id is None:
        return None
    try:
        return str(server_groups.get(tx, group_id, project_id)["id"])
    except NotFound as fault:
        raise BadRequest(fault.reason) from None


# -- the body ---------------------------------------------------------------------------------------------------------
def _wanted(api: Api, request: Request, given: NewServer) -> ServerRequest:
    """What of it depends on the caller, or on more than one member."""
    server = given.server
    least, most = _count(api, server)
    zone, host, node = _place(request, server)
    disks = block_devices.asked(server.old_devices, server.devices, server.image_id)
    block_devices.check_order(disks, has_root_disk=bool(server.image_id) and not begins_from(disks))
    as_text("server.name", _names(server.name, most)[-1])  # the longest
    server_nics.check(api, request, server.networks, server.security_groups, most)
    if server.hostname is not None and most > 1:
        raise BadRequest("Unable to allocate a single hostname to multiple instances.")
    return ServerRequest(
        name=server.name,
        hostname=server.hostname,
        least=least,
        most=most,
        flavor_id=server.flavor_id,
        image_id=server.image_id,
        zone=zone,
        host=host,
        node=node,
        description=server.description if request.version >= 19 else server.name,
        metadata=server.metadata,
        tags=server.tags,
        hints=hints.given({hints.NAMES[0]: given.scheduler_hints, hints.NAMES[1]: given.old_hints}),
        returns_reservation=server.return_reservation_id,
        admin_password=server.admin_password,
        networks=server.networks,
        groups=server.security_groups,
        key_name=server.key_name,
        user_data=server.user_data,
        config_drive=server.config_drive,
        access_ipv4=server.access_ipv4,
        access_ipv6=server.access_ipv6,
        auto_disk_config=server.auto_disk_config,
        devices=server.devices,
        disks=disks,
    )


def _count(api: Api, server: Server) -> tuple[int, int]:
    """How many servers at least and at most: as many are made as the quota lets in."""
    bound = api.settings.servers_per_request_max
    least = as_integer("server.min_count", server.min_count, 1, bound)
    most = least if server.max_count is None else as_integer("server.max_count", server.max_count, 1, bound)
    if least > most:
        raise BadRequest("min_count must be <= max_count")
    return least, most


def _place(request: Request, server: Server) -> tuple[str | None, str | None, str | None]:
    """Zone, host and hypervisor asked for. `zone:host:node` in availability_zone is the old way to name a host."""
    asked = server.availability_zone
    zone, host, node = asked, server.host, server.hypervisor_hostname
    if isinstance(asked, str) and ":" in asked:
        if host or node:
            raise BadRequest("A host is named twice: by host or hypervisor_hostname, and within availability_zone.")
        parts = asked.split(":")
        if len(parts) > 3:
            raise BadRequest("Unable to parse availability_zone: it is zone, zone:host or zone:host:node.")
        zone, host, node = [*(part or None for part in parts), None, None][:3]
    if (host or node) and not request.caller.is_admin:
        raise Forbidden("Naming the host of a server needs the role admin.")
    return (
        as_name("server.availability_zone", zone) if zone is not None else None,
        as_host("server.host", host) if host is not None else None,
        as_host("server.hypervisor_hostname", node) if node is not None else None,
    )


def _as_hostname(name: str, otherwise: str) -> str:
    """What a guest may call itself: the name without anything that host names cannot hold."""
    text = re.sub(r"[ _.]", "-", name.lower())
    return re.sub(r"[^a-z0-9-]", "", text).strip("-")[:63].strip("-") or otherwise


# -- the request ------------------------------------------------------------------------------------------------------
@takes(NewServer)
async def create(api: Api, request: Request, given: NewServer) -> Response:
    wanted = _wanted(api, request, given)
    reservation_id = f"r-{api.names.uuid()[:8]}"
    ids, has_drive = await api.store.run(_write, api, request, wanted, reservation_id)
    if wanted.returns_reservation:
        return Response(202, {"reservation_id": reservation_id})
    base = api.settings.base_url
    server: dict[str, Any] = {
        "id": ids[0],
        "links": links(base, "servers", ids[0]),
        "OS-DCF:diskConfig": "AUTO" if wanted.auto_disk_config else "MANUAL",
        "security_groups": [{"name": name} for name in wanted.groups or ("default",)],
    }
    if wanted.admin_password is not None and has_drive:  # by which alone its guest learns of it
        server["adminPass"] = wanted.admin_password
    location = f"{base}/compute/v2.1/servers/{ids[0]}".encode()
    return Response(202, {"server": server}, headers=[(b"location", location)])
