"""The rules a host must keep, as a table. Its order is the order of "the first rule that it fails".

| rule | OpenStack's name |
|---|---|
| asked | the `host` or `hypervisor_hostname` of a request |
| never | ignore_hosts; DifferentHost for a guest that moves |
| failed | RetryFilter |
| zone | AvailabilityZoneFilter |
| up, enabled | ComputeFilter |
| believed | none: Nova takes every report for true |
| answers | none: Nova counts such a host as up |
| store | none: Nova's host waits for its disk, and is up |
| hypervisor, version, architecture, machine, firmware | ImagePropertiesFilter |
| capabilities | ComputeCapabilitiesFilter; required traits of the CPU |
| aggregates | AggregateInstanceExtraSpecsFilter |
| project | AggregateMultiTenancyIsolation |
| same_host | SameHostFilter |
| different_host | DifferentHostFilter |
| affinity | ServerGroupAffinityFilter |
| anti_affinity | ServerGroupAntiAffinityFilter |
| ram, cpu, disk | Placement's MEMORY_MB, VCPU and PCPU, DISK_GB |
| numa | NUMATopologyFilter |

`keep` looks at all hosts at once and gives True for those that keep the rule, or None when nobody can fail it. `say` is
the reason of one host, `together` that of all that fell. A rule with `room` is about an amount.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from droveway.domain.placement import Ask, GroupPolicy, HostFacts, PlacementSettings
from droveway.scheduler import numa, reasons
from droveway.scheduler.columns import Bytes, Columns, Ints, Mask, Texts
from droveway.scheduler.host_classes import Kind, Metadata
from droveway.scheduler.matching import aggregate_specs, architecture_of, capability_specs, same_hypervisor, same_text


@dataclass(frozen=True, slots=True)
class Sight:
    """What a rule sees: all hosts, the request, and the operator's settings."""

    columns: Columns
    ask: Ask
    settings: PlacementSettings


def _rows(sight: Sight, names: Iterable[str], there: bool) -> Mask:
    """`there` in the rows of these hosts, and its opposite in all others."""
    mask = np.full(len(sight.columns), not there)
    for name in names:
        row = sight.columns.row(name)
        if row is not None:
            mask[row] = there
    return mask


def _asked(sight: Sight) -> Mask | None:
    return None if sight.ask.only is None else _rows(sight, (sight.ask.only,), True)


def _never(sight: Sight) -> Mask | None:
    return _rows(sight, sight.ask.never, False) if sight.ask.never else None


def _failed(sight: Sight) -> Mask | None:
    return _rows(sight, sight.ask.failed, False) if sight.ask.failed else None


def _zone(sight: Sight) -> Mask | None:
    if sight.ask.zone is None:
        return None
    mask: Mask = sight.columns.column("zone") == sight.columns.zones.known(sight.ask.zone)
    return mask


def _flag(name: str) -> Callable[[Sight], Mask]:
    return lambda sight: sight.columns.column(name)


def _known(texts: Texts, column: Ints, key: tuple[object, ...], asked: Callable[[Any], bool]) -> Mask | None:
    """Asked of each value once, instead of each host; None when all keep the rule."""
    answers = texts.answers(key, asked)
    return None if answers.all() else answers[column]


def _kinds(sight: Sight, key: tuple[object, ...], asked: Callable[[Kind], bool]) -> Mask | None:
    return _known(sight.columns.kinds, sight.columns.column("kind"), key, asked)


def _hypervisor(sight: Sight) -> Mask | None:
    wanted = sight.ask.hypervisor_type
    if wanted is None:
        return None
    return _kinds(sight, ("hypervisor", wanted), lambda kind: same_hypervisor(wanted, kind.hypervisor_type))


def _version(sight: Sight) -> Mask | None:
    least = sight.ask.least_hypervisor_version
    return _kinds(sight, ("version", least), lambda kind: kind.hypervisor_version >= least) if least else None


def _architecture(sight: Sight) -> Mask | None:
    if sight.ask.architecture is None:
        return None
    wanted = architecture_of(sight.ask.architecture)
    return _kinds(sight, ("architecture", wanted), lambda kind: architecture_of(kind.architecture) == wanted)


def _machine(sight: Sight) -> Mask | None:
    wanted = sight.ask.machine_type
    if wanted is None:
        return None

    def has(kind: Kind) -> bool:
        # One that does not tell is believed: it refuses the guest itself when it cannot.
        return not kind.machine_types or any(same_text(wanted, one) for one in kind.machine_types)

    return _kinds(sight, ("machine", wanted), has)


