"""Libvirt's XML, as pure functions of values: a guest becomes a domain, capabilities become resources.

A domain of ours carries an element in our own namespace with the instance's id and name; a domain without it is
not ours and is never touched. The domain's UUID is the instance's id, so either finds the other.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from uuid import UUID

import msgspec

from droveway.domain.hardware import BIOS, UEFI
from droveway.domain.model import GuestSpec
from droveway.domain.placement import NumaCell
from droveway.drivers.hypervisor.libvirt import console_xml, hardware_xml
from droveway.drivers.hypervisor.libvirt.numa_xml import guest_numa, own_cpus, parse_cells, tuning
from droveway.drivers.hypervisor.libvirt.volume_xml import OwnWays

NAMESPACE = "urn:droveway:guest:1"
NAME_PREFIX = "dw-"
ARCH = "x86_64"
MACHINE = "pc"
NO_WAYS = OwnWays()

# Everything that XML 1.0 cannot carry, not even escaped: control characters, lone surrogates, U+FFFE and U+FFFF.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

ET.register_namespace("droveway", NAMESPACE)


class ForeignDomain(ValueError):
    """The XML is not that of a domain which Droveway made."""


class HostFacts(msgspec.Struct, frozen=True):
    """What libvirt's capabilities say of a host, as far as a resource report needs it."""

    arch: str
    cpu_model: str
    cpu_vendor: str
    cpu_features: tuple[str, ...]
    cpu_topology: dict[str, int]
    cpu_xml: str
    machine_types: tuple[str, ...]
    cells: tuple[NumaCell, ...] = ()
    uuid: str = ""
    firmwares: tuple[str, ...] = ()


def xml_text(text: str) -> str:
    """The text with every character that XML cannot carry replaced by U+FFFD. The serialiser escapes the rest."""
    return _NOT_XML.sub("\ufffd", text)


def domain_name(instance_id: str) -> str:
    """The domain's name: the whole id, because a shortened one would some day make two guests of a host collide."""
    return NAME_PREFIX + instance_id


def is_instance_id(text: str) -> bool:
    """Whether it is a UUID in its one canonical form: anything else must never become a path or a name."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def domain_xml(
    spec: GuestSpec,
    instance_dir: str,
    use_kvm: bool,
    host_cells: Sequence[NumaCell] = (),
    ways: OwnWays = NO_WAYS,
) -> str:
    """The domain of a guest. Everything in it is the same on every host that shares the instance store, but where it
    is held to NUMA cells, and by which of a host's own ways it opens its volumes. Refused when this host has not those
    cells, or not those ways."""
    domain = ET.Element("domain", type="kvm" if use_kvm else "qemu")
    _leaf(domain, "name", domain_name(spec.instance_id))
    _leaf(domain, "uuid", spec.instance_id)
    metadata = ET.SubElement(domain, "metadata")
    mark = ET.SubElement(metadata, f"{{{NAMESPACE}}}instance", id=spec.instance_id, name=xml_text(spec.name))
    if own := own_cpus(spec):
        mark.set("cpus", ",".join(map(str, sorted(own))))
    _leaf(domain, "memory", str(spec.ram_mb), unit="MiB")
    _leaf(domain, "vcpu", str(spec.vcpus), placement="static")
    directory, hardware = xml_text(instance_dir), spec.hardware
    held: tuple[ET.Element, ...] = tuning(spec, host_cells) if spec.cells else ()
    shares = list(hardware_xml.cpu_tuning(hardware))
    if shares and not held:
        held = (ET.Element("cputune"),)
    if shares:
        held[0].extend(shares)
    domain.extend(held)
    domain.append(hardware_xml.operating_system(spec, spec.machine_type or MACHINE, ARCH, directory))
    ET.SubElement(domain, "features").extend(hardware_xml.features(hardware, use_kvm))
    # host-model is resolved when the guest starts and travels with it; a plain default would hide most of the
    # processor. An emulated guest keeps QEMU's default CPU, which is the same on every host.
    cpu = ET.Element("cpu", {"mode": "host-model", "check": "partial"} if use_kvm else {})
    cpu.extend(hardware_xml.topology(hardware))
    if spec.cells:
        cpu.append(guest_numa(spec))
    if use_kvm or len(cpu):
        domain.append(cpu)
    domain.append(hardware_xml.clock(hardware))
    _leaf(domain, "on_poweroff", "destroy")
    _leaf(domain, "on_reboot", "restart")
    _leaf(domain, "on_crash", "destroy")
    devices = ET.SubElement(domain, "devices")
    _devices(devices, spec, directory, ways)
    console_xml.add(devices, spec.instance_id, directory, hardware.video)
    return ET.tostring(domain, encoding="unicode")


def _devices(devices: ET.Element, spec: GuestSpec, instance_dir: str, ways: OwnWays) -> None:
    devices.extend(list(hardware_xml.disks(spec, instance_dir, ways)))  # what is raised in a generator would be hidden
    devices.extend(hardware_xml.nics(spec))
    devices.extend(hardware_xml.free_slots(spec.machine_type or MACHINE))
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
    devices.extend(hardware_xml.devices(spec.hardware))


def _leaf(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def parse_mark(metadata_xml: str) -> tuple[str, str]:
    """The instance's id and name out of the metadata element of ours."""
    try:
        element = ET.fromstring(metadata_xml)
    except ET.ParseError as error:
        raise ForeignDomain(f"the metadata is not XML: {error}") from None
    instance_id = element.get("id", "")
    # libvirt hands the element out with the namespace declared, or (older ones) with the bare local name.
    if element.tag not in (f"{{{NAMESPACE}}}instance", "instance") or not is_instance_id(instance_id):
        raise ForeignDomain("the metadata element is not one of ours")
    return instance_id, element.get("name", "")


