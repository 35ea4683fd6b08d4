"""What a plan says: to the user in one sentence, and to whoever looks closer."""

from __future__ import annotations

import itertools
from collections import Counter

import msgspec
import pytest

from droveway.domain.placement import GroupPolicy, GroupRequest, HostFacts, PlacementRequest, PlacementSettings, Weights
from droveway.scheduler.columns import Columns
from droveway.scheduler.plan import failing_rules, place, place_many, reason
from droveway.scheduler.summaries import to_tenants

SETTINGS = PlacementSettings()


def _columns(count: int, **other: object) -> Columns:
    columns = Columns()
    for number in range(1, count + 1):
        facts = HostFacts(number, f"host-{number}", vcpus=8, memory_mb=30_720, disk_gb=100)
        columns.put(msgspec.structs.replace(facts, **other))
    return columns


def _change(columns: Columns, name: str, **other: object) -> None:
    columns.put(msgspec.structs.replace(columns.facts(name), **other))


def test_no_host_at_all() -> None:
    plan = place(Columns(), PlacementRequest(1, 1, 1), SETTINGS, 1)
    assert reason(plan) == ("No valid host was found: there is no host yet; start an agent with 'droveway agent'")


def test_few_hosts_are_named_each_with_its_reason() -> None:
    columns = _columns(5)
    _change(columns, "host-2", is_up=False, reason="no heartbeat for 60 s")
    plan = place(columns, PlacementRequest(1, 40_000, 1), SETTINGS, 1)
    assert reason(plan) == (
        "No valid host was found: host-1: memory: 40000 MiB wanted, 30720 MiB free; "
        "host-2: it is down: no heartbeat for 60 s; host-3: memory: 40000 MiB wanted, 30720 MiB free; "
        "host-4: memory: 40000 MiB wanted, 30720 MiB free; host-5: memory: 40000 MiB wanted, 30720 MiB free; "
        "it would fit with ram_mb <= 30720: 4 hosts"
    )


def test_many_hosts_are_counted() -> None:
    columns = _columns(20)
    for number in range(1, 8):
        _change(columns, f"host-{number}", is_up=False, reason="no heartbeat for 60 s")
    _change(columns, "host-20", memory_mb=36_000)
    plan = place(columns, PlacementRequest(1, 40_000, 1), SETTINGS, 1)
    assert reason(plan) == (
        "No valid host was found: 13 hosts: memory: 40000 MiB wanted, at most 36000 MiB free on any "
        "(nearest: host-20: memory: 40000 MiB wanted, 36000 MiB free); "
        "7 hosts: they are down (nearest: host-1: it is down: no heartbeat for 60 s); "
        "it would fit with ram_mb <= 36000: 1 host"
    )
    assert to_tenants(plan) == (
        "No valid host was found: some hosts: memory: 40000 MiB wanted, at most 36000 MiB free on any; "
        "others: they are not in service for it"
    )
    assert Counter(failing_rules(plan).values()) == {"ram": 13, "up": 7}
    assert failing_rules(plan)[20] == "ram"
    (_down, short) = plan.fallen
    assert short.nearest[0][0] == "host-20"
    assert len(short.nearest) == 3


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (PlacementRequest(1, 40_000, 1), "No valid host was found: all hosts: memory: 40000 MiB wanted"),
        (PlacementRequest(1, 1, 1, zone="west"), "No valid host was found: all hosts: they are not in zone west"),
        (
            PlacementRequest(1, 40_000, 1, same_host=("host-2",)),
            "No valid host was found: some hosts: the hint same_host names servers elsewhere; others: memory: 40000 "
            "MiB wanted",
        ),
        (
            PlacementRequest(1, 40_000, 1, only="host-2"),
            "No valid host was found: some hosts: another host was asked for; others: memory: 40000 MiB wanted",
        ),
        (
            PlacementRequest(1, 1, 1, never={"host-1": "", "host-2": "", "host-3": ""}),
            "No valid host was found. There are not enough hosts available.",
        ),
    ],
)
def test_tenants_read_which_wish_was_not_met_and_no_host(ask: PlacementRequest, said: str) -> None:
    told = to_tenants(place(_columns(3), ask, SETTINGS, 1))
    assert told == said or told.startswith(f"{said}, at most ")
    assert "host-" not in told


def test_tenants_are_told_nothing_of_races_but_that_they_were_lost() -> None:
    assert to_tenants(place(_columns(3), PlacementRequest(1, 1, 1), SETTINGS, 1)) == (
        "No valid host was found: there was room, and others took it meanwhile; try again"
    )


def test_what_would_have_fitted() -> None:
    columns = _columns(4, zone="az1")
    ask = PlacementRequest(1, 512, 1, zone="az2")
    assert place(columns, ask, SETTINGS, 1).would_fit == ("without availability zone az2: 4 hosts",)
    for name in columns.names:
        _change(columns, name, zone="az2", disabled=True)
    assert place(columns, ask, SETTINGS, 1).would_fit == ("with hosts enabled that are not: 4 hosts",)
    _change(columns, "host-1", zone="az1")
    _change(columns, "host-2", zone="az1")
    assert place(columns, ask, SETTINGS, 1).would_fit == ("with host-3 and host-4 enabled: 2 hosts",)
    _change(columns, "host-3", disabled=False, vcpus=0)
    _change(columns, "host-4", disabled=False)
    group = GroupRequest("g", GroupPolicy.ANTI_AFFINITY, {"host-4": 1})
    crowded = msgspec.structs.replace(ask, group=group)
    assert place(columns, crowded, SETTINGS, 1).would_fit == ("without the group rule: 1 host",)
    asked = msgspec.structs.replace(ask, only="host-3")
    assert place(columns, asked, SETTINGS, 1).would_fit == ("without asking for host-3: 1 host",)


