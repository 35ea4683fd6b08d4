"""What libvirt says of a guest before it moves: whether it may, how much memory it has and how fast it dirties that.

Blocking functions of a connection. The rate is measured by QEMU itself, which samples pages of a guest that runs on
(`calc-dirty-rate`), and keeps the last figure: what was measured lately need not be measured again.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from typing import Any

import libvirt

from droveway.domain.model import GuestState
from droveway.domain.move_checks import CheckAnswer, of_guest
from droveway.domain.move_prediction import GuestLoad
from droveway.drivers.hypervisor.libvirt.guest import NOT_RUNNING, describe, find, ignoring
from droveway.drivers.hypervisor.libvirt.stalled import is_stalled

KIB, MIB = 1024, 1024**2
_LOAD = libvirt.VIR_DOMAIN_STATS_BALLOON | libvirt.VIR_DOMAIN_STATS_DIRTYRATE
_MEASURED = libvirt.VIR_DOMAIN_DIRTYRATE_MEASURED
# Each is a piece of its host: on another one it is another piece, or none.
_BOUND = (
    ("devices/hostdev", "host device"),
    ("devices/interface[@type='hostdev']", "network device of the host"),
    ("devices/filesystem", "directory of the host"),
    ("devices/shmem", "shared memory"),
)


def check(connection: Any, instance_id: str) -> tuple[CheckAnswer, ...]:
    domain = find(connection, instance_id)
    if domain is None:
        return of_guest(GuestState.ABSENT, "", ())
    state = describe(domain).state
    if state is GuestState.ABSENT:
        return of_guest(state, "", ())
    return of_guest(state, _stalled(domain), _bound(domain))


def _stalled(domain: Any) -> str:
    if not is_stalled(domain):
        return ""
    found: dict[str, int] = {}
    with ignoring(*NOT_RUNNING):
        found = domain.diskErrors()
    full = [name for name, error in found.items() if error == libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE]
    if full:
        return f"there is no space behind its disk {full[0]}"
    return f"its disk {next(iter(found))} fails" if found else "a disk of it fails"


def _bound(domain: Any) -> tuple[str, ...]:
    root = ET.fromstring(domain.XMLDesc())
    return tuple(f"{words} {_address(one)}".rstrip() for path, words in _BOUND for one in root.iterfind(path))


def _address(element: ET.Element) -> str:
    """As `lspci` and `lsusb` name it, or as libvirt does."""
    source = element.find("source")
    if source is None:
        return element.get("name", "")
    found = source.find("address")
    if found is not None and found.get("slot") is not None:
        part = [int(found.get(name, "0"), 0) for name in ("domain", "bus", "slot", "function")]
        return "{:04x}:{:02x}:{:02x}.{:x}".format(*part)
    vendor, product = source.find("vendor"), source.find("product")
    if vendor is not None and product is not None:
        return f"{vendor.get('id', '').removeprefix('0x')}:{product.get('id', '').removeprefix('0x')}"
    return source.get("dir", "") or source.get("name", "")


# -- how much there is to send ----------------------------------------------------------------------------------------
def measure(connection: Any, instance_ids: Iterable[str], seconds: int) -> None:
    """Begin to measure how fast these guests dirty their memory. One that is being measured already goes on."""
    for instance_id in instance_ids:
        domain = find(connection, instance_id)
        if domain is None or describe(domain).state is not GuestState.RUNNING:
            continue
        try:
            domain.startDirtyRateCalc(seconds, libvirt.VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING)
        except libvirt.libvirtError:
            continue  # under way, or a QEMU that cannot: then its load has no rate


def loads(connection: Any, instance_ids: Sequence[str], now_s: float) -> dict[str, GuestLoad]:
    """Of those that run here. `now_s`: of the clock by which QEMU tells when it measured, the monotonic one."""
    domains = [domain for instance_id in instance_ids if (domain := find(connection, instance_id)) is not None]
    running = [domain for domain in domains if domain.isActive()]
    if not running:
        return {}
    found = connection.domainListGetStats(running, _LOAD, 0)
    return {domain.UUIDString(): _load(stats, now_s) for domain, stats in found}


def _load(stats: dict[str, Any], now_s: float) -> GuestLoad:
    memory_bytes = stats.get("balloon.current", 0) * KIB
    used_bytes = min(stats.get("balloon.rss", 0) * KIB or memory_bytes, memory_bytes)
    if stats.get("dirtyrate.calc_status") != _MEASURED:
        return GuestLoad(memory_bytes, used_bytes)
    ended_s = stats.get("dirtyrate.calc_start_time", 0) + stats.get("dirtyrate.calc_period", 0)
    rate = max(0, stats.get("dirtyrate.megabytes_per_second", 0)) * MIB
    return GuestLoad(memory_bytes, used_bytes, rate, max(0.0, now_s - ended_s))
