"""What a host reports of itself: what of it is accepted, what of it is new, and what it uses right now. Pure.

What a host *has* changes rarely and is in the store. What it *uses* this minute is measured, is told with every full
report, and is kept in memory only: nothing is decided by it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from droveway.domain import peer_uri
from droveway.domain.cpu_xml import WrongCpu, canonical
from droveway.domain.model import Guest, Resources
from droveway.domain.placement import HostFacts
from droveway.domain.wire import LIST, Number, ShortText

VCPUS_MAX = 65_536
MEMORY_MAX_MB = 1 << 40  # 1 EiB
DISK_MAX_GB = 1 << 30  # 1 EiB
NAME_MAX, LIST_MAX = 255, 4096
SAME_NAMES_SHOWN = 4
IDENTITY_MAX = 4096
_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n?")
REASON_MAX = 4096
CELLS_MAX = 1024
GENERATION_MAX = 1 << 40  # it begins at a clock's seconds and rises by one with each change
TIME_MAX_S, USERS_MAX, LOAD_MAX = 1 << 40, 1 << 20, 1e6
CPU_TIME_MAX_MS = 1 << 53
GUESTS_MAX = 10_000
CELLS_SLACK = 1.1  # the cells are measured by the kernel and the sum by libvirt: they differ a little
FREE_CHANGE_SHARE = (
    0.1  # of the whole: free memory and disk that differ by more from what is recorded are recorded anew
)


class GuestUse(msgspec.Struct, frozen=True, array_like=True):
    """What one guest has used: CPU time since it started, host memory now, bytes of its disk that exist."""

    instance_id: ShortText
    cpu_time_ms: Number = 0
    memory_mb: Number = 0
    disk_mb: Number = 0


class HostUsage(msgspec.Struct, frozen=True):
    """A host at one moment. `load`: over 1, 5 and 15 minutes."""

    uptime_s: Number = 0
    load: tuple[float, float, float] = (0.0, 0.0, 0.0)
    users: Number = 0
    memory_free_mb: Number = 0
    disk_free_gb: Number = 0
    disk_available_least_gb: Number = 0  # when every disk had grown to its full size; below 0 when promised beyond
    guests: Annotated[tuple[GuestUse, ...], LIST] = ()


class LastReport(msgspec.Struct, frozen=True):
    """The last report of a host that was accepted, as far as it is not in the store."""

    at_us: int
    generation: int
    measured: HostUsage | None = None


def without_guests(report: LastReport) -> LastReport:
    """For lists of many hosts."""
    measured = report.measured
    if measured is None or not measured.guests:
        return report
    return msgspec.structs.replace(report, measured=msgspec.structs.replace(measured, guests=()))


# -- what is accepted -------------------------------------------------------------------------------------------------
def validation_error(
    resources: Resources | None,
    guests: Sequence[Guest] = (),
    measured: HostUsage | None = None,
    *,
    admitted: Sequence[str] = (),
    generation: int = 0,
    reason: str = "",
) -> str | None:
    """Why that cannot be true, as a sentence; None when it can."""
    if not 0 <= generation <= GENERATION_MAX:
        return f"it says {generation} as the generation of its report; 0 to {GENERATION_MAX} can be"
    if "\0" in reason or len(reason) > REASON_MAX:
        return f"its sentence is longer than {REASON_MAX} characters, or holds a nul"
    if len(guests) > GUESTS_MAX or len(admitted) > GUESTS_MAX:
        return f"it says that it has {max(len(guests), len(admitted))} guests; more than {GUESTS_MAX} cannot be"
    if not all(map(is_name, admitted)) or not all(is_name(guest.instance_id) for guest in guests):
        return f"it names a guest by none or by more than {NAME_MAX} characters, or by some that cannot be shown"
    if resources is not None:
        wrong = _wrong_numbers(resources) or _wrong_texts(resources) or _wrong_cells(resources)
        if wrong:
            return wrong
    return None if measured is None else _wrong_measure(measured, resources)


def storable(reason: str) -> str:
    """A host's words, as every database takes them."""
    return reason[:REASON_MAX].replace("\0", " ")


def is_name(text: str) -> bool:
    """Whether a thing may be called so: something that a database can be asked for, and that can be shown."""
    return 0 < len(text) <= NAME_MAX and text.isprintable()


def _wrong_numbers(r: Resources) -> str | None:
    for what, value, least, most in (
        ("vcpus", r.vcpus, 1, VCPUS_MAX),
        ("MiB of memory", r.memory_mb, 1, MEMORY_MAX_MB),
        ("GiB of disk", r.disk_gb, 0, DISK_MAX_GB),
        ("MiB of memory kept back", r.reserved_memory_mb, 0, r.memory_mb),
        ("as the version of its hypervisor", r.hypervisor_version, 0, 1 << 40),
        ("GiB of disk kept back", r.reserved_disk_gb, 0, r.disk_gb),
        ("MiB of free memory", r.memory_free_mb, 0, r.memory_mb),
        ("GiB of free disk", r.disk_free_gb, 0, r.disk_gb),
    ):
        if not least <= value <= most:
            return f"it says {value} {what}; {least} to {most} can be"
    for part, count in r.cpu_topology.items():
        if not is_name(part):
            return f"the name of a part of its CPU topology is not 1 to {NAME_MAX} characters that can be shown"
        if not 0 <= count <= VCPUS_MAX:
            return f"it says {count} {part[:40]} in its CPU topology; 0 to {VCPUS_MAX} can be"
    return None


