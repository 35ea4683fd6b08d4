"""The audit's rules as a table: what the rows and the hosts say, and what is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from droveway.domain.audit import audit
from droveway.domain.audit_findings import (
    KINDS,
    BrokenSaga,
    Instance,
    Listing,
    Migration,
    PoolListing,
    Repair,
    Severity,
    StoreSnapshot,
)
from droveway.domain.model import Guest, GuestState, of_instance
from droveway.domain.placement import HeldCell, HostFacts, NumaCell
from tests.domain import test_volume_audit

RUNS, PAUSED, OFF = GuestState.RUNNING, GuestState.PAUSED, GuestState.SHUTOFF
H1 = HostFacts(
    1,
    "h1",
    vcpus=4,
    memory_mb=1024,
    disk_gb=10,
    vcpus_used=1,
    ram_mb_used=128,
    disk_gb_used=1,
    cells=(NumaCell(0, (0, 1, 2, 3), 1024),),
)
H2 = HostFacts(2, "h2", vcpus=4, memory_mb=1024, disk_gb=10)


def row(
    of: str = "a", host: str | None = "h1", vm_state: str = "active", task_state: str | None = None, **more: Any
) -> Instance:
    values = {"power_state": 1, "ran_boot_id": "boot", "deleted": False, "fence": 3, "updated_at_us": 77} | more
    return Instance(of, f"server-{of}", host, vm_state, task_state, **values)


def on(host: str, **states: GuestState) -> Listing:
    return Listing(host, "boot", tuple(Guest(of, state) for of, state in states.items()))


def moving(**more: Any) -> Migration:
    return Migration(
        9, "a", "saga", **({"status": "running", "destination": "h2", "holds_claim": True, "updated_at_us": 78} | more)
    )


@dataclass
class Case:
    name: str
    found: set[tuple[str, str]]  # kind, where
    instances: tuple[Instance, ...] = (row(),)
    listings: tuple[Listing, ...] = (on("h1", a=RUNS), on("h2"))
    before: dict[str, tuple[int, str | None]] | None = None  # None: as the rows say
    rows: dict[str, Any] = field(default_factory=dict)
    pools: tuple[PoolListing, ...] = ()


PIN = (HeldCell(0, 1, 128, (2,)),)
BUSY = {"open_sagas": {"saga"}, "busy": {"a"}}
ERROR = row(vm_state="error", root_pool="p")
GONE = row(host=None, vm_state="deleted", deleted=True)
IN_P = (PoolListing("h2", "p", ("a",)),)
CASES = (
    Case("all is well", set()),
    Case("it is off, and its row says so", set(), (row(vm_state="stopped"),), (on("h1", a=OFF),)),
    Case("its host does not answer", set(), listings=()),
    # -- tasks
    Case(
        "it is built by nobody",
        {("forgotten build", "-")},
        (row(host=None, vm_state="building", task_state="scheduling"),),
        (on("h1"),),
    ),
    Case("its boot was undone while its host was away", {("left over", "h1")}, (row(host=None, vm_state="error"),)),
    Case("it is being built", set(), (row(host=None, vm_state="building", task_state="scheduling"),), rows=BUSY),
    Case("it is migrated by nobody", {("forgotten task", "h1")}, (row(task_state="migrating"),)),
    Case("it is deleted by nobody", {("forgotten delete", "h1")}, (row(task_state="deleting"),)),
    Case(
        "its saga is broken",
        {("broken saga", "h1")},
        (row(task_state="migrating"),),
        rows=BUSY | {"broken": [BrokenSaga("saga", "live_migration", of_instance("a"), "a bug", 79)]},
    ),
    # -- places
    Case("it runs nowhere", {("no place", "-"), ("out of place", "h1")}, (row(host=None),)),
    Case("it never got a host", set(), (row(host=None, vm_state="error"),), (on("h1"),)),
    Case("its host is not known", {("unknown host", "h9")}, (row(host="h9"),), (on("h1"),)),
    # -- claims
    Case("a claim that nobody releases", {("stray claim", "h2")}, rows={"migrations": [moving()]}),
    Case("a claim in use", set(), rows=BUSY | {"migrations": [moving()]}),
    Case(
        "a migration that nobody carries out",
        {("forgotten migration", "h2")},
        rows={"migrations": [moving(holds_claim=False)]},
    ),
    Case(
        "a host that has shrunk",
        {("over-claimed", "h3")},
        rows={"hosts": [H1, H2, HostFacts(3, "h3", vcpus=4, memory_mb=100, disk_gb=10, ram_mb_used=128)]},
    ),
    Case("a host that has never reported", set(), rows={"hosts": [H1, H2, HostFacts(3, "h3", ram_mb_used=128)]}),
    Case(
        "two guests on one CPU",
        {("cells overlap", "h1")},
        (row(held_cells=PIN), row("b", held_cells=PIN)),
        (on("h1", a=RUNS, b=RUNS),),
    ),
    Case(
        "a guest and one that is to come, on one CPU",
        {("cells overlap", "h1")},
        (row("b", held_cells=PIN), row()),
        (on("h1", b=RUNS, a=RUNS),),
        rows={"open_sagas": {"saga"}, "migrations": [moving(destination="h1", held_cells=PIN)]},
    ),
    Case("a CPU that the host has not", {("cells overlap", "h1")}, (row(held_cells=(HeldCell(0, 1, 128, (7,)),)),)),
    Case("a host without cells", set(), (row(host="h2", held_cells=PIN),), (on("h2", a=RUNS),)),
    # -- guests
    Case(
        "it runs on two hosts",
        {("runs twice", "h1, h2"), ("out of place", "h2")},
        listings=(on("h1", a=RUNS), on("h2", a=RUNS)),
    ),
    Case("it is moving", set(), listings=(on("h1", a=PAUSED), on("h2", a=RUNS)), rows=BUSY),
    Case(
        "it has moved while the hosts were asked", set(), listings=(on("h1"), on("h2", a=RUNS)), before={"a": (2, "h1")}
    ),
    Case("it began while the hosts were asked", set(), listings=(on("h1"),), before={}),
    Case("it runs elsewhere", {("out of place", "h2")}, listings=(on("h1"), on("h2", a=RUNS))),
    Case("a husk is left", {("left over", "h2")}, listings=(on("h1", a=RUNS), on("h2", a=PAUSED))),
    Case("it is deleted and runs", {("left over", "h1")}, (row(host=None, vm_state="deleted", deleted=True),)),
    Case("a removal is owed", {("deferred removal", "h1")}, (row(vm_state="deleted", deleted=True),), (on("h1"),)),
    Case("a removal is owed by a host that is away", set(), (row(vm_state="deleted", deleted=True),), (on("h2"),)),
    Case("a guest of nobody", {("orphaned guest", "h2")}, listings=(on("h1", a=RUNS), on("h2", x=RUNS))),
    Case("it has ended by itself", {("differs", "h1")}, listings=(on("h1", a=OFF),)),
    Case(
        "it is expected by nobody's wish",
        {("expected in vain", "h2")},
        listings=(on("h1", a=RUNS), Listing("h2", "boot", admitted=("a",))),
    ),
    Case("it is expected", set(), listings=(on("h1", a=PAUSED), Listing("h2", "boot", admitted=("a",))), rows=BUSY),
    # -- files
    Case("its files are there", set(), listings=(Listing("h1", "boot", (Guest("a", RUNS),), files=("a",)),)),
    Case(
        "files of one that is deleted, on a store of two",
        {("files left", "h1")},
        (row(host=None, vm_state="deleted", deleted=True),),
        (Listing("h1", "boot", files=("a",)), Listing("h2", "boot", files=("a",))),
    ),
    Case(
        "files that are owed already",
        {("deferred removal", "h1")},
        (row(vm_state="deleted", deleted=True),),
        (Listing("h1", "boot", files=("a",)),),
    ),
    Case(
        "files whose removal was paid meanwhile",
        set(),
        (row(host=None, vm_state="deleted", deleted=True),),
        (Listing("h1", "boot", files=("a",)),),
        before={"a": (3, "h1")},
    ),
    Case(
        "files of nobody", {("orphaned files", "h2")}, listings=(on("h1", a=RUNS), Listing("h2", "boot", files=("x",)))
    ),
    # -- root disks in a pool, as h2 says
    Case("its root disk is there", set(), (row(root_pool="p"),), pools=(PoolListing("h2", "p", ("a",)),)),
    Case("its root disk is not", {("lost root disk", "h2")}, (row(root_pool="p"),), pools=(PoolListing("h2", "p"),)),
    Case(
        "it may be behind what one answer holds",
        set(),
        (row(root_pool="p"),),
        pools=(PoolListing("h2", "p", is_whole=False),),
    ),
    Case("one that is built has none yet", set(), (row(root_pool="p"),), pools=(PoolListing("h2", "p"),), rows=BUSY),
    Case("one whose boot failed has none", set(), (ERROR,), (on("h1"),), pools=(PoolListing("h2", "p"),)),
    Case("of one that is deleted", {("root disk left", "h2")}, (GONE,), pools=IN_P, listings=(on("h1"),)),
    Case("whose removal was paid meanwhile", set(), (GONE,), (on("h1"),), before={"a": (3, "h1")}, pools=IN_P),
    Case(
        "that is owed", {("deferred removal", "h1")}, (row(vm_state="deleted", deleted=True),), (on("h1"),), pools=IN_P
    ),
    Case(
        "of one that is shelved",
        {("stray root disk", "h2")},
        (row(host=None, vm_state="shelved_offloaded"),),
        (),
        pools=IN_P,
    ),
    Case("of nobody", {("orphaned root disk", "h2")}, pools=(PoolListing("h2", "p", ("x",)),)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_found(case: Case) -> None:
    rows = StoreSnapshot({one.id: one for one in case.instances}, **({"hosts": [H1, H2]} | case.rows))
    before = {one.id: (one.fence, one.host) for one in case.instances} if case.before is None else case.before
    found = audit(rows, case.listings, before, lambda host: (host.memory_mb, host.vcpus, host.disk_gb), case.pools)
    assert {(one.kind, one.where) for one in found} == case.found
    for one in found:
        assert one.reason and one.plan and "{" not in one.plan
        assert one.severity is KINDS[one.kind][0]
    assert [one.severity for one in found] == sorted((one.severity for one in found), key=list(Severity).index)


def test_every_kind_has_a_case() -> None:
    assert {kind for case in CASES for kind, _ in case.found} == set(KINDS) - test_volume_audit.KINDS_OF_VOLUMES


def test_a_running_guest_is_never_repaired_by_a_guess() -> None:
    for kind, (severity, repair, _) in KINDS.items():
        if severity is Severity.HIGH:
            assert repair is Repair.HUMAN, kind


def test_a_finding_keeps_its_key() -> None:
    """So that what a human has agreed to is what is repaired."""
    rows = StoreSnapshot({"a": row(task_state="migrating")}, [H1, H2])
    before = {"a": (3, "h1")}
    keys = [audit(rows, listings, before, lambda _: (9999, 99, 99))[0].key for listings in ((), (on("h1", a=RUNS),))]
    assert keys == ["forgotten task/a/h1"] * 2
