"""What is wrong between the rows, the guests that hosts say they have, and the claims; pure.

A row counts as quiet when no saga was at work on its instance before the hosts were asked nor after, and neither its
fence nor its place moved in between: only then may what a host says be held against it. What the guests loop heals is
found by the loop's own rules (domain/reconcile.py), so the two can never differ.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from droveway.domain.audit_findings import Finding, Listing, PoolListing, Seen, Severity, StoreSnapshot, finding
from droveway.domain.model import Guest, GuestState, SubjectKind, TaskState, VmState
from droveway.domain.placement import HeldCell, HostFacts
from droveway.domain.reconcile import PLACELESS, Remedy, UnexpectedGuestRemedy, remedy, unexpected_guest_remedy

_RANK = {severity: rank for rank, severity in enumerate(Severity)}


# All that may be promised on a host: memory in MiB, vcpus, disk in GiB. The placement's own rule is handed in.
Capacities = Callable[[HostFacts], tuple[int, int, int]]


class _Case(msgspec.Struct):
    """Everything a rule may look at."""

    rows: StoreSnapshot
    listings: dict[str, Listing]
    quiet: set[str]
    capacities: Capacities
    guests: dict[str, list[tuple[str, Guest]]]  # by instance: the hosts that have one
    pools: tuple[PoolListing, ...] = ()

    def name(self, instance_id: str) -> str:
        row = self.rows.instances.get(instance_id)
        return f"server {row.name} ({instance_id})" if row is not None else f"server {instance_id}"


def audit(
    rows: StoreSnapshot,
    listings: Iterable[Listing],
    before: Mapping[str, Seen],
    capacities: Capacities,
    pools: Iterable[PoolListing] = (),
) -> list[Finding]:
    """Whatever is wrong. `before`: the instances that were at rest before the hosts were asked; one
    that is not there cannot be held against what they say."""
    by_host = {listing.host: listing for listing in listings}
    quiet = {
        row.id
        for row in rows.instances.values()
        if row.id not in rows.busy and before.get(row.id) == (row.fence, row.host)
    }
    guests: dict[str, list[tuple[str, Guest]]] = defaultdict(list)
    for listing in by_host.values():
        for guest in listing.guests:
            guests[guest.instance_id].append((listing.host, guest))
    case = _Case(rows, by_host, quiet, capacities, guests, tuple(pools))
    return [one for rule in RULES for one in rule(case)]


def worst_first(found: Iterable[Finding]) -> list[Finding]:
    """Each once."""
    each = {one.key: one for one in found}
    return sorted(each.values(), key=lambda f: (_RANK[f.severity], f.kind, f.where, f.what))


# -- rows against rows ------------------------------------------------------------------------------------------------
def _tasks(case: _Case) -> Iterator[Finding]:
    """What is being done to an instance is done by a saga."""
    for row in case.rows.instances.values():
        if row.deleted or row.id in case.rows.busy:
            continue
        if row.task_state == TaskState.DELETING:
            kind, reason = "forgotten delete", "it is shown as deleting, and nothing deletes it"
        elif row.vm_state == VmState.BUILDING:
            kind, reason = "forgotten build", "it is shown as building, and nothing builds it"
        elif row.task_state is not None:
            kind, reason = "forgotten task", f"it is shown as {row.task_state}, and nothing is at work on it"
        else:
            continue
        yield finding(kind, case.name(row.id), row.host or "-", reason, subject=row.id, since_us=row.updated_at_us)


def _places(case: _Case) -> Iterator[Finding]:
    """Every instance that runs has a host, and that host is known."""
    known = {host.name for host in case.rows.hosts}
    for row in case.rows.instances.values():
        if row.deleted or row.id in case.rows.busy:
            continue
        if row.host is None:
            if row.vm_state not in PLACELESS:
                on = ", ".join(host for host, _ in case.guests.get(row.id, ())) or "no host that answered"
                yield finding(
                    "no place",
                    case.name(row.id),
                    "-",
                    f"it is {row.vm_state} and has no host, so its room is counted nowhere; its guest is on {on}",
                    subject=row.id,
                    since_us=row.updated_at_us,
                )
        elif row.host not in known:
            yield finding(
                "unknown host",
                case.name(row.id),
                row.host,
                f"its place is {row.host}, which is no host of this cloud",
                subject=row.id,
                since_us=row.updated_at_us,
            )


def _migrations(case: _Case) -> Iterator[Finding]:
    """A claim at a destination, and a migration that is under way, belong to a saga that has not ended."""
    for row in case.rows.migrations:
        if row.saga_id in case.rows.open_sagas:
            continue
        what, where = f"migration {row.id} of {case.name(row.instance_id)}", row.destination or "-"
        if row.holds_claim:
            yield finding(
                "stray claim",
                what,
                where,
                f"it holds room on {where}, and nothing migrates",
                subject=str(row.id),
                since_us=row.updated_at_us,
            )
        else:
            yield finding(
                "forgotten migration",
                what,
                where,
                f"it is shown as {row.status}, and nothing migrates",
                subject=str(row.id),
                since_us=row.updated_at_us,
            )


def _broken(case: _Case) -> Iterator[Finding]:
    for saga in case.rows.broken:
        is_server = saga.subject.kind is SubjectKind.INSTANCE
        row = case.rows.instances.get(saga.subject.id) if is_server else None
        where = (row.host if row is not None else None) or "-"
        of = case.name(saga.subject.id) if is_server else f"{saga.subject.kind.value} {saga.subject.id}"
        what = "server" if is_server else saga.subject.kind.value
        yield finding(
            "broken saga",
            f"{saga.kind} of {of}",
            where,
            f"it broke and holds its {what}: {saga.error}",
            subject=saga.id,
            since_us=saga.updated_at_us,
        )


# -- claims against hosts ---------------------------------------------------------------------------------------------
def _ratios(case: _Case) -> Iterator[Finding]:
    """No host is promised beyond its ratios. True at every moment: a claim is written where it is decided."""
    for host in case.rows.hosts:
        if not host.memory_mb and not host.vcpus:
            continue  # it has never said what it has: what is claimed there cannot be measured
        memory_mb, vcpus, disk_gb = case.capacities(host)
        for what, unit, used, most in (
            ("vcpus", "", host.vcpus_used, vcpus),
            ("memory", " MiB", host.ram_mb_used, memory_mb),
            ("disk", " GiB", host.disk_gb_used, disk_gb),
        ):
            if used > most:
                yield finding("over-claimed", what, host.name, f"{used}{unit} are claimed, {max(0, most)}{unit} may be")


def _cells(case: _Case) -> Iterator[Finding]:
    """No host CPU is two guests' own, and every held CPU is one that its cell has."""
    cells = {(host.name, cell.id): cell for host in case.rows.hosts for cell in host.cells}
    known = {host.name for host in case.rows.hosts if host.cells}
    owners: dict[tuple[str, int], str] = {}
    for host, holder, held in _holders(case.rows):
        for part in held:
            cell = cells.get((host, part.cell))
            lost = [cpu for cpu in part.cpus if cell is None or cpu not in cell.cpus]
            if host in known and (cell is None or lost):
                which = f"cell {part.cell}" if cell is None else f"CPU {lost[0]} of cell {part.cell}"
                yield finding(
                    "cells overlap",
                    case.name(holder),
                    host,
                    f"it holds {which}, which the host does not have",
                    subject=holder,
                )
            for cpu in part.cpus:
                other = owners.setdefault((host, cpu), holder)
                if other != holder:
                    yield finding(
                        "cells overlap",
                        case.name(holder),
                        host,
                        f"CPU {cpu} is its own, and is that of {case.name(other)} too",
                        subject=holder,
                    )


