"""Where a guest may run: a snapshot of hosts in, a ranked plan and a reason per host out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec


class Ask(msgspec.Struct, frozen=True):
    """What is wanted. `only`: the host that was asked for; `never`: hosts that are out, each with its sentence."""

    vcpus: int
    ram_mb: int
    disk_gb: int
    only: str | None = None
    zone: str | None = None
    never: dict[str, str] = {}
    hypervisor_type: str | None = None


class HostView(msgspec.Struct, frozen=True):
    """A host at one moment: what it has, what is used, and whether it may be used at all."""

    name: str
    zone: str
    is_up: bool
    sentence: str
    disabled: bool
    disabled_reason: str
    hypervisor_up: bool
    hypervisor_type: str
    vcpus: int
    memory_mb: int
    reserved_memory_mb: int
    disk_gb: int
    vcpus_used: int
    ram_mb_used: int
    disk_gb_used: int
    instances: int
    claims: int


class Ratios(msgspec.Struct, frozen=True):
    """How far a host may be promised beyond what it has."""

    cpu: float = 16.0
    ram: float = 1.0
    disk: float = 1.0


class Plan(msgspec.Struct, frozen=True):
    """`ranked`: the hosts that fit, best first. `reasons`: for each of the others the first rule that failed."""

    ranked: tuple[str, ...]
    reasons: dict[str, str]


def _asked(ask: Ask, host: HostView, _r: Ratios) -> str | None:
    return None if ask.only in (None, host.name) else f"{ask.only} was asked for"


def _not_barred(ask: Ask, host: HostView, _r: Ratios) -> str | None:
    return ask.never.get(host.name)


def _in_zone(ask: Ask, host: HostView, _r: Ratios) -> str | None:
    return None if ask.zone in (None, host.zone) else f"it is in zone {host.zone}, not {ask.zone}"


def _up(_ask: Ask, host: HostView, _r: Ratios) -> str | None:
    return None if host.is_up else f"it is down: {host.sentence}"


def _enabled(_ask: Ask, host: HostView, _r: Ratios) -> str | None:
    return f"it is disabled: {host.disabled_reason or 'no reason given'}" if host.disabled else None


def _hypervisor_answers(_ask: Ask, host: HostView, _r: Ratios) -> str | None:
    return None if host.hypervisor_up else "its hypervisor does not answer"


def _same_hypervisor(ask: Ask, host: HostView, _r: Ratios) -> str | None:
    if ask.hypervisor_type in (None, host.hypervisor_type):
        return None
    return f"its hypervisor is {host.hypervisor_type}, not {ask.hypervisor_type}"


def _short(what: str, unit: str, wanted: int, free: float) -> str | None:
    return None if wanted <= free else f"{what}: {wanted}{unit} wanted, {max(0, int(free))}{unit} free"


def _ram(ask: Ask, host: HostView, r: Ratios) -> str | None:
    free = (host.memory_mb - host.reserved_memory_mb) * r.ram - host.ram_mb_used
    return _short("memory", " MiB", ask.ram_mb, free)


def _cpu(ask: Ask, host: HostView, r: Ratios) -> str | None:
    return _short("vcpus", "", ask.vcpus, host.vcpus * r.cpu - host.vcpus_used)


def _disk(ask: Ask, host: HostView, r: Ratios) -> str | None:
    return _short("disk", " GiB", ask.disk_gb, host.disk_gb * r.disk - host.disk_gb_used)


Filter = Callable[[Ask, HostView, Ratios], "str | None"]
FILTERS: tuple[Filter, ...] = (
    _asked, _not_barred, _in_zone, _up, _enabled, _hypervisor_answers, _same_hypervisor, _ram, _cpu, _disk,
)  # fmt: skip


def first_failing(ask: Ask, host: HostView, ratios: Ratios) -> str | None:
    """The first rule that this host fails, as a sentence; None when it fits."""
    return next((reason for rule in FILTERS if (reason := rule(ask, host, ratios)) is not None), None)


def place(ask: Ask, hosts: Iterable[HostView], ratios: Ratios) -> Plan:
    """Rank the hosts that fit: most free memory first, then fewest instances, then by name."""
    fitting: list[HostView] = []
    reasons: dict[str, str] = {}
    for host in hosts:
        reason = first_failing(ask, host, ratios)
        if reason is None:
            fitting.append(host)
        else:
            reasons[host.name] = reason
    fitting.sort(key=lambda h: (h.ram_mb_used - h.memory_mb, h.instances, h.name))
    return Plan(tuple(h.name for h in fitting), reasons)


def sentence(plan: Plan, most: int = 8) -> str:
    """`No valid host was found`, with the reason of each host (of the first `most`)."""
    if not plan.reasons:
        return "No valid host was found: there is no host yet; start an agent with 'droveway agent'"
    shown = "; ".join(f"{name}: {reason}" for name, reason in sorted(plan.reasons.items())[:most])
    rest = f"; and {len(plan.reasons) - most} more hosts" if len(plan.reasons) > most else ""
    return f"No valid host was found: {shown}{rest}"
