"""NUMA in libvirt's XML: the cells a host says it has, and the cells a guest is held to."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from droveway.domain.model import GuestSpec
from droveway.domain.placement import NumaCell
from droveway.drivers.hypervisor.promises import check_cells


def parse_cells(capabilities: ET.Element) -> tuple[NumaCell, ...]:
    """The cells with the CPUs that are online; () when libvirt does not know them."""
    found = []
    for cell in capabilities.findall("host/topology/cells/cell"):
        memory = cell.find("memory")
        if memory is None or memory.get("unit") != "KiB" or not (memory.text or "").isdigit():
            return ()
        cpus = tuple(sorted(int(cpu.get("id", "0")) for cpu in cell.findall("cpus/cpu")))
        found.append(NumaCell(int(cell.get("id", "0")), cpus, int(memory.text or "0") // 1024))
    return tuple(found)


def tuning(spec: GuestSpec, host_cells: Sequence[NumaCell]) -> tuple[ET.Element, ET.Element]:
    """<cputune> and <numatune>: a vcpu on its own CPU or on those of its cell, memory from that cell and no other."""
    check_cells(spec, host_cells)
    cells = {cell.id: cell for cell in host_cells}
    cputune, numatune = ET.Element("cputune"), ET.Element("numatune")
    vcpu, everywhere = 0, set[int]()
    for held in spec.cells:
        floating = _ranges(cells[held.cell].cpus)
        everywhere.update(held.cpus or cells[held.cell].cpus)
        for number in range(held.vcpus):
            cpuset = str(held.cpus[number]) if held.cpus else floating
            ET.SubElement(cputune, "vcpupin", vcpu=str(vcpu), cpuset=cpuset)
            vcpu += 1
    ET.SubElement(cputune, "emulatorpin", cpuset=_ranges(sorted(everywhere)))
    nodes = _ranges(sorted({held.cell for held in spec.cells}))
    ET.SubElement(numatune, "memory", mode="strict", nodeset=nodes)
    for number, held in enumerate(spec.cells):
        ET.SubElement(numatune, "memnode", cellid=str(number), mode="strict", nodeset=str(held.cell))
    return cputune, numatune


def own_cpus(spec: GuestSpec) -> frozenset[int]:
    """The host's CPUs that are this guest's alone."""
    return frozenset(cpu for held in spec.cells for cpu in held.cpus)


def guest_numa(spec: GuestSpec) -> ET.Element:
    """<numa> as the guest sees it: a cell of its own for each that it is held to."""
    numa, vcpu = ET.Element("numa"), 0
    for number, held in enumerate(spec.cells):
        cpus = _ranges(range(vcpu, vcpu + held.vcpus))
        ET.SubElement(numa, "cell", id=str(number), cpus=cpus, memory=str(held.memory_mb), unit="MiB")
        vcpu += held.vcpus
    return numa


def _ranges(numbers: Sequence[int]) -> str:
    """0-3,8 for 0, 1, 2, 3, 8."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
