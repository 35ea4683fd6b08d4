"""Columns stay what they would be if they were built anew, whatever is put, held, given back and dropped."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from droveway.domain.placement import HeldCell, HostFacts, PlacementRequest, PlacementSettings
from droveway.scheduler import capacity, numa
from droveway.scheduler.columns import TYPES, Columns
from droveway.scheduler.plan import fit_cells, place
from tests.scheduler import strategies
from tests.scheduler.effort import effort

ONE = PlacementSettings()
OTHER = PlacementSettings(cpu_ratio=2.0, ram_ratio=1.5)
NUMBERS = {name: 10 * place_of + 3 for place_of, name in enumerate(strategies.NAMES)}


class ColumnsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.columns = Columns()
        self.known: dict[str, HostFacts] = {}
        self.held: list[tuple[str, PlacementRequest, tuple[HeldCell, ...]]] = []

    @rule(facts=st.sampled_from(strategies.NAMES).flatmap(lambda name: strategies.facts(NUMBERS[name], name)))
    def put(self, facts: HostFacts) -> None:
        self.columns.put(facts)
        self.known[facts.name] = facts
        self.held = [held for held in self.held if held[0] != facts.name]

    @rule(name=strategies.names)
    def drop(self, name: str) -> None:
        self.columns.drop(name)
        self.known.pop(name, None)
        self.held = [held for held in self.held if held[0] != name]

    @precondition(lambda self: self.known)
    @rule(data=st.data(), ask=strategies.plain_asks)
    def hold(self, data: st.DataObject, ask: PlacementRequest) -> None:
        name = data.draw(st.sampled_from(sorted(self.known)))
        cells = fit_cells(self.known[name], ask)
        self.columns.hold(name, ask, cells)
        self.held.append((name, ask, cells))
        self._count(name, ask, cells, 1)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        name, ask, cells = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        self.columns.hold(name, ask, cells, -1)
        self._count(name, ask, cells, -1)

    def _count(self, name: str, ask: PlacementRequest, cells: tuple[HeldCell, ...], sign: int) -> None:
        old = self.known[name]
        held = list(old.held_cells)
        for cell in cells:
            held.append(cell) if sign > 0 else held.remove(cell)
        self.known[name] = msgspec.structs.replace(
            old,
            vcpus_used=old.vcpus_used + sign * ask.vcpus,
            ram_mb_used=old.ram_mb_used + sign * ask.ram_mb,
            disk_gb_used=old.disk_gb_used + sign * ask.disk_gb,
            instances=old.instances + sign,
            claims=old.claims + 1,
            held_cells=tuple(held),
        )

    @rule(ask=strategies.asks)
    def look(self, ask: PlacementRequest) -> None:
        """Answers are kept between requests, and must not be too old."""
        assert place(self.columns, ask, ONE, 7).ranked == place(self._fresh(), ask, ONE, 7).ranked

    def _fresh(self) -> Columns:
        fresh = Columns()
        for name in self.columns.names:
            fresh.put(self.known[name])
        return fresh

    @invariant()
    def facts_are_right(self) -> None:
        assert set(self.columns.names) == set(self.known)
        assert len(self.columns) == len(self.known)
        for name, facts in self.known.items():
            assert name in self.columns
            assert self.columns.facts(name) == facts

    @invariant()
    def columns_are_as_if_built_anew(self) -> None:
        if not self.known:
            return
        fresh = Columns()
        for row in range(len(self.columns)):
            fresh.put(self.columns.at(row))
        texts = {"zone": "zones", "kind": "kinds", "metadata": "metadatas"}
        for name in TYPES:
            mine, theirs = self.columns.column(name), fresh.column(name)
            if name in texts:
                for a, b in zip(mine.tolist(), theirs.tolist(), strict=True):
                    one, other = getattr(self.columns, texts[name]), getattr(fresh, texts[name])
                    assert one._values[a] == other._values[b]
            else:
                np.testing.assert_array_equal(mine, theirs, name)
        for settings in (ONE, OTHER):
            for name in capacity.FIELDS:
                np.testing.assert_array_equal(
                    self.columns.headroom(name, settings), fresh.headroom(name, settings), name
                )
        for name in numa.FIELDS:
            most = len(fresh.cells(name))
            np.testing.assert_array_equal(self.columns.cells(name)[:most], fresh.cells(name), name)
            assert (self.columns.cells(name)[most:] == -1).all()


ColumnsMachine.TestCase.settings = effort(max_examples=60, stateful_step_count=25)
TestColumns = ColumnsMachine.TestCase


def test_a_host_that_is_not_known_is_an_error() -> None:
    with pytest.raises(KeyError):
        Columns().facts("nobody")
    Columns().drop("nobody")


def test_values_that_no_host_has_any_more_are_forgotten() -> None:
    columns = Columns()
    columns.put(HostFacts(1, "other"))
    for number in range(5000):
        columns.put(HostFacts(2, "host", zone=f"zone-{number}", aggregates={f"key-{number}": ("1",)}))
    assert max(len(columns.zones), len(columns.metadatas), len(columns.kinds)) < 100
    assert place(columns, PlacementRequest(0, 0, 0, zone="zone-4999"), ONE, 1).fitting == 1
    assert place(columns, PlacementRequest(0, 0, 0, extra_specs={"key-4999": "1"}), ONE, 1).fitting == 1


def test_what_is_kept_is_bounded() -> None:
    columns = Columns()
    columns.put(HostFacts(1, "host"))
    for number in range(500):
        place(columns, PlacementRequest(1, 1, 1, zone=f"zone-{number}", machine_type=str(number)), ONE, 1)
        place(columns, PlacementRequest(1, 1, 1), PlacementSettings(reserved_disk_gb=number), 1)
    assert len(columns._kept) <= 64
    assert len(columns.kinds._answers) <= 64
    assert len(columns._headrooms) <= 2


def test_a_claim_leaves_what_is_kept() -> None:
    columns = Columns()
    columns.put(HostFacts(1, "host", vcpus=8, memory_mb=1000))
    version = columns.version
    columns.hold("host", PlacementRequest(1, 1, 1))
    columns.put(msgspec.structs.replace(columns.facts("host"), claims=9))
    assert columns.version == version
    columns.put(msgspec.structs.replace(columns.facts("host"), disabled=True))
    assert columns.version > version


ELSEWHERE: list[dict[str, object]] = [
    {"only": "nobody"},
    {"never": {"host": "out"}},
    {"failed": ("host",)},
    {"zone": "az9"},
    {"project_id": "p2"},
    {"hypervisor_type": "xen"},
    {"least_hypervisor_version": 9},
    {"architecture": "s390x"},
    {"machine_type": "virt"},
    {"firmware": "uefi"},
    {"extra_specs": {"ssd": "false"}},
    {"same_host": ()},
    {"different_host": ("host",)},
]


@pytest.mark.parametrize("other", ELSEWHERE, ids=str)
def test_what_is_kept_of_one_request_is_not_given_to_another(other: dict[str, object]) -> None:
    columns = Columns()
    aggregates = {"ssd": ("true",), "filter_tenant_id": ("p1",)}
    columns.put(
        HostFacts(
            1, "host", vcpus=1, aggregates=aggregates, machine_types=("pc",), firmwares=("bios",), hypervisor_version=8
        )
    )
    ask = PlacementRequest(1, 0, 0, project_id="p1", extra_specs={"ssd": "true"})
    for _ in range(2):
        assert place(columns, ask, ONE, 1).fitting == 1
        assert place(columns, msgspec.structs.replace(ask, **other), ONE, 1).fitting == 0
