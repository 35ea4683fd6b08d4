"""Hosts: what they have, what is held of them, and the claim that one placer gets. A host's use is no column: it is
summed from the instances there and the migrations that hold a claim on it.

`claims` counts every change of what is held on a host or of whether and for what it may be used. A change of
such a thing calls `touch` in the same transaction; the scheduler says in `claim` which number it decided on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Select, Subquery, Text, and_, bindparam, func, literal, select, type_coerce, union_all, update

from droveway.domain import service_kinds
from droveway.domain.faults import NotFound
from droveway.domain.placement import HeldCell, HostFacts
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import root_pools
from droveway.store.fleet.reported import NOTHING_REPORTED, decode_reported, decode_source
from droveway.store.rows import HostHealth, HostWithUse
from droveway.store.schema import aggregate_hosts, aggregates, hosts, instances, migrations, services
from droveway.store.work import counters

COMPUTE = service_kinds.COMPUTE
CAPACITY = "capacity"  # the nudge of a transaction after which a guest may fit where none did


def _held(*, named: bool) -> Subquery:
    """What is held, row by row; `named`: on the hosts of the parameter `names` alone."""
    placed = select(
        instances.c.host.label("host"),
        instances.c.vcpus,
        instances.c.ram_mb,
        instances.c.disk_gb,
        type_coerce(instances.c.held_cells, Text).label("held_cells"),
        literal(1).label("n"),
    ).where(instances.c.deleted.is_(False), instances.c.host.is_not(None))
    coming = select(
        migrations.c.destination.label("host"),
        migrations.c.vcpus,
        migrations.c.ram_mb,
        migrations.c.disk_gb,
        type_coerce(migrations.c.held_cells, Text),
        literal(0),
    ).where(migrations.c.holds_claim.is_(True))
    if named:
        placed = placed.where(in_list(instances.c.host, "names"))
        coming = coming.where(in_list(migrations.c.destination, "names"))
    return union_all(placed, coming).subquery("held")


def _sums(held: Subquery) -> Select[Any]:
    return select(
        held.c.host,
        func.sum(held.c.vcpus).label("vcpus_used"),
        func.sum(held.c.ram_mb).label("ram_mb_used"),
        func.sum(held.c.disk_gb).label("disk_gb_used"),
        func.sum(held.c.n).label("running_vms"),
    ).group_by(held.c.host)


_used = _sums(_held(named=False)).subquery("used")
_ALL = (
    select(
        hosts,
        services.c.id.label("service_id"),
        services.c.uuid.label("service_uuid"),
        services.c.disabled,
        services.c.disabled_reason,
        services.c.forced_down,
        services.c.is_up,
        services.c.reason.label("service_reason"),
        func.coalesce(_used.c.vcpus_used, 0).label("vcpus_used"),
        func.coalesce(_used.c.ram_mb_used, 0).label("ram_mb_used"),
        func.coalesce(_used.c.disk_gb_used, 0).label("disk_gb_used"),
        func.coalesce(_used.c.running_vms, 0).label("running_vms"),
    )
    .join(services, and_(services.c.host == hosts.c.name, services.c.binary == COMPUTE))
    .outerjoin(_used, _used.c.host == hosts.c.name)
    .order_by(hosts.c.id)
)

_EVERY = Prepared(_ALL)
_ONE = Prepared(_ALL.where(hosts.c.name == bindparam("of")))
UPDATE_OF = update(hosts).where(hosts.c.name == bindparam("of"))
_RESOURCES = Prepared(select(hosts.c.resources).where(hosts.c.name == bindparam("of")))
_REPORTED = Prepared(select(hosts.c.name, hosts.c.resources).where(hosts.c.resources.is_not(None)))
_HEALTH = Prepared(
    select(
        hosts.c.hypervisor_up,
        hosts.c.reason,
        hosts.c.reported_at_us,
        hosts.c.refused,
        hosts.c.resources,
        hosts.c.declared,
        hosts.c.declared_because,
    ).where(hosts.c.name == bindparam("of"))
)
_SPOKEN = Prepared(select(hosts.c.name, hosts.c.protocol).where(in_list(hosts.c.name, "names")))

_WITH_SERVICE = and_(services.c.host == hosts.c.name, services.c.binary == COMPUTE)
_CLAIM = Prepared(
    update(hosts)
    .where(
        hosts.c.name == bindparam("of"),
        hosts.c.id == bindparam("number"),
        hosts.c.claims == bindparam("seen"),
        select(services.c.id)
        .where(_WITH_SERVICE, services.c.is_up, ~services.c.disabled, ~services.c.forced_down)
        .exists(),
    )
    .values(claims=hosts.c.claims + 1)
)
_TOUCH = Prepared(update(hosts).where(in_list(hosts.c.name, "names")).values(claims=hosts.c.claims + 1))
_KNOWN = select(hosts.c.name).where(in_list(hosts.c.name, "names"))
_INSERT = hosts.insert()
_CLAIMS = Prepared(select(hosts.c.name, hosts.c.claims))
_NEWER = Prepared(select(hosts.c.name).where(hosts.c.id > bindparam("than")))
_STAMP = Prepared(
    select(
        func.count(),
        func.coalesce(func.sum(hosts.c.claims), 0),
        select(func.coalesce(func.max(hosts.c.id), 0)).scalar_subquery(),
    ).select_from(hosts)
)


class _HostQueries:
    """The statements behind HostFacts, of all hosts or of those in the parameter `names`."""

    def __init__(self, *, named: bool) -> None:
        held = _held(named=named)
        facts = (
            select(
                hosts.c.id,
                hosts.c.name,
                hosts.c.uuid,
                hosts.c.zone,
                hosts.c.refused,
                hosts.c.hypervisor_up,
                hosts.c.claims,
                type_coerce(hosts.c.resources, Text).label("resources"),
                services.c.disabled,
                services.c.disabled_reason,
                services.c.forced_down,
                services.c.is_up,
                services.c.reason,
            )
            .join(services, _WITH_SERVICE)
            .order_by(hosts.c.id)
        )
        members = select(aggregate_hosts.c.host, aggregate_hosts.c.aggregate_id).order_by(
            aggregate_hosts.c.aggregate_id
        )
        if named:
            facts = facts.where(in_list(hosts.c.name, "names"))
            members = members.where(in_list(aggregate_hosts.c.host, "names"))
        self.hosts, self.members = Prepared(facts), Prepared(members)
        self.sums = Prepared(_sums(held).add_columns(func.aggregate_strings(held.c.held_cells, "\n")))


_OF_ALL, _OF_NAMED = _HostQueries(named=False), _HostQueries(named=True)
_METADATA = Prepared(select(aggregates.c.id, aggregates.c.metadata))


class MigrationSource(msgspec.Struct, frozen=True):
    """A host that a guest moves away from."""

    name: str
    is_up: bool
    reason: str
    hypervisor_up: bool
    hypervisor_type: str
    hypervisor_version: int
    cpu_xml: str  # its CPU in its hypervisor's words: another one compares its own with it


_cells = msgspec.json.Decoder(tuple[HeldCell, ...]).decode


# -- facts, for the scheduler ----------------------------------------------------------------------------------------
def facts_of_all(tx: Tx) -> list[HostFacts]:
    """Every host that has a compute service, in the order of their ids."""
    return _facts(tx, _OF_ALL, {})


def facts_of(tx: Tx, names: Sequence[str]) -> list[HostFacts]:
    """The same of those hosts; one that is not there is left out."""
    return _facts(tx, _OF_NAMED, {"names": names}) if names else []


def facts(tx: Tx, name: str) -> HostFacts:
    """Raises NotFound."""
    found = _facts(tx, _OF_NAMED, {"names": [name]})
    if not found:
        raise _no_host(name)
    return found[0]


def source(tx: Tx, name: str) -> MigrationSource:
    """Raises NotFound."""
    row = tx.execute(_OF_NAMED.hosts, {"names": [name]}).first()
    if row is None:
        raise _no_host(name)
    one = _one(row, (0, 0, 0, 0), (), {})
    cpu_xml = "" if row.resources is None else decode_source(row.resources).cpu_xml
    return MigrationSource(
        one.name, one.is_up, one.reason, one.hypervisor_up, one.hypervisor_type, one.hypervisor_version, cpu_xml
    )


def claims_of_all(tx: Tx) -> list[tuple[str, int]]:
    """Which hosts there are, and the number of each: what differs from last time has changed."""
    return [(name, claims) for name, claims in tx.execute(_CLAIMS)]


def newer(tx: Tx, than: int) -> set[str]:
    """The hosts with a higher id. One may have the name, and the number, of one that is gone."""
    return set(tx.execute(_NEWER, {"than": than}).scalars())


def stamp(tx: Tx) -> tuple[int, int, int]:
    """How many hosts there are, the sum of their numbers and the highest id. Numbers only rise and ids are never given
    again: while this is what it was nothing has changed, which is far cheaper to find out than by `claims_of_all`."""
    count, claims, highest = tx.execute(_STAMP).one()
    return int(count), int(claims), int(highest)


def _facts(tx: Tx, of: _HostQueries, wanted: dict[str, Any]) -> list[HostFacts]:
    rows = tx.execute(of.hosts, wanted).fetchall()
    sums, cells = dict[str, tuple[int, ...]](), dict[str, list[HeldCell]]()
    for host, *numbers, texts in tx.execute(of.sums, wanted):
        sums[host] = tuple(map(int, numbers))
        if texts:
            cells[host] = [cell for text in texts.split("\n") for cell in _cells(text)]
    labels = _labels(tx, of, wanted)
    nothing = (0, 0, 0, 0)
    found = [_one(row, sums.get(row.name, nothing), cells.get(row.name, ()), labels.get(row.name, {})) for row in rows]
    return root_pools.with_use(tx, found)


def _one(row: Any, used: tuple[int, ...], cells: Sequence[HeldCell], labels: dict[str, tuple[str, ...]]) -> HostFacts:
    reported = NOTHING_REPORTED if row.resources is None else decode_reported(row.resources)
    return HostFacts(
        id=row.id,
        name=row.name,
        uuid=row.uuid,
        zone=row.zone,
        is_up=row.is_up and not row.forced_down,
        reason="it was forced down" if row.forced_down else row.reason,
        disabled=row.disabled,
        disabled_reason=row.disabled_reason or "",
        refused=row.refused,
        hypervisor_up=row.hypervisor_up and row.resources is not None,
        store_trouble=reported.store_trouble,
        hypervisor_type=reported.hypervisor_type,
        hypervisor_hostname=reported.hypervisor_hostname,
        hypervisor_version=reported.hypervisor_version,
        architecture=reported.cpu_arch,
        machine_types=reported.machine_types,
        firmwares=reported.firmwares,
        cpu_features=reported.cpu_features,
        aggregates=labels,
        cells=reported.cells,
        held_cells=tuple(cells),
        vcpus=reported.vcpus,
        memory_mb=reported.memory_mb,
        reserved_memory_mb=reported.reserved_memory_mb,
        disk_gb=reported.disk_gb,
        reserved_disk_gb=reported.reserved_disk_gb,
        vcpus_used=used[0],
        ram_mb_used=used[1],
        disk_gb_used=used[2],
        root_pool=reported.root_pool,
        instances=used[3],
        claims=row.claims,
    )


def _labels(tx: Tx, of: _HostQueries, wanted: dict[str, Any]) -> dict[str, dict[str, tuple[str, ...]]]:
    """host -> the metadata of all its aggregates."""
    members: dict[str, list[int]] = {}
    for host, aggregate_id in tx.execute(of.members, wanted):
        members.setdefault(host, []).append(aggregate_id)
    if not members:
        return {}
    reported: dict[int, dict[str, str]] = {number: values for number, values in tx.execute(_METADATA)}  # noqa: C416
    merged: dict[tuple[int, ...], dict[str, tuple[str, ...]]] = {}  # hosts in the same aggregates share one dictionary
    for ids in {tuple(numbers) for numbers in members.values()}:
        found: dict[str, set[str]] = {}
        for number in ids:
            for key, value in reported[number].items():
                found.setdefault(key, set()).add(value)
        merged[ids] = {key: tuple(sorted(values)) for key, values in found.items()}
    return {host: merged[tuple(numbers)] for host, numbers in members.items()}


# -- claims -----------------------------------------------------------------------------------------------------------
def claim(tx: Tx, seen: HostFacts) -> bool:
    """One more claim on the host as it was seen; the caller writes the row that holds it in the same transaction.
    False when anything there has changed since, or it may not be used: look again."""
    return bool(tx.execute(_CLAIM, {"of": seen.name, "number": seen.id, "seen": seen.claims}).rowcount)


def touch(tx: Tx, *names: str | None) -> None:
    """Something about these hosts has changed that the scheduler must know. None is no host."""
    changed = {name for name in names if name is not None}
    if changed:
        tx.execute(_TOUCH, {"names": changed})
    if changed and CAPACITY not in tx.nudges:
        tx.nudges.append(CAPACITY)


# -- rows -------------------------------------------------------------------------------------------------------------
def each(tx: Tx) -> Iterator[HostWithUse]:
    """Every host with its service and the sums of what is used there, one after the other: ten thousand held at once
    cost the garbage collector much."""
    yield from root_pools.rows_with_use(tx, results.one_by_one(HostWithUse, tx.execute(_EVERY)))


def health(tx: Tx, name: str) -> HostHealth | None:
    """What the host last said of its hypervisor and its instance store, and when; and why it was refused."""
    return results.first(HostHealth, tx.execute(_HEALTH, {"of": name}))


def peer_uris(tx: Tx) -> dict[str, str]:
    """Where each host's hypervisor takes connections of others, as far as it has said so."""
    rows = tx.execute(_REPORTED)
    return {row.name: row.resources["peer_uri"] for row in rows if row.resources.get("peer_uri")}


