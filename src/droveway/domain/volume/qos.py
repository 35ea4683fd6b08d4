"""What the QoS of a volume type asks of the hypervisor, in libvirt's names. Pure.

Cinder's keys of a front end are libvirt's own; one of them with _per_gb behind it is meant for each GiB.
"""

from __future__ import annotations

from collections.abc import Mapping

FRONT_END = frozenset({"front-end", "both"})
PER_GB = "_per_gb"
_RATES = tuple(f"{what}_{unit}_sec" for what in ("total", "read", "write") for unit in ("bytes", "iops"))
NAMES = (*_RATES, *(f"{rate}_max" for rate in _RATES), *(f"{rate}_max_length" for rate in _RATES), "size_iops_sec")
LIMIT_MAX = 1 << 40


def limits(consumer: str | None, specs: Mapping[str, str] | None, size_gb: int) -> dict[str, int]:
    """Of a volume of that size; what is no limit of libvirt's is the backend's, or nobody's."""
    if consumer not in FRONT_END or not specs:
        return {}
    found = {}
    for key, text in specs.items():
        name = key.removesuffix(PER_GB)
        if name in NAMES and text.isascii() and text.isdigit():
            number = int(text) * (size_gb if key.endswith(PER_GB) else 1)
            if 0 < number <= LIMIT_MAX:
                found[name] = number
    return found
