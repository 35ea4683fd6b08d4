"""Aggregates, zones and Placement through OpenStack's own client, unmodified, against an API that is really served."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.test_services_cli import Served

pytestmark = pytest.mark.slow

A_MINUTE_S = 60.0
CLIENT = Path(sys.executable).with_name("openstack")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    try:
        world = made.world
        world.api.settings = dataclasses.replace(world.api.settings, base_url=f"http://127.0.0.1:{made.port}")
        yield made
    finally:
        made.stop()


def says(served: Served, *commands: str) -> tuple[list[str], list[str]]:
    """The lines that one session of the client prints, and what it complains of."""
    environment = served.environment | {"OS_PLACEMENT_API_VERSION": "1.39"}
    done = subprocess.run(
        [CLIENT],
        input="".join(f"{each}\n" for each in commands),
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=A_MINUTE_S,
    )
    return [line for line in done.stdout.splitlines() if line], done.stderr.splitlines()


def test_an_operator_makes_a_zone_and_looks_at_what_it_offers(served: Served) -> None:
    printed, complaints = says(
        served,
        "aggregate create -f value -c name --zone east --property disk=ssd fast",
        "aggregate add host -f value -c hosts fast h1",
        "aggregate set --property cpu=new --property disk=nvme fast",
        "aggregate unset --property cpu fast",
        "aggregate list -f value -c Name -c Properties -c Hosts --long",
        "availability zone list --compute -f value",
        "aggregate remove host -f value -c hosts fast h1",
        "aggregate delete fast",
        "aggregate list -f value",
    )
    assert complaints == []
    assert printed == ["fast", "['h1']", "fast {'disk': 'nvme'} ['h1']", "east available", "nova available", "[]"]


def test_an_operator_looks_at_providers(served: Served) -> None:
    (uuid, other), complaints = says(served, "resource provider list -f value -c uuid")
    printed, complaints = says(
        served,
        f"resource provider show {uuid} -f value -c name",
        f"resource provider inventory list {uuid} -f value -c resource_class -c total -c used",
        f"resource provider usage show {uuid} -f value",
        f"resource provider trait list {uuid} -f value",
        f"resource provider aggregate list {uuid} -f value",
        "allocation candidate list --resource VCPU=2 --resource MEMORY_MB=512 --required HW_CPU_X86_SSE --limit 1"
        " -f value -c allocation",
        "resource usage show -f value nobody",
        "resource class list -f value",
        f"resource provider allocation show -f value {other}",
    )
    assert complaints == []
    assert printed == [
        "h1.lab",
        "VCPU 2 0",
        "MEMORY_MB 4096 0",
        "DISK_GB 40 0",
        "VCPU 0",
        "MEMORY_MB 0",
        "DISK_GB 0",
        "COMPUTE_NODE",
        "HW_ARCH_X86_64",
        "HW_CPU_X86_SSE",
        "VCPU=2,MEMORY_MB=512",
        "VCPU",
        "PCPU",
        "MEMORY_MB",
        "DISK_GB",
    ]


def test_the_client_shows_why_it_is_refused(served: Served) -> None:
    (uuid, _), _ = says(served, "resource provider list -f value -c uuid")
    _, complaints = says(
        served,
        "resource provider create mine",
        f"resource provider inventory class set {uuid} VCPU --total 99",
        f"resource provider allocation delete {uuid}",
        "resource provider show 6d0e6c37-0000-4000-8000-000000000000",
        "allocation candidate list --resource VGPU=1",
        "aggregate create fast",
        "aggregate add host fast h9",
        "aggregate cache image fast tiny",
    )
    said = "\n".join(complaints)
    for reason in (
        "Resource providers follow from hosts",
        "Inventories follow from what hosts report",
        "Allocations follow from servers",
        "No resource provider with uuid 6d0e6c37-",
        "No such resource class VGPU",
        "Compute host h9 could not be found",
    ):
        assert reason in said, said
    assert "Traceback" not in said
