"""What the rows say of a guest that is to move: read once, and checked by name (domain/move_checks.py). The saga of a
live migration begins with it, and so does its dry run."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from droveway.domain import move_checks
from droveway.domain.model import GuestSpec
from droveway.domain.move_checks import CheckAnswer, VolumeBackend
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.fleet.hosts import MigrationSource
from droveway.store.rows import InstanceRow
from droveway.store.volume import attachments, backends
from droveway.store.volume.attachments import HeldVolume


class MoveFacts(msgspec.Struct, frozen=True):
    source: MigrationSource
    spec: GuestSpec
    volumes: tuple[HeldVolume, ...]
    checks: tuple[CheckAnswer, ...]


def read(tx: Tx, instance: InstanceRow, images_path: str) -> MoveFacts:
    """Of one that has a host. Raises NotFound when that host is gone."""
    source = hosts.source(tx, instances.host_of(instance))
    volumes = attachments.held_by(tx, instance["id"])
    holds_cells = bool(instances.cells_of(instance))
    checks = (
        *move_checks.of_server(instance["name"], instance["vm_state"], source.name, holds_cells=holds_cells),
        move_checks.of_source(source.name, source.reason, is_up=source.is_up, hypervisor_up=source.hypervisor_up),
        move_checks.of_backends(backends_of(tx, volumes)),
    )
    return MoveFacts(source, instances.spec(tx, instance, images_path, with_image=False), volumes, checks)


def backends_of(tx: Tx, volumes: Sequence[HeldVolume]) -> list[VolumeBackend]:
    if not volumes:
        return []
    found = backends.health(tx, (held.backend for held in volumes))
    return [
        VolumeBackend(
            held.volume.volume_id,
            held.backend,
            found[held.backend].is_up if held.backend in found else None,
            found[held.backend].reason if held.backend in found else "",
        )
        for held in volumes
    ]
