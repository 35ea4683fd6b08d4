"""What an instance wants of a host, read from its row, its flavor's copy, its image and its server group."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from droveway.domain.placement import PlacementRequest
from droveway.domain.service_kinds import NETWORK
from droveway.scheduler import extra_specs as specs
from droveway.scheduler import image_properties
from droveway.store.compute import group_members, instances, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts, services
from droveway.store.rows import InstanceRow


class UserRequest(msgspec.Struct, frozen=True):
    """A request in the words of its user; of an instance that is not there yet, or of one that is."""

    project_id: str
    flavor: dict[str, Any]
    disk_gb: int = 0  # in all
    properties: dict[str, str] = {}  # of its image
    zone: str | None = None
    host: str | None = None
    hints: dict[str, Any] = {}
    group_id: str | None = None
    instance_id: str = ""  # does not count among its own group
    failed: tuple[str, ...] = ()


def ask_of(tx: Tx, user_request: UserRequest) -> PlacementRequest:
    """The request as placing looks at it."""
    flavor = user_request.flavor
    properties = user_request.properties
    # A trait of the CPU is the same wish in a flavor and in an image.
    extra_specs: dict[str, str] = image_properties.traits(properties) | (flavor.get("extra_specs") or {})
    hints = user_request.hints
    wanted = specs.image_ask(properties)
    networked = services.hosts_up(tx, NETWORK) if server_ports.has_any(tx, user_request.instance_id) else None
    return PlacementRequest(
        flavor["vcpus"],
        flavor["ram_mb"],
        user_request.disk_gb,
        only=user_request.host,
        zone=user_request.zone,
        project_id=user_request.project_id,
        hypervisor_type=wanted.hypervisor_type,
        least_hypervisor_version=wanted.least_hypervisor_version,
        architecture=wanted.architecture,
        machine_type=wanted.machine_type,
        firmware=wanted.firmware,
        extra_specs=extra_specs,
        same_host=_hosts_of(tx, user_request.project_id, hints["same_host"]) if hints.get("same_host") else None,
        different_host=_hosts_of(tx, user_request.project_id, hints.get("different_host")),
        group=None
        if user_request.group_id is None
        else group_members.ask(tx, user_request.group_id, but=user_request.instance_id),
        numa=specs.numa_ask(extra_specs, properties),
        failed=user_request.failed,
        networked=networked,
        carriers=_carriers(tx, user_request.instance_id, networked) if networked else {},
    )


def _carriers(tx: Tx, instance_id: str, networked: Collection[str]) -> dict[str, tuple[str, ...]]:
    """As far as not every host with a network agent has it."""
    found = server_ports.carriers(tx, instance_id)
    return {need: hosts for need, hosts in found.items() if not set(networked) <= set(hosts)}


def to_boot(tx: Tx, instance: InstanceRow, params: dict[str, Any]) -> PlacementRequest:
    """For its first start; `params` are its saga's."""
    return ask_of(
        tx, _user_request(instance, host=params.get("requested_host"), failed=tuple(params.get("failed", ())))
    )


def to_move(
    tx: Tx,
    instance: InstanceRow,
    source: hosts.MigrationSource,
    destination: str | None,
    *,
    is_forced: bool = False,
) -> PlacementRequest:
    """For its live migration: a host of the same kind as the one it runs on. One that holds cells is not moved.
    `is_forced`: what its user and the operator would rather have is left out (zone, aggregates, hints, group); what
    the guest needs to run there is not."""
    ask = ask_of(tx, _user_request(instance, host=destination))
    if is_forced:
        ask = msgspec.structs.replace(ask, zone=None, extra_specs={}, same_host=None, different_host=(), group=None)
    root_pool = instance["root_pool"] or ""
    return msgspec.structs.replace(
        ask,
        root_pool=root_pool,
        disk_gb=0 if root_pool else ask.disk_gb,  # it is counted in that pool already
        never={source.name: "it runs there already"},
        hypervisor_type=source.hypervisor_type,
        least_hypervisor_version=source.hypervisor_version,
        numa=None,
    )


def to_resize(
    tx: Tx, instance: InstanceRow, source: hosts.MigrationSource, destination: str | None, sizes: Mapping[str, Any]
) -> PlacementRequest:
    """For a move while it is off, of another flavor perhaps: another host of the same hypervisor. `sizes`: {flavor,
    disk_gb}, as it will be."""
    user_request = msgspec.structs.replace(
        _user_request(instance, host=destination), flavor=sizes["flavor"], disk_gb=sizes["disk_gb"]
    )
    return msgspec.structs.replace(
        ask_of(tx, user_request),
        never={source.name: "it is there already"},
        hypervisor_type=source.hypervisor_type or None,
    )


def _user_request(instance: InstanceRow, *, host: str | None, failed: tuple[str, ...] = ()) -> UserRequest:
    return UserRequest(
        project_id=instance["project_id"],
        flavor=instance["flavor"],
        disk_gb=instance["disk_gb"],
        properties=instance["image_properties"],
        zone=instance["zone"],
        host=host,
        hints=instance["hints"] or {},
        group_id=instance["server_group_id"],
        instance_id=instance["id"],
        failed=failed,
    )


def _hosts_of(tx: Tx, project_id: str, servers: Any) -> tuple[str, ...]:
    """Where the servers of a hint are now; one alone may stand without a list. Another project's is as absent as one
    that never existed: a hint does not disclose where it is."""
    ids = [servers] if isinstance(servers, str) else list(servers or ())
    rows = instances.by_ids(tx, ids)
    own = (row for row in rows.values() if row["project_id"] == project_id and not row["deleted"])
    return tuple(sorted({row["host"] for row in own if row["host"]}))
