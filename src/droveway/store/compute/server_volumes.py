"""The volumes of servers: how one becomes a server's, by the request that asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from droveway.domain.volume import devices
from droveway.scheduler import hardware
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow
from droveway.store.volume import attachments
from droveway.store.volume.attachments import NewAttachment


def reserve(tx: Tx, server: InstanceRow, new: NewAttachment) -> str:
    """Beside those that it has: it may run already. The attachment's id. Raises NotFound, BadRequest."""
    there = attachments.of_instance(tx, server["id"])
    flavor = server["flavor"]
    disk_bus = hardware.of(flavor.get("extra_specs") or {}, server["image_properties"], server["vcpus"]).disk_bus
    bus = devices.bus_of(disk_bus, is_running=True)
    taken = [one["device"] for one in there if one["device"]]
    has_root_disk = all(one["boot_index"] != 0 for one in there)
    device = devices.next_device(bus, taken, _local(server, has_root_disk), config_drive=server["config_drive"])
    return attachments.reserve(tx, server, msgspec.structs.replace(new, bus=bus, device=device))


def reserve_all(tx: Tx, server: InstanceRow, several: Sequence[NewAttachment]) -> None:
    """Those of a server that is made in this transaction. Raises NotFound, BadRequest."""
    flavor = server["flavor"]
    disk_bus = hardware.of(flavor.get("extra_specs") or {}, server["image_properties"], server["vcpus"]).disk_bus
    local = _local(server, has_root_disk=all(one.boot_index != 0 for one in several))
    taken: list[str] = []
    for one in several:
        bus = one.bus or disk_bus
        if one.boot_index == 0:
            device = devices.root_device(bus)
        else:
            device = devices.next_device(bus, taken, local, config_drive=server["config_drive"])
        taken.append(device)
        attachments.reserve(tx, server, msgspec.structs.replace(one, bus=bus, device=device))


def _local(server: InstanceRow, has_root_disk: bool) -> int:
    """How many disks lie on its host."""
    flavor = server["flavor"]
    return has_root_disk + bool(flavor.get("ephemeral_gb")) + bool(flavor.get("swap_mb"))
