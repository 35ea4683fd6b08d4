"""The rules a host must keep, as a table. Its order is the order of "the first rule that it fails".

| rule | OpenStack's name |
|---|---|
| asked | the `host` or `hypervisor_hostname` of a request |
| never | ignore_hosts; DifferentHost for a guest that moves |
| failed | RetryFilter |
| zone | AvailabilityZoneFilter |
| up, enabled | ComputeFilter |
| report_accepted | none: Nova accepts every report |
| answers | none: Nova counts such a host as up |
| store | none: Nova's host waits for its disk, and is up |
| network | none: Nova learns it when the port cannot be bound |
| carrier | none: Nova learns it when the port cannot be bound; Neutron's segments, where they are in use |
| hypervisor, version, architecture, machine, firmware | ImagePropertiesFilter |
| root_pool | none: Nova learns it at the destination |
| capabilities | ComputeCapabilitiesFilter; required traits of the CPU |
| aggregates | AggregateInstanceExtraSpecsFilter |
| project | AggregateMultiTenancyIsolation |
| same_host | SameHostFilter |
| different_host | DifferentHostFilter |
| affinity | ServerGroupAffinityFilter |
| anti_affinity | ServerGroupAntiAffinityFilter |
| ram, cpu, disk | Placement's MEMORY_MB, VCPU and PCPU, DISK_GB |
| numa | NUMATopologyFilter |

`keep` looks at all hosts at once and gives True for those that keep the rule, or None when no host can fail it. `say`
is the reason of one host, `together` that of all that fell. A rule with `room` is about an amount.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from droveway.domain.placement import GroupPolicy, HostFacts, PlacementRequest, PlacementSettings
from droveway.scheduler import numa, reasons
from droveway.scheduler.columns import Bytes, Columns, InternedTexts, Ints, Mask
from droveway.scheduler.host_classes import HostClass, Metadata
from droveway.scheduler.matching import aggregate_specs, architecture_of, capability_specs, same_hypervisor, same_text


@dataclass(frozen=True, slots=True)
class FilterContext:
    """What a rule sees: all hosts, the request, and the operator's settings."""

    columns: Columns
    ask: PlacementRequest
    settings: PlacementSettings


def _rows(context: FilterContext, names: Iterable[str], there: bool) -> Mask:
    """`there` in the rows of these hosts, and its opposite in all others."""
    mask = np.full(len(context.columns), not there)
    for name in names:
        row = context.columns.row(name)
        if row is not None:
            mask[row] = there
    return mask


def _asked(context: FilterContext) -> Mask | None:
    return None if context.ask.only is None else _rows(context, (context.ask.only,), True)


def _never(context: FilterContext) -> Mask | None:
    return _rows(context, context.ask.never, False) if context.ask.never else None


def _failed(context: FilterContext) -> Mask | None:
    return _rows(context, context.ask.failed, False) if context.ask.failed else None


def _zone(context: FilterContext) -> Mask | None:
    if context.ask.zone is None:
        return None
    mask: Mask = context.columns.column("zone") == context.columns.zones.known(context.ask.zone)
    return mask


def _flag(name: str) -> Callable[[FilterContext], Mask]:
    return lambda context: context.columns.column(name)


def _known(texts: InternedTexts, column: Ints, key: tuple[object, ...], asked: Callable[[Any], bool]) -> Mask | None:
    """Asked of each value once, instead of each host; None when all keep the rule."""
    answers = texts.answers(key, asked)
    return None if answers.all() else answers[column]


def _kinds(context: FilterContext, key: tuple[object, ...], asked: Callable[[HostClass], bool]) -> Mask | None:
    return _known(context.columns.kinds, context.columns.column("kind"), key, asked)


def _network(context: FilterContext) -> Mask | None:
    return None if context.ask.networked is None else _rows(context, context.ask.networked, True)


def _carrier(context: FilterContext) -> Mask | None:
    if not context.ask.carriers:
        return None
    masks = [_rows(context, hosts, True) for hosts in context.ask.carriers.values()]
    mask: Mask = np.logical_and.reduce(masks)
    return mask


def _hypervisor(context: FilterContext) -> Mask | None:
    wanted = context.ask.hypervisor_type
    if wanted is None:
        return None
    return _kinds(context, ("hypervisor", wanted), lambda kind: same_hypervisor(wanted, kind.hypervisor_type))


def _version(context: FilterContext) -> Mask | None:
    least = context.ask.least_hypervisor_version
    return _kinds(context, ("version", least), lambda kind: kind.hypervisor_version >= least) if least else None