def test_a_long_story_is_cut() -> None:
    columns = _columns(6, is_up=False, reason="x" * 400)
    assert len(reason(place(columns, PlacementRequest(1, 1, 1), SETTINGS, 1))) == 1000


def test_a_hundred_on_ten_equal_hosts_are_ten_on_each() -> None:
    plans = place_many(_columns(10), [PlacementRequest(1, 512, 1)] * 100, SETTINGS, 42)
    assert set(Counter(plan.ranked[0].name for plan in plans).values()) == {10}


def test_the_seed_draws_lots_among_equals() -> None:
    columns = _columns(10)
    first = Counter(place(columns, PlacementRequest(1, 512, 1), SETTINGS, seed).ranked[0].name for seed in range(2000))
    assert len(first) == 10
    assert min(first.values()) > 120
    assert place(columns, PlacementRequest(1, 512, 1), SETTINGS, 7) == place(
        columns, PlacementRequest(1, 512, 1), SETTINGS, 7
    )


@pytest.mark.parametrize(
    ("weights", "best"),
    [
        (Weights(ram=1, cpu=0, disk=0), "host-1"),
        (Weights(ram=-1, cpu=0, disk=0), "host-3"),
        (Weights(ram=0, cpu=1, disk=0), "host-2"),
        (Weights(ram=0, cpu=0, disk=1), "host-3"),
        (Weights(ram=0, cpu=0, disk=0, instances=1), "host-2"),
        (Weights(ram=1, cpu=0, disk=0, failures=1000), "host-2"),
    ],
)
def test_weighers(weights: Weights, best: str) -> None:
    columns = _columns(3)
    failures = 1 if weights.failures == 1000 and weights.ram == 1 and best == "host-2" else 0
    _change(columns, "host-1", vcpus_used=9, disk_gb_used=9, instances=3, failures=failures)
    _change(columns, "host-2", ram_mb_used=900, disk_gb_used=8)
    _change(columns, "host-3", ram_mb_used=1800, vcpus_used=8, instances=1)
    plan = place(columns, PlacementRequest(1, 512, 1), msgspec.structs.replace(SETTINGS, weights=weights), 1)
    assert plan.ranked[0].name == best
    for choice in plan.ranked:
        assert choice.weight == pytest.approx(sum(choice.weights.values()))


@pytest.mark.parametrize(("policy", "most"), [(GroupPolicy.SOFT_AFFINITY, {8}), (GroupPolicy.SOFT_ANTI_AFFINITY, {2})])
def test_soft_groups(policy: GroupPolicy, most: set[int]) -> None:
    settings = msgspec.structs.replace(SETTINGS, weights=Weights(soft_group=10.0))
    asks = [PlacementRequest(1, 512, 1, group=GroupRequest("g", policy))] * 8
    plans = place_many(_columns(4), asks, settings, 1)
    assert set(Counter(plan.ranked[0].name for plan in plans).values()) == most


def test_noise_of_the_arithmetic_does_not_decide() -> None:
    """Six hosts with the same three shares in every order: their sums differ in the last bit only; none is better."""
    columns = _columns(7, vcpus=100, memory_mb=30_000)
    for number, (ram, cpu, disk) in enumerate(itertools.permutations((1, 2, 3)), start=1):
        _change(columns, f"host-{number}", ram_mb_used=300 * ram, vcpus_used=cpu, disk_gb_used=disk)
    _change(columns, "host-7", ram_mb_used=300 * 95, vcpus_used=95, disk_gb_used=95)
    settings = msgspec.structs.replace(SETTINGS, cpu_ratio=1.0)
    first = Counter(place(columns, PlacementRequest(1, 512, 1), settings, seed).ranked[0].name for seed in range(600))
    assert len(first) == 6
    assert min(first.values()) > 50


def test_as_many_alternatives_as_the_settings_want() -> None:
    plan = place(_columns(30), PlacementRequest(1, 512, 1), msgspec.structs.replace(SETTINGS, alternatives=3), 1)
    assert len(plan.ranked) == 3
    assert len({choice.name for choice in plan.ranked}) == 3
    assert plan.fitting == 30


def test_the_columns_end_as_they_were() -> None:
    columns = _columns(3)
    before = [columns.facts(name) for name in columns.names]
    place_many(columns, [PlacementRequest(1, 512, 1)] * 7, SETTINGS, 1)
    assert [columns.facts(name) for name in columns.names] == before
    assert place(columns, PlacementRequest(1, 512, 1), SETTINGS, 1) == place(
        _columns(3), PlacementRequest(1, 512, 1), SETTINGS, 1
    )
