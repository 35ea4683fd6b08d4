"""The wishes about a guest's virtual machine, as elements of libvirt's XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from string import ascii_lowercase

from droveway.domain.hardware import UEFI, Hardware
from droveway.domain.model import GuestSpec, Nic, SpareDisk
from droveway.domain.network_plan import bridge_of, device_of
from droveway.drivers.hypervisor.libvirt import volume_xml
from droveway.drivers.hypervisor.libvirt.config_drive import NAME
from droveway.drivers.hypervisor.libvirt.volume_xml import OwnWays

NVRAM = "nvram.fd"
ROOT_PORTS = 24  # one a device, those with which the guest starts among them
EPHEMERAL, SWAP = "disk.eph0", "disk.swap"
_PREFIX = {"virtio": "vd", "scsi": "sd", "sata": "sd", "ide": "hd"}
_WRITABLE_ONLY = frozenset(("sata", "ide"))  # a disk there cannot be read-only: a drive is a CD


def spare_name(disk: SpareDisk) -> str:
    """The file of a disk that lies beside its own."""
    return f"disk.{disk.value}"


def local_disks(spec: GuestSpec) -> tuple[str, ...]:
    """The files of the disks beside the root disk, in their order."""
    return (*((EPHEMERAL,) if spec.ephemeral_gb else ()), *((SWAP,) if spec.swap_mb else ()))


def disks(spec: GuestSpec, instance_dir: str, ways: OwnWays) -> Iterator[ET.Element]:
    """The root disk, the ephemeral one, the one for swap, then the volumes; and the controller that they may need.
    Before the root disk of a guest that is rescued is the one that it begins from. Volumes have the devices that they
    were given; the others take what is left."""
    hardware = spec.hardware
    rescue = ((spare_name(SpareDisk.RESCUE), "qcow2"),) if spec.rescue else ()
    root = () if spec.begins_from_volume else (("disk", "qcow2"),)
    in_pool = {"disk", spare_name(SpareDisk.RESCUE)} if spec.root_pool else set[str]()
    files = (*rescue, *root, *((name, "raw") for name in local_disks(spec)))
    if "scsi" in {hardware.disk_bus, *(volume.bus for volume in spec.volumes)}:
        yield ET.Element("controller", type="scsi", index="0", model="virtio-scsi")
    taken = {volume.device[2:] for volume in spec.volumes}
    free = [letter for letter in ascii_lowercase if letter not in taken]
    orders = _boot_orders(spec)
    for letter, (name, kind) in zip(free, files, strict=False):
        if name in in_pool:
            disk = volume_xml.root_disk(spec, name, ways)
        else:
            disk = ET.Element("disk", type="file", device="disk")
            ET.SubElement(disk, "driver", name="qemu", type=kind, cache="none", discard="unmap")
            ET.SubElement(disk, "source", file=f"{instance_dir}/{name}")
        ET.SubElement(disk, "target", dev=f"{_PREFIX[hardware.disk_bus]}{letter}", bus=hardware.disk_bus)
        if hardware.disk_limits:
            limits = ET.SubElement(disk, "iotune")
            for limit, number in sorted(hardware.disk_limits.items()):
                ET.SubElement(limits, limit).text = str(number)
        if order := orders.get(name):
            ET.SubElement(disk, "boot", order=str(order))
        yield disk
    for volume in spec.volumes:
        yield volume_xml.disk(volume, ways, orders.get(volume.volume_id, 0))
    if spec.config_drive:
        left = [letter for letter in free[len(files) :] if letter >= ("e" if spec.rescue else "d")]
        yield _config_drive(hardware.disk_bus, instance_dir, left[0])


def _boot_orders(spec: GuestSpec) -> dict[str, int]:
    """Of the disks that are begun from, by file or volume, where more than the first one is: none is said otherwise."""
    chosen = sorted((volume.boot_index, volume.volume_id) for volume in spec.volumes if volume.boot_index >= 0)
    if not chosen:
        return {}
    first = spare_name(SpareDisk.RESCUE) if spec.rescue else "" if spec.begins_from_volume else "disk"
    names = (*((first,) if first else ()), *(volume_id for _, volume_id in chosen))
    return {name: order for order, name in enumerate(names, 1)}


def _config_drive(bus: str, instance_dir: str, letter: str) -> ET.Element:
    """On the bus of the root disk, which the guest knows: it has begun from there."""
    drive = ET.Element("disk", type="file", device="cdrom" if bus in _WRITABLE_ONLY else "disk")
    ET.SubElement(drive, "driver", name="qemu", type="raw", cache="none")
    ET.SubElement(drive, "source", file=f"{instance_dir}/{NAME}")
    ET.SubElement(drive, "target", dev=f"{_PREFIX[bus]}{letter}", bus=bus)
    ET.SubElement(drive, "readonly")
    return drive


def nics(spec: GuestSpec) -> Iterator[ET.Element]:
    """Each on the bridge of its network, under the name that the host's rules know: the same on every host."""
    for nic in spec.nics:
        yield interface(nic, spec.hardware.nic_model)


