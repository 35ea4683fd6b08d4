"""What must hold for any hosts and any request: placing is compared with a slow reference, one host after the other."""

from __future__ import annotations

import random
import re
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.domain.placement import GroupPolicy, GroupRequest, HostFacts, PlacementRequest, PlacementSettings, Plan
from droveway.scheduler.columns import Columns
from droveway.scheduler.plan import failing_rules, first_failing, fit_cells, have_headroom, place, place_many, reason
from tests.scheduler import reference, strategies
from tests.scheduler.effort import effort

pytestmark = pytest.mark.slow

DEFAULT = PlacementSettings()


def columns_of(hosts: list[HostFacts]) -> Columns:
    columns = Columns()
    for facts in hosts:
        columns.put(facts)
    return columns


def _expected(hosts: list[HostFacts], ask: PlacementRequest, settings: PlacementSettings) -> dict[str, str | None]:
    return {host.name: reference.first_failing(ask, host, settings) for host in hosts}


@effort(max_examples=200)
@given(strategies.hosts(), strategies.asks, strategies.settings, st.integers(0, 99))
def test_the_same_hosts_fit_and_fail_by_the_same_rule(
    hosts: list[HostFacts], ask: PlacementRequest, settings: PlacementSettings, seed: int
) -> None:
    plan = place(columns_of(hosts), ask, settings, seed)
    expected = _expected(hosts, ask, settings)
    ids = {host.id: host.name for host in hosts}
    assert {ids[host]: rule for host, rule in failing_rules(plan).items()} == {
        name: rule for name, rule in expected.items() if rule
    }
    fitting = {name for name, rule in expected.items() if rule is None}
    assert (plan.hosts, plan.fitting) == (len(hosts), len(fitting))
    assert len(plan.ranked) == min(len(fitting), settings.alternatives)
    assert {choice.name for choice in plan.ranked} <= fitting
    rounded = [round(choice.weight, 5) for choice in plan.ranked]
    assert rounded == sorted(rounded, reverse=True)
    counts = Counter(rule for rule in expected.values() if rule)
    assert {fallen.rule: fallen.hosts for fallen in plan.fallen} == dict(counts)
    assert [fallen.rule for fallen in plan.fallen] == [rule for rule in reference.RULES if rule in counts]
    assert all(expected[name] == fallen.rule for fallen in plan.fallen for name, _reason in fallen.nearest)
    assert len(reason(plan)) <= 1000


@effort(max_examples=200)
@given(strategies.facts(), strategies.asks, strategies.settings)
def test_one_host_alone_is_judged_as_among_all(
    facts: HostFacts, ask: PlacementRequest, settings: PlacementSettings
) -> None:
    failing = first_failing(facts, ask, settings)
    assert (failing.rule if failing else None) == reference.first_failing(ask, facts, settings)
    assert failing is None or failing.reason


@effort(max_examples=100)
@given(strategies.hosts(least=1), strategies.asks, strategies.settings, st.integers(0, 99), st.randoms())
def test_the_order_of_rows_decides_nothing(
    hosts: list[HostFacts], ask: PlacementRequest, settings: PlacementSettings, seed: int, chance: random.Random
) -> None:
    plan = place(columns_of(hosts), ask, settings, seed)
    other = list(hosts)
    chance.shuffle(other)
    again = place(columns_of(other), ask, settings, seed)
    assert plan.ranked == again.ranked
    assert failing_rules(plan) == failing_rules(again)
    assert plan.would_fit == again.would_fit


FIELDS = {"ram_mb": "ram_mb", "vcpus": "vcpus", "disk_gb": "disk_gb"}
GONE: tuple[tuple[str, dict[str, object]], ...] = (
    ("without asking for", {"only": None}),
    ("without availability zone", {"zone": None}),
    ("without the hint same_host", {"same_host": None}),
    ("without the hint different_host", {"different_host": ()}),
    ("without the group rule", {"group": None}),
    ("without the NUMA topology", {"numa": None}),
    ("without hypervisor type", {"hypervisor_type": None}),
    ("without hypervisor version", {"least_hypervisor_version": 0}),
    ("without architecture", {"architecture": None}),
    ("without machine type", {"machine_type": None}),
    ("without firmware", {"firmware": None}),
    ("without the extra specs", {"extra_specs": {}}),
    ("without the capabilities", {"extra_specs": {}}),
)


def _check(told: str, hosts: list[HostFacts], ask: PlacementRequest, settings: PlacementSettings) -> None:
    """Do as it says, and as many hosts fit as it says."""
    count = int(re.findall(r": (\d+) hosts?$", told)[0])

    def fitting(changed: PlacementRequest) -> int:
        return sum(reference.first_failing(changed, host, settings) is None for host in hosts)

    amount = re.match(r"with (\w+) <= (\d+):", told)
    if amount:
        field, value = amount[1], int(amount[2])
        assert 0 < value < getattr(ask, field)
        assert fitting(msgspec.structs.replace(ask, **{field: value})) == count
        if ask.numa is None:
            assert fitting(msgspec.structs.replace(ask, **{field: value + 1})) == 0
        return
    for words, change in GONE:
        if told.startswith(words):
            changed = msgspec.structs.replace(ask, **change)
            assert fitting(changed) >= count if change == {"extra_specs": {}} else fitting(changed) == count
    if told.startswith("with ") and told.endswith("host") and "enabled" in told:
        name = told.split()[1]
        enabled = [msgspec.structs.replace(host, disabled=False) if host.name == name else host for host in hosts]
        assert sum(reference.first_failing(ask, host, settings) is None for host in enabled) == 1


