"""Quotas: what a project may have at most, and how many servers of a request fit below that. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from droveway.domain.faults import Forbidden

UNLIMITED = -1
LIMIT_MAX = 2**31 - 1


class Quotas(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a project may have where no other limit was set; Nova's names and defaults. -1: no limit."""

    instances: int = 10  # servers
    cores: int = 20  # vcpus
    ram: int = 51200  # MiB
    metadata_items: int = 128  # of one server
    injected_files: int = 5  # of one server
    injected_file_content_bytes: int = 10240  # of one file
    injected_file_path_bytes: int = 255  # of its path
    key_pairs: int = 100  # of one user
    server_groups: int = 10  # of the project
    server_group_members: int = 10  # of one group
    image_count_total: int = 100  # images; these two are Glance's names
    image_size_total: int = 102400  # MiB of image data


NO_LIMITS = Quotas(**dict.fromkeys(Quotas.__struct_fields__, UNLIMITED))
# Networks were limited here before they had a service of their own; the API still tells of them at old microversions.
OF_NETWORKS = ("fixed_ips", "floating_ips", "security_groups", "security_group_rules")
OF_IMAGES = ("image_count_total", "image_size_total")  # limits of the image service: compute's API is silent on them
RESOURCES = (*Quotas.__struct_fields__, *OF_NETWORKS)

Limits = Mapping[str, int]  # of every resource


def limits(defaults: Quotas, *changes: Limits) -> dict[str, int]:
    """The limit of every resource: the defaults, then what was set, the last word counting."""
    found = dict.fromkeys(OF_NETWORKS, UNLIMITED) | msgspec.structs.asdict(defaults)
    for change in changes:
        found |= {resource: limit for resource, limit in change.items() if resource in found}
    return found


def is_over(limit: int, used: int, more: int) -> bool:
    """Nothing more is never too much: a limit may have been forced below what is used."""
    return limit != UNLIMITED and more > 0 and used + more > limit


def fitting(least: int, most: int, each: Mapping[str, int], limits: Limits, used: Mapping[str, int]) -> int:
    """How many of `least` to `most` servers fit, each of which takes `each`. Raises Forbidden when not even `least`
    do: with the resources that are exceeded by what was asked for."""
    number = most
    for resource, size in each.items():
        if limits[resource] != UNLIMITED and size:
            number = min(number, (limits[resource] - used[resource]) // size)
    if number >= least:
        return number
    overs = sorted(name for name, size in each.items() if is_over(limits[name], used[name], size * most))
    span = str(least) if least == most else f"{least}-{most}"
    asked = [span if name == "instances" else str(each[name] * most) for name in overs]
    raise Forbidden(
        f"Quota exceeded for {', '.join(overs)}: Requested {', '.join(asked)}, but already used "
        f"{_list(used, overs)} of {_list(limits, overs)} {', '.join(overs)}"
    )


def _list(values: Mapping[str, int], names: list[str]) -> str:
    return ", ".join(str(values[name]) for name in names)


def wrong_limit(resource: str, limit: int, used: int) -> str | None:
    """Why that limit cannot be set without force, as a sentence."""
    if limit == UNLIMITED or limit >= used:
        return None
    return (
        f"Quota limit {limit} for {resource} must be greater than or equal to already used and reserved {used}; "
        "force sets it all the same."
    )
