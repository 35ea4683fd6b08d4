"""Extra specs and image properties: what they ask for, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from droveway.domain.placement import NumaRequest
from droveway.scheduler.extra_specs import ImageRequirements, check, disagreement, image_ask, numa_ask
from droveway.scheduler.matching import matches

GOOD = [
    {"hw:numa_nodes": "2", "hw:cpu_policy": "dedicated"},
    {"hw_rng:allowed": "True"},
    {"quota:cpu_shares": "512"},
    {"capabilities:cpu_info:features": "<in> avx2"},
    {"aggregate_instance_extra_specs:ssd": "true"},
    {"ssd": "true"},
    {"acme:tier": "gold"},
    {"trait:HW_CPU_X86_AVX2": "required"},
    {"hw:mem_page_size": "small"},
    {},
]
BAD = [
    ({"hw:numa_nodse": "2"}, "not known in the namespace hw. The nearest that is known is 'hw:numa_nodes'."),
    ({"hw:numa_nodes": "two"}, "is a whole number above 0, not 'two'."),
    ({"hw:numa_nodes": "0"}, "is a whole number above 0, not '0'."),
    ({"hw:numa_nodes": "17"}, "at most 16, not 17"),
    ({"hw:cpu_policy": "shard"}, "is one of shared, dedicated, not 'shard'."),
    ({"hw:cpu_policy": "mixed"}, "cannot be kept: pin all vcpus"),
    ({"hw:mem_page_size": "large"}, "cannot be kept: guests have ordinary pages"),
    ({"hw:numa_cpus.0": "0-1"}, "cannot be kept: nodes are spread evenly"),
    ({"resources:VGPU": "1"}, "cannot be kept: the amounts of a flavor"),
    ({"trait:CUSTOM_FAST": "required"}, "use aggregate_instance_extra_specs:KEY=VALUE"),
    ({"pci_passthrough:alias": "gpu:1"}, "no host offers it"),
    ({"capabilities:cpu_info:feature": "x"}, "The nearest that is known is 'capabilities:cpu_info:features'."),
    ({"capabilities:cpu_info:features": "<in>"}, "has the operator '<in>' and nothing behind it"),
    ({"ssd": "<inn> true"}, "has the unknown operator '<inn>'"),
    ({"quota:cpu_share": "1"}, "The nearest that is known is 'quota:cpu_shares'."),
    ({"hw_rng:allowed": "perhaps"}, "is True or False, not 'perhaps'."),
    ({"agregate_instance_extra_specs:ssd": "1"}, "did you mean 'aggregate_instance_extra_specs'?"),
    ({"aggregate_instance_extra_specs:": "1"}, "names no metadata key"),
    ({"ssd": "true", "os:secure_boot": "required"}, "guests have no secure boot"),
]


@pytest.mark.parametrize("specs", GOOD, ids=str)
def test_extra_specs_that_are_kept(specs: dict[str, str]) -> None:
    assert check(specs) is None


@pytest.mark.parametrize(("specs", "reason"), BAD, ids=lambda value: str(value)[:40])
def test_extra_specs_that_are_refused(specs: dict[str, str], reason: str) -> None:
    wrong = check(specs)
    assert wrong is not None
    assert reason in wrong


@pytest.mark.parametrize(
    ("flavor", "image", "asked"),
    [
        ({}, {}, None),
        ({"hw:numa_nodes": "2"}, {}, NumaRequest(2)),
        ({"hw:cpu_policy": "dedicated"}, {}, NumaRequest(1, True)),
        ({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "dedicated"}, None),
        ({}, {"hw_cpu_policy": "dedicated", "hw_numa_nodes": "2"}, NumaRequest(2, True)),
        ({"hw:numa_nodes": "nonsense"}, {}, None),
        ({"hw:numa_nodes": "999999"}, {}, NumaRequest(16)),
    ],
)
def test_numa_ask(flavor: dict[str, str], image: dict[str, str], asked: NumaRequest | None) -> None:
    assert numa_ask(flavor, image) == asked


def test_an_image_may_not_want_what_its_flavor_forbids() -> None:
    assert disagreement({"hw:cpu_policy": "dedicated"}, {"hw_cpu_policy": "dedicated"}) is None
    assert "forbids" in (disagreement({"hw:cpu_policy": "shared"}, {"hw_cpu_policy": "dedicated"}) or "")
    assert "2 NUMA nodes" in (disagreement({"hw:numa_nodes": "1"}, {"hw_numa_nodes": "2"}) or "")


def test_image_ask() -> None:
    assert image_ask({}) == ImageRequirements()
    assert image_ask(
        {
            "hw_architecture": "amd64",
            "architecture": "aarch64",
            "hypervisor_type": "qemu",
            "hw_machine_type": "q35",
            "img_hv_requested_version": ">=6.2",
        }
    ) == ImageRequirements("qemu", 6_002_000, "x86_64", "q35")
    assert image_ask({"hypervisor_version_requires": "<7"}).least_hypervisor_version == 0


MATCHES = [
    ("4", "= 3", True),
    ("2", "= 3", False),
    ("3", "== 3.0", True),
    ("3", "!= 3", False),
    ("3", ">= 3", True),
    ("3", "> 3", False),
    ("2", "< 3", True),
    ("3", "<= 2", False),
    ("x", ">= 3", False),
    ("3", ">= x", False),
    ("b", "s== b", True),
    ("b", "s!= b", False),
    ("b", "s> a", True),
    ("b", "s< a", False),
    ("b", "s>= b", True),
    ("b", "s<= a", False),
    ("an ssd", "<in> ssd", True),
    ("hdd", "<in> ssd", False),
    (("aes", "avx"), "<in> avx", True),
    (("avx2",), "<in> avx", False),
    (("aes", "avx"), "<all-in> avx aes", True),
    (("aes",), "<all-in> avx aes", False),
    ("b", "<or> a <or> b", True),
    ("c", "<or> a <or> b", False),
    (("c", "b"), "<or> a <or> b", True),
    ("15", "<range-in> [ 10 20 ]", True),
    ("20", "<range-in> [ 10 20 )", False),
    ("10", "<range-in> ( 10 20 ]", False),
    ("15", "<range-in> 10 20", False),
    ("true", "true", True),
    ("true", "false", False),
    ("", "", True),
    (("aes",), "aes", True),
    (None, "aes", False),
    ("a b", "a b", True),
    (("a",), ">= 3", False),
    ("3", ">=", False),
]


@pytest.mark.parametrize(("value", "wanted", "expected"), MATCHES, ids=str)
def test_matches(value: str | tuple[str, ...] | None, wanted: str, expected: bool) -> None:
    assert matches(value, wanted) is expected


def test_the_words_need_no_columns() -> None:
    modules = "extra_specs, matching, reasons, summaries, numa, capacity, host_classes"
    code = f"import sys; from droveway.scheduler import {modules}; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0