def _wrong_texts(r: Resources) -> str | None:
    if not r.hypervisor_hostname:
        return "its hypervisor says no name of itself"
    for what, text in (
        ("hypervisor hostname", r.hypervisor_hostname),
        ("hypervisor type", r.hypervisor_type),
        ("CPU architecture", r.cpu_arch),
        ("CPU model", r.cpu_model),
        ("CPU vendor", r.cpu_vendor),
        ("address", r.host_ip),
        ("peer URI", r.peer_uri),
        ("uuid", r.host_uuid),
    ):
        if len(text) > NAME_MAX or not text.isprintable():
            return f"the {what} it says is longer than {NAME_MAX} characters, or holds some that cannot be shown"
    for what, texts in (
        ("CPU features", r.cpu_features),
        ("machine types", r.machine_types),
        ("firmwares", r.firmwares),
    ):
        if len(texts) > LIST_MAX or any(len(text) > NAME_MAX for text in texts):
            return f"it says more than {LIST_MAX} {what}, or one longer than {NAME_MAX} characters"
    if len(r.store_trouble) > REASON_MAX or "\0" in r.store_trouble:
        return f"its sentence about its instance store is longer than {REASON_MAX} characters, or holds a nul"
    if len(r.cpu_topology) > NAME_MAX:
        return f"it says more than {NAME_MAX} parts of its CPU topology"
    return _wrong_grammar(r)


def _wrong_grammar(r: Resources) -> str | None:
    """What other hosts are handed: never more than data."""
    try:
        if r.peer_uri:
            peer_uri.peer_uri(r.peer_uri)
        if r.host_ip:
            peer_uri.address(r.host_ip)
        canonical(r.cpu_xml)
        if r.disk_identity and not (len(r.disk_identity) <= IDENTITY_MAX and _CERTIFICATE.fullmatch(r.disk_identity)):
            return "what it says that exports of volumes know it by is no certificate"
    except (peer_uri.WrongUri, WrongCpu) as wrong:
        return f"{wrong}; set it right in the file of its agent" if isinstance(wrong, peer_uri.WrongUri) else str(wrong)
    return None


def _wrong_cells(r: Resources) -> str | None:
    if len(r.cells) > CELLS_MAX:
        return f"it says {len(r.cells)} NUMA cells; more than {CELLS_MAX} cannot be"
    cpus = [cpu for cell in r.cells for cpu in cell.cpus]
    if len({cell.id for cell in r.cells}) < len(r.cells) or any(not 0 <= cell.id < VCPUS_MAX for cell in r.cells):
        return f"two of its NUMA cells have the same number, or one below 0 or above {VCPUS_MAX - 1}"
    if len(set(cpus)) < len(cpus):
        return "two of its NUMA cells have the same CPU"
    if len(cpus) > r.vcpus or any(not 0 <= cpu < VCPUS_MAX for cpu in cpus):
        return f"the CPUs of its NUMA cells ({len(cpus)}) are not those of the host ({r.vcpus})"
    memory_mb = sum(cell.memory_mb for cell in r.cells)
    if any(cell.memory_mb < 0 for cell in r.cells) or memory_mb > r.memory_mb * CELLS_SLACK:
        return f"its NUMA cells have {memory_mb} MiB of memory and the host {r.memory_mb} MiB"
    return None


def _wrong_measure(m: HostUsage, resources: Resources | None) -> str | None:
    if any(not math.isfinite(one) or not 0 <= one <= LOAD_MAX for one in m.load):
        return f"it says a load of {', '.join(f'{one:g}' for one in m.load)}; each is 0 to {LOAD_MAX:g}"
    for what, value, least, most in (
        ("seconds of uptime", m.uptime_s, 0, TIME_MAX_S),
        ("users", m.users, 0, USERS_MAX),
        ("MiB of memory free now", m.memory_free_mb, 0, MEMORY_MAX_MB),
        ("GiB of disk free now", m.disk_free_gb, 0, DISK_MAX_GB),
        ("GiB of disk available at least", m.disk_available_least_gb, -DISK_MAX_GB, DISK_MAX_GB),
    ):
        if not least <= value <= most:
            return f"it says {value} {what}; {least} to {most} can be"
    if len(m.guests) > GUESTS_MAX:
        return f"it has measured {len(m.guests)} guests; more than {GUESTS_MAX} cannot be"
    for one in m.guests:
        if not is_name(one.instance_id):
            return f"it has measured a guest whose name is not 1 to {NAME_MAX} characters that can be shown"
        if (
            min(one.cpu_time_ms, one.memory_mb, one.disk_mb) < 0
            or one.cpu_time_ms > CPU_TIME_MAX_MS
            or max(one.memory_mb, one.disk_mb) > MEMORY_MAX_MB
        ):
            return f"guest {one.instance_id[:40]} has used less than nothing, or more than there is"
        if resources is not None and one.memory_mb > resources.memory_mb:
            return f"guest {one.instance_id[:40]} uses {one.memory_mb} MiB of a host that has {resources.memory_mb} MiB"
    return None


