"""The table [volume] of the configuration file: how block storage is offered; where volumes lie stands under
[[host.backend]]."""

from __future__ import annotations

import msgspec

from droveway.domain.quota import LIMIT_MAX, UNLIMITED
from droveway.domain.volume.quota import VolumeQuotas

NAME_MAX = 255


class VolumeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the APIs know it."""

    default_type: str = "__DEFAULT__"  # of volumes that name none; that one is there from the start
    default_zone: str = "nova"  # of volumes that name none
    quota: VolumeQuotas = VolumeQuotas()  # of each project; `openstack quota set` changes them for one


def numbers(volume: VolumeConfig) -> list[tuple[str, float, float, float, str]]:
    return [
        (f"volume.quota.{name}", limit, UNLIMITED, LIMIT_MAX, "where -1 is no limit, such as 10")
        for name, limit in msgspec.structs.asdict(volume.quota).items()
    ]


def problems(volume: VolumeConfig) -> list[str]:
    """Every sentence that is wrong with it beyond its numbers."""
    return [
        f"volume.{key} must be a name of 1 to {NAME_MAX} characters"
        for key, name in (("default_type", volume.default_type), ("default_zone", volume.default_zone))
        if not 0 < len(name.strip()) <= NAME_MAX
    ]
