"""The wishes of a flavor and an image about the virtual machine, as one Hardware; and where they contradict each other.
Pure. The flavor's word goes before the image's, except where Nova has it the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from droveway.domain.hardware import BIOS, VGA, Hardware
from droveway.scheduler import extra_specs, image_properties

Wishes = Mapping[str, str]
_DISK_LIMITS = {
    f"quota:disk_{name}": f"{name.replace('_sec', '')}_sec"
    for name in (
        "read_bytes_sec",
        "read_iops_sec",
        "write_bytes_sec",
        "write_iops_sec",
        "total_bytes_sec",
        "total_iops_sec",
    )
}
_NO_WATCHDOG = ("", "disabled")


def refusal(flavor: Wishes, image: Wishes, vcpus: int) -> str | None:
    """Why no server can be made with these wishes, as a sentence: one that is not heeded, or two that contradict each
    other."""
    return (
        image_properties.check(image)
        or extra_specs.check(flavor)
        or extra_specs.disagreement(flavor, image)
        or _contradiction(flavor, image)
        or _impossible(flavor, image, vcpus)
    )


def _contradiction(flavor: Wishes, image: Wishes) -> str | None:
    for name, wanted in image_properties.traits(image).items():
        if flavor.get(name, wanted) != wanted:
            return f"The image wants {name[6:]} {wanted}, the flavor has it {flavor[name]}."
    pmu = flavor.get("hw:pmu"), image.get("hw_pmu")
    if None not in pmu and _is_true(pmu[0]) != _is_true(pmu[1]):
        return f"The image wants hw_pmu={pmu[1]}, the flavor hw:pmu={pmu[0]}."
    machine = image.get("hw_machine_type") or image.get("machine_type") or ""
    if image.get("hw_disk_bus") == "ide" and "q35" in machine:
        return f"Image property 'hw_disk_bus=ide' cannot be kept: the machine {machine} has no IDE; use sata."
    return None


def _impossible(flavor: Wishes, image: Wishes, vcpus: int) -> str | None:
    numa = extra_specs.numa_ask(flavor, image)
    if numa is not None and numa.nodes > vcpus:
        return f"{vcpus} vcpus cannot be spread over {numa.nodes} NUMA nodes (hw:numa_nodes)."
    if _topology(flavor, image, vcpus) is None:
        return (
            f"{vcpus} vcpus cannot be divided into the sockets, cores and threads that the flavor (hw:cpu_…, "
            "hw:max_cpu_…) and the image (hw_cpu_…) want."
        )
    return None


def of(flavor: Wishes, image: Wishes, vcpus: int) -> Hardware:
    """Wishes that were checked once (`refusal`); what an older release let pass is left out."""
    sockets, cores, threads = _topology(flavor, image, vcpus) or (0, 0, 0)
    has_rng = image.get("hw_rng_model") == "virtio" and _is_true(flavor.get("hw_rng:allowed", "true"))
    watchdog = image.get("hw_watchdog_action") or flavor.get("hw:watchdog_action") or ""
    pmu = flavor.get("hw:pmu") or image.get("hw_pmu")
    return Hardware(
        disk_bus=image.get("hw_disk_bus", "virtio"),
        nic_model=image.get("hw_vif_model", "virtio"),
        firmware=image.get("hw_firmware_type", BIOS),
        video=image.get("hw_video_model", VGA),
        sockets=sockets,
        cores=cores,
        threads=threads,
        cpu_shares=_number(flavor, "quota:cpu_shares"),
        cpu_period_us=_number(flavor, "quota:cpu_period"),
        cpu_quota_us=_number(flavor, "quota:cpu_quota"),
        disk_limits={limit: number for key, limit in _DISK_LIMITS.items() if (number := _number(flavor, key))},
        rng=has_rng,
        rng_bytes=_number(flavor, "hw_rng:rate_bytes"),
        rng_period_ms=_number(flavor, "hw_rng:rate_period") or 1000,
        watchdog="" if watchdog in _NO_WATCHDOG else watchdog,
        guest_agent=_is_true(image.get("hw_qemu_guest_agent")),
        hpet=_is_true(image.get("hw_time_hpet")),
        hides_hypervisor=_is_true(image.get("img_hide_hypervisor_id")) or _is_true(flavor.get("hw:hide_hypervisor_id")),
        windows=image.get("os_type") == "windows",
        pmu=None if pmu is None else _is_true(pmu),
        power_off_s=float(_number(image, "os_shutdown_timeout")) if "os_shutdown_timeout" in image else None,
    )


def _is_true(text: str | None) -> bool:
    return (text or "").lower() in ("true", "1", "yes", "on", "y", "t")


def _number(wishes: Wishes, key: str) -> int:
    text = wishes.get(key, "")
    return int(text) if text.isdigit() else 0


def _topology(flavor: Wishes, image: Wishes, vcpus: int) -> tuple[int, int, int] | None:
    """Sockets, cores, threads; zeros when none is asked for; None when there is no such division."""
    kinds = ("sockets", "cores", "threads")
    wanted = [_number(flavor, f"hw:cpu_{kind}") or _number(image, f"hw_cpu_{kind}") for kind in kinds]
    bounds = [
        min(
            (most for most in (_number(flavor, f"hw:max_cpu_{kind}"), _number(image, f"hw_cpu_max_{kind}")) if most),
            default=vcpus,
        )
        for kind in kinds
    ]
    if not any(wanted) and all(most >= vcpus for most in bounds):
        return 0, 0, 0
    choices = [
        (want,) if want else tuple(n for n in range(1, vcpus + 1) if vcpus % n == 0 and n <= most)
        for want, most in zip(wanted, bounds, strict=True)
    ]
    possible = [
        (sockets, cores, threads)
        for sockets, cores, threads in product(*choices)
        if sockets * cores * threads == vcpus
        and all(n <= most for n, most in zip((sockets, cores, threads), bounds, strict=True))
    ]
    return max(possible, key=lambda found: (-found[2], found[0]), default=None)  # few threads, many sockets