def _holders(rows: StoreSnapshot) -> Iterator[tuple[str, str, tuple[HeldCell, ...]]]:
    for row in rows.instances.values():
        if row.host is not None and not row.deleted and row.held_cells:
            yield row.host, row.id, row.held_cells
    for migration in rows.migrations:
        if migration.destination is not None and migration.holds_claim and migration.held_cells:
            yield migration.destination, migration.instance_id, migration.held_cells


# -- rows against hosts -----------------------------------------------------------------------------------------------
def _running_twice(case: _Case) -> Iterator[Finding]:
    for instance_id, on in case.guests.items():
        running = sorted(host for host, guest in on if guest.state is GuestState.RUNNING)
        if len(running) > 1 and (instance_id in case.quiet or instance_id not in case.rows.instances):
            yield finding(
                "runs twice",
                case.name(instance_id),
                ", ".join(running),
                f"it runs on {len(running)} hosts at once: its disk is at stake",
                subject=instance_id,
            )


def _unexpected_guests(case: _Case) -> Iterator[Finding]:
    """Guests where they should not be, by the rule of the guests loop."""
    for instance_id, on in case.guests.items():
        row = case.rows.instances.get(instance_id)
        for host, guest in on:
            if row is None:
                yield finding(
                    "orphaned guest",
                    f"guest {instance_id}",
                    host,
                    f"it is {guest.state} and no server has that id",
                    subject=instance_id,
                )
                continue
            if instance_id not in case.quiet:
                continue
            found = unexpected_guest_remedy(row.deleted, row.vm_state, row.host, host, guest)
            if found is UnexpectedGuestRemedy.NOTHING:
                continue
            place = "nowhere" if row.host is None else row.host
            why = "its server is deleted" if row.deleted else f"its place is {place}"
            kind = "out of place" if found is UnexpectedGuestRemedy.ALARM else "left over"
            yield finding(
                kind, case.name(instance_id), host, f"it is {guest.state} there, and {why}", subject=instance_id
            )


