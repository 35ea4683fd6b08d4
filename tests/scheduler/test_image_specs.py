"""Every property of an image that Nova acts on: heeded, or refused by its name."""

from __future__ import annotations

import pytest

from droveway.domain.hardware import UEFI, Hardware
from droveway.scheduler import extra_specs, hardware, image_properties

# Nova's image properties for libvirt, each with a value that is a real wish. Not here: what only other drivers read.
HEEDED = {
    "hw_architecture": "x86_64",
    "hw_machine_type": "q35",
    "img_hv_type": "kvm",
    "img_hv_requested_version": ">=6.2",
    "hw_numa_nodes": "2",
    "hw_cpu_policy": "dedicated",
    "hw_vif_model": "e1000",
    "hw_cpu_sockets": "1",
    "hw_cpu_cores": "2",
    "hw_cpu_threads": "2",
    "hw_cpu_max_sockets": "1",
    "hw_cpu_max_cores": "2",
    "hw_cpu_max_threads": "2",
    "hw_disk_bus": "sata",
    "hw_firmware_type": "uefi",
    "hw_rng_model": "virtio",
    "hw_watchdog_action": "reset",
    "hw_qemu_guest_agent": "yes",
    "hw_time_hpet": "true",
    "hw_video_model": "virtio",
    "hw_pmu": "false",
    "img_hide_hypervisor_id": "true",
    "os_type": "windows",
    "os_shutdown_timeout": "300",
    "trait:HW_CPU_X86_AVX2": "required",
}
SO_ANYWAY = {
    "hw_cpu_thread_policy": "prefer",
    "hw_mem_page_size": "small",
    "hw_scsi_model": "virtio-scsi",
    "hw_vm_mode": "hvm",
    "img_config_drive": "optional",
    "os_secure_boot": "optional",
    "hw_serial_port_count": "1",
    "hw_boot_menu": "false",
    "hw_mem_encryption": "False",
    "hw_pci_numa_affinity_policy": "preferred",
    "os_require_quiesce": "no",
}
REFUSED = {
    "hw_cpu_policy": "mixed",
    "hw_cpu_thread_policy": "isolate",
    "hw_cpu_realtime_mask": "^0-1",
    "hw_numa_cpus.0": "0",
    "hw_numa_mem.0": "512",
    "hw_mem_page_size": "1GB",
    "hw_disk_bus": "usb",
    "hw_scsi_model": "lsilogic",
    "hw_vif_model": "spapr-vlan",
    "hw_vif_multiqueue_enabled": "true",
    "hw_video_model": "qxl",
    "hw_video_ram": "16",
    "hw_pointer_model": "usbtablet",
    "hw_input_bus": "usb",
    "hw_boot_menu": "true",
    "hw_serial_port_count": "2",
    "hw_sound_model": "ich9",
    "hw_usb_model": "xhci",
    "hw_vm_mode": "xen",
    "hw_mem_encryption": "true",
    "hw_mem_encryption_model": "amd-sev",
    "hw_locked_memory": "true",
    "hw_tpm_model": "tpm-crb",
    "hw_tpm_version": "2.0",
    "hw_maxphysaddr_mode": "emulate",
    "hw_maxphysaddr_bits": "42",
    "hw_ephemeral_encryption": "true",
    "hw_ephemeral_encryption_format": "luks",
    "hw_firmware_stateless": "true",
    "hw_viommu_model": "intel",
    "hw_virtio_packed_ring": "true",
    "hw_emulation_architecture": "aarch64",
    "os_secure_boot": "required",
    "os_command_line": "ro",
    "kernel_id": "x",
    "ramdisk_id": "x",
    "img_config_drive": "never",
    "img_bdm_v2": "true",
    "img_block_device_mapping": "[{}]",
    "mappings": "[{}]",
    "trait:CUSTOM_GPU": "required",
    "trait:HW_CPU_X86_AVX2": "perhaps",
    "os_require_quiesce": "yes",
}
MALFORMED = {
    "hw_numa_nodes": "0",
    "hw_cpu_cores": "many",
    "hw_firmware_type": "coreboot",
    "hw_watchdog_action": "explode",
    "hw_rng_model": "egd",
    "hw_pmu": "perhaps",
    "img_hv_requested_version": "<7",
    "os_shutdown_timeout": "3600",
    "hw_cpu_policy": "shard",
}
FREE = {
    "os_distro": "debian",
    "os_version": "12",
    "owner_specified.x": "y",
    "img_signature": "abc",
    "hw_foo": "1",
    "hw_rescue_bus": "virtio",
    "hw_cdrom_bus": "ide",
    "vmware_disktype": "thin",
    "text": "x" * 900,
}


@pytest.mark.parametrize("name", [*HEEDED, *SO_ANYWAY])
def test_what_is_heeded_is_kept_with_the_server(name: str) -> None:
    given = {name: (HEEDED | SO_ANYWAY)[name]}
    assert image_properties.check(given) is None
    assert image_properties.kept(given) == given


@pytest.mark.parametrize("name", HEEDED)
def test_what_is_heeded_changes_something(name: str) -> None:
    given = {name: HEEDED[name]}
    changes = (
        hardware.of({}, given, 4) != Hardware(),
        extra_specs.image_ask(given) != extra_specs.ImageRequirements(),
        extra_specs.numa_ask({}, given) is not None,
        bool(image_properties.traits(given)),
    )
    assert any(changes)


