"""A pool of root disks that several hosts work with: what is promised of it counts once, for all of them."""

from __future__ import annotations

import msgspec

from droveway.domain.placement import HostFacts, PlacementRequest, PlacementSettings
from droveway.scheduler.columns import Columns
from droveway.scheduler.plan import place

POOL = "ceph/vms"
SETTINGS = PlacementSettings(disk_ratio=1.0)


def columns() -> Columns:
    made = Columns()
    for number in (1, 2):
        made.put(HostFacts(number, f"h{number}", vcpus=8, memory_mb=8192, disk_gb=100, root_pool=POOL))
    made.put(HostFacts(3, "alone", vcpus=8, memory_mb=8192, disk_gb=100))
    return made


def headroom(made: Columns) -> list[int]:
    return [int(one) for one in made.headroom("disk", SETTINGS)]


def test_a_claim_on_one_host_is_a_claim_on_the_pool() -> None:
    made = columns()
    assert headroom(made) == [100, 100, 100]
    made.hold("h1", PlacementRequest(1, 1, 30))
    assert headroom(made) == [70, 70, 100]
    assert [int(one) for one in made.headroom("disk_share", SETTINGS)][:2] == [(70 << 30) // 100] * 2
    assert (made.facts("h2").disk_gb_used, made.facts("h2").vcpus_used, made.facts("h1").claims) == (30, 0, 1)
    made.hold("h2", PlacementRequest(1, 1, 50))
    assert headroom(made) == [20, 20, 100]
    made.hold("h1", PlacementRequest(1, 1, 30), sign=-1)
    assert headroom(made) == [50, 50, 100]
    made.put(msgspec.structs.replace(made.facts("h2"), disk_gb_used=90, claims=9))
    assert headroom(made) == [10, 10, 100], "the last word counts for all"
    made.hold("alone", PlacementRequest(1, 1, 7))
    assert headroom(made) == [10, 10, 93]
    made.drop("h1")
    assert sorted(headroom(made)) == [10, 93]


def test_what_does_not_fit_the_pool_fits_none_of_its_hosts_and_the_reason_has_its_numbers() -> None:
    made = columns()
    made.hold("h1", PlacementRequest(1, 1, 95))
    plan = place(made, PlacementRequest(1, 1, 10), SETTINGS, 1)
    assert [one.name for one in plan.ranked] == ["alone"]
    (fallen,) = (one for one in plan.fallen if one.rule == "disk")
    assert fallen.hosts == 2
    said = place(made, PlacementRequest(1, 1, 10, only="h2"), SETTINGS, 1)
    assert said.ranked == ()


def test_a_guest_whose_root_disk_lies_there_goes_to_a_host_of_the_pool_alone() -> None:
    plan = place(columns(), PlacementRequest(1, 1, 0, root_pool=POOL), SETTINGS, 1)
    assert {one.name for one in plan.ranked} == {"h1", "h2"}
    assert place(columns(), PlacementRequest(1, 1, 0, root_pool="ceph/other"), SETTINGS, 1).ranked == ()