def _firmware(sight: Sight) -> Mask | None:
    """One that does not tell has an older agent, which would give the guest a BIOS without a word."""
    wanted = sight.ask.firmware
    if wanted is None:
        return None
    return _kinds(sight, ("firmware", wanted), lambda kind: wanted in kind.firmwares)


def _capabilities(sight: Sight) -> Mask | None:
    specs = capability_specs(sight.ask)
    return _kinds(sight, ("capabilities", specs), lambda kind: not reasons.lacking(kind, specs)) if specs else None


def _metadatas(sight: Sight, key: tuple[object, ...], asked: Callable[[Metadata], bool]) -> Mask | None:
    return _known(sight.columns.metadatas, sight.columns.column("metadata"), key, asked)


def _aggregates(sight: Sight) -> Mask | None:
    specs = aggregate_specs(sight.ask)
    return _metadatas(sight, ("specs", specs), lambda metadata: not reasons.unmet(metadata, specs)) if specs else None


def _lets_in(sight: Sight) -> Mask:
    """Which metadata of aggregates let the project in, by number: the same for most projects."""
    project = sight.ask.project_id
    return sight.columns.metadatas.answers(("project", project), lambda metadata: reasons.lets_in(metadata, project))


def _project(sight: Sight) -> Mask | None:
    answers = _lets_in(sight)
    return None if answers.all() else answers[sight.columns.column("metadata")]


def _same_host(sight: Sight) -> Mask | None:
    return None if sight.ask.same_host is None else _rows(sight, sight.ask.same_host, True)


def _different_host(sight: Sight) -> Mask | None:
    return _rows(sight, sight.ask.different_host, False) if sight.ask.different_host else None


def _affinity(sight: Sight) -> Mask | None:
    group = sight.ask.group
    if group is None or group.policy is not GroupPolicy.AFFINITY or not any(group.on_hosts.values()):
        return None
    there = (name for name, count in group.on_hosts.items() if count > 0 and name not in group.moving)
    return _rows(sight, there, True)


def _anti_affinity(sight: Sight) -> Mask | None:
    group = sight.ask.group
    if group is None or group.policy is not GroupPolicy.ANTI_AFFINITY:
        return None
    return _rows(sight, (name for name, count in group.on_hosts.items() if count >= group.max_per_host), False)


def _ram_room(sight: Sight) -> Ints:
    return sight.columns.room("ram", sight.settings)


def _cpu_room(sight: Sight) -> Ints:
    return sight.columns.room("own_cpu" if reasons.is_pinned(sight.ask) else "cpu", sight.settings)


def _disk_room(sight: Sight) -> Ints:
    return sight.columns.room("disk", sight.settings)


def _amount(field: str, room: Callable[[Sight], Ints]) -> Callable[[Sight], Mask | None]:
    def keep(sight: Sight) -> Mask | None:
        wanted = getattr(sight.ask, field)
        if wanted <= 0:
            return None  # nothing is asked of it, so a host that is overfull may take it
        mask: Mask = room(sight) >= wanted
        return mask

    return keep


def _numa(sight: Sight) -> Mask | None:
    ask = sight.ask
    if ask.numa is None:
        return None
    if ask.numa.nodes > ask.vcpus:
        return np.zeros(len(sight.columns), dtype=np.bool_)
    cpus = sight.columns.cells("own_cpus" if ask.numa.pinned else "shared_cpus")
    memory = sight.columns.cells("memory_mb")
    fits = np.ones(len(sight.columns), dtype=np.bool_)
    for vcpus, memory_mb, count in numa.nodes_of(ask):
        enough = np.zeros(len(sight.columns), dtype=np.int16)
        for of_cell, memory_of_cell in zip(cpus, memory, strict=True):
            enough += (of_cell >= vcpus) & (memory_of_cell >= memory_mb)
        fits &= enough >= count
    return fits


@dataclass(frozen=True, slots=True)
class Filter:
    name: str
    keep: Callable[[Sight], Mask | None]
    say: Callable[[HostFacts, Ask, PlacementSettings], str]
    together: Callable[[Ask], str]
    without: Callable[[Ask], str] | None = None  # what would have to go for hosts to fit
    field: str = ""  # the amount in Ask
    room: Callable[[Sight], Ints] | None = None  # how much of it each host can give