def _guests(case: _Case) -> Iterator[Finding]:
    """Guests that are where they should be and not as their rows say, by the rule of the guests loop."""
    for row in case.rows.instances.values():
        listing = case.listings.get(row.host or "")
        if listing is None or row.id not in case.quiet:
            continue
        if row.deleted:
            yield finding(
                "deferred removal",
                case.name(row.id),
                listing.host,
                "its server is deleted, and the host was away then",
                subject=row.id,
                since_us=row.updated_at_us,
            )
            continue
        on = dict(case.guests.get(row.id, ()))
        guest = on.pop(row.host or "", Guest(row.id, GuestState.ABSENT))
        if any(other.state in {GuestState.RUNNING, GuestState.PAUSED} for other in on.values()):
            continue  # out of place, or a husk that goes first: starting it here as well would be the worst of all
        found = remedy(row.vm_state, row.ran_boot_id, listing.boot_id, guest)
        if found is not Remedy.NOTHING:
            yield finding(
                "differs",
                case.name(row.id),
                listing.host,
                f"its row says {row.vm_state}, its guest is {guest.state}",
                subject=row.id,
                since_us=row.updated_at_us,
                remedy=found,
            )


def _expected(case: _Case) -> Iterator[Finding]:
    for listing in case.listings.values():
        for instance_id in listing.admitted:
            if instance_id in case.quiet:
                yield finding(
                    "expected in vain",
                    case.name(instance_id),
                    listing.host,
                    "the host expects it to arrive, and nothing migrates",
                    subject=instance_id,
                )


def _files(case: _Case) -> Iterator[Finding]:
    """Of servers that are deleted, or never were. A store that several hosts share is spoken of once."""
    seen: dict[str, str] = {}
    for host in sorted(case.listings):
        for instance_id in case.listings[host].files:
            seen.setdefault(instance_id, host)
    for instance_id, host in seen.items():
        row = case.rows.instances.get(instance_id)
        if instance_id in case.rows.cleanups:
            continue
        if case.guests.get(instance_id) or (row is not None and (not row.deleted or row.host is not None)):
            continue  # of a guest that is there, of a server that is not deleted, or owed already
        if row is None:
            yield finding("orphaned files", f"files {instance_id}", host, "no server has that id", subject=instance_id)
        elif instance_id in case.quiet:
            yield finding(
                "files left",
                case.name(instance_id),
                host,
                "its server is deleted, and its directory is on the instance store still",
                subject=instance_id,
                since_us=row.updated_at_us,
            )


def _root_disks(case: _Case) -> Iterator[Finding]:
    """A root disk in a pool is that of a server whose row says so, and each of those has one."""
    for listing in case.pools:
        where = f"in the pool {listing.pool}"
        for instance_id in listing.instance_ids:
            row = case.rows.instances.get(instance_id)
            what = case.name(instance_id)
            if row is None:
                reason = f"{where}, and no server has that id"
                yield finding("orphaned root disk", what, listing.host, reason, subject=instance_id)
            elif instance_id not in case.quiet or (row.deleted and row.host is not None) or case.guests.get(row.id):
                continue  # owed already, or looked at as a guest
            elif row.deleted:
                reason = f"{where} still, and its server is deleted"
                yield finding("root disk left", what, listing.host, reason, subject=row.id, since_us=row.updated_at_us)
            elif row.root_pool != listing.pool:
                reason = f"{where}, and its row says {row.root_pool or 'none'}"
                yield finding("stray root disk", what, listing.host, reason, subject=row.id)
        there = set(listing.instance_ids)
        for row in case.rows.instances.values() if listing.is_whole else ():
            is_whole = (
                row.id in case.quiet and not row.deleted and row.vm_state not in (VmState.BUILDING, VmState.ERROR)
            )
            if is_whole and row.root_pool == listing.pool and row.id not in there:
                reason = f"not {where}, where its row says that it lies"
                yield finding("lost root disk", case.name(row.id), listing.host, reason, subject=row.id)


RULES: tuple[Callable[[_Case], Iterator[Finding]], ...] = (
    _tasks,
    _places,
    _migrations,
    _broken,
    _ratios,
    _cells,
    _running_twice,
    _unexpected_guests,
    _guests,
    _expected,
    _files,
    _root_disks,
)