def parse_domain_mark(domain: str) -> tuple[str, str]:
    """The same out of a whole domain's XML."""
    element = ET.fromstring(domain).find(f"metadata/{{{NAMESPACE}}}instance")
    if element is None:
        raise ForeignDomain("the domain carries no element of ours")
    return parse_mark(ET.tostring(element, encoding="unicode"))


def parse_capabilities(capabilities: str, domain_capabilities: str, use_kvm: bool) -> HostFacts:
    """A host's facts. With KVM the CPU to compare is what QEMU can give a guest here (domain capabilities), which is
    less than what the processor has; an emulating host reports the processor itself."""
    root = ET.fromstring(capabilities)
    cpu = root.find("host/cpu")
    if cpu is None:
        cpu = ET.Element("cpu")
    topology = cpu.find("topology")
    counts = {} if topology is None else {k: int(v) for k, v in sorted(topology.attrib.items()) if v.isdigit()}
    machines = root.findall(f"guest/arch[@name='{ARCH}']/machine")
    return HostFacts(
        arch=cpu.findtext("arch", ARCH),
        cpu_model=cpu.findtext("model", ""),
        cpu_vendor=cpu.findtext("vendor", ""),
        cpu_features=tuple(sorted({f.get("name", "") for f in cpu.findall("feature")} - {""})),
        cpu_topology=counts,
        cpu_xml=(_guest_cpu(domain_capabilities) if use_kvm else "") or _host_cpu(cpu),
        machine_types=tuple(dict.fromkeys(m.text for m in machines if m.text)),
        cells=parse_cells(root),
        uuid=root.findtext("host/uuid", ""),
        firmwares=_firmwares(domain_capabilities),
    )


def _firmwares(domain_capabilities: str) -> tuple[str, ...]:
    """What a guest may begin with here; libvirt says efi where it finds the files of one."""
    listed = ET.fromstring(domain_capabilities).findall("os/enum[@name='firmware']")
    if not listed:
        return ()
    return (BIOS, *((UEFI,) if any(value.text == "efi" for value in listed[0].findall("value")) else ()))


def _host_cpu(cpu: ET.Element) -> str:
    """The processor without what is not compared (microcode, counters, page sizes): a third of the length."""
    kept = ET.Element("cpu")
    for child in cpu:
        if child.tag in ("arch", "model", "vendor"):
            _leaf(kept, child.tag, child.text or "")
        elif child.tag == "feature":
            ET.SubElement(kept, "feature", name=child.get("name", ""))
    return ET.tostring(kept, encoding="unicode")


def _guest_cpu(domain_capabilities: str) -> str:
    """The host-model of the domain capabilities, as a CPU that another host can be asked to compare itself with."""
    mode = ET.fromstring(domain_capabilities).find("cpu/mode[@name='host-model'][@supported='yes']")
    if mode is None or mode.find("model") is None:
        return ""
    cpu = ET.Element("cpu", mode="custom", match="exact")
    _leaf(cpu, "model", mode.findtext("model", ""), fallback="forbid")
    vendor = mode.findtext("vendor")
    if vendor:
        _leaf(cpu, "vendor", vendor)
    for feature in mode.findall("feature"):
        ET.SubElement(cpu, "feature", policy=feature.get("policy", "require"), name=feature.get("name", ""))
    return ET.tostring(cpu, encoding="unicode")


def cpu_arch(cpu_xml: str) -> str:
    """The architecture that a CPU's XML names; empty when it names none or is no XML."""
    try:
        return ET.fromstring(cpu_xml).findtext("arch", "")
    except ET.ParseError:
        return ""