def _architecture(context: FilterContext) -> Mask | None:
    if context.ask.architecture is None:
        return None
    wanted = architecture_of(context.ask.architecture)
    return _kinds(context, ("architecture", wanted), lambda kind: architecture_of(kind.architecture) == wanted)


def _machine(context: FilterContext) -> Mask | None:
    wanted = context.ask.machine_type
    if wanted is None:
        return None

    def has(kind: HostClass) -> bool:
        # One that does not report it passes: it refuses the guest itself when it cannot.
        return not kind.machine_types or any(same_text(wanted, one) for one in kind.machine_types)

    return _kinds(context, ("machine", wanted), has)


def _firmware(context: FilterContext) -> Mask | None:
    """One that does not tell has an older agent, which would give the guest a BIOS without a word."""
    wanted = context.ask.firmware
    if wanted is None:
        return None
    return _kinds(context, ("firmware", wanted), lambda kind: wanted in kind.firmwares)


def _root_pool(context: FilterContext) -> Mask | None:
    if not context.ask.root_pool:
        return None
    mask: Mask = context.columns.column("pool") == context.columns.pools.known(context.ask.root_pool)
    return mask


def _capabilities(context: FilterContext) -> Mask | None:
    specs = capability_specs(context.ask)
    return _kinds(context, ("capabilities", specs), lambda kind: not reasons.lacking(kind, specs)) if specs else None


def _metadatas(context: FilterContext, key: tuple[object, ...], asked: Callable[[Metadata], bool]) -> Mask | None:
    return _known(context.columns.metadatas, context.columns.column("metadata"), key, asked)


def _aggregates(context: FilterContext) -> Mask | None:
    specs = aggregate_specs(context.ask)
    return _metadatas(context, ("specs", specs), lambda metadata: not reasons.unmet(metadata, specs)) if specs else None


def _allows_project(context: FilterContext) -> Mask:
    """Which metadata of aggregates allows the project, by number: the same for most projects."""
    project = context.ask.project_id
    return context.columns.metadatas.answers(
        ("project", project), lambda metadata: reasons.allows_project(metadata, project)
    )


def _project(context: FilterContext) -> Mask | None:
    answers = _allows_project(context)
    return None if answers.all() else answers[context.columns.column("metadata")]


def _same_host(context: FilterContext) -> Mask | None:
    return None if context.ask.same_host is None else _rows(context, context.ask.same_host, True)


def _different_host(context: FilterContext) -> Mask | None:
    return _rows(context, context.ask.different_host, False) if context.ask.different_host else None


def _affinity(context: FilterContext) -> Mask | None:
    group = context.ask.group
    if group is None or group.policy is not GroupPolicy.AFFINITY or not any(group.on_hosts.values()):
        return None
    there = (name for name, count in group.on_hosts.items() if count > 0 and name not in group.moving)
    return _rows(context, there, True)


def _anti_affinity(context: FilterContext) -> Mask | None:
    group = context.ask.group
    if group is None or group.policy is not GroupPolicy.ANTI_AFFINITY:
        return None
    return _rows(context, (name for name, count in group.on_hosts.items() if count >= group.max_per_host), False)


def _ram_headroom(context: FilterContext) -> Ints:
    return context.columns.headroom("ram", context.settings)


def _cpu_headroom(context: FilterContext) -> Ints:
    return context.columns.headroom("own_cpu" if reasons.is_pinned(context.ask) else "cpu", context.settings)


def _disk_headroom(context: FilterContext) -> Ints:
    return context.columns.headroom("disk", context.settings)


def _amount(field: str, headroom: Callable[[FilterContext], Ints]) -> Callable[[FilterContext], Mask | None]:
    def keep(context: FilterContext) -> Mask | None:
        wanted = getattr(context.ask, field)
        if wanted <= 0:
            return None  # nothing is asked of it, so a host that is overfull may take it
        mask: Mask = headroom(context) >= wanted
        return mask

    return keep


def _numa(context: FilterContext) -> Mask | None:
    ask = context.ask
    if ask.numa is None:
        return None
    if ask.numa.nodes > ask.vcpus:
        return np.zeros(len(context.columns), dtype=np.bool_)
    cpus = context.columns.cells("own_cpus" if ask.numa.pinned else "shared_cpus")
    memory = context.columns.cells("memory_mb")
    fits = np.ones(len(context.columns), dtype=np.bool_)
    for vcpus, memory_mb, count in numa.nodes_of(ask):
        enough = np.zeros(len(context.columns), dtype=np.int16)
        for of_cell, memory_of_cell in zip(cpus, memory, strict=True):
            enough += (of_cell >= vcpus) & (memory_of_cell >= memory_mb)
        fits &= enough >= count
    return fits