FILTERS: tuple[Filter, ...] = (
    Filter("asked", _asked, reasons.asked, reasons.not_asked, reasons.without_asked),
    Filter("never", _never, reasons.never, reasons.text("they are out")),
    Filter("failed", _failed, reasons.failed, reasons.text("this request has failed there already")),
    Filter("zone", _zone, reasons.zone, reasons.not_in_zone, reasons.without_zone),
    Filter("up", _flag("up"), reasons.down, reasons.text("they are down"), reasons.text("up")),
    Filter("enabled", _flag("enabled"), reasons.disabled, reasons.text("they are disabled"), reasons.text("enabled")),
    Filter("believed", _flag("believed"), reasons.refused, reasons.text("their last report was refused")),
    Filter("answers", _flag("answers"), reasons.silent, reasons.text("their hypervisors do not answer")),
    Filter("store", _flag("stores"), reasons.store, reasons.text("their instance stores do not answer")),
    Filter("hypervisor", _hypervisor, reasons.hypervisor, reasons.not_hypervisor, reasons.without_hypervisor),
    Filter("version", _version, reasons.version, reasons.not_version, reasons.without_version),
    Filter("architecture", _architecture, reasons.architecture, reasons.not_architecture, reasons.without_architecture),
    Filter("machine", _machine, reasons.machine, reasons.not_machine, reasons.without_machine),
    Filter("firmware", _firmware, reasons.firmware, reasons.not_firmware, reasons.without_firmware),
    Filter("capabilities", _capabilities, reasons.capabilities, reasons.not_capable, reasons.without_capabilities),
    Filter("aggregates", _aggregates, reasons.aggregates, reasons.not_aggregated, reasons.without_aggregates),
    Filter("project", _project, reasons.project, reasons.text("their aggregates are kept for other projects")),
    Filter("same_host", _same_host, reasons.same_host, reasons.not_same_host, reasons.text("the hint same_host")),
    Filter(
        "different_host",
        _different_host,
        reasons.different_host,
        reasons.text("the hint different_host excludes them"),
        reasons.text("the hint different_host"),
    ),
    Filter("affinity", _affinity, reasons.affinity, reasons.not_near, reasons.text("the group rule")),
    Filter("anti_affinity", _anti_affinity, reasons.anti_affinity, reasons.not_apart, reasons.text("the group rule")),
    Filter("ram", _amount("ram_mb", _ram_room), reasons.ram, reasons.short_of_ram, field="ram_mb", room=_ram_room),
    Filter("cpu", _amount("vcpus", _cpu_room), reasons.cpu, reasons.short_of_cpu, field="vcpus", room=_cpu_room),
    Filter(
        "disk", _amount("disk_gb", _disk_room), reasons.disk, reasons.short_of_disk, field="disk_gb", room=_disk_room
    ),
    Filter("numa", _numa, reasons.numa_cells, reasons.not_numa),
)

# A host's number is the highest of the rules it fails, so the first rule has the highest number.
NUMBERS = {rule.name: len(FILTERS) - place for place, rule in enumerate(FILTERS)}
RULES = tuple(rule.name for rule in reversed(FILTERS))  # by number - 1
FIRST_MOVING = next(place for place, rule in enumerate(FILTERS) if rule.name == "affinity")


def _mark(sight: Sight, numbers: Bytes, filters: Iterable[Filter]) -> None:
    for rule in filters:
        kept = rule.keep(sight)
        if kept is not None:
            np.maximum(numbers, ~kept * np.uint8(NUMBERS[rule.name]), out=numbers)


def _still(sight: Sight) -> Bytes:
    numbers = np.zeros(len(sight.columns), dtype=np.uint8)
    _mark(sight, numbers, FILTERS[:FIRST_MOVING])
    return numbers


def first_rules(sight: Sight) -> Bytes:
    """For each host the number of the first rule that it fails; 0 when it fits. What claims do not change is kept for
    the next request that asks the same."""
    ask = sight.ask
    key = (
        ask.only,
        ask.zone,
        tuple(ask.never),
        ask.failed,
        _lets_in(sight).tobytes(),
        ask.hypervisor_type,
        ask.least_hypervisor_version,
        ask.architecture,
        ask.machine_type,
        ask.firmware,
        ask.same_host,
        ask.different_host,
        tuple(ask.extra_specs.items()),
    )
    numbers: Bytes = sight.columns.kept(key, lambda: _still(sight)).copy()
    _mark(sight, numbers, FILTERS[FIRST_MOVING:])
    return numbers
