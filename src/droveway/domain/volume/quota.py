"""What a project may have of block storage. Pure.

Beside the limits of everything there are those of one type each: `volumes_NAME`, `gigabytes_NAME`, `snapshots_NAME`;
in the store they stand under the type's id, which no renaming changes.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from droveway.domain.faults import TooLarge
from droveway.domain.quota import UNLIMITED, is_over


class VolumeQuotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a project may have where nobody has set another limit; Cinder's names and defaults. -1: no limit."""

    volumes: int = 10  # that a project has
    gigabytes: int = 1000  # GiB, of volumes and of their snapshots
    snapshots: int = 10  # of all its volumes
    per_volume_gigabytes: int = -1  # GiB of one volume
    backups: int = 10  # of all its volumes
    backup_gigabytes: int = 1000  # GiB of the volumes that were backed up
    groups: int = 10  # of volumes: there are none here, and clients ask


NO_VOLUME_LIMITS = VolumeQuotas(**dict.fromkeys(VolumeQuotas.__struct_fields__, UNLIMITED))
RESOURCES = VolumeQuotas.__struct_fields__
OF_TYPES = ("volumes", "gigabytes", "snapshots")
_WORDS = {
    "volumes": "Maximum number of volumes allowed ({limit}) exceeded for quota '{name}'.",
    "snapshots": "Maximum number of snapshots allowed ({limit}) exceeded for quota '{name}'.",
    "backups": "Maximum number of backups allowed ({limit}) exceeded.",
    "backup_gigabytes": (
        "Requested backup exceeds allowed Backup gigabytes quota. Requested {more}G, quota is {limit}G and {used}G has "
        "been consumed."
    ),
    "gigabytes": (
        "Requested volume or snapshot exceeds allowed {name} quota. Requested {more}G, quota is {limit}G and {used}G "
        "has been consumed."
    ),
}


def of_type(resource: str, type_id: str) -> str:
    """How the store calls it."""
    return f"{resource}:{type_id}"


def check(resource: str, name: str, limit: int, used: int, more: int) -> None:
    """`name`: as the API calls it. Raises TooLarge, as Cinder answers."""
    if is_over(limit, used, more):
        raise TooLarge(_WORDS[resource].format(name=name, limit=limit, used=used, more=more))


def check_size(limits: Mapping[str, int], size_gb: int) -> None:
    """Of one volume. Raises TooLarge."""
    limit = limits["per_volume_gigabytes"]
    if limit != UNLIMITED and size_gb > limit:
        raise TooLarge(f"Requested volume size {size_gb}G is larger than maximum allowed limit {limit}G.")
