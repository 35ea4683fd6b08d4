"""What a flavor's extra specs and an image's properties ask for. Pure, and without numpy: the API reads it too.

Every key of Nova's own namespaces is in one table. Some change where and how a guest runs. Some are kept and shown, and
change nothing here. What an operator would rely on and would not get is refused, with what to do instead. Keys of other
namespaces are the operator's own, and so are keys without one: those are matched against the metadata of aggregates.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

import msgspec

from droveway.domain.hardware import UEFI
from droveway.domain.migration_ladder import DOWNTIME_KEY, DOWNTIME_MOST_MS, POLICY_KEY, Policy
from droveway.domain.placement import NumaRequest
from droveway.scheduler.matching import AGGREGATES, CAPABILITIES, OPERATORS, TRAIT_OF_CPU, architecture_of
from droveway.scheduler.reasons import CAPABILITY_PATHS

NODES_MAX = 16
WHOLE = r"\d{1,9}"
POSITIVE = r"[1-9]\d{0,8}"
TRUTH = r"(?i)(true|false|1|0|yes|no|on|off)"
ANYTHING = r"(?s).{0,255}"
FALSE = r"(?i)(false|0|no|off)"
SHOWN = {WHOLE: "a whole number", POSITIVE: "a whole number above 0", TRUTH: "True or False", FALSE: "False"}


def one_of(*words: str) -> str:
    pattern = "|".join(map(re.escape, words))
    SHOWN[pattern] = f"one of {', '.join(words)}"
    return pattern


_QUOTA_CPU = {f"quota:{name}": WHOLE for name in ("cpu_shares", "cpu_period", "cpu_quota")}
_QUOTA_IO = {
    f"quota:{name}": WHOLE
    for name in (
        "disk_read_bytes_sec",
        "disk_read_iops_sec",
        "disk_write_bytes_sec",
        "disk_write_iops_sec",
        "disk_total_bytes_sec",
        "disk_total_iops_sec",
        "vif_inbound_average",
        "vif_inbound_burst",
        "vif_inbound_peak",
        "vif_outbound_average",
        "vif_outbound_burst",
        "vif_outbound_peak",
    )
}
# key -> what its value must look like
KNOWN: dict[str, str] = {
    "hw:numa_nodes": POSITIVE,
    "hw:cpu_policy": one_of("shared", "dedicated"),
    "hw:cpu_thread_policy": one_of("prefer"),
    "hw:emulator_threads_policy": one_of("share"),
    "hw:mem_page_size": one_of("small", "any"),
    "hw:pci_numa_affinity_policy": one_of("required", "preferred", "legacy", "socket"),
    **{
        f"hw:{name}": POSITIVE
        for name in ("cpu_sockets", "cpu_cores", "cpu_threads", "max_cpu_sockets", "max_cpu_cores", "max_cpu_threads")
    },
    "hw:boot_menu": FALSE,
    "hw:hide_hypervisor_id": TRUTH,
    "hw:pmu": TRUTH,
    "hw:serial_port_count": one_of("1"),
    "hw:vif_multiqueue_enabled": FALSE,
    "hw:locked_memory": FALSE,
    "hw:mem_encryption": FALSE,
    "hw:watchdog_action": one_of("none", "pause", "poweroff", "reset", "disabled"),
    "hw_rng:allowed": TRUTH,
    "hw_rng:rate_bytes": WHOLE,
    "hw_rng:rate_period": WHOLE,
    "hw_video:ram_max_mb": WHOLE,
    **_QUOTA_CPU,
    **_QUOTA_IO,
    "os:secure_boot": one_of("disabled", "optional"),
    POLICY_KEY: one_of(*Policy),
    DOWNTIME_KEY: POSITIVE,
}
# Keys and values that would have to mean something, and do not here: a pattern of `key=value`, and the way out.
REFUSED: tuple[tuple[str, str], ...] = (
    (r"hw:cpu_policy=mixed", "pin all vcpus (dedicated) or none (shared)"),
    (r"hw:(cpu_dedicated_mask|cpu_realtime|cpu_realtime_mask)=.*", "use hw:cpu_policy=dedicated"),
    (r"hw:cpu_thread_policy=(isolate|require)", "the hosts' threads are not told apart; leave it out"),
    (r"hw:emulator_threads_policy=isolate", "leave it out"),
    (r"hw:(numa_cpus|numa_mem)\.\d+=.*", "nodes are spread evenly: use hw:numa_nodes"),
    (r"hw:mem_page_size=.*", "guests have ordinary pages: small or any"),
    (r"hw:boot_menu=.*", "guests begin from their disk, without a menu; leave it out"),
    (r"hw:serial_port_count=.*", "guests have one serial console; leave it out"),
    (r"hw:vif_multiqueue_enabled=.*", "guests have no network interfaces; leave it out"),
    (
        r"hw:(mem_encryption|locked_memory|pmem|tpm_model|tpm_version|maxphysaddr_mode|maxphysaddr_bits)=.*",
        "no host offers it; leave it out",
    ),
    (
        r"hw:(viommu_model|virtio_packed_ring|virtio_net_queue_size|firmware_stateless|vtpm\w*|tpm_secret_security)=.*",
        "no host offers it; leave it out",
    ),
    (r"(hw:ephemeral_encryption\w*|hw_video:.*)=.*", "no host offers it; leave it out"),
    (r"os:secure_boot=required", "guests have no secure boot; leave it out"),
    (r"resources\w*:.*", "the amounts of a flavor are its vcpus, ram and disk; leave it out"),
    (
        r"trait\w*:.*",
        "hosts are told apart by the metadata of their aggregates: use "
        "aggregate_instance_extra_specs:KEY=VALUE, or trait:HW_CPU_X86_…=required for a CPU feature",
    ),
    (r"(accel|pci_passthrough|vmware|powervm):.*", "no host offers it; leave it out"),
    (r"group_policy=.*", "requests have one group of resources here; leave it out"),
)
NAMESPACES = (
    "hw",
    "hw_rng",
    "hw_video",
    "quota",
    "os",
    "capabilities",
    "aggregate_instance_extra_specs",
    "resources",
    "trait",
    "accel",
    "pci_passthrough",
    "droveway",
)


def check(extra_specs: Mapping[str, str]) -> str | None:
    """What is wrong with the first of them that is wrong, and the way out; None when all can be kept."""
    return next((wrong for key, value in extra_specs.items() if (wrong := _wrong(key, value))), None)


def _wrong(key: str, value: str) -> str | None:
    if key in KNOWN and re.fullmatch(KNOWN[key], value):
        return _too_many(key, value)
    if key.startswith(CAPABILITIES):
        return _wrong_capability(key, value)
    if key.startswith(AGGREGATES):
        return _wrong_operator(key, value) if key != AGGREGATES else f"Extra spec '{key}' names no metadata key."
    if key.startswith(TRAIT_OF_CPU) and value in {"required", "forbidden"}:
        return None
    for pattern, way_out in REFUSED:
        if re.fullmatch(pattern, f"{key}={value}", re.DOTALL):
            return f"Extra spec '{key}={value}' cannot be kept: {way_out}."
    if key in KNOWN:
        return f"Extra spec '{key}' is {SHOWN.get(KNOWN[key], 'something else')}, not '{value}'."
    space, colon, _name = key.partition(":")
    if not colon:
        return _wrong_operator(key, value)
    if space in NAMESPACES:
        return f"Extra spec '{key}' is not known in the namespace {space}.{_nearest(key, KNOWN)}"
    meant = difflib.get_close_matches(space, NAMESPACES, 1, 0.85)
    return f"Extra spec '{key}' has the namespace '{space}': did you mean '{meant[0]}'?" if meant else None


def _too_many(key: str, value: str) -> str | None:
    if key == "hw:numa_nodes" and int(value) > NODES_MAX:
        return f"Extra spec 'hw:numa_nodes' is at most {NODES_MAX}, not {value}."
    if key == DOWNTIME_KEY and int(value) > DOWNTIME_MOST_MS:
        return f"Extra spec '{key}' is at most {DOWNTIME_MOST_MS}, not {value}."
    return None


def _nearest(key: str, known: Mapping[str, str] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, 1, 0.4)
    return f" The nearest that is known is '{near[0]}'." if near else ""


def _wrong_capability(key: str, value: str) -> str | None:
    path = key.removeprefix(CAPABILITIES)
    if path not in CAPABILITY_PATHS:
        known = tuple(CAPABILITIES + one for one in CAPABILITY_PATHS)
        return f"Extra spec '{key}' is not something that hosts tell; they tell {', '.join(CAPABILITY_PATHS)}." + (
            _nearest(key, known)
        )
    return _wrong_operator(key, value)


def _wrong_operator(key: str, value: str) -> str | None:
    """An operator needs something behind it, and looks like one of the known ones when it begins like one."""
    first, *words = value.split() or [""]
    if first in OPERATORS and not words:
        return f"Extra spec '{key}' has the operator '{first}' and nothing behind it."
    if first not in OPERATORS and words and re.fullmatch(r"<[\w-]+>|s?[<>=!]+", first):
        return f"Extra spec '{key}' has the unknown operator '{first}'; known are {' '.join(OPERATORS)}."
    return None


class ImageRequirements(msgspec.Struct, frozen=True):
    """What an image wants of a host; the fields have the names of those of Ask."""

    hypervisor_type: str | None = None
    least_hypervisor_version: int = 0
    architecture: str | None = None
    machine_type: str | None = None
    firmware: str | None = None  # None: any


def image_ask(properties: Mapping[str, str]) -> ImageRequirements:
    """The new names of a property go before the old ones."""

    def first(*names: str) -> str | None:
        return next((value for name in names if (value := str(properties.get(name) or "").strip())), None)

    architecture = first("hw_architecture", "architecture")
    return ImageRequirements(
        hypervisor_type=first("img_hv_type", "hypervisor_type"),
        least_hypervisor_version=_least_version(first("img_hv_requested_version", "hypervisor_version_requires") or ""),
        architecture=architecture_of(architecture) if architecture else None,
        machine_type=first("hw_machine_type", "machine_type"),
        firmware=UEFI if properties.get("hw_firmware_type") == UEFI else None,
    )


def _least_version(wanted: str) -> int:
    """`>=6.2` as libvirt counts: 6,002,000. Other comparisons say nothing of a least version."""
    found = re.search(r"(>=?)\s*(\d{1,3})(?:\.(\d{1,3}))?(?:\.(\d{1,3}))?", wanted)
    if not found:
        return 0
    comparison, *parts = found.groups()
    major, minor, micro = (int(part or 0) for part in parts)
    return major * 1_000_000 + minor * 1_000 + micro + (comparison == ">")


def numa_ask(extra_specs: Mapping[str, str], image_properties: Mapping[str, str]) -> NumaRequest | None:
    """The cells that are asked for; None when it may float over the whole host. The flavor's word goes before the
    image's."""
    nodes = extra_specs.get("hw:numa_nodes") or image_properties.get("hw_numa_nodes") or ""
    policy = extra_specs.get("hw:cpu_policy") or image_properties.get("hw_cpu_policy") or "shared"
    wanted = int(nodes) if re.fullmatch(POSITIVE, str(nodes)) else 0
    if policy != "dedicated" and not wanted:
        return None
    return NumaRequest(max(1, min(wanted, NODES_MAX)), policy == "dedicated")


def disagreement(extra_specs: Mapping[str, str], image_properties: Mapping[str, str]) -> str | None:
    """Where an image wants what its flavor forbids: refused when the server is created."""
    flavor, image = extra_specs.get("hw:cpu_policy"), image_properties.get("hw_cpu_policy")
    if image == "dedicated" and flavor == "shared":
        return "The image wants its own CPUs (hw_cpu_policy=dedicated), the flavor forbids it (hw:cpu_policy=shared)."
    nodes, wanted = extra_specs.get("hw:numa_nodes"), image_properties.get("hw_numa_nodes")
    if nodes and wanted and str(nodes) != str(wanted):
        return f"The image wants {wanted} NUMA nodes (hw_numa_nodes) and the flavor {nodes} (hw:numa_nodes)."
    return None
