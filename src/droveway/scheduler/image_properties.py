"""What the properties of an image ask for: each one that Nova acts on is heeded here, or refused by its name when a
server is made. What Nova itself does not act on with libvirt is the owner's own and passes.

A server is made of its image once: `kept` is what it takes with it, so that a later change of the image is no change of
the server."""

from __future__ import annotations

import re
from collections.abc import Mapping

from droveway.scheduler.extra_specs import ANYTHING, FALSE, NODES_MAX, POSITIVE, SHOWN, TRUTH, one_of
from droveway.scheduler.matching import TRAIT_OF_CPU

_AT_LEAST = r"\s*>=?\s*\d{1,3}(\.\d{1,3}){0,2}\s*"
SHOWN[_AT_LEAST] = "a least version, such as >=7.0"
SECONDS = r"[1-5]?\d{1,2}|600"
SHOWN[SECONDS] = "0 to 600 seconds"
_NO_DEVICE = "no host offers it; remove the property"

# property -> what its value must look like; these are heeded, or say what is so anyway
KNOWN: dict[str, str] = {
    **dict.fromkeys(
        ("hw_architecture", "architecture", "hw_machine_type", "machine_type", "img_hv_type", "hypervisor_type"),
        ANYTHING,
    ),
    **dict.fromkeys(("img_hv_requested_version", "hypervisor_version_requires"), _AT_LEAST),
    **{
        f"hw_{name}": POSITIVE
        for name in (
            "numa_nodes",
            "cpu_sockets",
            "cpu_cores",
            "cpu_threads",
            "cpu_max_sockets",
            "cpu_max_cores",
            "cpu_max_threads",
        )
    },
    "hw_cpu_policy": one_of("shared", "dedicated"),
    "hw_cpu_thread_policy": one_of("prefer"),
    "hw_mem_page_size": one_of("small", "any"),
    "hw_pci_numa_affinity_policy": one_of("required", "preferred", "legacy", "socket"),
    "hw_disk_bus": one_of("virtio", "scsi", "sata", "ide"),
    "hw_scsi_model": one_of("virtio-scsi"),
    "hw_vif_model": one_of("virtio", "e1000", "e1000e", "rtl8139", "ne2k_pci", "pcnet", "vmxnet3"),
    "hw_firmware_type": one_of("bios", "uefi"),
    "hw_rng_model": one_of("virtio"),
    "hw_watchdog_action": one_of("none", "pause", "poweroff", "reset", "disabled"),
    **dict.fromkeys(("hw_qemu_guest_agent", "hw_time_hpet", "hw_pmu", "img_hide_hypervisor_id"), TRUTH),
    "hw_serial_port_count": one_of("1"),
    "hw_video_model": one_of("vga", "virtio", "bochs", "cirrus", "none"),
    "hw_vm_mode": one_of("hvm"),
    "vm_mode": one_of("hvm"),
    "img_config_drive": one_of("optional", "mandatory"),
    "os_secure_boot": one_of("disabled", "optional"),
    "os_type": ANYTHING,
    "os_shutdown_timeout": SECONDS,
    # switches that may only stand where they stand anyway
    **dict.fromkeys(
        (
            "hw_boot_menu",
            "hw_vif_multiqueue_enabled",
            "hw_mem_encryption",
            "hw_locked_memory",
            "hw_ephemeral_encryption",
            "hw_firmware_stateless",
            "hw_virtio_packed_ring",
            "os_require_quiesce",
        ),
        FALSE,
    ),
    **dict.fromkeys(("img_bdm_v2", "bdm_v2"), FALSE),
    **dict.fromkeys(("img_block_device_mapping", "block_device_mapping", "img_mappings", "mappings"), r"(\[\s*\])?"),
}
# What would have to mean something, and does not here: a pattern of `property=value`, and the way out.
REFUSED: tuple[tuple[str, str], ...] = (
    (r"hw_cpu_policy=mixed", "pin all vcpus (dedicated) or none (shared)"),
    (r"hw_cpu_thread_policy=(isolate|require)", "the hosts' threads are not told apart; remove the property"),
    (r"hw_(cpu_realtime_mask|cpu_dedicated_mask|cpu_realtime)=.*", "use hw_cpu_policy=dedicated"),
    (r"hw_numa_(cpus|mem)\.\d+=.*", "nodes are spread evenly: use hw_numa_nodes"),
    (r"hw_mem_page_size=.*", "guests have ordinary pages: small or any"),
    (r"hw_disk_bus=.*", "disks are on virtio, scsi, sata or ide"),
    (r"hw_scsi_model=.*", "the controller of scsi disks is virtio-scsi"),
    (r"hw_vif_model=.*", "interfaces are virtio, e1000, e1000e, rtl8139, ne2k_pci, pcnet or vmxnet3"),
    (r"hw_vif_multiqueue_enabled=.*", "interfaces have one queue; remove the property"),
    (r"hw_video_model=.*", "screens are vga, virtio, bochs, cirrus or none"),
    (r"hw_(video_ram|pointer_model|input_bus|boot_menu|sound_model)=.*", _NO_DEVICE),
    (r"hw_serial_port_count=.*", "guests have one serial console; remove the property"),
    (r"(hw_)?vm_mode=.*", "guests are hardware virtual machines: hvm"),
    (
        r"hw_(mem_encryption\w*|locked_memory|tpm_\w+|maxphysaddr_\w+|ephemeral_encryption\w*|firmware_stateless"
        r"|viommu_model|virtio_packed_ring|usb_model|emulation_architecture|ipxe_boot)=.*",
        _NO_DEVICE,
    ),
    (r"os_secure_boot=required", "guests have no secure boot; set it to optional"),
    (r"os_require_quiesce=.*", "no file system of a guest is quiesced; remove the property"),
    (r"(os_command_line|kernel_id|ramdisk_id)=.+", "guests boot from their disk; remove the property"),
    (r"img_config_drive=.*", "it is optional or mandatory"),
    (r"(img_)?(bdm_v2|block_device_mapping|mappings)=.*", "a server has one disk of its image; remove the property"),
    (r"trait:.*", "hosts have the traits of their CPUs, trait:HW_CPU_X86_…=required or forbidden; remove the property"),
)