def interface(nic: Nic, model: str) -> ET.Element:
    found = ET.Element("interface", type="bridge")
    ET.SubElement(found, "mac", address=nic.mac)
    ET.SubElement(found, "source", bridge=bridge_of(nic.network_id))
    ET.SubElement(found, "target", dev=device_of(nic.port_id))
    ET.SubElement(found, "model", type=model)
    ET.SubElement(found, "mtu", size=str(nic.mtu_bytes))
    return found


def free_slots(machine: str) -> Iterator[ET.Element]:
    """Of a machine whose bus has none for what is plugged later, unless it is begun with them."""
    if "q35" in machine:
        yield ET.Element("controller", type="pci", index="0", model="pcie-root")
        for _ in range(ROOT_PORTS):
            yield ET.Element("controller", type="pci", model="pcie-root-port")


def devices(hardware: Hardware) -> Iterator[ET.Element]:
    if hardware.rng:
        rng = ET.Element("rng", model="virtio")
        if hardware.rng_bytes:
            ET.SubElement(rng, "rate", bytes=str(hardware.rng_bytes), period=str(hardware.rng_period_ms))
        ET.SubElement(rng, "backend", model="random").text = "/dev/urandom"
        yield rng
    if hardware.watchdog:
        yield ET.Element("watchdog", model="i6300esb", action=hardware.watchdog)
    if hardware.guest_agent:
        channel = ET.Element("channel", type="unix")
        ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
        yield channel


def cpu_tuning(hardware: Hardware) -> Iterator[ET.Element]:
    """The inside of <cputune>."""
    for tag, number in (
        ("shares", hardware.cpu_shares),
        ("period", hardware.cpu_period_us),
        ("quota", hardware.cpu_quota_us),
    ):
        if number:
            element = ET.Element(tag)
            element.text = str(number)
            yield element


def topology(hardware: Hardware) -> Iterator[ET.Element]:
    """The inside of <cpu>."""
    if hardware.sockets:
        yield ET.Element(
            "topology", sockets=str(hardware.sockets), cores=str(hardware.cores), threads=str(hardware.threads)
        )


def features(hardware: Hardware, use_kvm: bool) -> Iterator[ET.Element]:
    """The inside of <features>."""
    yield ET.Element("acpi")
    if hardware.pmu is not None and use_kvm:  # an emulated processor has none to switch
        yield ET.Element("pmu", state="on" if hardware.pmu else "off")
    if hardware.hides_hypervisor and use_kvm:  # nor is there a KVM to hide
        kvm = ET.Element("kvm")
        ET.SubElement(kvm, "hidden", state="on")
        yield kvm
    if hardware.windows and use_kvm:
        hyperv = ET.Element("hyperv")
        ET.SubElement(hyperv, "relaxed", state="on")
        ET.SubElement(hyperv, "vapic", state="on")
        ET.SubElement(hyperv, "spinlocks", state="on", retries="8191")
        yield hyperv


def clock(hardware: Hardware) -> ET.Element:
    """Windows takes the machine's clock for local time."""
    found = ET.Element("clock", offset="localtime" if hardware.windows else "utc")
    if hardware.hpet:
        ET.SubElement(found, "timer", name="hpet", present="yes")
    return found


def operating_system(spec: GuestSpec, machine: str, arch: str, instance_dir: str) -> ET.Element:
    """<os>. The variables of a UEFI guest lie beside its disk, so they are there on whichever host it starts."""
    found = ET.Element("os", {"firmware": "efi"} if spec.hardware.firmware == UEFI else {})
    ET.SubElement(found, "type", arch=arch, machine=machine).text = "hvm"
    if spec.hardware.firmware == UEFI:
        ET.SubElement(ET.SubElement(found, "firmware"), "feature", enabled="no", name="secure-boot")
        ET.SubElement(found, "nvram").text = f"{instance_dir}/{NVRAM}"
    return found
