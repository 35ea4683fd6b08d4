"""What /metrics tells of hosts and projects: a bounded number of each, and what is left as one more."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func, select

from droveway.domain.placement import HostFacts
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.schema import hosts as host_rows
from droveway.store.schema import instances

SHOWN_MAX = 1000  # hosts, and projects
_FIRST = Prepared(select(host_rows.c.name).order_by(host_rows.c.id).limit(SHOWN_MAX))
_COUNT = Prepared(select(func.count()).select_from(host_rows))
_SUMS = (
    func.count(),
    func.coalesce(func.sum(instances.c.vcpus), 0),
    func.coalesce(func.sum(instances.c.ram_mb), 0),
    func.coalesce(func.sum(instances.c.disk_gb), 0),
)
_PLACED = Prepared(select(*_SUMS).where(instances.c.deleted.is_(False), instances.c.host.is_not(None)))
_BY_PROJECT = Prepared(
    select(instances.c.project_id, *_SUMS)
    .where(instances.c.deleted.is_(False))
    .group_by(instances.c.project_id)
    .order_by(instances.c.project_id)
)


class HeldAmounts(NamedTuple):
    """What some servers hold of their hosts."""

    servers: int = 0
    vcpus: int = 0
    ram_mb: int = 0
    disk_gb: int = 0

    def plus(self, other: HeldAmounts) -> HeldAmounts:
        return HeldAmounts(*(a + b for a, b in zip(self, other, strict=True)))


class Totals(NamedTuple):
    """`all_hosts`: how many there are. `hosts`: the oldest ones; `other_hosts`: what is held on all the others, None if
    there are none. `projects`: by id, those with servers; `other_projects` likewise."""

    all_hosts: int
    hosts: list[HostFacts]
    other_hosts: HeldAmounts | None
    projects: dict[str, HeldAmounts]
    other_projects: HeldAmounts | None


def totals(tx: Tx) -> Totals:
    count = int(tx.execute(_COUNT).scalar_one())
    shown = hosts.facts_of(tx, list(tx.execute(_FIRST).scalars()))
    other_hosts = None
    if count > SHOWN_MAX:
        held = HeldAmounts(*map(int, tx.execute(_PLACED).one()))
        mine = [HeldAmounts(one.instances, one.vcpus_used, one.ram_mb_used, one.disk_gb_used) for one in shown]
        for one in mine:  # a claim that moves counts on a host and not in the sum: never below nothing
            held = HeldAmounts(*(max(0, a - b) for a, b in zip(held, one, strict=True)))
        other_hosts = held
    projects, other_projects = dict[str, HeldAmounts](), None
    for project_id, *sums in tx.execute(_BY_PROJECT):
        held = HeldAmounts(*map(int, sums))
        if len(projects) < SHOWN_MAX:
            projects[project_id] = held
        else:
            other_projects = held if other_projects is None else other_projects.plus(held)
    return Totals(count, shown, other_hosts, projects, other_projects)
