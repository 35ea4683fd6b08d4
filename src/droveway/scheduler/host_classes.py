"""What many hosts have in common, so that a rule is asked once for all of them. Pure, and without numpy."""

from __future__ import annotations

import msgspec

from droveway.domain.placement import HostFacts


class HostClass(msgspec.Struct, frozen=True):
    """What hosts of one make have in common."""

    hypervisor_type: str
    hypervisor_version: int
    architecture: str
    machine_types: tuple[str, ...]
    firmwares: tuple[str, ...]
    cpu_features: tuple[str, ...]


Metadata = tuple[tuple[str, tuple[str, ...]], ...]


def metadata_of(facts: HostFacts) -> Metadata:
    """The metadata of its aggregates in one order; a value may be a list with commas, as Nova's operators write it."""
    split = {
        key: tuple(sorted({word.strip() for value in values for word in value.split(",")}))
        for key, values in facts.aggregates.items()
    }
    return tuple(sorted(split.items()))


def host_class_of(facts: HostFacts) -> HostClass:
    return HostClass(
        facts.hypervisor_type,
        facts.hypervisor_version,
        facts.architecture,
        facts.machine_types,
        facts.firmwares,
        facts.cpu_features,
    )
