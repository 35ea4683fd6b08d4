"""Each rule once: a host that keeps it, one that does not, and what is said of the latter."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from droveway.domain.placement import (
    GroupPolicy,
    GroupRequest,
    HeldCell,
    HostFacts,
    NumaCell,
    NumaRequest,
    PlacementRequest,
    PlacementSettings,
)
from droveway.scheduler.columns import Columns
from droveway.scheduler.filters import FILTERS
from droveway.scheduler.plan import first_failing, place

SETTINGS = PlacementSettings()
GOOD = HostFacts(
    1,
    "good",
    zone="nova",
    hypervisor_type="KVM",
    hypervisor_version=7_000_000,
    machine_types=("pc", "q35"),
    firmwares=("bios", "uefi"),
    cpu_features=("aes", "avx2"),
    aggregates={"ssd": ("true",)},
    vcpus=8,
    memory_mb=8192,
    disk_gb=100,
    cells=(NumaCell(0, (0, 1, 2, 3), 4096), NumaCell(1, (4, 5, 6, 7), 4096)),
)
ASK = PlacementRequest(2, 2048, 10)


def _group(policy: GroupPolicy, **on_hosts: int) -> dict[str, Any]:
    return {"group": GroupRequest("g", policy, on_hosts)}


# rule, what is asked, how the host is other than good, what is said of it, what is said of all that fell
EXAMPLES: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    ("asked", {"only": "good"}, {}, "good was asked for", "good was asked for"),
    ("never", {"never": {"bad": "it runs there already"}}, {}, "it runs there already", "they are out"),
    (
        "failed",
        {"failed": ("bad",)},
        {},
        "this request has failed there already",
        "this request has failed there already",
    ),
    ("zone", {"zone": "nova"}, {"zone": "az1"}, "it is in zone az1, not nova", "they are not in zone nova"),
    (
        "up",
        {},
        {"is_up": False, "reason": "no heartbeat for 60 s"},
        "it is down: no heartbeat for 60 s",
        "they are down",
    ),
    (
        "enabled",
        {},
        {"disabled": True, "disabled_reason": "new disks"},
        "it is disabled: new disks",
        "they are disabled",
    ),
    ("enabled", {}, {"disabled": True}, "it is disabled: no reason given", "they are disabled"),
    (
        "report_accepted",
        {},
        {"refused": "memory_mb is -5"},
        "its last report was refused: memory_mb is -5",
        "their last report was refused",
    ),
    ("answers", {}, {"hypervisor_up": False}, "its hypervisor does not answer", "their hypervisors do not answer"),
    (
        "store",
        {},
        {"store_trouble": "the instance store at /i hangs"},
        "the instance store at /i hangs",
        "their instance stores do not answer",
    ),
    (
        "hypervisor",
        {"hypervisor_type": "kvm"},
        {"hypervisor_type": "QEMU"},
        "its hypervisor is QEMU, not kvm",
        "their hypervisor is not kvm",
    ),
    (
        "version",
        {"least_hypervisor_version": 7_000_000},
        {"hypervisor_version": 6_002_000},
        "its hypervisor has version 6002000, older than 7000000",
        "their hypervisor is older than version 7000000",
    ),
    (
        "architecture",
        {"architecture": "amd64"},
        {"architecture": "aarch64"},
        "its architecture is aarch64, not amd64",
        "their architecture is not amd64",
    ),
    (
        "machine",
        {"machine_type": "q35"},
        {"machine_types": ("pc",)},
        "it has no machine type q35 (it has pc)",
        "they have no machine type q35",
    ),
    (
        "firmware",
        {"firmware": "uefi"},
        {"firmwares": ("bios",)},
        "it has no firmware uefi (it has bios)",
        "they have no firmware uefi",
    ),
    (
        "root_pool",
        {"root_pool": "ceph/vms"},
        {"root_pool": "ceph/other"},
        "it keeps root disks in ceph/other, and that of this server lies in ceph/vms",
        "they do not work with the pool ceph/vms, in which its root disk lies",
    ),
    (
        "capabilities",
        {"extra_specs": {"capabilities:cpu_info:features": "<in> avx2"}},
        {"cpu_features": ("aes",)},
        "its cpu_info:features does not match '<in> avx2' (it has aes)",
        "they do not have the capabilities cpu_info:features=<in> avx2",
    ),
    (
        "capabilities",
        {"extra_specs": {"capabilities:hypervisor_version": ">= 7000000"}},
        {"hypervisor_version": 6_000_000},
        "its hypervisor_version does not match '>= 7000000' (it has 6000000)",
        "they do not have the capabilities hypervisor_version=>= 7000000",
    ),
    (
        "capabilities",
        {"extra_specs": {"trait:HW_CPU_X86_AVX2": "required"}},
        {"cpu_features": ()},
        "its CPU has no avx2, which is required",
        "they do not have the capabilities trait:AVX2=required",
    ),
    (
        "aggregates",
        {"extra_specs": {"aggregate_instance_extra_specs:ssd": "true"}},
        {"aggregates": {}},
        "no aggregate of it has ssd (ssd=true is wanted)",
        "their aggregates do not have ssd=true",
    ),
    (
        "aggregates",
        {"extra_specs": {"ssd": "s== true", "hw:cpu_sockets": "1", "acme:tier": "gold"}},
        {"aggregates": {"ssd": ("false, no",)}},
        "its aggregates say ssd=false,no, not s== true",
        "their aggregates do not have ssd=s== true",
    ),
    (
        "project",
        {"project_id": "p1"},
        {"aggregates": {"filter_tenant_id": ("p2",), "filter_tenant_id3": ("p3, p4",)}},
        "its aggregate is kept for other projects than p1",
        "their aggregates are kept for other projects",
    ),
    (
        "same_host",
        {"same_host": ("good",)},
        {},
        "the hint same_host names servers on good",
        "the hint same_host names servers on good",
    ),
    (
        "different_host",
        {"different_host": ("bad",)},
        {},
        "the hint different_host names a server there",
        "the hint different_host excludes them",
    ),
    (
        "affinity",
        _group(GroupPolicy.AFFINITY, good=2),
        {},
        "affinity: its group is on good, not here",
        "affinity: its group is on good",
    ),
    (
        "affinity",
        {"group": GroupRequest("g", GroupPolicy.AFFINITY, {"good": 1, "bad": 1}, moving=("bad",))},
        {},
        "affinity: a member of its group is being moved between bad",
        "affinity: a member of its group is being moved between bad",
    ),
    (
        "anti_affinity",
        _group(GroupPolicy.ANTI_AFFINITY, bad=1),
        {},
        "anti-affinity: 1 of its group here, 1 allowed",
        "anti-affinity: 1 of its group allowed on each",
    ),
    (
        "ram",
        {},
        {"ram_mb_used": 7000},
        "memory: 2048 MiB wanted, 1192 MiB free",
        "memory: 2048 MiB wanted, at most 1192 MiB free on any",
    ),
    ("cpu", {}, {"vcpus_used": 127}, "vcpus: 2 wanted, 1 free", "vcpus: 2 wanted, at most 1 free on any"),
    ("cpu", {}, {"vcpus": 1}, "vcpus: 2 wanted, the host has 1 CPUs at all", "vcpus: 2 wanted, at most 1 free on any"),
    (
        "cpu",
        {"numa": NumaRequest(1, True)},
        {"vcpus_used": 112},
        "CPUs of its own: 2 wanted, 1 free",
        "CPUs of its own: 2 wanted, at most 1 free on any",
    ),
    (
        "disk",
        {},
        {"disk_gb_used": 95},
        "disk: 10 GiB wanted, 5 GiB free",
        "disk: 10 GiB wanted, at most 5 GiB free on any",
    ),
    (
        "numa",
        {"numa": NumaRequest(1)},
        {"cells": ()},
        "NUMA: it does not tell its cells",
        "NUMA: 1 cells with 2 CPUs and 2048 MiB each wanted",
    ),
    (
        "numa",
        {"numa": NumaRequest(2, True), "vcpus": 4},
        {"held_cells": (HeldCell(0, 3, 1024, (0, 1, 2)),), "vcpus_used": 3},
        "NUMA: 2 cells with 2 CPUs of its own and 1024 MiB each wanted "
        "(cell 0: 1 CPUs and 3072 MiB free, cell 1: 4 CPUs and 4096 MiB free)",
        "NUMA: 2 cells with 2 CPUs of its own and 1024 MiB each wanted",
    ),
    (
        "network",
        {"networked": ("good",)},
        {},
        "no network agent is up there, and the server has an interface",
        "their network agents are not up",
    ),
    (
        "carrier",
        {"carriers": {"physical network physnet1": ("good",), "tunnel_address": ("good", "bad")}},
        {},
        "it has no physical network physnet1, and the server has an interface that needs it",
        "they have no physical network physnet1 or no tunnel_address, and the server has an interface that needs it",
    ),
]


@pytest.mark.parametrize(("rule", "asked", "other", "said", "together"), EXAMPLES, ids=[row[0] for row in EXAMPLES])
def test_a_rule(rule: str, asked: dict[str, Any], other: dict[str, Any], said: str, together: str) -> None:
    ask = msgspec.structs.replace(ASK, **asked)
    bad = msgspec.structs.replace(GOOD, id=2, name="bad", **other)
    columns = Columns()
    good = msgspec.structs.replace(GOOD, root_pool=asked.get("root_pool", ""))
    columns.put(good)
    columns.put(bad)
    place(columns, ASK, SETTINGS, 1)  # what is kept of one request is not given to another
    plan = place(columns, ask, SETTINGS, 1)
    assert [choice.name for choice in plan.ranked] == ["good"]
    (fallen,) = plan.fallen
    assert (fallen.rule, fallen.hosts, fallen.reason, fallen.nearest) == (rule, 1, together, (("bad", said),))
    assert first_failing(good, ask, SETTINGS) is None
    alone = first_failing(bad, ask, SETTINGS)
    assert alone is not None
    assert (alone.rule, alone.reason) == (rule, said)


def test_every_rule_has_an_example() -> None:
    assert {rule.name for rule in FILTERS} == {row[0] for row in EXAMPLES}


def test_every_rule_is_explained_beside_its_name_in_nova() -> None:
    from droveway.scheduler import filters

    assert filters.__doc__ is not None
    rows = [row.split("|")[1] for row in filters.__doc__.splitlines() if row.startswith("|")]
    named = {name.strip() for row in rows for name in row.split(",")}
    assert {rule.name for rule in FILTERS} <= named


def test_more_nodes_than_vcpus_fit_nowhere() -> None:
    failing = first_failing(GOOD, PlacementRequest(1, 0, 0, numa=NumaRequest(2)), SETTINGS)
    assert failing is not None
    assert failing.reason == "NUMA: 1 vcpus cannot be spread over 2 cells"


def test_nothing_asked_of_an_overfull_host_fits() -> None:
    overfull = msgspec.structs.replace(GOOD, disk_gb_used=200)
    assert first_failing(overfull, PlacementRequest(1, 512, 0), SETTINGS) is None


def test_a_group_without_members_may_start_anywhere() -> None:
    assert first_failing(GOOD, msgspec.structs.replace(ASK, **_group(GroupPolicy.AFFINITY)), SETTINGS) is None
    gone = msgspec.structs.replace(ASK, **_group(GroupPolicy.AFFINITY, elsewhere=0))
    assert first_failing(GOOD, gone, SETTINGS) is None


def test_soft_groups_exclude_nobody() -> None:
    for policy in (GroupPolicy.SOFT_AFFINITY, GroupPolicy.SOFT_ANTI_AFFINITY):
        assert first_failing(GOOD, msgspec.structs.replace(ASK, **_group(policy, good=9, bad=1)), SETTINGS) is None


def test_a_host_that_does_not_tell_its_machine_types_is_let_try() -> None:
    silent = msgspec.structs.replace(GOOD, machine_types=())
    assert first_failing(silent, msgspec.structs.replace(ASK, machine_type="q35"), SETTINGS) is None


def test_pinned_cpus_are_taken_out_before_the_ratio() -> None:
    """Three CPUs are left for guests that float: 48 vcpus at a ratio of 16, whoever else is there."""
    held = (HeldCell(0, 4, 0, (0, 1, 2, 3)), HeldCell(1, 1, 0, (4,)))
    host = msgspec.structs.replace(GOOD, held_cells=held, vcpus_used=5 + 46)
    assert first_failing(host, PlacementRequest(2, 0, 0), SETTINGS) is None
    failing = first_failing(host, PlacementRequest(3, 0, 0), SETTINGS)
    assert failing is not None
    assert failing.reason == "vcpus: 3 wanted, 2 free"


def test_a_ratio_below_one_holds_for_pinned_guests_as_well() -> None:
    half = PlacementSettings(cpu_ratio=0.5)
    host = msgspec.structs.replace(GOOD, cells=(NumaCell(0, tuple(range(8)), 8192),))
    assert first_failing(host, PlacementRequest(4, 0, 0, numa=NumaRequest(1, True)), half) is None
    failing = first_failing(host, PlacementRequest(5, 0, 0, numa=NumaRequest(1, True)), half)
    assert failing is not None
    assert failing.reason == "CPUs of its own: 5 wanted, 4 free"


def test_noise_of_the_ratio_costs_no_unit() -> None:
    """100 times 0.29 is 28.999999999999996."""
    settings = PlacementSettings(disk_ratio=0.29)
    assert first_failing(GOOD, PlacementRequest(1, 0, 29), settings) is None
    failing = first_failing(GOOD, PlacementRequest(1, 0, 30), settings)
    assert failing is not None
    assert failing.reason == "disk: 30 GiB wanted, 29 GiB free"
