"""What the rules say: for each the sentence for one host with its numbers, and the one for all hosts that fell.

Pure, and without numpy."""

from __future__ import annotations

from collections.abc import Callable

from droveway.domain.placement import HostFacts, PlacementRequest, PlacementSettings
from droveway.domain.traits import traits_of
from droveway.scheduler import numa
from droveway.scheduler.capacity import headroom_of, ratios_of
from droveway.scheduler.host_classes import HostClass, Metadata, metadata_of
from droveway.scheduler.matching import aggregate_specs, capability_specs, matches

Specs = tuple[tuple[str, str], ...]
NAMES_SHOWN = 3
UNITS = {"ram_mb": " MiB", "vcpus": "", "disk_gb": " GiB"}


def text(words: str) -> Callable[[PlacementRequest], str]:
    return lambda _ask: words


def is_pinned(ask: PlacementRequest) -> bool:
    return ask.numa is not None and ask.numa.pinned


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


def _or_none(words: str) -> str:
    return words or "none that it tells"


def asked(_host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return f"{ask.only} was asked for"


def not_asked(ask: PlacementRequest) -> str:
    return f"{ask.only} was asked for"


def without_asked(ask: PlacementRequest) -> str:
    return f"asking for {ask.only}"


def never(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return ask.never[host.name]


def failed(_host: HostFacts, _ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return "this request has failed there already"


def zone(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return f"it is in zone {host.zone}, not {ask.zone}"


def not_in_zone(ask: PlacementRequest) -> str:
    return f"they are not in zone {ask.zone}"


def without_zone(ask: PlacementRequest) -> str:
    return f"availability zone {ask.zone}"


def down(host: HostFacts, _ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return f"it is down: {host.reason}"


def disabled(host: HostFacts, _ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return f"it is disabled: {host.disabled_reason or 'no reason given'}"


def refused(host: HostFacts, _ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return f"its last report was refused: {host.refused}"


def silent(_host: HostFacts, _ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return "its hypervisor does not answer"


def store(host: HostFacts, _ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return host.store_trouble


def network(_host: HostFacts, _ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return "no network agent is up there, and the server has an interface"


def carrier(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    lacking = [need for need, hosts in ask.carriers.items() if host.name not in hosts]
    return f"it has no {' and no '.join(lacking)}, and the server has an interface that needs it"


def not_carrier(ask: PlacementRequest) -> str:
    return f"they have no {' or no '.join(ask.carriers)}, and the server has an interface that needs it"


def hypervisor(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return f"its hypervisor is {_or_none(host.hypervisor_type)}, not {ask.hypervisor_type}"


def not_hypervisor(ask: PlacementRequest) -> str:
    return f"their hypervisor is not {ask.hypervisor_type}"


def version(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return f"its hypervisor has version {host.hypervisor_version}, older than {ask.least_hypervisor_version}"


def not_version(ask: PlacementRequest) -> str:
    return f"their hypervisor is older than version {ask.least_hypervisor_version}"


def architecture(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return f"its architecture is {_or_none(host.architecture)}, not {ask.architecture}"


def not_architecture(ask: PlacementRequest) -> str:
    return f"their architecture is not {ask.architecture}"


def machine(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return f"it has no machine type {ask.machine_type} (it has {_names(host.machine_types)})"


def not_machine(ask: PlacementRequest) -> str:
    return f"they have no machine type {ask.machine_type}"


def firmware(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return f"it has no firmware {ask.firmware} (it has {_names(host.firmwares) or 'told none'})"


def not_firmware(ask: PlacementRequest) -> str:
    return f"they have no firmware {ask.firmware}"


def without_hypervisor(ask: PlacementRequest) -> str:
    return f"hypervisor type {ask.hypervisor_type}"


def without_version(ask: PlacementRequest) -> str:
    return f"hypervisor version {ask.least_hypervisor_version}"


def without_architecture(ask: PlacementRequest) -> str:
    return f"architecture {ask.architecture}"


def without_machine(ask: PlacementRequest) -> str:
    return f"machine type {ask.machine_type}"


def without_firmware(ask: PlacementRequest) -> str:
    return f"firmware {ask.firmware}"


CAPABILITY_PATHS = ("cpu_info:features", "cpu_info:arch", "hypervisor_type", "hypervisor_version", "machine_types")


def lacking(kind: HostClass | HostFacts, specs: Specs) -> str:
    """The first capability that hosts of this kind do not have, as a sentence; "" when none is missing."""
    has: dict[str, str | tuple[str, ...]] = {
        "cpu_info:features": kind.cpu_features,
        "cpu_info:arch": kind.architecture,
        "hypervisor_type": kind.hypervisor_type,
        "hypervisor_version": str(kind.hypervisor_version),
        "machine_types": kind.machine_types,
    }
    for path, wanted in specs:
        if path.startswith("trait:"):
            name = path.removeprefix("trait:")
            feature = name.lower()
            standard = traits_of(kind.cpu_features, "", closed=False)  # AESNI where the CPU says aes
            # Some write SSE4_1 where the CPU says sse4.1 or sse4_1.
            plain = (one.lower().replace(".", "_").replace("-", "_") for one in kind.cpu_features)
            there = f"HW_CPU_X86_{name}" in standard or feature in plain
            if there != (wanted != "forbidden"):
                return f"its CPU has {'' if there else 'no '}{feature}, which is {wanted}"
        elif not matches(has.get(path), wanted):
            value = has.get(path)
            values = _names(value) if isinstance(value, tuple) else value
            return f"its {path} does not match '{wanted}' (it has {values or 'none that it tells'})"
    return ""


def root_pool(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    there = f"keeps root disks in {host.root_pool}" if host.root_pool else "keeps root disks as files"
    return f"it {there}, and that of this server lies in {ask.root_pool}"


def not_root_pool(ask: PlacementRequest) -> str:
    return f"they do not work with the pool {ask.root_pool}, in which its root disk lies"


def capabilities(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return lacking(host, capability_specs(ask))


def _specs(specs: Specs) -> str:
    return ", ".join(f"{key}={wanted}" for key, wanted in specs)


def not_capable(ask: PlacementRequest) -> str:
    return f"they do not have the capabilities {_specs(capability_specs(ask))}"


def without_capabilities(ask: PlacementRequest) -> str:
    return f"the capabilities {_specs(capability_specs(ask))}"


def unmet(metadata: Metadata, specs: Specs) -> str:
    """The first spec that this metadata does not meet, as a sentence; "" when it meets all."""
    has = dict(metadata)
    for key, wanted in specs:
        values = has.get(key)
        if values is None:
            return f"no aggregate of it has {key} ({key}={wanted} is wanted)"
        if not any(matches(value, wanted) for value in values):
            return f"its aggregates say {key}={','.join(values)}, not {wanted}"
    return ""


def aggregates(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return unmet(metadata_of(host), aggregate_specs(ask))


def not_aggregated(ask: PlacementRequest) -> str:
    return f"their aggregates do not have {_specs(aggregate_specs(ask))}"


def without_aggregates(ask: PlacementRequest) -> str:
    return f"the extra specs {_specs(aggregate_specs(ask))}"


TENANTS = "filter_tenant_id"  # and with anything behind it, because a value is bounded to 255 characters


def allows_project(metadata: Metadata, project_id: str) -> bool:
    """Aggregates with filter_tenant_id are for those projects only."""
    kept = [values for key, values in metadata if key.startswith(TENANTS)]
    return not kept or any(project_id in values for values in kept)


def project(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return f"its aggregate is kept for other projects than {ask.project_id or 'none'}"


def same_host(_host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return f"the hint same_host names servers on {_names(ask.same_host or ()) or 'no host'}"


def not_same_host(ask: PlacementRequest) -> str:
    return f"the hint same_host names servers on {_names(ask.same_host or ()) or 'no host'}"


def different_host(_host: HostFacts, _ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return "the hint different_host names a server there"


def affinity(_host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    return not_near(ask) if ask.group and ask.group.moving else f"{not_near(ask)}, not here"


def not_near(ask: PlacementRequest) -> str:
    if ask.group and ask.group.moving:
        return f"affinity: a member of its group is being moved between {' and '.join(ask.group.moving)}"
    on = ask.group.on_hosts if ask.group else {}
    return f"affinity: its group is on {_names(tuple(sorted(name for name, count in on.items() if count > 0)))}"


def anti_affinity(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    assert ask.group is not None
    return f"anti-affinity: {ask.group.on_hosts[host.name]} of its group here, {ask.group.max_per_host} allowed"


def not_apart(ask: PlacementRequest) -> str:
    return f"anti-affinity: {ask.group.max_per_host if ask.group else 1} of its group allowed on each"


def _short(what: str, unit: str, wanted: int, free: int) -> str:
    return f"{what}: {wanted}{unit} wanted, {max(0, free)}{unit} free"


def ram(host: HostFacts, ask: PlacementRequest, settings: PlacementSettings) -> str:
    return _short("memory", " MiB", ask.ram_mb, headroom_of(host, ratios_of(settings))["ram"])


def short_of_ram(ask: PlacementRequest) -> str:
    return f"memory: {ask.ram_mb} MiB wanted"


def cpu(host: HostFacts, ask: PlacementRequest, settings: PlacementSettings) -> str:
    headroom = headroom_of(host, ratios_of(settings))
    if is_pinned(ask):
        return _short("CPUs of its own", "", ask.vcpus, headroom["own_cpu"])
    if ask.vcpus > host.vcpus:
        return f"vcpus: {ask.vcpus} wanted, the host has {host.vcpus} CPUs at all"
    return _short("vcpus", "", ask.vcpus, headroom["cpu"])


def short_of_cpu(ask: PlacementRequest) -> str:
    return f"{'CPUs of its own' if is_pinned(ask) else 'vcpus'}: {ask.vcpus} wanted"


def disk(host: HostFacts, ask: PlacementRequest, settings: PlacementSettings) -> str:
    return _short("disk", " GiB", ask.disk_gb, headroom_of(host, ratios_of(settings))["disk"])


def short_of_disk(ask: PlacementRequest) -> str:
    return f"disk: {ask.disk_gb} GiB wanted"


def numa_cells(host: HostFacts, ask: PlacementRequest, _settings: PlacementSettings) -> str:
    assert ask.numa is not None
    if ask.numa.nodes > ask.vcpus:
        return not_numa(ask)
    if not host.cells:
        return "NUMA: it does not tell its cells"
    free = numa.free_cells(host)[:NAMES_SHOWN]
    index = 2 if ask.numa.pinned else 1
    has = ", ".join(f"cell {row[0]}: {row[index]} CPUs and {row[3]} MiB free" for row in free)
    return f"{not_numa(ask)} ({has})"


def not_numa(ask: PlacementRequest) -> str:
    assert ask.numa is not None
    if ask.numa.nodes > ask.vcpus:
        return f"NUMA: {ask.vcpus} vcpus cannot be spread over {ask.numa.nodes} cells"
    vcpus, memory_mb, _count = numa.nodes_of(ask)[0]
    own = " of its own" if ask.numa.pinned else ""
    return f"NUMA: {ask.numa.nodes} cells with {vcpus} CPUs{own} and {memory_mb} MiB each wanted"