def reached_at(tx: Tx, name: str) -> tuple[str, str]:
    """The peer URI and the address of its last accepted report; empty where it has said none."""
    reported = tx.execute(_RESOURCES, {"of": name}).scalar() or {}
    return str(reported.get("peer_uri", "")), str(reported.get("host_ip", ""))


def disk_identity(tx: Tx, name: str) -> str:
    """Whom exports of volumes know it by, as it said last; empty where it has said nothing."""
    reported = tx.execute(_RESOURCES, {"of": name}).scalar() or {}
    return str(reported.get("disk_identity", ""))


def _no_host(name: str) -> NotFound:
    return NotFound(f"there is no host {name[:64]}; 'openstack hypervisor list' shows those there are")


def get(tx: Tx, name: str) -> HostWithUse:
    row = results.first(HostWithUse, tx.execute(_ONE, {"of": name}))
    if row is None:
        raise _no_host(name)
    return next(root_pools.rows_with_use(tx, [row]))


def join(tx: Tx, name: str, zone: str) -> bool:
    """The agent of that host says hello; nothing to do when the host is known. Whether it is new."""
    return bool(join_all(tx, [name], zone))


def join_all(tx: Tx, names: Sequence[str], zone: str, protocols: Mapping[str, int] | None = None) -> list[str]:
    """The same of many hosts at once; those that are new. `protocols`: what their agents speak."""
    speaks = protocols or {}
    spoken: dict[str, int] = {row.name: row.protocol for row in tx.execute(_SPOKEN, {"names": names})}
    new = [name for name in names if name not in spoken]
    if new:
        rows = [
            {
                "id": number,
                "uuid": tx.names.uuid(),
                "name": name,
                "zone": zone,
                "resources": None,
                "protocol": speaks.get(name, 1),
            }
            for name, number in zip(new, counters.next_numbers(tx, "host", len(new)), strict=True)
        ]
        tx.execute(_INSERT, rows)
    for name, protocol in spoken.items():
        if speaks.get(name, protocol) != protocol:
            tx.execute(UPDATE_OF.values(protocol=bindparam("spoken")), {"of": name, "spoken": speaks[name]})
    return new


# -- reports ----------------------------------------------------------------------------------------------------------