@dataclass(frozen=True, slots=True)
class Filter:
    name: str
    keep: Callable[[FilterContext], Mask | None]
    say: Callable[[HostFacts, PlacementRequest, PlacementSettings], str]
    together: Callable[[PlacementRequest], str]
    without: Callable[[PlacementRequest], str] | None = None  # what would have to go for hosts to fit
    field: str = ""  # the amount in Ask
    headroom: Callable[[FilterContext], Ints] | None = None  # how much of it each host can give


FILTERS: tuple[Filter, ...] = (
    Filter("asked", _asked, reasons.asked, reasons.not_asked, reasons.without_asked),
    Filter("never", _never, reasons.never, reasons.text("they are out")),
    Filter("failed", _failed, reasons.failed, reasons.text("this request has failed there already")),
    Filter("zone", _zone, reasons.zone, reasons.not_in_zone, reasons.without_zone),
    Filter("up", _flag("up"), reasons.down, reasons.text("they are down"), reasons.text("up")),
    Filter("enabled", _flag("enabled"), reasons.disabled, reasons.text("they are disabled"), reasons.text("enabled")),
    Filter("report_accepted", _flag("report_accepted"), reasons.refused, reasons.text("their last report was refused")),
    Filter("answers", _flag("answers"), reasons.silent, reasons.text("their hypervisors do not answer")),
    Filter("store", _flag("stores"), reasons.store, reasons.text("their instance stores do not answer")),
    Filter(
        "network", _network, reasons.network, reasons.text("their network agents are not up"), reasons.text("a network")
    ),
    Filter("carrier", _carrier, reasons.carrier, reasons.not_carrier, reasons.text("its networks")),
    Filter("hypervisor", _hypervisor, reasons.hypervisor, reasons.not_hypervisor, reasons.without_hypervisor),
    Filter("version", _version, reasons.version, reasons.not_version, reasons.without_version),
    Filter("architecture", _architecture, reasons.architecture, reasons.not_architecture, reasons.without_architecture),
    Filter("machine", _machine, reasons.machine, reasons.not_machine, reasons.without_machine),
    Filter("firmware", _firmware, reasons.firmware, reasons.not_firmware, reasons.without_firmware),
    Filter("root_pool", _root_pool, reasons.root_pool, reasons.not_root_pool),
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
    Filter(
        "ram",
        _amount("ram_mb", _ram_headroom),
        reasons.ram,
        reasons.short_of_ram,
        field="ram_mb",
        headroom=_ram_headroom,
    ),
    Filter(
        "cpu", _amount("vcpus", _cpu_headroom), reasons.cpu, reasons.short_of_cpu, field="vcpus", headroom=_cpu_headroom
    ),
    Filter(
        "disk",
        _amount("disk_gb", _disk_headroom),
        reasons.disk,
        reasons.short_of_disk,
        field="disk_gb",
        headroom=_disk_headroom,
    ),
    Filter("numa", _numa, reasons.numa_cells, reasons.not_numa),
)

# A host's number is the highest of the rules it fails, so the first rule has the highest number.
NUMBERS = {rule.name: len(FILTERS) - place for place, rule in enumerate(FILTERS)}
RULES = tuple(rule.name for rule in reversed(FILTERS))  # by number - 1
FIRST_DYNAMIC = next(place for place, rule in enumerate(FILTERS) if rule.name == "affinity")


def _mark(context: FilterContext, numbers: Bytes, filters: Iterable[Filter]) -> None:
    for rule in filters:
        kept = rule.keep(context)
        if kept is not None:
            np.maximum(numbers, ~kept * np.uint8(NUMBERS[rule.name]), out=numbers)


def _static_rules(context: FilterContext) -> Bytes:
    numbers = np.zeros(len(context.columns), dtype=np.uint8)
    _mark(context, numbers, FILTERS[:FIRST_DYNAMIC])
    return numbers


def first_rules(context: FilterContext) -> Bytes:
    """For each host the number of the first rule that it fails; 0 when it fits. What claims do not change is kept for
    the next request that asks the same."""
    ask = context.ask
    key = (
        ask.only,
        ask.networked,
        tuple(ask.carriers.items()),
        ask.zone,
        tuple(ask.never),
        ask.failed,
        _allows_project(context).tobytes(),
        ask.hypervisor_type,
        ask.least_hypervisor_version,
        ask.architecture,
        ask.machine_type,
        ask.firmware,
        ask.root_pool,
        ask.same_host,
        ask.different_host,
        tuple(ask.extra_specs.items()),
    )
    numbers: Bytes = context.columns.kept(key, lambda: _static_rules(context)).copy()
    _mark(context, numbers, FILTERS[FIRST_DYNAMIC:])
    return numbers