@pytest.mark.parametrize("table", [REFUSED, MALFORMED], ids=["refused", "malformed"])
def test_what_is_not_heeded_is_refused_by_its_name(table: dict[str, str]) -> None:
    for name, value in table.items():
        reason = image_properties.check({"os_distro": "debian", name: value})
        assert reason is not None, name
        assert name in reason and value in reason and reason.endswith("."), reason


def test_what_nova_does_not_act_on_is_the_owners_own() -> None:
    assert image_properties.check(FREE) is None
    assert image_properties.kept(FREE) == {}


def test_hardware() -> None:
    assert hardware.of({}, {}, 4) == Hardware()
    flavor = {
        "quota:cpu_shares": "512",
        "quota:cpu_period": "1000",
        "quota:cpu_quota": "500",
        "hw_rng:rate_bytes": "9",
        "quota:disk_read_bytes_sec": "7",
        "quota:disk_total_iops_sec": "8",
        "hw:watchdog_action": "pause",
        "hw:pmu": "True",
        "hw:hide_hypervisor_id": "yes",
        "hw:max_cpu_sockets": "2",
    }
    image = {
        "hw_disk_bus": "scsi",
        "hw_firmware_type": "uefi",
        "hw_rng_model": "virtio",
        "hw_watchdog_action": "reset",
        "hw_qemu_guest_agent": "true",
        "hw_time_hpet": "1",
        "os_type": "windows",
        "os_shutdown_timeout": "60",
    }
    assert hardware.refusal(flavor, image, 4) is None
    assert hardware.of(flavor, image, 4) == Hardware(
        disk_bus="scsi",
        firmware=UEFI,
        sockets=2,
        cores=2,
        threads=1,
        cpu_shares=512,
        cpu_period_us=1000,
        cpu_quota_us=500,
        disk_limits={"read_bytes_sec": 7, "total_iops_sec": 8},
        rng=True,
        rng_bytes=9,
        watchdog="reset",
        guest_agent=True,
        hpet=True,
        hides_hypervisor=True,
        windows=True,
        pmu=True,
        power_off_s=60.0,
    )
    assert not hardware.of({"hw_rng:allowed": "False"}, image, 4).rng
    assert hardware.of({"hw:watchdog_action": "reset"}, {"hw_watchdog_action": "disabled"}, 1).watchdog == ""


@pytest.mark.parametrize(
    ("flavor", "image", "vcpus", "divided"),
    [
        ({"hw:cpu_cores": "2"}, {}, 4, (2, 2, 1)),
        ({"hw:cpu_sockets": "1", "hw:cpu_threads": "2"}, {}, 4, (1, 2, 2)),
        ({"hw:cpu_sockets": "2"}, {"hw_cpu_sockets": "4"}, 4, (2, 2, 1)),
        ({}, {"hw_cpu_max_sockets": "1"}, 6, (1, 6, 1)),
        ({"hw:max_cpu_sockets": "1", "hw:max_cpu_cores": "2"}, {}, 4, (1, 2, 2)),
        ({"hw:max_cpu_sockets": "8"}, {}, 4, (0, 0, 0)),
        ({"hw:cpu_sockets": "3"}, {}, 4, None),
        ({"hw:max_cpu_sockets": "1", "hw:max_cpu_cores": "1", "hw:max_cpu_threads": "2"}, {}, 4, None),
        ({"hw:max_cpu_cores": "2"}, {"hw_cpu_cores": "4"}, 4, None),
    ],
)
def test_vcpus_are_divided_as_was_asked_for_or_refused(
    flavor: dict[str, str], image: dict[str, str], vcpus: int, divided: tuple[int, int, int] | None
) -> None:
    reason = hardware.refusal(flavor, image, vcpus)
    found = hardware.of(flavor, image, vcpus)
    assert (reason is None, (found.sockets, found.cores, found.threads)) == (bool(divided), divided or (0, 0, 0))


@pytest.mark.parametrize(
    ("flavor", "image", "word"),
    [
        ({"trait:HW_CPU_X86_AVX2": "forbidden"}, {"trait:HW_CPU_X86_AVX2": "required"}, "HW_CPU_X86_AVX2 required"),
        ({"hw:pmu": "true"}, {"hw_pmu": "no"}, "hw_pmu=no"),
        ({}, {"hw_disk_bus": "ide", "hw_machine_type": "pc-q35-7.2"}, "use sata"),
        ({"hw:numa_nodes": "4"}, {}, "4 NUMA nodes"),
        ({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "dedicated"}, "forbids"),
        ({"hw:boot_menu": "true"}, {}, "without a menu"),
        ({"hw:vif_multiqueue_enabled": "true"}, {}, "no network interfaces"),
        ({"hw:serial_port_count": "2"}, {}, "one serial console"),
        ({"hw:viommu_model": "auto"}, {}, "no host offers it"),
    ],
)
def test_flavor_and_image_together(flavor: dict[str, str], image: dict[str, str], word: str) -> None:
    assert word in (hardware.refusal(flavor, image, 2) or "")
