"""What placing a guest is about: the request, the facts of a host, the operator's settings. Values only; scheduler/
decides on them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from droveway.domain.wire import LIST, Number


class NumaCell(msgspec.Struct, frozen=True):
    """One NUMA cell of a host, as its hypervisor says."""

    id: Number
    cpus: Annotated[tuple[Number, ...], LIST]
    memory_mb: Number


class HeldCell(msgspec.Struct, frozen=True):
    """What a guest holds of one cell of its host. `cpus`: host CPUs that are its alone, in the order of its vcpus; ()
    when its vcpus float over the cell."""

    cell: int
    vcpus: int
    memory_mb: int
    cpus: tuple[int, ...] = ()


class NumaRequest(msgspec.Struct, frozen=True):
    """`nodes` cells, the guest's vcpus and memory spread evenly over them; `pinned`: each vcpu on a CPU of its own."""

    nodes: int = 1
    pinned: bool = False


class GroupPolicy(StrEnum):
    AFFINITY = "affinity"
    ANTI_AFFINITY = "anti-affinity"
    SOFT_AFFINITY = "soft-affinity"
    SOFT_ANTI_AFFINITY = "soft-anti-affinity"


class GroupRequest(msgspec.Struct, frozen=True):
    """The server group of a request. `on_hosts`: the members that each host holds now. `moving`: of affinity, the
    hosts that one of them leaves and comes to: where it will be is not known; a new one might be alone on either."""

    id: str
    policy: GroupPolicy
    on_hosts: dict[str, int] = {}
    max_per_host: int = 1  # of anti-affinity
    moving: tuple[str, ...] = ()


class PlacementRequest(msgspec.Struct, frozen=True):
    """What is wanted. `only`: the host that was asked for; `never`: hosts that are out, each with its sentence."""

    vcpus: int
    ram_mb: int
    disk_gb: int
    only: str | None = None
    zone: str | None = None
    never: dict[str, str] = {}
    project_id: str = ""
    hypervisor_type: str | None = None
    least_hypervisor_version: int = 0
    architecture: str | None = None
    machine_type: str | None = None
    firmware: str | None = None
    extra_specs: dict[str, str] = {}  # the flavor's
    same_host: tuple[str, ...] | None = None  # one of these (hosts of the servers named in the hint)
    different_host: tuple[str, ...] = ()  # none of these
    group: GroupRequest | None = None
    numa: NumaRequest | None = None
    failed: tuple[str, ...] = ()  # hosts on which this very request has failed already
    networked: tuple[str, ...] | None = None  # one of these, whose network agents are up; None: it has no interface
    root_pool: str = ""  # in which its root disk lies, and with which its next host must work; empty: in none
    carriers: dict[str, tuple[str, ...]] = {}  # what its networks need of a host, each with the hosts that have it


class HostFacts(msgspec.Struct, frozen=True):
    """A host at one moment: what it has, what is held of it, and whether it may be used at all.

    `claims` counts every change of what is held there: a claim is written only under the number it was decided on."""

    id: int
    name: str
    uuid: str = ""
    zone: str = "nova"
    is_up: bool = True
    reason: str = ""  # why it is down
    disabled: bool = False
    disabled_reason: str = ""
    refused: str = ""  # why its last report was refused; such a host takes no new guests
    hypervisor_up: bool = True
    hypervisor_hostname: str = ""
    store_trouble: str = ""  # why its instance store cannot be used now
    hypervisor_type: str = ""
    hypervisor_version: int = 0
    architecture: str = "x86_64"
    machine_types: tuple[str, ...] = ()
    firmwares: tuple[str, ...] = ()
    cpu_features: tuple[str, ...] = ()
    aggregates: dict[str, tuple[str, ...]] = {}  # metadata of all aggregates it is in; a key may have several values
    cells: tuple[NumaCell, ...] = ()
    held_cells: tuple[HeldCell, ...] = ()  # of all guests there
    vcpus: int = 0
    memory_mb: int = 0
    reserved_memory_mb: int = 0
    disk_gb: int = 0
    reserved_disk_gb: int = 0
    vcpus_used: int = 0
    ram_mb_used: int = 0
    disk_gb_used: int = 0
    root_pool: str = ""  # of Ceph, whose size and whole use its disk_gb and disk_gb_used are then
    instances: int = 0
    claims: int = 0
    failures: int = 0  # guests that failed to start there lately


class Weights(msgspec.Struct, frozen=True):
    """Multipliers of the weighers; each weigher gives 0 to 1. Below 0 packs instead of spreading."""

    ram: float = 1.0
    cpu: float = 1.0
    disk: float = 1.0
    instances: float = 0.0  # fewer guests are better
    failures: float = 1000.0  # recent failures are worse than anything else
    soft_group: float = 1.0


class PlacementSettings(msgspec.Struct, frozen=True):
    """How far a host may be promised beyond what it has, what is kept back on each, and what makes one better."""

    cpu_ratio: float = 16.0
    ram_ratio: float = 1.0
    disk_ratio: float = 1.0
    reserved_memory_mb: int = 0  # beside what the host itself says
    reserved_disk_gb: int = 0
    weights: Weights = Weights()
    alternatives: int = 8  # how many hosts a plan names: races lost are tried on the next
    wait_for_capacity_s: float = 0.0  # how long a request that finds no host waits for one; 0: it fails at once


class FirstFailure(msgspec.Struct, frozen=True):
    """The first rule that a host fails, and why."""

    rule: str
    reason: str


class FittingHost(msgspec.Struct, frozen=True):
    """A host that fits. `weights`: what each weigher gave it, multiplied; `weight` is their sum."""

    name: str
    weight: float
    weights: dict[str, float] = {}


class RuleRejection(msgspec.Struct, frozen=True):
    """The hosts of which `rule` is the first that they fail. `nearest`: those that failed it by the least, each with
    its sentence."""

    rule: str
    hosts: int
    reason: str
    nearest: tuple[tuple[str, str], ...] = ()


class Plan(msgspec.Struct, frozen=True):
    """One decision with its reasons; it can be stored as it is.

    `first_failing`: a packed byte for each hosts.id: 0 when it fits, 255 when there is no such host, otherwise the
    number of the first rule that it fails: `rules[number - 1]`."""

    hosts: int  # how many were looked at
    fitting: int = 0
    ranked: tuple[FittingHost, ...] = ()  # best first
    fallen: tuple[RuleRejection, ...] = ()  # in the order of the rules
    would_fit: tuple[str, ...] = ()  # "with ram_mb <= 30720: 12 hosts"; only when nothing fits
    rules: tuple[str, ...] = ()
    first_failing: bytes = b""
    seed: int = 0