# -- what is news -----------------------------------------------------------------------------------------------------
def without_free_amounts(resources: Resources | None) -> Resources | None:
    """Without what differs from one look to the next on a host where nothing happens."""
    return None if resources is None else msgspec.structs.replace(resources, memory_free_mb=0, disk_free_gb=0)


def is_free_amount_changed(resources: Resources, memory_free_mb: int, disk_free_gb: int) -> bool:
    """Whether what is free now is another tenth of the whole than what is recorded."""
    return abs(resources.memory_free_mb - memory_free_mb) > resources.memory_mb * FREE_CHANGE_SHARE or abs(
        resources.disk_free_gb - disk_free_gb
    ) > max(1.0, resources.disk_gb * FREE_CHANGE_SHARE)


def lost_capacity(before: Mapping[str, Any] | None, now: Resources) -> str | None:
    """What a host has less of than it had, as a sentence."""
    lost = [
        f"{was} to {has} {what}"
        for what, was, has in (
            ("vcpus", (before or {}).get("vcpus", 0), now.vcpus),
            ("MiB of memory", (before or {}).get("memory_mb", 0), now.memory_mb),
            ("GiB of disk", (before or {}).get("disk_gb", 0), now.disk_gb),
        )
        if has < was
    ]
    return f"it has shrunk from {' and from '.join(lost)}" if lost else None


# -- what it can be used for ------------------------------------------------------------------------------------------
class UnusableReason(msgspec.Struct, frozen=True):
    """One reason why no guest is placed on a host: a word for lists, and a sentence."""

    word: str
    reason: str


def unusable(host: HostFacts, most: tuple[int, int, int], hypervisor_reason: str = "") -> list[UnusableReason]:
    """Why no guest, however small, is placed there; empty when one may be. `most`: the memory in MiB, vcpus and disk in
    GiB that may be promised there. `said`: what its agent reported of a hypervisor that did not answer."""
    found = []
    if not host.is_up:
        found.append(UnusableReason("down", f"its nova-compute is down: {host.reason or 'no reason was given'}"))
    if host.disabled:
        found.append(
            UnusableReason("disabled", f"an operator disabled it: {host.disabled_reason or 'no reason was given'}")
        )
    if host.refused:
        found.append(UnusableReason("refused", f"its last report was refused: {host.refused}"))
    if host.vcpus == 0:
        return [*found, UnusableReason("never reported", "it has not reported yet what it has")]
    if not host.hypervisor_up:
        because = f": {hypervisor_reason}" if hypervisor_reason else ""
        found.append(UnusableReason("hypervisor", f"its hypervisor did not answer when it last reported{because}"))
    if host.store_trouble:
        found.append(UnusableReason("store", host.store_trouble))
    promised = (host.ram_mb_used, host.vcpus_used, host.disk_gb_used)
    for what, used, may in zip(("MiB of memory", "vcpus", "GiB of disk"), promised, most, strict=True):
        if used > may:
            reason = f"more is promised to guests than it has: {used} of {may} {what}"
            found.append(UnusableReason("shrunk", f"{reason}; they run on, and nothing new is placed there"))
        elif used == may and what != "GiB of disk":  # a guest may want no disk
            found.append(UnusableReason("full", f"all is promised to guests: {used} of {may} {what}"))
    return found


# -- how it is told ---------------------------------------------------------------------------------------------------
def uptime_text(report: LastReport | None, now_us: int) -> str | None:
    """As the command `uptime` would say it on that host now, in UTC. None when the host has not said."""
    if report is None or report.measured is None:
        return None
    m = report.measured
    minutes = (m.uptime_s + max(0, now_us - report.at_us) // 1_000_000) // 60
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    up = (f"{days} day{'s' * (days != 1)}, " if days else "") + (f"{hours}:{minutes:02}" if hours else f"{minutes} min")
    load = ", ".join(f"{one:.2f}" for one in m.load)
    of_day_s = now_us // 1_000_000 % 86400
    clock = f"{of_day_s // 3600:02}:{of_day_s // 60 % 60:02}:{of_day_s % 60:02}"
    return f" {clock} up {up},  {m.users} user{'s' * (m.users != 1)},  load average: {load}"


def same_hypervisor(hostname: str, others: Sequence[str]) -> str:
    """What to say of a host whose hypervisor goes by the same name as that of `others`; nothing when there are none."""
    if not others:
        return ""
    shown = ", ".join(sorted(others)[:SAME_NAMES_SHOWN])
    return (
        f"its hypervisor calls itself {hostname}, and so does that of {shown}: OpenStack tells hypervisors apart "
        "by that name, so give each machine a hostname of its own"
    )
