"""CPUs that are a guest's own. Every other guest of ours is kept off them for as long as the owner runs.

Which CPUs a guest owns stands in the element of ours in its domain. Where the others may run is said to the running
guests alone: their definitions stay as they are, so a guest that is started again, or gone to another host, has lost
nothing. Placing counts in the same way: a CPU that is pinned is none that others share (scheduler/capacity.py).
"""

from __future__ import annotations

import contextlib
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import libvirt

from droveway.domain.model import GuestSpec
from droveway.drivers.hypervisor.libvirt.domain_xml import NAMESPACE
from droveway.drivers.hypervisor.libvirt.guest import is_ours
from droveway.drivers.hypervisor.libvirt.numa_xml import own_cpus

LIVE, CONFIG = libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
_LEAVING = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN_METADATA)
Map = tuple[bool, ...]


class OwnCpus:
    """Blocking; in the threads that call libvirt."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._were_some = True  # an earlier process may have left guests kept off CPUs that are not pinned any more

    @contextlib.contextmanager
    def around_start(self, connection: Any, spec: GuestSpec) -> Iterator[None]:
        """The others go before it runs; a guest that floats is told where once it does."""
        if own := own_cpus(spec):
            self.keep(connection, own)
        try:
            yield
        finally:
            self.keep(connection)

    def keep(self, connection: Any, coming: frozenset[int] = frozenset()) -> None:
        """Every running guest that floats may use what its definition allows and is not pinned. `coming`: CPUs of a
        guest that is about to start."""
        with self._lock:
            floating, own = [], set(coming)
            for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
                with _leaving():
                    if is_ours(domain):
                        its = _owned_by(domain)
                        own |= its
                        if not its:
                            floating.append(domain)
            if own or self._were_some:
                for domain in floating:
                    with _leaving():
                        _keep_off(domain, own)
            self._were_some = bool(own)


def _owned_by(domain: Any) -> set[int]:
    element = ET.fromstring(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE))
    return {int(cpu) for cpu in element.get("cpus", "").split(",") if cpu.isdigit()}


def _keep_off(domain: Any, own: set[int]) -> None:
    flags = CONFIG if domain.isPersistent() else LIVE
    allowed, now = domain.vcpuPinInfo(flags), domain.vcpuPinInfo(LIVE)
    for vcpu, (may, does) in enumerate(zip(allowed, now, strict=False)):
        if wanted := _wanted(may, does, own):
            domain.pinVcpuFlags(vcpu, wanted, LIVE)
    if wanted := _wanted(domain.emulatorPinInfo(flags), domain.emulatorPinInfo(LIVE), own):
        domain.pinEmulator(wanted, LIVE)


def _wanted(may: Map, does: Map, own: set[int]) -> Map | None:
    """None when it is so already, or when nothing would be left: a guest has to run somewhere."""
    wanted = tuple(is_allowed and cpu not in own for cpu, is_allowed in enumerate(may))
    return wanted if any(wanted) and wanted != tuple(does) else None


@contextlib.contextmanager
def _leaving() -> Iterator[None]:
    """A guest that ends meanwhile needs no place."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _LEAVING:
            raise
