"""Cells and CPUs: what is given always fits, and no CPU is anybody else's."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from droveway.domain.placement import HeldCell, HostFacts, NumaCell, NumaRequest, PlacementRequest, PlacementSettings
from droveway.scheduler.columns import Columns
from droveway.scheduler.plan import first_failing, fit_cells, place
from tests.scheduler import strategies
from tests.scheduler.effort import effort

SETTINGS = PlacementSettings()
HOST = HostFacts(
    1,
    "host",
    vcpus=8,
    memory_mb=8192,
    disk_gb=100,
    cells=(NumaCell(0, (0, 2, 4, 6), 4096), NumaCell(1, (1, 3, 5, 7), 4096)),
)


def test_a_guest_that_floats_goes_where_most_cpus_are() -> None:
    assert fit_cells(HOST, PlacementRequest(2, 1024, 1, numa=NumaRequest(1))) == (HeldCell(0, 2, 1024),)
    busy = HostFacts(1, "host", cells=HOST.cells, held_cells=(HeldCell(0, 1, 512, (0,)),))
    assert fit_cells(busy, PlacementRequest(2, 1024, 1, numa=NumaRequest(1))) == (HeldCell(1, 2, 1024),)


def test_a_pinned_guest_leaves_the_whole_cell_to_a_larger_one() -> None:
    busy = HostFacts(1, "host", cells=HOST.cells, held_cells=(HeldCell(0, 1, 512, (0,)),))
    assert fit_cells(busy, PlacementRequest(2, 1024, 1, numa=NumaRequest(1, True))) == (HeldCell(0, 2, 1024, (2, 4)),)
    assert fit_cells(busy, PlacementRequest(4, 1024, 1, numa=NumaRequest(1, True))) == (
        HeldCell(1, 4, 1024, (1, 3, 5, 7)),
    )


def test_what_does_not_divide_goes_to_the_first_nodes() -> None:
    given_cells = fit_cells(HOST, PlacementRequest(5, 1025, 1, numa=NumaRequest(2, True)))
    assert [(cell.vcpus, cell.memory_mb) for cell in given_cells] == [(3, 513), (2, 512)]
    assert len({cell.cell for cell in given_cells}) == 2


def test_nothing_is_given_where_nothing_is_asked_or_nothing_fits() -> None:
    assert fit_cells(HOST, PlacementRequest(1, 1, 1)) == ()
    assert fit_cells(HOST, PlacementRequest(5, 1, 1, numa=NumaRequest(1))) == ()
    assert fit_cells(HOST, PlacementRequest(1, 5000, 1, numa=NumaRequest(1))) == ()
    assert fit_cells(HOST, PlacementRequest(1, 1, 1, numa=NumaRequest(2))) == ()


@effort(max_examples=200)
@given(strategies.facts(), strategies.asks)
def test_what_is_given_fits(facts: HostFacts, ask: PlacementRequest) -> None:
    assume(ask.numa is not None)
    assert ask.numa is not None
    got = fit_cells(facts, ask)
    failing = first_failing(
        facts,
        PlacementRequest(ask.vcpus, ask.ram_mb, 0, numa=ask.numa),
        PlacementSettings(cpu_ratio=1000.0, ram_ratio=1000.0),
    )
    if failing is None:
        assert got
    if not got:
        return
    assert len({cell.cell for cell in got}) == len(got) == ask.numa.nodes
    assert sum(cell.vcpus for cell in got) == ask.vcpus
    assert sum(cell.memory_mb for cell in got) == ask.ram_mb
    _nothing_is_held_twice(facts, (*facts.held_cells, *got))
    assert all(len(cell.cpus) == (cell.vcpus if ask.numa.pinned else 0) for cell in got)


def _nothing_is_held_twice(facts: HostFacts, held: tuple[HeldCell, ...]) -> None:
    for cell in facts.cells:
        mine = [one for one in held if one.cell == cell.id]
        cpus = [cpu for one in mine for cpu in one.cpus]
        assert len(cpus) == len(set(cpus))
        assert set(cpus) <= set(cell.cpus)
        floating = max((one.vcpus for one in mine if not one.cpus), default=0)
        assert len(cell.cpus) - len(cpus) >= floating
        before = [one for one in facts.held_cells if one.cell == cell.id]
        if len(mine) > len(before):
            assert sum(one.memory_mb for one in mine) <= max(cell.memory_mb, sum(one.memory_mb for one in before))


@effort(max_examples=150)
@given(st.lists(st.tuples(strategies.plain_asks, st.booleans()), max_size=25))
def test_a_life_of_many_guests_never_shares_a_pinned_cpu(life: list[tuple[PlacementRequest, bool]]) -> None:
    columns = Columns()
    columns.put(HOST)
    guests: list[tuple[PlacementRequest, tuple[HeldCell, ...]]] = []
    for ask, leave in life:
        if leave and guests:
            gone, held = guests.pop(0)
            columns.hold("host", gone, held, -1)
        if not place(columns, ask, SETTINGS, 1).fitting:
            continue
        got = fit_cells(columns.facts("host"), ask)
        assert bool(got) == (ask.numa is not None)
        columns.hold("host", ask, got)
        guests.append((ask, got))
        facts = columns.facts("host")
        _nothing_is_held_twice(HOST, facts.held_cells)
        alone = sum(len(cell.cpus) for cell in facts.held_cells)
        assert facts.vcpus_used - alone <= (facts.vcpus - alone) * SETTINGS.cpu_ratio
        assert facts.ram_mb_used <= facts.memory_mb
    for ask, held in guests:
        columns.hold("host", ask, held, -1)
    assert (columns.facts("host").vcpus_used, columns.facts("host").held_cells) == (0, ())