def check(properties: Mapping[str, str]) -> str | None:
    """What is wrong with the first of them that is wrong, and the way out; None when all are heeded or free."""
    return next((wrong for name, value in properties.items() if (wrong := _wrong(name, str(value)))), None)


def _wrong(name: str, value: str) -> str | None:
    if name.startswith(TRAIT_OF_CPU) and value in {"required", "forbidden"}:
        return None
    if name in KNOWN and re.fullmatch(KNOWN[name], value, re.DOTALL):
        if name == "hw_numa_nodes" and int(value) > NODES_MAX:
            return f"Image property '{name}' is at most {NODES_MAX}, not {value}."
        return None
    for pattern, way_out in REFUSED:
        if re.fullmatch(pattern, f"{name}={value}", re.DOTALL):
            return f"Image property '{name}={value[:64]}' cannot be kept: {way_out}."
    if name in KNOWN:
        return f"Image property '{name}' is {SHOWN.get(KNOWN[name], 'something else')}, not '{value[:64]}'."
    return None


def kept(properties: Mapping[str, str]) -> dict[str, str]:
    """What a server of that image takes with it: whatever is read of it later, and nothing else."""
    return {name: str(value) for name, value in properties.items() if name in KNOWN or name.startswith(TRAIT_OF_CPU)}


def traits(properties: Mapping[str, str]) -> dict[str, str]:
    """Those of the CPU, in the form of a flavor's extra specs."""
    return {name: value for name, value in properties.items() if name.startswith(TRAIT_OF_CPU)}