@effort(max_examples=200)
@given(strategies.hosts(least=1), st.one_of(strategies.asks, strategies.plain_asks), strategies.settings)
def test_what_would_have_fitted_is_true(
    hosts: list[HostFacts], ask: PlacementRequest, settings: PlacementSettings
) -> None:
    plan = place(columns_of(hosts), ask, settings, 1)
    assert len(plan.would_fit) <= 5
    assert not (plan.fitting and plan.would_fit)
    for told in plan.would_fit:
        _check(told, hosts, ask, settings)


@effort(max_examples=150)
@given(strategies.hosts(least=1), strategies.plain_asks, strategies.settings)
def test_less_of_one_amount_is_told_whenever_it_is_all_that_is_missing(
    hosts: list[HostFacts], ask: PlacementRequest, settings: PlacementSettings
) -> None:
    if ask.numa is not None:
        return
    plan = place(columns_of(hosts), ask, settings, 1)
    for field in FIELDS:
        could = (
            [
                value
                for value in range(1, getattr(ask, field))
                if any(
                    reference.first_failing(msgspec.structs.replace(ask, **{field: value}), host, settings) is None
                    for host in hosts
                )
            ]
            if not plan.fitting and getattr(ask, field) < 20
            else []
        )
        if could:
            assert any(told.startswith(f"with {field} <= {max(could)}:") for told in plan.would_fit)


@effort(max_examples=30)
@given(st.integers(1, 12), st.integers(0, 130), st.integers(0, 2**63), st.booleans())
def test_equal_hosts_are_spread_evenly(count: int, requests: int, seed: int, uneven: bool) -> None:
    hosts = [HostFacts(n, f"host-{n}", vcpus=32, memory_mb=262_144, disk_gb=10_000) for n in range(1, count + 1)]
    used = Counter({host.name: 0 for host in hosts})
    plans = place_many(columns_of(hosts), [PlacementRequest(1 + uneven, 512, 3)] * requests, DEFAULT, seed)
    used.update(plan.ranked[0].name for plan in plans)
    assert max(used.values()) - min(used.values()) <= 1


@effort(max_examples=200)
@given(
    strategies.hosts(),
    st.lists(st.one_of(strategies.plain_asks, strategies.asks), max_size=12),
    strategies.settings,
    st.integers(0, 99),
)
def test_many_are_placed_as_one_after_the_other(
    hosts: list[HostFacts], asks: list[PlacementRequest], settings: PlacementSettings, seed: int
) -> None:
    columns = columns_of(hosts)
    plans = place_many(columns, asks, settings, seed)
    assert {host.name: columns.facts(host.name) for host in hosts} == {host.name: host for host in hosts}
    members: Counter[str] = Counter()
    for place_in_line, (ask, plan) in enumerate(zip(asks, plans, strict=True)):
        group = ask.group
        asked = ask
        if group is not None:
            on_hosts = {name: group.on_hosts.get(name, 0) + members[name] for name in {*group.on_hosts, *members}}
            asked = msgspec.structs.replace(ask, group=msgspec.structs.replace(group, on_hosts=on_hosts))
        assert place(columns, asked, settings, seed + place_in_line) == plan
        if plan.ranked:
            best = plan.ranked[0].name
            columns.hold(best, ask, fit_cells(columns.facts(best), ask))
            members[best] += group is not None


@effort(max_examples=150)
@given(
    strategies.hosts(), st.lists(st.one_of(strategies.plain_asks, strategies.asks), max_size=12), strategies.settings
)
def test_there_is_room_for_those_that_would_be_placed(
    hosts: list[HostFacts], asks: list[PlacementRequest], settings: PlacementSettings
) -> None:
    columns, alone = columns_of(hosts), [msgspec.structs.replace(ask, group=None) for ask in asks]
    found = have_headroom(columns, alone, settings, 3)
    assert found == [bool(plan.ranked) for plan in place_many(columns, alone, settings, 3)]
    assert {host.name: columns.facts(host.name) for host in hosts} == {host.name: host for host in hosts}


@effort(max_examples=100)
@given(strategies.hosts(least=2), st.integers(1, 3), st.integers(1, 12), st.sampled_from(list(GroupPolicy)))
def test_a_group_keeps_its_rule_in_a_burst(
    hosts: list[HostFacts], most: int, requests: int, policy: GroupPolicy
) -> None:
    asks = [PlacementRequest(1, 0, 0, group=GroupRequest("g", policy, {}, most))] * requests
    used = Counter(plan.ranked[0].name for plan in place_many(columns_of(hosts), asks, DEFAULT, 3) if plan.ranked)
    if policy is GroupPolicy.AFFINITY:
        assert len(used) <= 1
    if policy is GroupPolicy.ANTI_AFFINITY:
        assert all(count <= most for count in used.values())


@effort(max_examples=100)
@given(strategies.hosts(), strategies.asks, strategies.settings)
def test_a_plan_can_be_stored(hosts: list[HostFacts], ask: PlacementRequest, settings: PlacementSettings) -> None:
    plan = place(columns_of(hosts), ask, settings, 1)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
