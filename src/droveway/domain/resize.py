"""A server that is resized, or moved while it is off: what of it is another, and what it was. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from droveway.domain.hardware import claimed_disk_gb
from droveway.domain.model import Flavor


class Sizes(msgspec.Struct, frozen=True):
    """What a server takes of its host, with the flavor (its copy in plain values) that says so."""

    flavor: dict[str, Any]
    flavor_id: str
    vcpus: int
    ram_mb: int
    disk_gb: int


class FormerPlace(msgspec.Struct, frozen=True):
    """Where it goes back to. `ran`: it was not off. `mark`: of the copy of its disk, and the saga of its migration."""

    host: str
    sizes: Sizes
    ran: bool
    mark: str
    is_apart: bool = False  # the two hosts share no instance store: each has a directory of its own


def sizes_of(flavor: Flavor, *, begins_from_volume: bool) -> Sizes:
    root_gb = 0 if begins_from_volume else flavor.disk_gb
    disk_gb = claimed_disk_gb(root_gb, flavor.ephemeral_gb, flavor.swap_mb, 0)
    return Sizes(msgspec.to_builtins(flavor), flavor.id, flavor.vcpus, flavor.ram_mb, disk_gb)


def refusal(before: Flavor, after: Flavor, *, begins_from_volume: bool) -> str:
    """Why a server of the one flavor cannot become one of the other; empty when it can."""
    if before.id == after.id:
        return "When resizing, instances must change flavor!"
    if not begins_from_volume and after.disk_gb == 0:
        return "Resize to zero disk flavor is not allowed."
    if not begins_from_volume and after.disk_gb < before.disk_gb:
        return (
            f"Unable to resize disk down: the root disk of flavor {after.name} has {after.disk_gb} GiB, and the "
            f"server's has {before.disk_gb}; take a flavor with at least as much."
        )
    for noun, was, becomes in (
        ("ephemeral disk", before.ephemeral_gb, after.ephemeral_gb),
        ("swap", before.swap_mb, after.swap_mb),
    ):
        if was != becomes:
            return (
                f"Flavor {after.name} has another {noun} than the server's flavor ({becomes} and {was}), which is not "
                "changed by a resize here; take a flavor that differs in vcpus, memory and root disk alone."
            )
    return ""
